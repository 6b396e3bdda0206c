//! From logits and tokens to log-probabilities, the first step of every objective.
//!
//! | type | holds | made by |
//! |---|---|---|
//! | [`TokenLogProbs`] | log π(yₜ│x, y₍<t₎) `[batch, time]` and the mask of the tokens that count | [`TokenLogProbs::next_token`], the only place that shifts by one |
//! | [`Pair`] | the preferred and the other answer of each prompt | [`Pair::from_rows`], or a literal |
//! | [`Candidates`] | sums, lengths and rewards of k answers to each prompt | [`Candidates::from_token_log_probs`] |
//!
//! Log-probabilities are computed in f32, or in f64 for f64 logits, whatever the model's own type. The
//! sum of 512 tokens in bf16 would be off by 10 nats.

mod candidates;
mod composed;
mod head;
mod hidden;
mod inputs;
mod kernel;
mod pair;
mod statistics;
mod sum;
mod tiles;
mod token;

pub use candidates::Candidates;
pub use head::OutputHead;
pub use pair::Pair;
pub use statistics::Statistics;
pub(crate) use tiles::{Sizes, Tile, Wants, gradients_by_rows, gradients_by_symbols, spans};
pub use token::TokenLogProbs;

/// Log-probabilities `[batch, time]` and the gradient of their sum, without a graph: only the kernel's two
/// passes. This is for measuring them; training uses [`TokenLogProbs`].
///
/// # Errors
/// As [`TokenLogProbs::aligned`]; candle's own on a device other than the CPU.
#[doc(hidden)]
pub fn selective_log_softmax_with_gradient(
    logits: &candle_core::Tensor,
    targets: &candle_core::Tensor,
    mask: &candle_core::Tensor,
) -> crate::error::Result<(candle_core::Tensor, candle_core::Tensor)> {
    token::values_and_gradient(logits, targets, mask)
}
