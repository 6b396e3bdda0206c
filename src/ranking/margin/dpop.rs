//! DPOP, also called DPO-positive or Smaug (2024, after the survey).
//!
//! In one sentence: DPO, but a chosen answer that has become less likely than under the reference takes λ
//! times its loss off the margin.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | λ | [`DpopConfig::lambda`] | number |
//!
//! Read next: [`rpo`](crate::ranking::reference::rpo) (holds the chosen answer by its likelihood).

use crate::error::{Result, non_negative, positive};
use crate::math::{hinge, log_sigmoid, weighted};
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use serde::{Deserialize, Serialize};

/// Settings of [`dpop_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpopConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// λ ≥ 0. Default 50, the paper's value. 0 is DPO.
    pub lambda: f64,
}

impl Default for DpopConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            lambda: 50.0,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β·( ρ_w − ρ_l − λ · max(0, −ρ_w) ) )
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`](crate::ranking::LogRatios::sums). The loss and the rewards β·ρ are
/// `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and λ ≥ 0.
/// # Properties
/// * Where ρ_w ≥ 0 it is [`dpo_loss`](crate::dpo_loss).
/// * Where ρ_w < 0, ∂L/∂ρ_w is 1 + λ times DPO's: −β(1 + λ) σ(−z).
/// * The kink is at ρ_w = 0, where training starts. There the slope is DPO's.
/// # Departures
/// The penalty is inside the logistic function, as in the authors' corrected text (abacusai/smaug#2); the
/// first version closed the bracket before it.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{DpopConfig, LogRatios, dpop_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = dpop_loss(&ratios, &DpopConfig { beta: 0.1, lambda: 5.0 })?;
/// let margin = 0.1 * (0.1 - 5.0 * 0.4);
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the share of pairs with a negative chosen reward: it should fall to near 0 within the first
///   steps.
/// # Try
/// * Step off the kink in both directions. Solution:
///   `tests/identities/since.rs::above_its_reference_a_chosen_answer_makes_dpop_dpo`.
/// # Source
/// Pal et al. 2024, arXiv:2402.13228.
#[doc(alias = "DPO-positive")]
#[doc(alias = "Smaug")]
pub fn dpop_loss(ratios: &LogRatios, config: &DpopConfig) -> Result<PreferenceLoss> {
    let function = "dpop_loss";
    positive(function, "beta", config.beta)?;
    non_negative(function, "lambda", config.lambda)?;
    let rewards = ratios.rewards(config.beta)?;

    // λ · max(0, −ρ_w)
    let lost = hinge(&ratios.scores().chosen.neg()?)?;
    let penalty = weighted(&lost, config.beta * config.lambda)?;
    // −log σ( β·( … ) )
    PreferenceLoss::new(
        log_sigmoid(&(rewards.margin()? - penalty)?)?.neg()?,
        &rewards,
    )
}
