//! SPPO: each answer's log-ratio has a target of its own (2024, after the survey).
//!
//! In one sentence: regress each log-ratio on how often its answer beats the current policy, so that both
//! answers move to where they should be and not only apart.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | P(y ≻ π_t) | `wins` | `[batch]` |
//! | η = 1/β | [`SppoConfig::beta`] | number |
//!
//! Read next: [`ipo`](super::ipo), [`nca`](super::nca).

use super::LogRatios;
use crate::error::{Result, positive};
use crate::log_probs::Pair;
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`sppo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SppoConfig {
    /// β > 0; the paper writes η = 1/β. Default 0.1, TRL's value.
    pub beta: f64,
}

impl Default for SppoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = ½ ( ρ_w − (P_w − ½)/β )² + ½ ( ρ_l − (P_l − ½)/β )²
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`. `wins` `[batch]`: the probabilities with which the chosen and the rejected
/// answer beat an answer of the current policy. They are constants.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::DType`](crate::Error::DType) unless all are f32 or all are f64. The values of
/// `wins` are not checked.
/// # Properties
/// * ∂L/∂ρ_w = ρ_w − (P_w − ½)/β, which is −1/(2β) at the first step for a certain win. The two answers do
///   not see each other.
/// * With P = 1 and 0, two times this loss is TRL's `sppo_hard`; it is also the calibration term of
///   [`cal_dpo_loss`](super::cal_dpo::cal_dpo_loss).
/// * With P = 1 and 0 it is ¼ of [`ipo_loss`](super::ipo::ipo_loss) at β/2 plus ¼(ρ_w + ρ_l)²: IPO fixes
///   the difference alone, SPPO the sum too.
/// * The exact update π_{t+1} ∝ π_t · e^{P/β} needs a normalizer log Z that differs between prompts; the
///   loss puts 1/(2β) in its place.
/// # Departures
/// None from the authors' code. TRL 1.16's `sppo_hard` has P = 1 and 0 and no ½: multiply this loss by 2.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, SppoConfig, sppo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let wins = Pair { chosen: at(0.9)?, rejected: at(0.2)? };
/// let out = sppo_loss(&ratios, &wins, &SppoConfig { beta: 0.5 })?;
/// let want = 0.5 * (-0.4 - 0.8f64).powi(2) + 0.5 * (-0.5 + 0.6f64).powi(2);
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch both log-ratios: the chosen one should rise to (P − ½)/β. If both fall, the win probabilities
///   do not belong to the current policy.
/// # Try
/// * Compare the two slopes with IPO's at the first step. Solution:
///   `tests/identities/since.rs::hard_sppo_starts_with_the_slope_of_ipo_by_halves`.
/// # Source
/// Wu et al. 2024, arXiv:2405.00675; authors' code uclaml/SPPO.
#[doc(alias = "self-play preference optimization")]
#[doc(alias = "sppo_hard")]
pub fn sppo_loss(
    ratios: &LogRatios,
    wins: &Pair<Tensor>,
    config: &SppoConfig,
) -> Result<PreferenceLoss> {
    let function = "sppo_loss";
    positive(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    let scores = axes.pair("ratios", ratios.scores())?;
    let wins = axes.pair("wins", wins)?.detach();

    // ½ ( ρ − (P − ½)/β )²
    let missed = |score: &Tensor, wins: &Tensor| -> Result<Tensor> {
        let target = wins.affine(1.0 / config.beta, -0.5 / config.beta)?;
        Ok(((score - target)?.sqr()? * 0.5)?)
    };
    let loss = (missed(&scores.chosen, &wins.chosen)? + missed(&scores.rejected, &wins.rejected)?)?;
    PreferenceLoss::new(loss, &ratios.rewards(config.beta)?)
}
