//! The outputs of a unit's queries: softmax as the blocks of keys come.

use super::number::{Element, Number};
use super::plan::{Call, KEYS, LANES, PAD, padded};
use super::products::{Into, Matrix, Sum};
use super::unit::{Statistics, Unit};
use crate::simd::{Fused, Real};

impl<T: Element> Unit<'_, T> {
    /// The outputs of the unit's queries, and their statistics.
    pub(super) fn forward(&self) -> (Vec<T::Compute>, Statistics<T::Compute>) {
        let Call {
            dim,
            value_dim,
            scale,
            ..
        } = self.plan.call;
        let (zero, lowest) = (T::Compute::default(), T::Compute::LOWEST);
        let queries = self.part.tokens * self.plan.call.group();
        let mut result = vec![zero; queries * value_dim];
        let mut statistics = Statistics {
            largest: vec![zero; queries],
            share: vec![zero; queries],
        };
        let (stride, value_stride) = (padded(dim), padded(value_dim));
        let mut rows = vec![zero; LANES * stride];
        let mut columns = vec![zero; LANES * stride];
        let mut scores = vec![zero; KEYS * LANES];
        let mut out = vec![zero; LANES * value_stride];
        let [mut largest, mut sums, mut factors] = [[zero; LANES]; 3];
        let mut blocks = Vec::new();
        let mut done = 0;
        for tile in self.plan.tiles(self.part, !self.finite) {
            let lanes = padded(tile.lanes());
            let columns = &mut columns[..stride * lanes];
            self.tile_rows(
                &tile,
                self.inputs.q,
                dim,
                T::Compute::nearest(scale),
                &mut rows,
                columns,
            );
            largest.fill(lowest);
            sums.fill(zero);
            out.fill(zero);
            self.plan.blocks(&tile, &mut blocks);
            for block in &blocks {
                let size = block.keys * lanes;
                self.width.run(
                    #[inline(always)]
                    |fused| self.scores(fused, (&tile, block), columns, &mut scores),
                );
                self.hide(&tile, block, &mut scores, lowest);
                self.width.run(
                    #[inline(always)]
                    |fused| {
                        let scores = &mut scores[..size];
                        exponentials(fused, scores, lanes, &mut largest, &mut sums, &mut factors);
                        scaled(&mut out, value_stride, &factors);
                    },
                );
                self.width.run(
                    #[inline(always)]
                    |fused| {
                        let values = &self.values[block.key * value_stride..];
                        let values = Matrix {
                            data: values,
                            stride: value_stride,
                        };
                        let size = (tile.lanes(), value_stride, block.keys);
                        let scores = Matrix {
                            data: &scores,
                            stride: lanes,
                        };
                        let out = Sum {
                            data: &mut out,
                            stride: value_stride,
                            into: Into::Added,
                        };
                        T::Compute::transposed(fused, out, size, scores, values);
                    },
                );
            }
            for lane in 0..tile.lanes() {
                let place = self.place(done, &tile, lane);
                let share = T::Compute::ONE / sums[lane];
                statistics.largest[place] = largest[lane];
                statistics.share[place] = share;
                let out = &out[lane * value_stride..][..value_dim];
                let result = &mut result[place * value_dim..][..value_dim];
                for (result, out) in result.iter_mut().zip(out) {
                    *result = *out * share;
                }
            }
            if tile.head + tile.heads == self.plan.call.group() {
                done += tile.tokens;
            }
        }
        (result, statistics)
    }
}

/// Turns a block's scores into e^{score − largest}, where `largest` takes this block in, adds them to
/// `sums`, and gives what the earlier blocks' results are multiplied by.
#[inline(always)]
fn exponentials<F: Number>(
    fused: Fused,
    scores: &mut [F],
    lanes: usize,
    largest: &mut [F; LANES],
    sums: &mut [F; LANES],
    factors: &mut [F; LANES],
) {
    const N: usize = PAD;
    for at in (0..lanes).step_by(N) {
        let mut top = [F::LOWEST; N];
        top.copy_from_slice(&largest[at..at + N]);
        for row in scores.chunks_exact(lanes) {
            let row = &row[at..at + N];
            for (top, x) in top.iter_mut().zip(row) {
                *top = if *x > *top { *x } else { *top };
            }
        }
        // where nothing is above −∞ yet, e^{−∞ − 0} = 0
        let mut base = top;
        for base in &mut base {
            *base = if *base == F::LOWEST {
                F::default()
            } else {
                *base
            };
        }
        let mut sum = [F::default(); N];
        for row in scores.chunks_exact_mut(lanes) {
            let row = &mut row[at..at + N];
            for n in 0..N {
                row[n] = F::exp(fused, row[n] - base[n]);
                sum[n] = sum[n] + row[n];
            }
        }
        for n in 0..N {
            let factor = F::exp(fused, largest[at + n] - base[n]);
            factors[at + n] = factor;
            sums[at + n] = fused.multiply_add(sums[at + n], factor, sum[n]);
            largest[at + n] = top[n];
        }
    }
}

/// Multiplies each row by its factor.
#[inline(always)]
fn scaled<F: Number>(rows: &mut [F], stride: usize, factors: &[F; LANES]) {
    for (row, factor) in rows.chunks_exact_mut(stride).zip(factors) {
        for x in row {
            *x = *x * *factor;
        }
    }
}
