//! GRPO, and DAPO, Dr. GRPO and BNPO, which reduce the same term otherwise (2024, after the survey).
//!
//! In one sentence: PPO's clipped surrogate, with advantages from a group in place of a critic's.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | Âᵢ, or Âᵢₜ | `advantages` | `[batch]`, or `[batch, time]` |
//! | ε, ε_low and ε_high | [`GrpoConfig::clip`], [`GrpoConfig::clip_high`] | numbers |
//! | 1/G Σ 1/│oᵢ│ Σ, 1/Σ│oᵢ│ ΣΣ | [`Reduction`](crate::Reduction) | – |
//!
//! Read next: [`crate::online::group_advantages`]; [`crate::online::ppo`], the same term with a critic.

use super::super::ppo::PolicyLoss;
use super::super::ratio::RatioLevel;
use super::super::surrogate::{Bounds, clipped};
use super::inputs::Inputs;
use crate::error::{Result, positive, require};
use crate::log_probs::TokenLogProbs;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`grpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoConfig {
    /// ε > 0. Default 0.2, that of PPO and of TRL; the paper does not state its own, and DeepSeek-R1 has 10, which
    /// leaves the ratio no lower bound.
    pub clip: f64,
    /// ε of the upper bound, > 0. Default none: `clip` on both sides. DAPO has 0.28.
    #[doc(alias = "clip-higher")]
    pub clip_high: Option<f64>,
    /// δ > 1, at which the other branch of the minimum stops too. Default none. INTELLECT-2 has 4; verl's `clip_ratio_c`
    /// of 3 is δ = 3.
    #[doc(alias = "two-sided clipping")]
    #[doc(alias = "dual clip")]
    pub delta: Option<f64>,
    /// What the ratio is taken over. Default [`RatioLevel::Token`].
    pub level: RatioLevel,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            clip: 0.2,
            clip_high: None,
            delta: None,
            level: RatioLevel::Token,
        }
    }
}

impl GrpoConfig {
    /// DAPO's clip: ε of 0.2 and 0.28 (its §4.1). Its loss is reduced by [`Reduction::TokenMean`](crate::Reduction).
    pub fn dapo() -> Self {
        Self {
            clip_high: Some(0.28),
            ..Self::default()
        }
    }
}

/// The clipped surrogate of each token.
///
/// # Equation
/// ```text
/// ρ  = π_θ/π_old at the level
/// l  = −min( min(ρ, δ) Â, clip(ρ, 1 − ε, 1 + ε_high) Â )
/// GRPO     (1/G) Σᵢ (1/│yᵢ│) Σₜ l          MeanOfSequenceMeans
/// DAPO     (1/Σᵢ│yᵢ│) Σᵢ Σₜ l              TokenMean, or SumOver the tokens of the window
/// Dr. GRPO (1/(G·L)) Σᵢ Σₜ l               SumOver { count: G·L }, a constant L
/// BNPO     as DAPO, of the micro-batch      TokenMean
/// RLOO     (1/G) Σᵢ l                       level SequenceSum, MeanOfSequenceMeans
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The results are `[batch, time]` with the mask
/// of `new`. At a level of a sequence all tokens of an answer hold the answer's loss. `old` and `advantages` get no
/// gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless both ε are finite and > 0 and δ is finite and > 1.
/// # Properties
/// * At the token level it is [`ppo_policy_loss`](crate::ppo_policy_loss), value and gradient; δ is its dual clip where
///   δ ≥ 1 + ε_high.
/// * At the first step on a batch ρ = 1: the loss is −Â, whose mean over a group is 0. The slope of an answer's mean in
///   the log-probability of each of its tokens is −Â/│y│. A loss of 0 does not mean that nothing is learned (trl#2608,
///   trl#2681).
/// * GRPO divides by each answer's own length: a long wrong answer is pushed down less per token than a short one, and
///   a short right one is pulled up more. Dr. GRPO's constant has no such preference; a divisor that follows the batch's
///   padding has another (verl#3741).
/// * Under DAPO each token weighs the same, so long answers weigh more in the gradient.
/// * One advantage per answer and equal lengths: all four reductions agree up to a factor.
/// * Micro-batches are one batch under every reduction, if each is divided by the window's count
///   ([`Reduction::over`](crate::Reduction::over)).
/// # Departures
/// * Beyond ρ = e²⁰ the ratio follows its tangent, and where the clip stops it, it is selected before the product.
///   TRL's minimum of an overflowing ratio has a finite value and a gradient of NaN.
/// * The KL of the paper's loss is a term of its own:
///   [`unbiased_kl_loss`](crate::online::rollout_correction::unbiased_kl_loss) or [`kl_loss`](crate::kl_loss).
/// * TRL divides GRPO's sum by all rows, also those without a token. [`Reduction`](crate::Reduction) counts rows with a
///   token; `SequenceMeansOver { count }` takes any other number.
/// # Examples
/// ```
/// use candle_align::online::policy_gradient::{GrpoConfig, grpo_loss};
/// use candle_align::{Reduction, TokenLogProbs};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1, 1], [1, 1, 0]], &Device::Cpu)?;
/// let new = Tensor::new(&[[-0.5f64, -1.2, -0.3], [-2.0, -0.7, 0.0]], &Device::Cpu)?;
/// let old = Tensor::new(&[[-0.9f64, -1.0, -0.35], [-1.5, -0.9, 0.0]], &Device::Cpu)?;
/// let advantages = Tensor::new(&[1.0f64, -0.5], &Device::Cpu)?;
///
/// let new = TokenLogProbs::new(&new, &mask)?;
/// let out = grpo_loss(&new, &old, &advantages, &GrpoConfig::dapo())?;
/// let grpo = out.loss.reduce(Reduction::MeanOfSequenceMeans)?.to_scalar::<f64>()?;
/// let first = -(1.28 + (-0.2f64).exp() + 0.05f64.exp()) / 3.0;
/// let second = 0.5 * (0.8 + 0.2f64.exp()) / 2.0;
/// assert!((grpo - (first + second) / 2.0).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// As on the page of [`ppo_policy_loss`](crate::ppo_policy_loss). The loss itself shows nothing: watch the mean reward.
/// # Try
/// * Give a group a short and a long answer of equal merit. Which token is pulled hardest under each reduction?
///   Solution: `tests/identities/policy_gradient.rs::each_reduction_weighs_length_in_its_own_way`.
/// # Source
/// Shao et al. 2024, arXiv:2402.03300v3, eq. 3; DAPO: Yu et al. 2025, arXiv:2503.14476v2, eq. 8; Dr. GRPO: Liu et al.
/// 2025, arXiv:2503.20783v1; δ: INTELLECT-2, arXiv:2505.07291v1; RLOO's ratio of answers: Ahmadian et al. 2024,
/// arXiv:2402.14740v2; huggingface/trl, `trainer/grpo_trainer.py` and `trainer/rloo_trainer.py` of release 1.16.0.
#[doc(alias = "GRPO")]
#[doc(alias = "DAPO")]
#[doc(alias = "Dr. GRPO")]
#[doc(alias = "BNPO")]
#[doc(alias = "RLOO")]
pub fn grpo_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &GrpoConfig,
) -> Result<PolicyLoss> {
    surrogate("grpo_loss", new, old, advantages, config)
}

/// The same for a loss of another name.
pub(super) fn surrogate(
    function: &'static str,
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &GrpoConfig,
) -> Result<PolicyLoss> {
    positive(function, "clip", config.clip)?;
    let clip_high = config.clip_high.unwrap_or(config.clip);
    positive(function, "clip_high", clip_high)?;
    if let Some(delta) = config.delta {
        let in_range = delta.is_finite() && delta > 1.0;
        require(in_range, function, "delta", "finite and > 1", delta)?;
    }
    let inputs = Inputs::read(function, new, old, advantages)?;

    // ρ at the level
    let ratio = config.level.ratio(&inputs.log_ratio, &inputs.mask)?;

    // −min( min(ρ, δ) Â, clip(ρ, 1 − ε, 1 + ε_high) Â ): up to the smaller bound where Â > 0, the larger where Â < 0
    let high = 1.0 + clip_high;
    let bounds = Bounds {
        low: 1.0 - config.clip,
        high: config.delta.map_or(high, |delta| delta.min(high)),
        most: config.delta.map(|delta| delta.max(high)),
    };
    let (loss, stopped) = clipped(&ratio, &inputs.advantages, &bounds)?;
    PolicyLoss::new(loss, &inputs.mask, &ratio, &stopped, &inputs.log_ratio)
}
