//! Cal-DPO: DPO with a target for the log-ratio of each answer (2024, after the survey).
//!
//! In one sentence: DPO fixes only the difference of two log-ratios, so add a square that holds the chosen one at
//! 1/(2β) and the rejected one at −1/(2β).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | β | [`CalDpoConfig::beta`] | number |
//!
//! Read next: [`sppo`](super::sppo) (the square alone), [`rpo`](super::rpo) (another way to hold the chosen answer up).

use super::LogRatios;
use crate::error::{Result, positive};
use crate::math::log_sigmoid;
use crate::outputs::PreferenceLoss;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`cal_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CalDpoConfig {
    /// β > 0. Default 0.002, the value of the authors' run.
    pub beta: f64,
}

impl Default for CalDpoConfig {
    fn default() -> Self {
        Self { beta: 0.002 }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( ρ_w − ρ_l ) + ½ ( ρ_w − 1/(2β) )² + ½ ( ρ_l + 1/(2β) )²
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0.
/// # Properties
/// * It is [`dpo_loss`](crate::dpo_loss) at β = 1 plus [`sppo_loss`](super::sppo::sppo_loss) with certain wins: β
///   is in the targets alone, not in the sigmoid.
/// * ∂L/∂ρ_w = −σ(ρ_l − ρ_w) + ρ_w − 1/(2β), which is −½ − 1/(2β) at the first step; ∂L/∂ρ_l is the opposite there.
/// * A pair that is seen one way only has a finite optimum: ρ_w = 1/(2β) + σ(−2ρ_w) and ρ_l = −ρ_w. DPO's has
///   none.
/// # Departures
/// From the authors' code none in the mean over a batch: there the squares are a mean over the batch, here each
/// pair has its own. Its log shows the policy's log-probabilities in place of rewards.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{CalDpoConfig, LogRatios, cal_dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = cal_dpo_loss(&ratios, &CalDpoConfig { beta: 0.5 })?;
/// let want = (1.0 + (-0.1f64).exp()).ln() + 0.5 * 1.4f64.powi(2) + 0.5 * 0.5f64.powi(2);
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch both log-ratios: each should settle near its target. With a small β the targets are far away and the
///   squares decide nearly everything.
/// # Try
/// * Find the log-ratios at which a single pair stops, and compare with DPO. Solution:
///   `tests/identities/since.rs::cal_dpo_is_dpo_and_sppo_and_stops`.
/// # Source
/// Xiao et al. 2024, arXiv:2412.14516; authors' code tengxiao1/Cal-DPO, `scripts/dpo_trainer.py`.
#[doc(alias = "calibrated direct preference optimization")]
pub fn cal_dpo_loss(ratios: &LogRatios, config: &CalDpoConfig) -> Result<PreferenceLoss> {
    positive("cal_dpo_loss", "beta", config.beta)?;
    let scores = ratios.scores();

    // −log σ( ρ_w − ρ_l )
    let preference = log_sigmoid(&scores.margin()?)?.neg()?;
    // ½ ( ρ_w − 1/(2β) )² + ½ ( ρ_l + 1/(2β) )²
    let target = 0.5 / config.beta;
    let missed = |score: &Tensor, target: f64| (score - target)?.sqr()? * 0.5;
    let squares = (missed(&scores.chosen, target)? + missed(&scores.rejected, -target)?)?;
    PreferenceLoss::new((preference + squares)?, &ratios.rewards(config.beta)?)
}
