//! VESPO: a smooth weight of the whole answer's ratio (2026, after the survey).
//!
//! In one sentence: the weight of an answer rises to 1 at ratio 1 and fades on both sides, without a clip and without
//! dividing by the length.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | Âᵢ | `advantages` | `[batch]` or `[batch, time]` |
//! | W | the ratio of the answers, times the sampler's weights | – |
//! | k, λ | [`VespoConfig`] | numbers |
//!
//! Read next: [`crate::online::policy_gradient::cispo`], a weight for each token.

use super::super::ppo::PolicyLoss;
use super::super::ratio::RatioLevel;
use super::super::surrogate::product;
use super::inputs::Inputs;
use crate::error::{Result, positive};
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The largest logarithm of a ratio.
const LARGEST: f64 = 20.0;
/// The smallest ratio of an answer.
const SMALLEST: f64 = 1e-8;

/// Settings of [`vespo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VespoConfig {
    /// k > 0 where Â ≥ 0: how fast the weight falls below ratio 1. Default 2, the authors' and TRL's.
    pub power_positive: f64,
    /// λ > 0 where Â ≥ 0: how fast it falls above. Default 3.
    pub decay_positive: f64,
    /// k where Â < 0. Default 3.
    pub power_negative: f64,
    /// λ where Â < 0. Default 2.
    pub decay_negative: f64,
}

impl Default for VespoConfig {
    fn default() -> Self {
        Self {
            power_positive: 2.0,
            decay_positive: 3.0,
            power_negative: 3.0,
            decay_negative: 2.0,
        }
    }
}

/// The loss of each token.
///
/// # Equation
/// ```text
/// log W = clip( Σₜ clip( dₜ, ±20 ) + Σₜ log wₜ, log 10⁻⁸, 20 )
/// φ(W)  = Wᵏ · e^{ λ (1 − W) }
/// l     = −stop[ φ(W) ] · Â · log π_θ(yₜ│x, y₍<t₎)
/// ```
/// dₜ = log π_θ(yₜ) − log π_old(yₜ). w are the sampler's weights, if given: log wₜ is bounded as log W.
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`; `sampler_weights` `[batch, time]`, of single
/// tokens, or none. The results are `[batch, time]` with the mask of `new`; `ratio` is W and nothing is `clipped`. All but
/// `new` get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless all k and λ are finite and > 0.
/// # Properties
/// * φ(1) = 1: the first step is [`cispo_loss`](super::cispo_loss) and [`reinforce_loss`](super::reinforce_loss).
/// * φ is largest at W = k/λ: below 1 for answers to reinforce, above 1 for those to push down.
/// * All tokens of an answer share the slope −φ(W) Â. The loss is reduced by [`TokenMean`](crate::Reduction), so that an
///   answer counts by its length.
/// * The weights of the sampler are inside φ. Multiplying the loss by them as well would count them twice.
/// # Departures
/// As TRL's code, with two exceptions. At the lower bound of W, where φ is below 10⁻¹⁴, the weight is 0: times a
/// log-probability of −∞ it would otherwise be infinite. And λ is not bounded from below by 10⁻⁴; λ ≤ 0 is an error.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{VespoConfig, vespo_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.5f64, -1.2]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-0.9f64, -1.0]], &Device::Cpu)?; // W = e^0.2
/// let advantages = Tensor::new(&[1.0f64], &Device::Cpu)?;
///
/// let out = vespo_loss(&new, &old, &advantages, None, &VespoConfig::default())?;
/// let phi = 0.4f64.exp() * (3.0 * (1.0 - 0.2f64.exp())).exp();
/// assert!((out.loss.loss.to_vec2::<f64>()?[0][0] - 0.5 * phi).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Shen et al. 2026, arXiv:2602.10693v3; huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0,
/// `get_gamma_weights`.
#[doc(alias = "VESPO")]
pub fn vespo_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    sampler_weights: Option<&Tensor>,
    config: &VespoConfig,
) -> Result<PolicyLoss> {
    let function = "vespo_loss";
    for (field, value) in [
        ("power_positive", config.power_positive),
        ("decay_positive", config.decay_positive),
        ("power_negative", config.power_negative),
        ("decay_negative", config.decay_negative),
    ] {
        positive(function, field, value)?;
    }
    let inputs = Inputs::read(function, new, old, advantages)?;
    let mask = &inputs.mask;

    // Σₜ clip( dₜ, ±20 ) + Σₜ log wₜ
    let mut exponents = inputs.log_ratio.detach().clamp(-LARGEST, LARGEST)?;
    if let Some(weights) = sampler_weights {
        let mut axes = Axes::new(function);
        axes.float("new", new.values(), &["batch", "time"])?;
        let weights = axes.float("sampler_weights", weights, &["batch", "time"])?;
        let logs = weights
            .detach()
            .maximum(0.0)?
            .log()?
            .clamp(SMALLEST.ln(), LARGEST)?;
        exponents = (exponents + masked(&logs, mask)?)?;
    }
    let log_w = RatioLevel::SequenceSum.exponent(&exponents, mask)?;
    let log_w = log_w.clamp(SMALLEST.ln(), LARGEST)?;
    let w = log_w.exp()?;

    // Wᵏ · e^{ λ (1 − W) }
    let better = inputs.advantages.ge(0.0)?;
    let either = |better_one: f64, other: f64| -> Result<Tensor> {
        Ok(better.where_cond(&inputs.constant(better_one)?, &inputs.constant(other)?)?)
    };
    let power = either(config.power_positive, config.power_negative)?;
    let decay = either(config.decay_positive, config.decay_negative)?;
    let phi = ((power * &log_w)? + (decay * w.affine(-1.0, 1.0)?)?)?.exp()?;
    let phi = masked(&phi, &log_w.gt(SMALLEST.ln())?)?;

    // −stop[ φ(W) ] · Â · log π_θ
    let constant = product(&phi, &inputs.advantages)?;
    inputs.weighted_log_probs(new, &constant, &w, &inputs.free()?)
}
