//! Robust DPO: an unbiased loss under flipped labels (2024, after the survey).
//!
//! In one sentence: subtract what flipped labels add, so that the expected loss on noisy labels is DPO's
//! loss on clean ones.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | β | [`RobustDpoConfig::beta`] | number |
//! | ε | [`RobustDpoConfig::flip_rate`] | number |
//!
//! Read next: [`dpo`](crate::ranking::dpo), whose `label_smoothing` adds the same term with the other
//! sign.

use super::LogRatios;
use crate::error::{Result, positive, require};
use crate::math::log_sigmoid;
use crate::outputs::PreferenceLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`robust_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RobustDpoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// ε in [0, ½): the share of labels that were flipped, known beforehand. Default 0.1; the paper leaves
    /// it to the data. 0 is DPO.
    #[doc(alias = "label_smoothing")]
    pub flip_rate: f64,
}

impl Default for RobustDpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            flip_rate: 0.1,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = [ −(1 − ε) · log σ(z) + ε · log σ(−z) ] / (1 − 2ε),        z = β · (ρ_w − ρ_l)
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and 0 ≤ ε < ½.
/// # Properties
/// * If labels are flipped at rate ε, the mean of L is the mean of DPO's loss on the clean labels, so the
///   optimum is that of clean labels.
/// * A pair that is seen with one label only has no optimum: L falls without a bound, with slope −ε/(1 −
///   2ε) as z → ∞. With ε = 0.1, β = 1 it is −12.5 at z = 100. The smoothing of
///   [`dpo_loss`](crate::dpo_loss) stops instead.
/// * At the first step L = ln 2 and ∂L/∂ρ_w = −β/2 · 1/(1 − 2ε), steeper than DPO's.
/// # Departures
/// None from the paper. TRL 1.16 calls ε `label_smoothing` and only warns outside [0, ½); here that is an
/// error, because at ½ the loss is infinite and beyond it the labels are reversed.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, RobustDpoConfig, robust_dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = robust_dpo_loss(&ratios, &RobustDpoConfig { beta: 1.0, flip_rate: 0.2 })?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// let want = (0.8 * lost(0.1) - 0.2 * lost(-0.1)) / 0.6;
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * A negative loss is no error here. A loss that falls steadily below 0 is the runaway of pairs seen
///   with one label: stop on held-out pairs.
/// # Try
/// * Flip labels at rate 0.2 and compare the optimum with that of clean labels; then show a single pair
///   one way only. Solution: `tests/optimum/since.rs::robust_dpo_undoes_flips_and_runs_away_on_one_label`.
/// # Source
/// Chowdhury et al. 2024, arXiv:2403.00409; huggingface/trl, `trainer/dpo_trainer.py` of release 1.16.0,
/// `robust`.
#[doc(alias = "rDPO")]
#[doc(alias = "provably robust DPO")]
pub fn robust_dpo_loss(ratios: &LogRatios, config: &RobustDpoConfig) -> Result<PreferenceLoss> {
    let function = "robust_dpo_loss";
    let epsilon = config.flip_rate;
    positive(function, "beta", config.beta)?;
    require(
        (0.0..0.5).contains(&epsilon),
        function,
        "flip_rate",
        "in [0, 0.5)",
        epsilon,
    )?;
    let rewards = ratios.rewards(config.beta)?;
    let margin = rewards.margin()?;

    // −(1 − ε) · log σ(z)
    let mut loss = (log_sigmoid(&margin)? * (epsilon - 1.0))?;
    // + ε · log σ(−z)
    if epsilon > 0.0 {
        loss = (loss + (log_sigmoid(&margin.neg()?)? * epsilon)?)?;
    }
    // / (1 − 2ε)
    PreferenceLoss::new((loss / (1.0 - 2.0 * epsilon))?, &rewards)
}
