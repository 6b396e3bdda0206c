//! GMPO: the geometric mean of ratios that were clipped token by token (2025, after the survey).
//!
//! In one sentence: an answer's ratio is that of GSPO, but one token that jumped cannot move it far.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | Âᵢ | `advantages` | `[batch]` |
//! | (e^−ε, e^ε) | [`GmpoConfig`] | numbers |
//!
//! Read next: [`crate::online::policy_gradient::gspo`], which clips the mean.

use super::super::kl::bounded_exp;
use super::super::ppo::PolicyLoss;
use super::super::ratio::RatioLevel;
use super::super::surrogate::times;
use super::gspo::of_answers;
use super::inputs::Inputs;
use crate::error::{Result, positive};
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`gmpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GmpoConfig {
    /// ε > 0 below, of the log-ratio. Default 0.4: ratios of e^−0.4 to e^0.4, the paper's.
    pub clip: f64,
    /// ε > 0 above. Default none: `clip` on both sides.
    pub clip_high: Option<f64>,
}

impl Default for GmpoConfig {
    fn default() -> Self {
        Self {
            clip: 0.4,
            clip_high: None,
        }
    }
}

/// The loss of each answer, at each of its tokens.
///
/// # Equation
/// ```text
/// d̃ₜ = min( dₜ, ε )     where Â > 0
/// d̃ₜ = max( dₜ, −ε )    elsewhere
/// l  = −Â · e^{ (1/│y│) Σₜ d̃ₜ }
/// ```
/// dₜ = log π_θ(yₜ) − log π_old(yₜ). Reduced by [`MeanOfSequenceMeans`](crate::Reduction).
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]`. The results are `[batch, time]` with the mask of `new`: all tokens
/// of an answer hold its loss; `ratio` is the geometric mean, and `clipped` says which tokens have no slope. `old` and
/// `advantages` get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) for advantages of tokens;
/// [`Error::Parameter`](crate::Error::Parameter) unless both ε are finite and > 0.
/// # Properties
/// * Where no token is clipped it is [`gspo_loss`](super::gspo_loss) without its clip.
/// * The slope is −Â e^(mean d̃)/│y│ at each token that is not clipped, and 0 at the others. At dₜ = ε exactly it is that
///   of the inner side, as under PPO.
/// * The clip is of tokens and in log space: 0.4 here is a ratio of 1.49, where GRPO's 0.2 is 1.2.
/// # Departures
/// * TRL's entropy mask leaves tokens out of this mean: give `new` the mask of
///   [`high_entropy_mask`](crate::online::shaping::high_entropy_mask).
/// * TRL counts an answer without a token in the loss, with a ratio of 1; here it counts nowhere.
/// * verl's default ε is the `clip_ratio` of its configuration, 0.2, and it adds 10⁻⁸ to │y│.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{GmpoConfig, gmpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.5f64, -1.2]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-1.5f64, -1.0]], &Device::Cpu)?; // log-ratios 1 and −0.2
/// let advantages = Tensor::new(&[2.0f64], &Device::Cpu)?;
///
/// let loss = gmpo_loss(&new, &old, &advantages, &GmpoConfig::default())?.loss;
/// let want = -2.0 * ((0.4f64 - 0.2) / 2.0).exp();
/// assert!((loss.loss.to_vec2::<f64>()?[0][0] - want).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zhao et al. 2025, arXiv:2507.20673; huggingface/trl, `experimental/gmpo/gmpo_trainer.py` of release 1.16.0.
#[doc(alias = "GMPO")]
#[doc(alias = "geometric-mean policy optimization")]
pub fn gmpo_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &GmpoConfig,
) -> Result<PolicyLoss> {
    let function = "gmpo_loss";
    positive(function, "clip", config.clip)?;
    let clip_high = config.clip_high.unwrap_or(config.clip);
    positive(function, "clip_high", clip_high)?;
    of_answers(function, advantages)?;
    let inputs = Inputs::read(function, new, old, advantages)?;

    // min( dₜ, ε ) where Â > 0, max( dₜ, −ε ) elsewhere
    let d = &inputs.log_ratio;
    let reached = d.detach();
    let above = inputs.advantages.gt(0.0)?.mul(&reached.gt(clip_high)?)?;
    let below = inputs.advantages.le(0.0)?.mul(&reached.lt(-config.clip)?)?;
    let kept = below.where_cond(&inputs.constant(-config.clip)?, d)?;
    let kept = above.where_cond(&inputs.constant(clip_high)?, &kept)?;

    // −Â · e^{ (1/│y│) Σₜ d̃ₜ }
    let ratio = bounded_exp(&RatioLevel::SequenceMean.exponent(&kept, &inputs.mask)?)?;
    let loss = times(&ratio, &inputs.advantages.neg()?)?;
    let stopped = masked(&above.add(&below)?, &inputs.mask)?;
    PolicyLoss::new(loss, &inputs.mask, &ratio, &stopped, d)
}
