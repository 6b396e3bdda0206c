//! REINFORCE: the log-probability of each token, weighted by its advantage (1992, the basis of the others).
//!
//! In one sentence: no ratio and no clip, so it is right on fresh answers and nowhere else.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(yₜ│x, y₍<t₎) | `new` | `[batch, time]` |
//! | R − b | `advantages` | `[batch]` or `[batch, time]` |
//!
//! Read next: [`crate::online::policy_gradient::cispo`], the same loss with a weight.

use super::super::surrogate::times;
use super::inputs::spread;
use crate::error::Result;
use crate::log_probs::TokenLogProbs;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;

/// The loss of each token.
///
/// # Equation
/// ```text
/// l = −Â · log π_θ(yₜ│x, y₍<t₎)
/// ```
/// # Shapes
/// `new` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The result is `[batch, time]` with the mask of `new`.
/// `advantages` gets no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ.
/// # Properties
/// * The slope is −Â. On fresh draws its expectation, summed over tokens, is the gradient of −E r for every baseline that
///   does not depend on the answer.
/// * It is the gradient of [`grpo_loss`](super::grpo_loss) and of [`cispo_loss`](super::cispo_loss) at the first step.
/// * With an advantage of 1 for all tokens it is [`sft_loss`](crate::sft_loss), and with r ∈ {0, 1} it is SFT on the
///   answers that succeeded ([`best_of_k`](crate::online::raft::best_of_k)).
/// * Answers of an older policy need a weight:
///   [`corrected`](crate::online::rollout_correction::corrected) by
///   [`rollout_weights`](crate::online::rollout_correction::rollout_weights).
/// # Departures
/// None. GPG is this loss with advantages of its own.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::reinforce_loss;
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.5f64, -2.0]], &Device::Cpu)?, &mask)?;
/// let loss = reinforce_loss(&new, &Tensor::new(&[3.0f64], &Device::Cpu)?)?;
/// assert_eq!(loss.loss.to_vec2::<f64>()?, [[1.5, 6.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning"; for
/// language models Ahmadian et al. 2024, arXiv:2402.14740v2, §3.1.
#[doc(alias = "REINFORCE")]
#[doc(alias = "policy gradient")]
#[doc(alias = "GPG")]
pub fn reinforce_loss(new: &TokenLogProbs, advantages: &Tensor) -> Result<TokenLoss> {
    let mut axes = Axes::new("reinforce_loss");
    axes.float("new", new.values(), &["batch", "time"])?;
    let advantages = spread(&mut axes, "advantages", advantages, new.mask())?;

    // −Â · log π_θ
    Ok(TokenLoss {
        loss: times(new.values(), &advantages.neg()?)?,
        mask: new.mask().clone(),
    })
}
