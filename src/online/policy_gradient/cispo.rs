//! CISPO: the ratio is a clipped constant, and every token keeps its gradient (2025, after the survey).
//!
//! In one sentence: clip the weight of a token, not its gradient.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | Âᵢ | `advantages` | `[batch]` or `[batch, time]` |
//! | ε_low^IS, ε_high^IS | [`CispoClip`] | numbers |
//!
//! Read next: [`crate::online::policy_gradient::reinforce`], the weight of 1; [`crate::online::policy_gradient::vespo`].

use super::super::kl::bounded_exp;
use super::super::ppo::PolicyLoss;
use super::super::ratio::RatioLevel;
use super::super::surrogate::product;
use super::inputs::Inputs;
use crate::error::{Result, non_negative, positive};
use crate::log_probs::TokenLogProbs;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// How the bounds of the weight are written. The same two words mean two things in the field.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CispoClip {
    /// min(ρ, high): the number is the bound itself, and there is no lower one. TRL, ms-swift, Liger.
    Absolute {
        /// The largest weight, > 0.
        high: f64,
    },
    /// clip(ρ, 1 − low, 1 + high): distances from 1. The paper, verl, slime, NeMo-RL.
    AroundOne {
        /// ε_low ≥ 0, written as its size; 1 and above is no lower bound.
        low: f64,
        /// ε_high > 0.
        high: f64,
    },
}

/// Settings of [`cispo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CispoConfig {
    /// Default [`CispoClip::Absolute`] with 5, the value of ScaleRL and of TRL's page; the paper gives none. It is
    /// `AroundOne { low: 1, high: 4 }`.
    pub clip: CispoClip,
    /// What the ratio is taken over. Default [`RatioLevel::Token`].
    pub level: RatioLevel,
}

impl Default for CispoConfig {
    fn default() -> Self {
        Self {
            clip: CispoClip::Absolute { high: 5.0 },
            level: RatioLevel::Token,
        }
    }
}

/// The loss of each token.
///
/// # Equation
/// ```text
/// w = stop[ clip(ρ) ]
/// l = −w · Â · log π_θ(yₜ│x, y₍<t₎)
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The results are `[batch, time]` with the mask
/// of `new`; `ratio` is ρ, and `clipped` says where w differs from it. `old` and `advantages` get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless the bounds are finite and upper ones > 0, lower ones ≥ 0.
/// # Properties
/// * The slope is −w Â at every token, also where the clip of PPO would stop it. Without the factor log π_θ the loss
///   would be a constant (open-instruct#1269).
/// * Within the bounds the gradient is that of −Â ρ. At the first step it is [`reinforce_loss`](super::reinforce_loss)
///   with the gradient of GRPO.
/// * The value is no surrogate: −Â log π_θ falls and rises with the length and the likelihood of the answers. Log it
///   apart.
/// * `Absolute { high }` is `AroundOne { low: 1, high: high − 1 }`. A 0 for the lower ε means a bound at 1, not none
///   (SkyRL#1928).
/// # Departures
/// The paper reduces over all tokens of a group: [`Reduction::TokenMean`](crate::Reduction).
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{CispoConfig, cispo_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.5f64, -2.0]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-2.5f64, -2.0]], &Device::Cpu)?; // ratios e² and 1
/// let advantages = Tensor::new(&[1.0f64], &Device::Cpu)?;
///
/// let loss = cispo_loss(&new, &old, &advantages, &CispoConfig::default())?.loss;
/// assert_eq!(loss.loss.to_vec2::<f64>()?, [[5.0 * 0.5, 2.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// MiniMax 2025, arXiv:2506.13585v1, eq. 4 and 5; bounds of 0 and 5: ScaleRL, arXiv:2510.13786v1; huggingface/trl,
/// `trainer/grpo_trainer.py` of release 1.16.0; volcengine/verl, `trainer/ppo/core_algos.py`.
#[doc(alias = "CISPO")]
pub fn cispo_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &CispoConfig,
) -> Result<PolicyLoss> {
    let function = "cispo_loss";
    let (low, high) = match config.clip {
        CispoClip::Absolute { high } => {
            positive(function, "high", high)?;
            (0.0, high)
        }
        CispoClip::AroundOne { low, high } => {
            non_negative(function, "low", low)?;
            positive(function, "high", high)?;
            (1.0 - low, 1.0 + high)
        }
    };
    let inputs = Inputs::read(function, new, old, advantages)?;

    // stop[ clip(ρ) ]
    let log_ratio = inputs.log_ratio.detach();
    let ratio = bounded_exp(&config.level.exponent(&log_ratio, &inputs.mask)?)?;
    let weight = ratio.clamp(low, high)?;

    // −w · Â · log π_θ
    let constant = product(&weight, &inputs.advantages)?;
    inputs.weighted_log_probs(new, &constant, &ratio, &weight.ne(&ratio)?)
}
