//! The queries of one part of a tree on one key head: what a thread computes at a time.
//!
//! Queries are columns here, and keys are rows, so that a maximum or a sum over keys is one over rows, and
//! the compiler vectorizes across the queries. With Q, K, V the queries of a tile and the keys and values of
//! a block, the products are
//! ```text
//! forward     Sᵀ = K Qᵀ                       O += P V
//! backward    Sᵀ = K Qᵀ,  dPᵀ = V dOᵀ        dQ += dS K,   dK += dSᵀ Q,   dV += Pᵀ dO
//! ```

use super::number::{Element, Number};
use super::plan::{Block, Call, KEYS, LANES, Part, Plan, Tile, padded};
use super::products::{Into, Matrix, Sum};
use crate::simd::{Fused, Real, Width};

/// Arguments of a call as slices: rows of heads, row-major.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a, T> {
    pub(super) q: &'a [T],
    pub(super) k: &'a [T],
    pub(super) v: &'a [T],
}

/// What the backward pass reads in addition.
#[derive(Clone, Copy)]
pub(super) struct Outputs<'a, T> {
    pub(super) out: &'a [T],
    pub(super) grad: &'a [T],
}

/// The largest score of each query and 1 / Σ e^{score − largest}, of one unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Statistics<F> {
    pub(super) largest: Vec<F>,
    pub(super) share: Vec<F>,
}

/// One unit's gradients: of its queries, and its part in those of its tree's keys and values.
pub(super) struct Gradients<F> {
    pub(super) q: Vec<F>,
    pub(super) k: Vec<F>,
    pub(super) v: Vec<F>,
}

/// A part on one key head.
pub(super) struct Unit<'a, T: Element> {
    plan: &'a Plan,
    part: &'a Part,
    head: usize,
    inputs: Inputs<'a, T>,
    /// The tree's keys and values for this head, in rows padded with zeros.
    keys: Vec<T::Compute>,
    values: Vec<T::Compute>,
    finite: bool,
    width: Width,
}

impl<'a, T: Element> Unit<'a, T> {
    pub(super) fn new(plan: &'a Plan, part: &'a Part, head: usize, inputs: Inputs<'a, T>) -> Self {
        let mut unit = Self {
            plan,
            part,
            head,
            inputs,
            keys: vec![],
            values: vec![],
            finite: true,
            width: Width::widest(),
        };
        let Call { dim, value_dim, .. } = plan.call;
        (unit.keys, unit.finite) = unit.packed(inputs.k, dim);
        let (values, finite) = unit.packed(inputs.v, value_dim);
        unit.values = values;
        unit.finite &= finite && unit.rows_are_finite(inputs.q, dim);
        unit
    }

    /// The rows of the tree's keys, and whether all are finite.
    fn packed(&self, rows: &[T], dim: usize) -> (Vec<T::Compute>, bool) {
        let (tree, kv_heads) = (self.part.tree, self.plan.call.kv_heads);
        let stride = padded(dim);
        let zero = T::Compute::default();
        let mut out = Vec::with_capacity(self.plan.trees[tree].keys * stride);
        let mut finite = true;
        for row in self.plan.key_rows(tree) {
            let row = &rows[(row * kv_heads + self.head) * dim..][..dim];
            finite &= all_finite(row);
            out.extend(row.iter().map(|x| x.widen()));
            out.extend(std::iter::repeat_n(zero, stride - dim));
        }
        (out, finite)
    }

    /// The first query head of the unit's in the row of a token.
    fn first_row(&self, token: usize) -> usize {
        token * self.plan.call.heads + self.head * self.plan.call.group()
    }

    fn rows_are_finite(&self, rows: &[T], dim: usize) -> bool {
        let group = self.plan.call.group();
        self.part.pieces.iter().all(|piece| {
            let start = self.plan.segments[piece.segment].start;
            let mut tokens = start + piece.from..start + piece.to;
            tokens.all(|token| all_finite(&rows[self.first_row(token) * dim..][..group * dim]))
        })
    }

    /// Copies the tile's rows of a tensor of queries: as rows of `columns` padded numbers, and as columns.
    fn tile_rows(
        &self,
        tile: &Tile,
        from: &[T],
        dim: usize,
        scale: T::Compute,
        rows: &mut [T::Compute],
        columns: &mut [T::Compute],
    ) {
        let (stride, lanes) = (padded(dim), padded(tile.lanes()));
        let start = self.plan.segments[tile.segment].start + tile.token;
        for lane in 0..tile.lanes() {
            let row = self.first_row(start + lane / tile.heads) + tile.head + lane % tile.heads;
            let row = &from[row * dim..][..dim];
            let place = &mut rows[lane * stride..][..dim];
            for (d, (place, x)) in place.iter_mut().zip(row).enumerate() {
                let x = x.widen() * scale;
                *place = x;
                columns[d * lanes + lane] = x;
            }
        }
        // the last tile's numbers may be where this one has nothing
        rows[tile.lanes() * stride..].fill(T::Compute::default());
        columns[dim * lanes..].fill(T::Compute::default());
        for column in columns.chunks_mut(lanes) {
            column[tile.lanes()..].fill(T::Compute::default());
        }
    }

    /// Where the tile's queries are among those of the unit, tile by tile: each lane's row.
    fn place(&self, done: usize, tile: &Tile, lane: usize) -> usize {
        (done + lane / tile.heads) * self.plan.call.group() + tile.head + lane % tile.heads
    }

    /// Sᵀ of a tile and a block.
    #[inline(always)]
    fn scores(
        &self,
        fused: Fused,
        (tile, block): (&Tile, &Block),
        queries: &[T::Compute],
        out: &mut [T::Compute],
    ) {
        let (stride, lanes) = (padded(self.plan.call.dim), padded(tile.lanes()));
        let keys = Matrix {
            data: &self.keys[block.key * stride..],
            stride,
        };
        let queries = Matrix {
            data: queries,
            stride: lanes,
        };
        let out = Sum {
            data: out,
            stride: lanes,
            into: Into::Replaced,
        };
        T::Compute::plain(fused, out, (block.keys, lanes, stride), keys, queries);
    }

    /// Writes `to` for every query and key where the query does not see the key.
    fn hide(&self, tile: &Tile, block: &Block, out: &mut [T::Compute], to: T::Compute) {
        if !block.hides {
            return;
        }
        let first = self.plan.segments[tile.segment].position + tile.token;
        let row = padded(tile.lanes());
        for (key, row) in out.chunks_mut(row).take(block.keys).enumerate() {
            let key = block.position + key;
            // the tokens first + t with key ≤ first + t < key + window
            let from = key.saturating_sub(first).min(tile.tokens) * tile.heads;
            let end = key
                .saturating_add(self.plan.call.window)
                .saturating_sub(first);
            row[..from].fill(to);
            row[end.min(tile.tokens) * tile.heads..].fill(to);
        }
    }

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
                        softmax_slopes(fused, shares, slopes, lanes, &largest, &share, &inner);
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

fn all_finite<T: Element>(row: &[T]) -> bool {
    let zero = T::Compute::default();
    // x − x is NaN for what is not finite
    let finite = row.iter().map(|x| x.widen() - x.widen() == zero);
    finite.fold(true, |a, b| a & b)
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
    const N: usize = super::plan::PAD;
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

/// Turns scores into P = e^{score − largest} · share, and dP into dS = P (dP − D).
#[inline(always)]
fn softmax_slopes<F: Number>(
    fused: Fused,
    shares: &mut [F],
    slopes: &mut [F],
    lanes: usize,
    largest: &[F; LANES],
    share: &[F; LANES],
    inner: &[F; LANES],
) {
    for (p, d) in shares
        .chunks_exact_mut(lanes)
        .zip(slopes.chunks_exact_mut(lanes))
    {
        let of = largest.iter().zip(share).zip(inner);
        for ((p, d), ((largest, share), inner)) in p.iter_mut().zip(d).zip(of) {
            *p = F::exp(fused, *p - *largest) * *share;
            *d = *p * (*d - *inner);
        }
    }
}
