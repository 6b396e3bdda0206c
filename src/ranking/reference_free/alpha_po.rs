//! AlphaPO: SimPO with another shape of the reward (2025, after the survey).
//!
//! In one sentence: bend the mean log-probability before answers are compared, so that the pull on likely
//! and unlikely answers differs.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | (1/│y│) log π_θ(y│x) | `means` | `[batch]` |
//! | α, β, γ | [`AlphaPoConfig`] | number |
//!
//! Read next: [`simpo`](super::simpo).

use super::simpo::RequiredLead;
use crate::error::{Result, positive, require};
use crate::log_probs::Pair;
use crate::math::{expm1, log_sigmoid};
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`alpha_po_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlphaPoConfig {
    /// β > 0. Default 2, as in [`SimpoConfig`](super::simpo::SimpoConfig).
    pub beta: f64,
    /// α, finite; 0 is SimPO. Default 0.25; the paper's own choice was not looked up.
    pub alpha: f64,
    /// γ or γ/β, as in [`SimpoConfig`](super::simpo::SimpoConfig).
    pub margin: RequiredLead,
}

impl Default for AlphaPoConfig {
    fn default() -> Self {
        Self {
            beta: 2.0,
            alpha: 0.25,
            margin: RequiredLead::GammaOverBeta(0.5),
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// r_α(y) = ( 1 − e^(−α·l̄) )/α,        l̄ = (1/│y│) log π_θ(y│x)
/// L = −log σ( β·r_α(y_w) − β·r_α(y_l) − γ )
/// ```
/// # Shapes
/// `means` `[batch]`: means of token log-probabilities
/// ([`TokenLogProbs::mean`](crate::TokenLogProbs::mean)). The loss and the rewards β·r_α are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and α and γ are finite,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless
/// both are f32 or f64 alike.
/// # Properties
/// * α → 0 is [`simpo_loss`](super::simpo::simpo_loss).
/// * dr_α/dl̄ = e^(−α·l̄) = p̄^(−α): with α > 0 an unlikely answer moves more, with α < 0 a likely one.
/// * r_α(0) = 0 for every α.
/// # Departures
/// * TRL 1.16 computes (1 − p^(−α))/α from p = e^l̄, which is NaN where p underflows and 12 % off at α =
///   10⁻⁶. Here it is one e^x − 1 that stays precise near 0.
/// * The exponent −α·l̄ stops at 80 in f32 and 700 in f64; the slope there stays that of the last
///   exponent.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{AlphaPoConfig, RequiredLead, alpha_po_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let means = Pair { chosen: at(-0.8)?, rejected: at(-1.5)? };
/// let config = AlphaPoConfig { beta: 2.0, alpha: 0.5, margin: RequiredLead::Gamma(0.3) };
/// let out = alpha_po_loss(&means, &config)?;
/// let reward = |mean: f64| (1.0 - (-0.5 * mean).exp()) / 0.5;
/// let margin = 2.0 * (reward(-0.8) - reward(-1.5)) - 0.3;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Rewards grow like e^{α·(−l̄)}: if their spread explodes, α is too large for the lengths and the model
///   at hand.
/// # Try
/// * Let α go to 0. Solution: `tests/identities/since.rs::alpha_po_becomes_simpo`.
/// # Source
/// Gupta et al. 2025, arXiv:2501.03884; huggingface/trl, `experimental/cpo` of release 1.16.0.
#[doc(alias = "alphapo")]
pub fn alpha_po_loss(means: &Pair<Tensor>, config: &AlphaPoConfig) -> Result<PreferenceLoss> {
    let function = "alpha_po_loss";
    positive(function, "beta", config.beta)?;
    let alpha = config.alpha;
    require(alpha.is_finite(), function, "alpha", "finite", alpha)?;
    let gamma = config.margin.gamma(function, config.beta)?;
    let means = Axes::new(function).pair("means", means)?;

    // β · ( 1 − e^{−α·l̄} )/α
    let reward = |mean: &Tensor| -> Result<Tensor> {
        match alpha == 0.0 {
            true => Ok((mean * config.beta)?),
            false => Ok((expm1(&(mean * -alpha)?)? * (-config.beta / alpha))?),
        }
    };
    let rewards = Pair {
        chosen: reward(&means.chosen)?,
        rejected: reward(&means.rejected)?,
    };
    // −log σ( … − γ )
    PreferenceLoss::new(log_sigmoid(&(rewards.margin()? - gamma)?)?.neg()?, &rewards)
}
