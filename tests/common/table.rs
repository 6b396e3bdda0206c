//! The examples' model without a shape of its own, for suites that learn one.

#[path = "../../examples/tabular/table.rs"]
mod example;

use candle_align::{Result, Sequence, TokenLogProbs};
use candle_core::Tensor;
pub use example::Table;

/// [`example::learn`], where nothing may fail.
pub fn learn(
    sequences: &[Sequence],
    shares: &[f64],
    symbols: usize,
    size: (f64, usize),
    loss: impl Fn(&TokenLogProbs) -> Result<Tensor>,
) -> Table {
    example::learn(sequences, shares, symbols, size, loss).expect("a table")
}
