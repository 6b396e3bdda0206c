//! SPIN: the data against the model's own answers (2024, after the survey).
//!
//! In one sentence: take the demonstration as the chosen answer and the previous iterate's own answer as
//! the rejected one, until the model cannot tell them apart.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | y ~ data, y′ ~ π_t | chosen, rejected | `[batch]` |
//! | λ log(π_θ/π_t) | [`LogRatios`], with the previous iterate as reference | `[batch]` |
//! | λ | [`SpinConfig::beta`] | number |
//!
//! Read next: [`dpo`](crate::ranking::dpo).

use crate::error::{Result, positive};
use crate::math::log_sigmoid;
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use serde::{Deserialize, Serialize};

/// Settings of [`spin_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpinConfig {
    /// β > 0, λ in the paper. Default 0.1, the authors' value.
    pub beta: f64,
}

impl Default for SpinConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each pair of a demonstration and an own answer.
///
/// # Equation
/// ```text
/// L = −log σ( β·(ρ_w − ρ_l) )
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`](crate::ranking::LogRatios::sums). The reference is the previous
/// iterate, from which the rejected answers were drawn. The loss and the rewards β·ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0.
/// # Properties
/// * It is [`dpo_loss`](crate::dpo_loss); what is new is where the answers come from.
/// * Where π_t is the distribution of the data, demonstrations and own answers have the same distribution
///   and the expected gradient at π = π_t is 0: the data is the fixed point. Elsewhere it is not.
/// * It learns nothing that demonstrations do not hold.
/// # Departures
/// None. The paper allows any convex decreasing loss of the margin; the authors' code has this one and a
/// hinge, which is [`hinge_dpo_loss`](crate::ranking::hinge_dpo_loss).
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, SpinConfig, spin_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = spin_loss(&ratios, &SpinConfig { beta: 1.0 })?;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + (-0.1f64).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The accuracy of `out.rewards` is how well the model tells data from own answers. Near ½ after
///   training it is done.
/// # Try
/// * Start at the data and elsewhere. Solution:
///   `tests/optimum/since.rs::the_data_is_the_fixed_point_of_spin`.
/// # Source
/// Chen et al. 2024, arXiv:2401.01335; authors' code uclaml/SPIN.
#[doc(alias = "self-play fine-tuning")]
pub fn spin_loss(ratios: &LogRatios, config: &SpinConfig) -> Result<PreferenceLoss> {
    positive("spin_loss", "beta", config.beta)?;
    let rewards = ratios.rewards(config.beta)?;

    // −log σ( β·(ρ_w − ρ_l) )
    PreferenceLoss::new(log_sigmoid(&rewards.margin()?)?.neg()?, &rewards)
}
