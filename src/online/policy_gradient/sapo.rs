//! SAPO: a sigmoid of the ratio in place of the clip (2025, after the survey).
//!
//! In one sentence: far from ratio 1 the gradient fades instead of stopping.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | Âᵢ | `advantages` | `[batch]` or `[batch, time]` |
//! | τ_pos, τ_neg | [`SapoConfig`] | numbers |
//!
//! Read next: [`crate::online::policy_gradient::grpo`], which stops.

use super::super::ppo::PolicyLoss;
use super::super::ratio::RatioLevel;
use super::super::surrogate::times;
use super::inputs::Inputs;
use crate::error::{Result, positive};
use crate::log_probs::TokenLogProbs;
use crate::math::sigmoid;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`sapo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SapoConfig {
    /// τ > 0 where Â > 0. Default 1, the paper's and TRL's.
    pub temperature_positive: f64,
    /// τ > 0 elsewhere. Default 1.05, the same: a larger τ fades sooner.
    pub temperature_negative: f64,
    /// What the ratio is taken over. Default [`RatioLevel::Token`].
    pub level: RatioLevel,
}

impl Default for SapoConfig {
    fn default() -> Self {
        Self {
            temperature_positive: 1.0,
            temperature_negative: 1.05,
            level: RatioLevel::Token,
        }
    }
}

/// The loss of each token.
///
/// # Equation
/// ```text
/// f(ρ) = (4/τ) σ( τ (ρ − 1) )
/// l    = −f(ρ) · Â
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The results are `[batch, time]` with the mask
/// of `new`; nothing is `clipped`. `old` and `advantages` get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless both τ are finite and > 0.
/// # Properties
/// * f′(1) = 1 for every τ, so the first step is the policy gradient.
/// * f(1) = 2/τ: the value there is −2Â/τ, and not −Â as under GRPO. Losses of two τ are not comparable.
/// * The weight of a token, ρ f′(ρ), goes to 0 on both sides: also where PPO's clip would let a ratio that moved against
///   its advantage come back.
/// # Departures
/// None. Reduced by [`MeanOfSequenceMeans`](crate::Reduction), as in the paper; verl's function does so whatever its
/// `loss_agg_mode` says.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{SapoConfig, sapo_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-1.0f64]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-1.0f64]], &Device::Cpu)?;
/// let loss = sapo_loss(&new, &old, &Tensor::new(&[1.0f64], &Device::Cpu)?, &SapoConfig::default())?;
/// assert_eq!(loss.loss.loss.to_vec2::<f64>()?, [[-2.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Gao et al. 2025, arXiv:2511.20347; huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0.
#[doc(alias = "SAPO")]
#[doc(alias = "soft adaptive policy optimization")]
pub fn sapo_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &SapoConfig,
) -> Result<PolicyLoss> {
    let function = "sapo_loss";
    let (gain, rest) = (config.temperature_positive, config.temperature_negative);
    positive(function, "temperature_positive", gain)?;
    positive(function, "temperature_negative", rest)?;
    let inputs = Inputs::read(function, new, old, advantages)?;
    let ratio = config.level.ratio(&inputs.log_ratio, &inputs.mask)?;

    // (4/τ) σ( τ (ρ − 1) )
    let better = inputs.advantages.gt(0.0)?;
    let tau = better.where_cond(&inputs.constant(gain)?, &inputs.constant(rest)?)?;
    let gate = (sigmoid(&((&ratio - 1.0)? * &tau)?)? * (tau.recip()? * 4.0)?)?;

    // −f(ρ) · Â
    let loss = times(&gate, &inputs.advantages.neg()?)?;
    let mask = &inputs.mask;
    PolicyLoss::new(loss, mask, &ratio, &inputs.free()?, &inputs.log_ratio)
}
