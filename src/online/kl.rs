//! How far the policy is from the reference, from one draw (survey §3.1).
//!
//! In one sentence: three estimates of KL(π‖π_ref) from the log-ratio of one sampled token. They
//! estimate the same divergence, but their gradients lead to different policies.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(yₜ│x, y₍<t₎) | `policy` | `[batch, time]` |
//! | log π_ref(yₜ│x, y₍<t₎) | `reference` | `[batch, time]` |
//! | k₁, k₂, k₃ | [`KlEstimator`] | – |
//!
//! Read next: [`crate::online::rewards`], where the estimate becomes part of a reward.

use crate::error::Result;
use crate::log_probs::TokenLogProbs;
use crate::math::{hinge, masked};
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The log-ratio up to which e^x is computed exactly. Beyond it, e^x is replaced by its tangent at this
/// point. So a ratio and its gradient stay finite in f32, and never vanish where they should be large.
pub const LOG_RATIO_BOUND: f64 = 20.0;

/// Below this |x| the code sums the series of eˣ − 1 − x; above it, it takes the difference.
const SERIES: f64 = 0.5;
/// The last power of x in that series. The next one is below f64's precision at [`SERIES`].
const LAST_POWER: usize = 15;

/// An estimate of KL(p‖q) from x = log q − log p at one draw from p.
#[doc(alias = "k3 estimator")]
#[doc(alias = "Schulman estimator")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// k₁ = −x: unbiased, positive or negative, largest variance. Use it in a reward.
    #[default]
    K1,
    /// k₂ = x²/2: biased, never negative. Use it as a loss.
    K2,
    /// k₃ = eˣ − 1 − x: unbiased, never negative, small variance. Use it for reports.
    K3,
}

/// An estimate of KL(π‖π_ref) per token, differentiable in the policy.
///
/// # Equation
/// ```text
/// xₜ = log π_ref(yₜ│x, y₍<t₎) − log π_θ(yₜ│x, y₍<t₎)
/// k₁ = −xₜ        k₂ = xₜ² / 2        k₃ = e^{xₜ} − 1 − xₜ
/// ```
/// # Shapes
/// `policy` and `reference` `[batch, time]`; the result is `[batch, time]` with the policy's mask.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] unless `reference` has the shape and type of the policy's
/// values.
/// # Properties
/// * With draws from the policy, E k₁ = E k₃ = KL(π‖π_ref) and k₂, k₃ ≥ 0.
/// * The slopes in log π_θ are 1, −x and 1 − eˣ: where policy and reference agree, k₂ and k₃ have
///   slope 0, and near there both are x²/2.
/// * The effect of each estimator depends on its place. As a loss it acts through its slope. As a reward
///   ([`shaped_rewards`], a constant) it acts through its value times ∇ log π_θ:
///
/// | | E ∇ as a loss | E k ∇ log π_θ as a reward |
/// |---|---|---|
/// | k₁ | 0: no penalty at all | ∇KL(π‖π_ref) |
/// | k₂ | ∇KL(π‖π_ref) | not the gradient of a KL; together with the part of the loss it is ∇E k₂ |
/// | k₃ | ∇KL(π_ref‖π): the other direction | ∇KL(π‖π_ref) − ∇KL(π_ref‖π) |
///
/// * So with reward r and exact on-policy steps, k₁ in the reward and k₂ in the loss lead to
///   π* ∝ π_ref · e^{r/β}. k₃ in the loss leads to π = β π_ref / (λ − r) with λ > max r, a polynomial
///   instead of an exponential tilt. k₁ in the loss leads to the best answer alone.
/// * k₂ as a loss on sums over a sequence has the gradient of the KL between sequences. Per token it
///   sees the KL of that token alone, not of the tokens that follow from it. That is another gradient,
///   unless answers have one token. k₁ inside a reward that is summed over later tokens has no such gap.
/// * Only k₁ is additive: Σₜ k₁(xₜ) = k₁(Σₜ xₜ). The k₃ of the tokens do not sum to k₃(Σₜ xₜ), the k₃ of
///   the whole answer. The two differ answer by answer; only their means over the policy's own answers
///   agree, and both are KL(π‖π_ref). For k₂ not even the means agree.
/// # Departures
/// None from the formulas, up to x = 20 ([`LOG_RATIO_BOUND`]). Beyond that k₃ would overflow, so it
/// follows its tangent, with slope 1 − e²⁰. A log-probability of −∞ on one side costs +∞ in k₂ and k₃;
/// in k₁ it has its sign. For |x| < ½, k₃ is summed as a series, because the difference has no correct
/// digit in f32 at x = 10⁻⁴. The survey names a KL penalty without an equation.
/// # Examples
/// ```
/// use candle_align::{KlEstimator, TokenLogProbs, kl_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 0]], &Device::Cpu)?;
/// let policy = TokenLogProbs::new(&Tensor::new(&[[-1.0f64, 0.0]], &Device::Cpu)?, &mask)?;
/// let reference = Tensor::new(&[[-3.0f64, f64::NAN]], &Device::Cpu)?;
///
/// // x = −3 + 1
/// let k3 = kl_loss(&policy, &reference, KlEstimator::K3)?.loss.to_vec2::<f64>()?;
/// assert!((k3[0][0] - ((-2.0f64).exp() - 1.0 + 2.0)).abs() < 1e-15);
/// assert_eq!(k3[0][1], 0.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean of k₁ and of k₃ over many of the policy's own answers. Both estimate KL(π‖π_ref), which is
/// never negative. If the mean of k₁ is clearly negative, the answers do not come from this policy: they
/// were drawn at another temperature, cut by top-p, or drawn before the last updates.
/// # Try
/// * Put each estimator into the loss and into the reward. Which combinations end at π*? Solution:
///   `cargo run --example rlhf`.
/// * Which of the three estimates the KL without bias? Solution:
///   `tests/identities/ppo.rs::k1_and_k3_measure_the_kl_and_k2_does_not`.
/// # Source
/// Schulman 2020, "Approximating KL Divergence" (a web page, joschu.net/blog/kl-approx.html); k₁ inside
/// the reward: Ziegler et al. 2019, arXiv:1909.08593v2, eq. 2.
///
/// [`shaped_rewards`]: crate::shaped_rewards
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
#[doc(alias = "KL penalty")]
#[doc(alias = "KL divergence")]
#[doc(alias = "KL regularization")]
pub fn kl_loss(
    policy: &TokenLogProbs,
    reference: &Tensor,
    estimator: KlEstimator,
) -> Result<TokenLoss> {
    let mut axes = Axes::new("kl_loss");
    axes.float("policy", policy.values(), &["batch", "time"])?;
    let reference = axes.float("reference", reference, &["batch", "time"])?;

    // x = log π_ref − log π_θ, 0 where the mask does not count
    let x = masked(&(reference.detach() - policy.values())?, policy.mask())?;
    Ok(TokenLoss {
        loss: estimator.at(&x)?,
        mask: policy.mask().clone(),
    })
}

impl KlEstimator {
    /// k(x), with x = log q − log p at a draw from p; k(0) = 0.
    pub(crate) fn at(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::K1 => x.neg()?,
            Self::K2 => (x.sqr()? * 0.5)?,
            Self::K3 => exp_minus_tangent(x)?,
        })
    }
}

/// eˣ up to [`LOG_RATIO_BOUND`], and its tangent beyond: e^{min(x, c)} + e^c · max(0, x − c).
pub(crate) fn bounded_exp(x: &Tensor) -> Result<Tensor> {
    let (within, beyond) = at_the_bound(x)?;
    Ok((within.exp()? + (beyond * LOG_RATIO_BOUND.exp())?)?)
}

/// min(x, c) and max(0, x − c), whose slopes add up to 1.
fn at_the_bound(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let bound = x.ones_like()?.affine(LOG_RATIO_BOUND, 0.0)?;
    let within = x.gt(LOG_RATIO_BOUND)?.where_cond(&bound, x)?;
    Ok((within, hinge(&(x - LOG_RATIO_BOUND)?)?))
}

/// eˣ − 1 − x, to full precision at small x, and along the tangent beyond [`LOG_RATIO_BOUND`].
fn exp_minus_tangent(x: &Tensor) -> Result<Tensor> {
    let small = x.abs()?.lt(SERIES)?;

    // x²/2 · (1 + x/3 · (1 + x/4 · (1 + …))), at small x alone: at large x it would overflow
    let near = masked(x, &small)?;
    let mut series = near.ones_like()?;
    for power in (3..=LAST_POWER).rev() {
        series = (series * &near)?.affine(1.0 / power as f64, 1.0)?;
    }
    let series = (series * (near.sqr()? * 0.5)?)?;

    // e^{min(x, c)} − 1 − min(x, c) + (e^c − 1) · max(0, x − c)
    let (within, beyond) = at_the_bound(x)?;
    let difference = ((within.exp()? - 1.0)? - within)?;
    let difference = (difference + (beyond * (LOG_RATIO_BOUND.exp() - 1.0))?)?;
    Ok(small.where_cond(&series, &difference)?)
}
