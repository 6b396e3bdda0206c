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
use super::plan::{Block, Call, Part, Plan, Tile, padded};
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
    pub(super) plan: &'a Plan,
    pub(super) part: &'a Part,
    head: usize,
    pub(super) inputs: Inputs<'a, T>,
    /// The tree's keys and values for this head, in rows padded with zeros.
    pub(super) keys: Vec<T::Compute>,
    pub(super) values: Vec<T::Compute>,
    /// Whether all that the unit reads is finite.
    pub(super) finite: bool,
    pub(super) width: Width,
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
    pub(super) fn first_row(&self, token: usize) -> usize {
        token * self.plan.call.heads + self.head * self.plan.call.group()
    }

    pub(super) fn rows_are_finite(&self, rows: &[T], dim: usize) -> bool {
        let group = self.plan.call.group();
        self.part.pieces.iter().all(|piece| {
            let start = self.plan.segments[piece.segment].start;
            let mut tokens = start + piece.from..start + piece.to;
            tokens.all(|token| all_finite(&rows[self.first_row(token) * dim..][..group * dim]))
        })
    }

    /// Copies the tile's rows of a tensor of queries: as rows of `columns` padded numbers, and as columns.
    pub(super) fn tile_rows(
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
    pub(super) fn place(&self, done: usize, tile: &Tile, lane: usize) -> usize {
        (done + lane / tile.heads) * self.plan.call.group() + tile.head + lane % tile.heads
    }

    /// Sᵀ of a tile and a block, bounded by the soft cap.
    #[inline(always)]
    pub(super) fn scores(
        &self,
        fused: Fused,
        (tile, block): (&Tile, &Block),
        queries: &[T::Compute],
        scores: &mut [T::Compute],
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
            data: scores,
            stride: lanes,
            into: Into::Replaced,
        };
        T::Compute::plain(fused, out, (block.keys, lanes, stride), keys, queries);
        if let Some(cap) = self.plan.call.softcap {
            let (cap, inverse) = (T::Compute::nearest(cap), T::Compute::nearest(1.0 / cap));
            for score in &mut scores[..block.keys * lanes] {
                *score = cap * T::Compute::tanh(fused, *score * inverse);
            }
        }
    }

    /// Writes `to` for every query and key where the query does not see the key.
    pub(super) fn hide(&self, tile: &Tile, block: &Block, out: &mut [T::Compute], to: T::Compute) {
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
}

fn all_finite<T: Element>(row: &[T]) -> bool {
    let zero = T::Compute::default();
    // x − x is NaN for what is not finite
    let finite = row.iter().map(|x| x.widen() - x.widen() == zero);
    finite.fold(true, |a, b| a & b)
}
