//! KL terms with the gradient of KL(π‖π_ref): on old answers, and for every estimator (2025, after the survey).
//!
//! In one sentence: k₃ estimates KL(π‖π_ref) on fresh draws of π alone; times the ratio it does so on old ones, value
//! and gradient.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old, log π_ref | `policy`, `old`, `reference` | `[batch, time]` |
//! | k₁, k₂, k₃ | [`KlEstimator`] | – |
//!
//! Read next: [`crate::online::kl`], what each estimator does in the loss and in the reward.

use super::super::kl::KlEstimator;
use super::super::ratio::RatioLevel;
use crate::error::Result;
use crate::known::with_slope;
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`unbiased_kl_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnbiasedKlConfig {
    /// Default [`KlEstimator::K3`], the paper's.
    pub estimator: KlEstimator,
    /// Over what the ratio is taken. Default [`RatioLevel::Token`], the paper's.
    pub level: RatioLevel,
}

impl Default for UnbiasedKlConfig {
    fn default() -> Self {
        Self {
            estimator: KlEstimator::K3,
            level: RatioLevel::Token,
        }
    }
}

/// The KL term of each token, times the ratio.
///
/// # Equation
/// ```text
/// xₜ = log π_ref(yₜ) − log π_θ(yₜ)
/// l  = ρ · k(xₜ)            the gradient flows through both
/// ```
/// # Shapes
/// `policy`, `old`, `reference` `[batch, time]`; the result is `[batch, time]` with the policy's mask. `old` and `reference`
/// get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ.
/// # Properties
/// * With draws from the old policy, E l = KL(π_θ‖π_ref) of the token for k₁ and k₃, and its gradient is ∇KL(π_θ‖π_ref).
///   Without ρ the gradient of k₃ is ∇KL(π_ref‖π_θ), the other direction, even on fresh draws.
/// * At the token level the slope of k₃ is ρ (log π_θ − log π_ref), that of the true KL.
/// * Where policy and reference agree the term is 0 with slope 0, for k₂ and k₃.
/// # Departures
/// TRL's `use_bias_correction_kl`, on by default, is k₃ at the level of its `importance_sampling_level`. A ratio of 0 has a
/// term of 0. k follows its tangent beyond x = 20, as on the page of [`kl_loss`](crate::kl_loss).
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::rollout_correction::{UnbiasedKlConfig, unbiased_kl_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8]], &Device::Cpu)?;
/// let policy = TokenLogProbs::new(&Tensor::new(&[[-1.0f64]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-1.5f64]], &Device::Cpu)?;
/// let reference = Tensor::new(&[[-3.0f64]], &Device::Cpu)?;
///
/// let loss = unbiased_kl_loss(&policy, &old, &reference, &UnbiasedKlConfig::default())?;
/// let want = 0.5f64.exp() * ((-2.0f64).exp() - 1.0 + 2.0);
/// assert!((loss.loss.to_vec2::<f64>()?[0][0] - want).abs() < 1e-14);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Try
/// * Sum over all tokens with their probabilities under the old policy: whose gradient comes out? Solution:
///   `tests/identities/rollout_correction.rs::the_kl_times_the_ratio_has_the_gradient_of_the_kl`.
/// # Source
/// DeepSeek-V3.2, arXiv:2512.02556; huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0.
#[doc(alias = "use_bias_correction_kl")]
pub fn unbiased_kl_loss(
    policy: &TokenLogProbs,
    old: &Tensor,
    reference: &Tensor,
    config: &UnbiasedKlConfig,
) -> Result<TokenLoss> {
    let mut axes = Axes::new("unbiased_kl_loss");
    axes.float("policy", policy.values(), &["batch", "time"])?;
    let old = axes.float("old", old, &["batch", "time"])?;
    let reference = axes.float("reference", reference, &["batch", "time"])?;
    let mask = policy.mask();

    // ρ · k(xₜ)
    let log_ratio = masked(&(policy.values() - old.detach())?, mask)?;
    let ratio = config.level.ratio(&log_ratio, mask)?;
    let x = masked(&(reference.detach() - policy.values())?, mask)?;
    // a ratio of 0 beside an infinite k is 0, and so is a k of 0 beside an infinite ratio
    let reached = ratio.detach();
    let possible = reached.ne(0.0)?;
    let k = config.estimator.at(&masked(&x, &possible)?)?;
    let idle = k.eq(0.0)?.mul(&reached.eq(f64::INFINITY)?)?;
    let ratio = masked(&ratio, &possible.mul(&idle.eq(0u8)?)?)?;
    let loss = masked(&(ratio * k)?, mask)?;
    Ok(TokenLoss {
        loss,
        mask: mask.clone(),
    })
}

/// The value of one estimator with the gradient of k₂.
///
/// # Equation
/// ```text
/// l = k₂(xₜ) − stop[ k₂(xₜ) ] + stop[ k(xₜ) ]          xₜ = log π_ref(yₜ) − log π_θ(yₜ)
/// ```
/// # Shapes
/// `policy`, `reference` `[batch, time]`; the result is `[batch, time]` with the policy's mask. `reference` gets no
/// gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ.
/// # Properties
/// * The slope in log π_θ is −xₜ whatever the estimator, which on fresh draws is ∇KL(π‖π_ref) of the token.
/// * Without that slope, k₁ in the loss has a gradient of mean 0 and k₃ that of the other direction.
/// # Departures
/// The slope is stated, not the difference of two terms, so that an infinite xₜ gives no NaN. verl writes it with a `+`:
/// `k1+`, `k3+`, `low_var_kl+`.
/// # Examples
/// ```
/// use candle_align::online::rollout_correction::straight_through_kl_loss;
/// use candle_align::{KlEstimator, TokenLogProbs};
/// use candle_core::{Device, Tensor, Var};
///
/// let mask = Tensor::new(&[[1u8]], &Device::Cpu)?;
/// let values = Var::new(&[[-1.0f64]], &Device::Cpu)?;
/// let policy = TokenLogProbs::new(&values, &mask)?;
/// let reference = Tensor::new(&[[-3.0f64]], &Device::Cpu)?;
/// let loss = straight_through_kl_loss(&policy, &reference, KlEstimator::K1)?.loss;
/// assert_eq!(loss.to_vec2::<f64>()?, [[2.0]]);
/// let grads = loss.sum_all()?.backward()?;
/// assert_eq!(grads.get(&values).unwrap().to_vec2::<f64>()?, [[2.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Estimators: Ziegler et al. 2019, arXiv:1909.08593v2; volcengine/verl, `trainer/ppo/core_algos.py`, `kl_penalty`.
#[doc(alias = "k3+")]
pub fn straight_through_kl_loss(
    policy: &TokenLogProbs,
    reference: &Tensor,
    estimator: KlEstimator,
) -> Result<TokenLoss> {
    let mut axes = Axes::new("straight_through_kl_loss");
    axes.float("policy", policy.values(), &["batch", "time"])?;
    let reference = axes.float("reference", reference, &["batch", "time"])?;
    let x = masked(&(reference.detach() - policy.values())?, policy.mask())?;

    // the value of k, the slope of k₂
    let plain = x.detach();
    let value = estimator.at(&plain)?;
    Ok(TokenLoss {
        loss: with_slope(&x, value, move |grad| grad * &plain)?,
        mask: policy.mask().clone(),
    })
}
