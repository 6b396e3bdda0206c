//! Process reward model: is each step right? (after the survey).
//!
//! In one sentence: the outcome model's classifier at the last token of each step of a solution.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | the score at each token | `scores` | `[batch, time]` |
//! | right or wrong, where a step ends | `labels` | `[batch, time]` |
//! | the last tokens of steps | `step_ends` | `[batch, time]` |
//!
//! Read next: [`outcome`](super::outcome), [`implicit`](super::implicit) (steps without labels).

use super::outcome::binary_cross_entropy;
use crate::error::Result;
use crate::math::masked;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;

/// The loss at each end of a step.
///
/// # Equation
/// ```text
/// L_t = −y_t · log σ(s_t) − (1 − y_t) · log σ(−s_t)        where a step ends at t
/// ```
/// # Shapes
/// All `[batch, time]`; `step_ends` u8. Labels are constants between 0 and 1. Elsewhere scores and labels
/// may hold anything, even NaN, and the loss is 0.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless
/// scores and labels are f32 or f64 alike and the ends u8.
/// # Properties
/// * A step that ends at the last token alone is
///   [`outcome_reward_loss`](super::outcome::outcome_reward_loss).
/// * With two logits per token, as in a token classifier, s is their difference and L the cross-entropy.
/// * How steps become one number is the [`Reduction`](crate::Reduction): over all steps of the batch, or
///   per solution.
/// # Departures
/// TRL 1.13 labels the last token of each step of a token classifier with two classes and averages over
/// all labeled tokens of the batch: [`Reduction::TokenMean`](crate::Reduction::TokenMean) of this.
/// # Examples
/// ```
/// use candle_align::Reduction;
/// use candle_align::online::reward_models::process_reward_loss;
/// use candle_core::{Device, Tensor};
///
/// let scores = Tensor::new(&[[9.0f64, 0.5, 9.0, -1.0]], &Device::Cpu)?;
/// let labels = Tensor::new(&[[0.0f64, 1.0, 0.0, 0.0]], &Device::Cpu)?;
/// let ends = Tensor::new(&[[0u8, 1, 0, 1]], &Device::Cpu)?;
/// let loss = process_reward_loss(&scores, &labels, &ends)?.reduce(Reduction::TokenMean)?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// assert!((loss.to_scalar::<f64>()? - (lost(0.5) + lost(1.0)) / 2.0).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Uesato et al. 2022, arXiv:2211.14275; Lightman et al. 2023, arXiv:2305.20050; huggingface/trl,
/// `experimental/prm` of release 1.13.0.
#[doc(alias = "PRM")]
#[doc(alias = "process-supervised reward model")]
pub fn process_reward_loss(
    scores: &Tensor,
    labels: &Tensor,
    step_ends: &Tensor,
) -> Result<TokenLoss> {
    let mut axes = Axes::new("process_reward_loss");
    let scores = axes.float("scores", scores, &["batch", "time"])?;
    let labels = axes.float("labels", labels, &["batch", "time"])?.detach();
    let mask = axes.mask("step_ends", step_ends, &["batch", "time"])?;

    // −y_t · log σ(s_t) − (1 − y_t) · log σ(−s_t)
    let loss = binary_cross_entropy(&masked(&scores, &mask)?, &masked(&labels, &mask)?)?;
    Ok(TokenLoss {
        loss: masked(&loss, &mask)?,
        mask,
    })
}
