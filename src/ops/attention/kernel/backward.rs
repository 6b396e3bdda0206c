//! The gradients of a unit: shares of the softmax computed again, block by block.

use super::number::{Element, Number};
use super::plan::{Call, KEYS, LANES, Tile, padded};
use super::products::{Into, Matrix, Sum};
use super::unit::{Gradients, Outputs, Statistics, Unit};
use crate::simd::{Fused, Real};

impl<T: Element> Unit<'_, T> {
    /// The unit's part in the gradients.
    pub(super) fn backward(
        &self,
        statistics: &Statistics<T::Compute>,
        outputs: Outputs<T>,
    ) -> Gradients<T::Compute> {
        let Call {
            dim,
            value_dim,
            scale,
            softcap,
            ..
        } = self.plan.call;
        let zero = T::Compute::default();
        let scale = T::Compute::nearest(scale);
        let queries = self.part.tokens * self.plan.call.group();
        let (stride, value_stride) = (padded(dim), padded(value_dim));
        let keys = self.plan.trees[self.part.tree].keys;
        let mut result = Gradients {
            q: vec![zero; queries * dim],
            k: vec![zero; keys * stride],
            v: vec![zero; keys * value_stride],
        };
        let mut rows = vec![zero; LANES * stride];
        let mut columns = vec![zero; LANES * stride];
        let mut grad_rows = vec![zero; LANES * value_stride];
        let mut grad_columns = vec![zero; LANES * value_stride];
        let mut shares = vec![zero; KEYS * LANES];
        let mut slopes = vec![zero; KEYS * LANES];
        let mut dq = vec![zero; LANES * stride];
        let [mut largest, mut share, mut inner] = [[zero; LANES]; 3];
        let mut blocks = Vec::new();
        let mut done = 0;
        let finite = self.finite && self.rows_are_finite(outputs.grad, value_dim);
        for tile in self.plan.tiles(self.part, !finite) {
            let lanes = padded(tile.lanes());
            let columns = &mut columns[..stride * lanes];
            let grad_columns = &mut grad_columns[..value_stride * lanes];
            let one = T::Compute::ONE;
            self.tile_rows(&tile, self.inputs.q, dim, scale, &mut rows, columns);
            self.tile_rows(
                &tile,
                outputs.grad,
                value_dim,
                one,
                &mut grad_rows,
                grad_columns,
            );
            self.inner(&tile, outputs.out, &grad_rows, &mut inner);
            for lane in 0..tile.lanes() {
                let place = self.place(done, &tile, lane);
                largest[lane] = statistics.largest[place];
                share[lane] = statistics.share[place];
            }
            dq.fill(zero);
            self.plan.blocks(&tile, &mut blocks);
            for block in &blocks {
                let size = block.keys * lanes;
                let at = block.key * value_stride;
                self.width.run(
                    #[inline(always)]
                    |fused| self.scores(fused, (&tile, block), columns, &mut shares),
                );
                self.width.run(
                    #[inline(always)]
                    |fused| {
                        let values = Matrix {
                            data: &self.values[at..],
                            stride: value_stride,
                        };
                        let grad = Matrix {
                            data: grad_columns,
                            stride: lanes,
                        };
                        let out = Sum {
                            data: &mut slopes,
                            stride: lanes,
                            into: Into::Replaced,
                        };
                        let size = (block.keys, lanes, value_stride);
                        T::Compute::plain(fused, out, size, values, grad);
                    },
                );
                self.width.run(
                    #[inline(always)]
                    |fused| {
                        let (shares, slopes) = (&mut shares[..size], &mut slopes[..size]);
                        let of = (&largest, &share, &inner);
                        match softcap {
                            None => softmax_slopes(fused, shares, slopes, lanes, of, |_, d| d),
                            Some(cap) => {
                                // 1 − tanh²
                                let inverse = T::Compute::nearest(1.0 / cap);
                                let capped = |score: T::Compute, d| {
                                    let tanh = score * inverse;
                                    d * (one - tanh * tanh)
                                };
                                softmax_slopes(fused, shares, slopes, lanes, of, capped);
                            }
                        }
                    },
                );
                for matrix in [&mut shares, &mut slopes] {
                    self.hide(&tile, block, matrix, zero);
                    let rows = matrix[..size].chunks_mut(lanes);
                    rows.for_each(|row| row[tile.lanes()..].fill(zero));
                }
                self.width.run(
                    #[inline(always)]
                    |fused| {
                        let shares = Matrix {
                            data: &shares,
                            stride: lanes,
                        };
                        let grad = Matrix {
                            data: &grad_rows,
                            stride: value_stride,
                        };
                        let out = &mut result.v[at..];
                        let out = Sum {
                            data: out,
                            stride: value_stride,
                            into: Into::Added,
                        };
                        let size = (block.keys, value_stride, lanes);
                        T::Compute::plain(fused, out, size, shares, grad);
                    },
                );
                let at = block.key * stride;
                self.width.run(
                    #[inline(always)]
                    |fused| {
                        let slopes = Matrix {
                            data: &slopes,
                            stride: lanes,
                        };
                        let queries = Matrix {
                            data: &rows,
                            stride,
                        };
                        let out = Sum {
                            data: &mut result.k[at..],
                            stride,
                            into: Into::Added,
                        };
                        T::Compute::plain(fused, out, (block.keys, stride, lanes), slopes, queries);
                    },
                );
                self.width.run(
                    #[inline(always)]
                    |fused| {
                        let slopes = Matrix {
                            data: &slopes,
                            stride: lanes,
                        };
                        let keys = Matrix {
                            data: &self.keys[at..],
                            stride,
                        };
                        let out = Sum {
                            data: &mut dq,
                            stride,
                            into: Into::Added,
                        };
                        let size = (tile.lanes(), stride, block.keys);
                        T::Compute::transposed(fused, out, size, slopes, keys);
                    },
                );
            }
            for lane in 0..tile.lanes() {
                let place = self.place(done, &tile, lane);
                let dq = &dq[lane * stride..][..dim];
                let result = &mut result.q[place * dim..][..dim];
                for (result, dq) in result.iter_mut().zip(dq) {
                    *result = *dq * scale;
                }
            }
            if tile.head + tile.heads == self.plan.call.group() {
                done += tile.tokens;
            }
        }
        result
    }

    /// D = Σ dO · O of each of the tile's queries.
    fn inner(&self, tile: &Tile, out: &[T], grad_rows: &[T::Compute], inner: &mut [T::Compute]) {
        let dim = self.plan.call.value_dim;
        let start = self.plan.segments[tile.segment].start + tile.token;
        for lane in 0..tile.lanes() {
            let row = self.first_row(start + lane / tile.heads) + tile.head + lane % tile.heads;
            let out = &out[row * dim..][..dim];
            let grad = &grad_rows[lane * padded(dim)..][..dim];
            let products = out.iter().zip(grad).map(|(out, grad)| out.widen() * *grad);
            inner[lane] = products.fold(T::Compute::default(), |a, b| a + b);
        }
    }
}

/// Turns scores into P = e^{score − largest} · share, and dP into dS = P (dP − D), which `before` turns into
/// the slope of what the score was computed from.
#[inline(always)]
fn softmax_slopes<F: Number>(
    fused: Fused,
    shares: &mut [F],
    slopes: &mut [F],
    lanes: usize,
    (largest, share, inner): (&[F; LANES], &[F; LANES], &[F; LANES]),
    before: impl Fn(F, F) -> F,
) {
    for (p, d) in shares
        .chunks_exact_mut(lanes)
        .zip(slopes.chunks_exact_mut(lanes))
    {
        let of = largest.iter().zip(share).zip(inner);
        for ((p, d), ((largest, share), inner)) in p.iter_mut().zip(d).zip(of) {
            let score = *p;
            *p = F::exp(fused, score - *largest) * *share;
            *d = before(score, *p * (*d - *inner));
        }
    }
}
