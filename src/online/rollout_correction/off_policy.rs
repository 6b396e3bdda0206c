//! The off-policy sequence mask: bad answers that went stale are dropped (2025, after the survey).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | π_θ now | `new` | `[batch, time]` |
//! | π_old, of the sampler | `sampler` | `[batch, time]` |
//! | Âᵢ | `advantages` | `[batch]` or `[batch, time]` |
//! | δ | `threshold` | number |
//!
//! Read next: [`crate::online::rollout_correction::sequence_band`], which drops good answers too.

use super::weights::differences;
use crate::error::{Result, require};
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, masked_mean};
use crate::shape::Axes;
use candle_core::Tensor;

/// The tokens to keep.
///
/// # Equation
/// ```text
/// keep = [ Â ≥ 0  or  (1/│y│) Σₜ ( log μ(yₜ) − log π_θ(yₜ) ) ≤ δ ]
/// ```
/// # Shapes
/// `new`, `sampler` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The result is u8 `[batch, time]`, 0 where
/// the mask does not count: for [`corrected`](super::corrected).
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless δ is finite.
/// # Properties
/// * Only answers to be pushed down are dropped, and only those that became less likely by more than δ nats a token: their
///   gradient is large where the policy is no more.
/// * An advantage of exactly 0 keeps the answer.
/// * NaN in `sampler` counts as a difference of 0; one token that the sampler could not score drops no answer.
/// # Departures
/// None from TRL's code, which suggests δ = 0.5. The paper measures KL(π_old‖π_θ) by the same mean.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::rollout_correction::off_policy_mask;
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1], [1, 1]], &Device::Cpu)?;
/// let new = Tensor::new(&[[-3.0f64, -3.0], [-3.0, -3.0]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&new, &mask)?;
/// let sampler = Tensor::new(&[[-1.0f64, -1.0], [-1.0, -1.0]], &Device::Cpu)?; // 2 nats a token
/// let advantages = Tensor::new(&[1.0f64, -1.0], &Device::Cpu)?;
/// let keep = off_policy_mask(&new, &sampler, &advantages, 0.5)?;
/// assert_eq!(keep.to_vec2::<u8>()?, [[1, 1], [0, 0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// DeepSeek-V3.2, arXiv:2512.02556; huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0,
/// `get_off_policy_mask`.
#[doc(alias = "off-policy sequence masking")]
pub fn off_policy_mask(
    new: &TokenLogProbs,
    sampler: &Tensor,
    advantages: &Tensor,
    threshold: f64,
) -> Result<Tensor> {
    let function = "off_policy_mask";
    require(
        threshold.is_finite(),
        function,
        "threshold",
        "finite",
        threshold,
    )?;
    let mut axes = Axes::new(function);
    axes.float("new", new.values(), &["batch", "time"])?;
    let names: &[&str] = match advantages.rank() {
        1 => &["batch"],
        _ => &["batch", "time"],
    };
    let advantages = axes.float("advantages", advantages, names)?.detach();
    let advantages = match advantages.rank() {
        1 => advantages.unsqueeze(1)?,
        _ => advantages,
    };
    let mask = new.mask();
    let better = advantages.ge(0.0)?.broadcast_as(mask.shape())?;

    // (1/│y│) Σₜ ( log μ − log π_θ ) ≤ δ
    let moved = masked_mean(&differences(function, ("new", new), sampler)?.neg()?, mask)?;
    let near = moved
        .le(threshold)?
        .unsqueeze(1)?
        .broadcast_as(mask.shape())?;
    masked(&better.add(&near)?.ne(0u8)?, mask)
}
