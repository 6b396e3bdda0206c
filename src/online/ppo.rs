//! Proximal policy optimization: learn from the policy's own answers and their scores (survey §3.1).
//!
//! In one sentence: make a token likelier if it turned out better than expected, and stop once its
//! probability has changed by a fifth.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(yₜ│x, y₍<t₎) | `new` | `[batch, time]` |
//! | log π_old(yₜ│x, y₍<t₎) | `old`, of the policy that wrote the answers | `[batch, time]` |
//! | Âₜ, R̂ₜ | [`Advantages`](crate::Advantages) | `[batch, time]` |
//! | ρₜ | [`PolicyLoss::ratio`] | `[batch, time]` |
//! | ε | [`PpoConfig::clip`], [`PpoValueConfig::clip`] | numbers |
//!
//! Read next: [`crate::online::auxiliary`], the terms that are added to this loss;
//! [`crate::ranking::dpo`], the same optimum without drawing answers.

use super::kl::{KlEstimator, bounded_exp};
use super::surrogate::{Bounds, clipped};
use crate::error::{Result, positive, require};
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use crate::outputs::TokenLoss;
use crate::reduction::Reduction;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`ppo_policy_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// ε in (0, 1): a ratio may fall to 1 − ε, or rise to 1 + ε, before the gradient stops. Default
    /// 0.2 (the paper's §6.1, and InstructGPT's value).
    #[doc(alias = "clip range")]
    pub clip: f64,
    /// A different ε for the upper bound, finite and > 0. Default none: `clip` on both sides.
    #[doc(alias = "clip-higher")]
    pub clip_high: Option<f64>,
    /// c > 1: a token with a negative advantage is not pushed down further once its ratio exceeds
    /// c. Default none, as in the PPO paper; the paper that proposes it uses 3.
    pub dual_clip: Option<f64>,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            clip: 0.2,
            clip_high: None,
            dual_clip: None,
        }
    }
}

/// What [`ppo_policy_loss`] returns.
///
/// All fields but the loss are detached. All are 0 where the mask does not count.
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// The loss of each token, and which tokens count.
    pub loss: TokenLoss,
    /// ρₜ = π_θ / π_old `[batch, time]`.
    pub ratio: Tensor,
    /// 1 where the clip changed the loss, else 0. It then stopped the gradient, except CISPO's, whose capped weight passes
    /// it on: `[batch, time]`, in the type of the loss.
    pub clipped: Tensor,
    /// k₁ of KL(π_old‖π_θ): log π_old − log π_θ `[batch, time]`.
    pub kl_k1: Tensor,
    /// k₃ of KL(π_old‖π_θ): ρₜ − 1 − log ρₜ `[batch, time]`.
    pub kl_k3: Tensor,
}

/// Means over the counted tokens of a batch: detached scalars.
#[derive(Clone, Debug)]
pub struct PolicyMetrics {
    /// The mean ratio, near 1 as long as the policy is near the one that wrote the answers.
    pub ratio: Tensor,
    /// The share of tokens whose gradient the clip stopped.
    pub clip_fraction: Tensor,
    /// KL(π_old‖π_θ) per token by k₁: may be negative.
    pub kl_k1: Tensor,
    /// KL(π_old‖π_θ) per token by k₃: never negative.
    pub kl_k3: Tensor,
}

impl PolicyLoss {
    /// Detaches all but the loss. `log_ratio` is that of each token.
    pub(super) fn new(
        loss: Tensor,
        mask: &Tensor,
        ratio: &Tensor,
        stopped: &Tensor,
        log_ratio: &Tensor,
    ) -> Result<Self> {
        let log_ratio = log_ratio.detach();
        Ok(Self {
            loss: TokenLoss {
                loss,
                mask: mask.clone(),
            },
            ratio: masked(&ratio.detach(), mask)?,
            clipped: stopped.to_dtype(ratio.dtype())?,
            kl_k1: KlEstimator::K1.at(&log_ratio)?,
            kl_k3: KlEstimator::K3.at(&log_ratio)?,
        })
    }

    /// The means over the tokens that count, or 0 if none does. Padding is left out.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn metrics(&self) -> Result<PolicyMetrics> {
        let mean = |x: &Tensor| Reduction::TokenMean.apply(x, &self.loss.mask);
        Ok(PolicyMetrics {
            ratio: mean(&self.ratio)?,
            clip_fraction: mean(&self.clipped)?,
            kl_k1: mean(&self.kl_k1)?,
            kl_k3: mean(&self.kl_k3)?,
        })
    }
}

/// The clipped surrogate of each token.
///
/// # Equation
/// ```text
/// ρₜ = π_θ(yₜ│x, y₍<t₎) / π_old(yₜ│x, y₍<t₎)
/// lₜ = max( −Âₜ ρₜ, −Âₜ · clip(ρₜ, 1 − ε, 1 + ε) )
/// lₜ = min( lₜ, −c Âₜ )     where Âₜ < 0, with dual_clip
/// ```
/// With [`PpoConfig::clip_high`] the upper bound has its own ε.
/// # Shapes
/// `new`, `old`, `advantages` `[batch, time]`; the results are `[batch, time]` with the mask of
/// `new`. `old` and `advantages` get no gradient.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the shapes or types differ; [`Error::Parameter`] unless
/// 0 < ε < 1, the upper ε is finite and > 0, and c is finite and > 1.
/// # Properties
/// * ∂l/∂ log π_θ is 0 exactly where `clipped` is 1 (Â > 0 and ρ > 1 + ε, or Â < 0 and ρ < 1 − ε, or
///   with dual clip Â < 0 and ρ > c). Everywhere else it is −Âρ, also on the far sides, where a ratio
///   moved against its advantage.
/// * At ρ = 1, both branches of the maximum tie. That is the case for every token of a first step. The
///   gradient there is −Â: the policy gradient, neither doubled nor halved. At ρ = 1 ± ε and ρ = c
///   exactly, the slope is that of the inner side, −Âρ, and the token does not yet count as clipped.
/// * The clip stops the gradient; it does not bound the ratio. With draws from π_old, E Â = 0 and many
///   inner steps, the minimum is −ε E│Â│ (where the probabilities leave room for it). Every policy whose
///   ratios lie at or beyond the bounds attains it.
/// * A `dual_clip` that no ratio exceeds has no effect.
/// * Steps on fresh draws, with k₁ in the reward ([`shaped_rewards`](crate::shaped_rewards)), lead to
///   π* ∝ π_ref · e^{r/β}.
/// * A token that only the new policy finds impossible has ratio 0. One that only the old policy found
///   impossible has ratio +∞ and a finite slope, and no gradient where Â = 0.
/// # Departures
/// The sign: the paper maximizes, and a loss is minimized. Up to ρ = e²⁰
/// ([`LOG_RATIO_BOUND`](crate::online::kl::LOG_RATIO_BOUND)) there is no other difference. Beyond it, ρ
/// follows the tangent of e^x instead of overflowing, so the gradient stays −Â e²⁰ and is never NaN. Two
/// ε and the dual clip come from later papers and are off by default. The survey has no equation for
/// this.
/// # Examples
/// ```
/// use candle_align::{PpoConfig, TokenLogProbs, ppo_policy_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = Tensor::new(&[[1.5f64.ln() - 2.0, 0.9f64.ln() - 1.0]], &Device::Cpu)?;
/// let old = Tensor::new(&[[-2.0f64, -1.0]], &Device::Cpu)?;
/// let advantages = Tensor::new(&[[2.0f64, -1.0]], &Device::Cpu)?;
///
/// let new = TokenLogProbs::new(&new, &mask)?;
/// let out = ppo_policy_loss(&new, &old, &advantages, &PpoConfig::default())?;
/// // ratios 1.5, clipped at 1.2, and 0.9
/// let loss = out.loss.loss.to_vec2::<f64>()?;
/// assert!((loss[0][0] - -2.0 * 1.2).abs() < 1e-12);
/// assert!((loss[0][1] - 0.9).abs() < 1e-12);
/// assert_eq!(out.metrics()?.clip_fraction.to_scalar::<f64>()?, 0.5);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// [`PolicyLoss::metrics`]:
/// * Before the first step on a batch the ratio is 1, and clip fraction and KL are 0. If not, `old` and
///   `new` were computed in different ways: another temperature, dropout, or another type.
/// * `kl_k3` within the inner steps is how far the policy moved on this batch. If it jumps, the learning
///   rate is too high or there are too many steps.
/// * A clipped token has no gradient. As `clip_fraction` climbs towards 1, further inner steps learn from
///   ever fewer tokens.
///
/// The loss itself does not show progress: with advantages of mean 0 it is 0 before every first step.
/// Watch the mean score of fresh answers.
/// # Try
/// * The clip acts on two of four cases (sign of Â, ρ above or below its bound). Which ones? Solution:
///   `tests/values/ppo.rs::the_clip_stops_the_pull_on_two_sides_of_four`.
/// * Take many steps on one batch. At which loss do they stop? Solution:
///   `tests/optimum/ppo.rs::inner_steps_stop_at_the_least_loss_of_the_clipped_surrogate`.
/// # Source
/// Schulman et al. 2017, arXiv:1707.06347v2, eq. 7; authors' code openai/lm-human-preferences,
/// `train_policy.py`, `PPOTrainer.loss`. Dual clip: Ye et al. 2019, arXiv:1912.09729. Two ε: Yu et
/// al. 2025, arXiv:2503.14476.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "PPO")]
#[doc(alias = "proximal policy optimization")]
#[doc(alias = "clipped surrogate")]
#[doc(alias = "importance ratio")]
pub fn ppo_policy_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &PpoConfig,
) -> Result<PolicyLoss> {
    let function = "ppo_policy_loss";
    let epsilon = config.clip;
    let in_range = epsilon > 0.0 && epsilon < 1.0;
    require(in_range, function, "clip", "in (0, 1)", epsilon)?;
    let epsilon_high = config.clip_high.unwrap_or(epsilon);
    positive(function, "clip_high", epsilon_high)?;
    if let Some(c) = config.dual_clip {
        let in_range = c.is_finite() && c > 1.0;
        require(in_range, function, "dual_clip", "finite and > 1", c)?;
    }
    let mut axes = Axes::new(function);
    axes.float("new", new.values(), &["batch", "time"])?;
    let old = axes.float("old", old, &["batch", "time"])?;
    let advantages = axes.float("advantages", advantages, &["batch", "time"])?;
    let mask = new.mask();
    let advantages = masked(&advantages.detach(), mask)?;

    // ρₜ = π_θ / π_old
    let log_ratio = masked(&(new.values() - old.detach())?, mask)?;
    let ratio = bounded_exp(&log_ratio)?;

    // max( −Âρ, −Â clip(ρ) ), and min( lₜ, −c Â ) where Â < 0
    let bounds = Bounds {
        low: 1.0 - epsilon,
        high: 1.0 + epsilon_high,
        most: config.dual_clip,
    };
    let (loss, stopped) = clipped(&ratio, &advantages, &bounds)?;
    PolicyLoss::new(loss, mask, &ratio, &stopped, &log_ratio)
}

/// Settings of [`ppo_value_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoValueConfig {
    /// ε > 0: how far a value may move from the old one before its gradient stops. Default 0.2, as in
    /// the authors' code. None is the plain square.
    #[doc(alias = "value clipping")]
    pub clip: Option<f64>,
}

impl Default for PpoValueConfig {
    fn default() -> Self {
        Self { clip: Some(0.2) }
    }
}

/// The squared error of each value, clipped like the policy loss.
///
/// # Equation
/// ```text
/// V_clip = V_old + clip( V − V_old, −ε, ε )
/// lₜ = ½ · max( (V − R̂)², (V_clip − R̂)² )
/// ```
/// # Shapes
/// `values`, `old_values`, `returns` `[batch, time]`, `mask` u8 `[batch, time]`; the result is
/// `[batch, time]` with the mask. `old_values` and `returns` get no gradient.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the shapes or types differ; [`Error::Parameter`] unless ε
/// is finite and > 0.
/// # Properties
/// * The gradient is 0 where V has moved from V_old towards R̂ by more than ε and the clipped error is
///   strictly the larger. Elsewhere it is V − R̂. Within ε both branches are the same number, and the
///   gradient is V − R̂ in full. The same holds at the bound, and beyond it where both errors are equal.
/// * Without a clip, or with a huge one, this is ½(V − R̂)², whose optimum is the mean return.
/// * A value or a return of ±∞ costs +∞. A return of ±∞ does not pull a value that has already moved
///   towards it beyond the bound.
/// # Departures
/// None from the authors' code, which adds this to the policy's loss with weight 0.1. Here the caller
/// chooses the weight. The survey has no equation for this.
/// # Examples
/// ```
/// use candle_align::{PpoValueConfig, Reduction, ppo_value_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[[x]], &Device::Cpu);
/// let mask = Tensor::new(&[[1u8]], &Device::Cpu)?;
/// let loss = ppo_value_loss(&at(1.5)?, &at(1.0)?, &at(2.0)?, &mask, &PpoValueConfig::default())?;
/// // V_clip = 1.2, further from 2 than 1.5 is
/// let loss = loss.reduce(Reduction::TokenMean)?.to_scalar::<f64>()?;
/// assert!((loss - 0.5 * (1.2f64 - 2.0).powi(2)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean loss without a clip, beside half the variance of the returns, which is the loss of a critic
/// that predicts their mean. A critic above that is worse than a constant, and its advantages are mostly
/// noise. If the loss jumps whenever the scores change their scale, normalize the scores
/// ([`RewardNormalization`](crate::online::reward_head::RewardNormalization)).
/// # Try
/// * Where does a critic end that sees several returns at one state? Does the clip move that point?
///   Solution: `tests/optimum/ppo.rs::a_value_arrives_at_the_mean_return_also_by_clipped_steps`.
/// # Source
/// Authors' code of Ziegler et al. 2019, arXiv:1909.08593v2, openai/lm-human-preferences,
/// `train_policy.py`, `PPOTrainer.loss`; the square without a clip: Schulman et al. 2017,
/// arXiv:1707.06347v2, eq. 9.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "critic loss")]
#[doc(alias = "value function loss")]
pub fn ppo_value_loss(
    values: &Tensor,
    old_values: &Tensor,
    returns: &Tensor,
    mask: &Tensor,
    config: &PpoValueConfig,
) -> Result<TokenLoss> {
    let function = "ppo_value_loss";
    if let Some(epsilon) = config.clip {
        positive(function, "clip", epsilon)?;
    }
    let mut axes = Axes::new(function);
    let values = axes.float("values", values, &["batch", "time"])?;
    let old_values = axes.float("old_values", old_values, &["batch", "time"])?;
    let returns = axes.float("returns", returns, &["batch", "time"])?.detach();
    let mask = axes.mask("mask", mask, &["batch", "time"])?;

    // V − R̂
    let error = masked(&(&values - &returns)?, &mask)?;
    let square = match config.clip {
        None => error.sqr()?,
        Some(epsilon) => {
            // V_clip = V_old + clip( V − V_old, −ε, ε )
            let moved = (&values - &old_values)?.detach();
            let clipped = (old_values.detach() + moved.clamp(-epsilon, epsilon)?)?;

            // max( … ), as a choice: V_clip only where it differs from V and R̂ is strictly nearer to V,
            // beyond the midpoint of the two
            let middle = ((values.detach() * 0.5)? + (&clipped * 0.5)?)?;
            let up = moved.gt(epsilon)?.mul(&returns.gt(&middle)?)?;
            let down = moved.lt(-epsilon)?.mul(&returns.lt(&middle)?)?;
            let stopped = up.add(&down)?;
            let other = masked(&(clipped - returns)?, &mask)?.detach();
            stopped.where_cond(&other, &error)?.sqr()?
        }
    };
    // ½
    Ok(TokenLoss {
        loss: (square * 0.5)?,
        mask,
    })
}
