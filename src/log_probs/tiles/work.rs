//! What both passes share, and how much is computed at a time.

use crate::log_probs::head::OutputHead;
use crate::log_probs::statistics::Statistics;
use std::sync::Arc;

/// The start of each part, and its length.
pub(super) fn spans(all: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..all)
        .step_by(size)
        .map(move |from| (from, size.min(all - from)))
}

/// How much is computed at a time.
#[derive(Clone, Copy, Debug)]
pub(in crate::log_probs) struct Sizes {
    /// Whole rows.
    pub(super) rows: usize,
    /// Rows and symbols in a tile.
    pub(super) tile: (usize, usize),
}

impl Sizes {
    /// Sizes for which no more than about `held` logits exist at once.
    pub(in crate::log_probs) fn new(held: usize, rows: usize, vocabulary: usize) -> Self {
        let height = rows.clamp(1, 4096);
        Self {
            rows: (held / vocabulary).clamp(16, 4096),
            tile: (height, (held / height).max(16)),
        }
    }
}

/// What both passes share: the rows, and what to compute for them.
pub(super) struct Work {
    pub(super) head: OutputHead,
    pub(super) targets: Arc<Vec<u32>>,
    pub(super) ask: Statistics,
    pub(super) sizes: Sizes,
}
