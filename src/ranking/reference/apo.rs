//! APO: say whether the chosen answers are better than the model (2024, after the survey).
//!
//! In one sentence: where the chosen answers are better than the model's own, raise them and lower the
//! rejected ones (zero); where they are worse, lower both, the rejected ones more (down).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | β | [`ApoConfig::beta`] | number |
//!
//! Read next: [`kto`](crate::ranking::unpaired::kto) (APO-zero around a baseline).

use super::LogRatios;
use crate::error::{Result, positive};
use crate::math::sigmoid;
use crate::outputs::PreferenceLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`apo_zero_loss`] and [`apo_down_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
}

impl Default for ApoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// APO-zero: the loss of each pair whose chosen answer is better than the model's.
///
/// # Equation
/// ```text
/// L = 1 − σ( β·ρ_w ) + σ( β·ρ_l )
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0.
/// # Properties
/// * ∂L/∂ρ_w = −β σ′(β·ρ_w), ∂L/∂ρ_l = +β σ′(β·ρ_l): −β/4 and +β/4 at the first step, where L = 1.
/// * It lies in (0, 2) and has no finite optimum; the slopes die in both tails.
/// * It is [`kto_loss`](crate::ranking::unpaired::kto::kto_loss) with the baseline 0 and weights 1, summed
///   over the pair, and [`apo_zero_unpaired_loss`](crate::ranking::unpaired::kto::apo_zero_unpaired_loss)
///   of its two answers.
/// # Departures
/// None from the paper, nor from TRL 1.16's `apo_zero`.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{ApoConfig, LogRatios, apo_zero_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = apo_zero_loss(&ratios, &ApoConfig { beta: 0.5 })?;
/// let sigma = |z: f64| 1.0 / (1.0 + (-z).exp());
/// assert!((out.loss.to_vec1::<f64>()?[0] - (sigma(0.2) + sigma(-0.25))).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch both rewards: the chosen one must rise and the rejected one fall. Both falling is the other
///   case; use `apo_down_loss`.
/// # Try
/// * Compare with KTO at a baseline of 0. Solution:
///   `tests/identities/since.rs::kto_around_zero_is_apo_zero`.
/// # Source
/// D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7.
#[doc(alias = "anchored preference optimization")]
#[doc(alias = "apo_zero")]
pub fn apo_zero_loss(ratios: &LogRatios, config: &ApoConfig) -> Result<PreferenceLoss> {
    positive("apo_zero_loss", "beta", config.beta)?;
    let rewards = ratios.rewards(config.beta)?;

    // 1 − σ( β·ρ_w ) = σ( −β·ρ_w )
    let chosen = sigmoid(&rewards.chosen.neg()?)?;
    // + σ( β·ρ_l )
    PreferenceLoss::new((chosen + sigmoid(&rewards.rejected)?)?, &rewards)
}

/// APO-down: the loss of each pair whose chosen answer is worse than the model's.
///
/// # Equation
/// ```text
/// L = σ( β·ρ_w ) + 1 − σ( β·(ρ_w − ρ_l) )
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0.
/// # Properties
/// * ∂L/∂ρ_w = β[ σ′(β·ρ_w) − σ′(β·(ρ_w − ρ_l)) ], ∂L/∂ρ_l = +β σ′(β·(ρ_w − ρ_l)): 0 and +β/4 at the first
///   step, where L = 1.
/// * It lies in (0, 2) and has no finite optimum.
/// # Departures
/// None from the paper, nor from TRL 1.16's `apo_down`. Between releases TRL mixed scores of a divergence
/// with raw log-ratios here (trl#6441).
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{ApoConfig, LogRatios, apo_down_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = apo_down_loss(&ratios, &ApoConfig { beta: 0.5 })?;
/// let sigma = |z: f64| 1.0 / (1.0 + (-z).exp());
/// let want = sigma(-0.2) + 1.0 - sigma(0.5 * 0.1);
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Both rewards fall by design. Watch the margin, and what the model says in place of both answers.
/// # Try
/// * Predict both slopes at the first step. Solution:
///   `tests/values/since.rs::apo_down_starts_on_the_rejected_answer_alone`.
/// # Source
/// D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8.
#[doc(alias = "apo_down")]
pub fn apo_down_loss(ratios: &LogRatios, config: &ApoConfig) -> Result<PreferenceLoss> {
    positive("apo_down_loss", "beta", config.beta)?;
    let rewards = ratios.rewards(config.beta)?;

    // σ( β·ρ_w )
    let chosen = sigmoid(&rewards.chosen)?;
    // + 1 − σ( β·(ρ_w − ρ_l) )
    let behind = sigmoid(&rewards.margin()?.neg()?)?;
    PreferenceLoss::new((chosen + behind)?, &rewards)
}
