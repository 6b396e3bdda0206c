//! DiscoPOP: a loss found by a language model (2024, after the survey).
//!
//! In one sentence: a blend of DPO's logistic loss and an exponential one, where a gate on the margin
//! itself decides which.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | β, τ | [`DiscopopConfig::beta`], [`DiscopopConfig::tau`] | number |
//!
//! Read next: [`dpo`](crate::ranking::dpo).

use super::LogRatios;
use crate::error::{Result, positive};
use crate::known::with_slope;
use crate::math::{at_most, sigmoid, softplus, weighted};
use crate::outputs::PreferenceLoss;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`discopop_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscopopConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// τ > 0, the temperature of the gate. Default 0.05, TRL's value.
    pub tau: f64,
}

impl Default for DiscopopConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            tau: 0.05,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = (1 − μ) · ( −log σ(z) ) + μ · e^(−z),        z = β · (ρ_w − ρ_l),  μ = σ(z/τ)
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and τ > 0.
/// # Properties
/// * For z ≫ τ it is e^(−z), for z ≪ −τ it is DPO's loss.
/// * It is not monotone: with τ = 0.05 it rises between z = −0.118 and z = 0.072. At the first step, z =
///   0, ∂L/∂z = −¾ + (1 − ln 2)/(4τ) = 0.784: gradient descent widens the margin in the wrong direction
///   there.
/// * L(0) = (ln 2 + 1)/2.
/// * With τ < 1 the product μ · e^(−z) falls to 0 as z → −∞, although e^(−z) alone overflows. Value and
///   slope are finite for every z.
/// # Departures
/// None from the paper. TRL 1.16 multiplies the two factors after e^(−z) has overflowed and gives NaN at z
/// = −100 in f32; here the product is one exponential.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{DiscopopConfig, LogRatios, discopop_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = discopop_loss(&ratios, &DiscopopConfig { beta: 1.0, tau: 0.5 })?;
/// let (z, gate) = (0.1f64, 1.0 / (1.0 + (-0.1f64 / 0.5).exp()));
/// let want = (1.0 - gate) * (1.0 + (-z).exp()).ln() + gate * (-z).exp();
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Accuracy below ½ after the first steps is the wrong sign of the slope near 0. Pairs leave that region
///   only through noise or other pairs.
/// # Try
/// * Find where the slope changes its sign. Solution:
///   `tests/values/slips.rs::discopop_pushes_the_wrong_way_from_a_fresh_start`.
/// # Source
/// Lu et al. 2024, arXiv:2406.08414, eq. 5.
#[doc(alias = "log-ratio modulated loss")]
pub fn discopop_loss(ratios: &LogRatios, config: &DiscopopConfig) -> Result<PreferenceLoss> {
    let function = "discopop_loss";
    positive(function, "beta", config.beta)?;
    positive(function, "tau", config.tau)?;
    let rewards = ratios.rewards(config.beta)?;
    PreferenceLoss::new(blend(&rewards.margin()?, config.tau)?, &rewards)
}

/// (1 − μ) · ( −log σ(z) ) + μ · e^(−z), and its slope.
fn blend(z: &Tensor, tau: f64) -> Result<Tensor> {
    let plain = z.detach();
    let scaled = (&plain / tau)?;
    let (gate, rest) = (sigmoid(&scaled)?, sigmoid(&scaled.neg()?)?);
    let logistic = softplus(&plain.neg()?)?;

    // μ · e^{−z} = e^{ z⁻(1/τ − 1) − z⁺ − log(1 + e^{−|z|/τ}) }, where z = z⁺ + z⁻
    let (above, below) = (plain.maximum(0.0)?, plain.minimum(0.0)?);
    let tail = softplus(&scaled.abs()?.neg()?)?;
    let power = ((weighted(&below, 1.0 / tau - 1.0)? - above)? - tail)?;
    let exponential = power.exp()?;

    // far below 0 a factor of the slope is 0 and must stay so beside an infinite one
    let finite = at_most(&logistic, FAR)?;
    let value = ((&rest * &logistic)? + &exponential)?;
    // −(1 − μ) σ(−z) − μ e^{−z} + (1 − μ)(μ e^{−z} − μ · −log σ(z))/τ
    let pull = (&rest * sigmoid(&plain.neg()?)?)?;
    let turn = ((&rest * (&exponential - (&gate * finite)?)?)? / tau)?;
    let slope = ((turn - pull)? - &exponential)?;
    Ok(with_slope(z, value, move |grad| grad * &slope)?)
}

/// Beyond this a logistic loss meets a factor of 0.
const FAR: f64 = 1e6;
