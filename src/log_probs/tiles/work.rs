//! What both passes share.

use super::walk::Sizes;
use crate::log_probs::head::OutputHead;
use crate::log_probs::statistics::Statistics;
use std::sync::Arc;

/// What both passes share: the rows, and what to compute for them.
pub(super) struct Work {
    pub(super) head: OutputHead,
    pub(super) targets: Arc<Vec<u32>>,
    pub(super) ask: Statistics,
    pub(super) sizes: Sizes,
}
