//! From logits and tokens to log-probabilities: what every objective begins with.
//!
//! | type | holds | made by |
//! |---|---|---|
//! | [`TokenLogProbs`] | log π(yₜ│x, y₍<t₎) `[batch, time]` and the mask of what counts | [`TokenLogProbs::next_token`], the only place that shifts by one |
//! | [`Pair`] | the preferred and the other answer of each prompt | [`Pair::from_rows`], or a literal |
//! | [`Candidates`] | sums, lengths and rewards of k answers to each prompt | [`Candidates::from_token_log_probs`] |
//!
//! Log-probabilities are computed in f32, or in f64 for f64 logits, whatever the model's own type:
//! 512 tokens summed in bf16 are off by 10 nats.

mod candidates;
mod composed;
mod head;
mod hidden;
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
pub use token::TokenLogProbs;

/// Log-probabilities `[batch, time]` and the gradient of their sum, without a graph: the kernel's two
/// passes and nothing else. For measuring them; training goes through [`TokenLogProbs`].
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
