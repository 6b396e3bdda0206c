//! Hinge with a reference: SLiC's rank loss on log-ratios (2023, after the survey).
//!
//! In one sentence: a pair pushes evenly until its implicit rewards are 1 apart, and then not at all.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | γ = 1/β of RSO | [`HingeDpoConfig::beta`] | number |
//!
//! Read next: [`slic`](crate::ranking::slic) (without a reference).

use super::LogRatios;
use crate::error::{Result, positive};
use crate::math::hinge;
use crate::outputs::PreferenceLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`hinge_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HingeDpoConfig {
    /// β > 0: the lead asked for is 1/β nats. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
}

impl Default for HingeDpoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = max( 0, 1 − β · (ρ_w − ρ_l) )
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0.
/// # Properties
/// * ∂L/∂ρ_w = −β while the lead is below 1/β, and 0 from there on, at the kink too.
/// * Without a reference it is [`slic_rank_loss`](crate::slic_rank_loss) with δ = 1/β, times β.
/// * The optimum is a whole set of policies; where training stops in it depends on the start.
/// # Departures
/// None from TRL 1.16's `hinge`. The reference is RSO's; SLiC-HF, which TRL also names, has none.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{HingeDpoConfig, LogRatios, hinge_dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = hinge_dpo_loss(&ratios, &HingeDpoConfig { beta: 0.5 })?;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 - 0.5 * 0.1)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the share of pairs whose loss is exactly 0: they have their lead and no longer train.
/// # Try
/// * Compare with SLiC's rank loss on the log-ratios. Solution:
///   `tests/identities/since.rs::the_hinge_is_slic_on_log_ratios`.
/// # Source
/// Liu et al. 2023 (RSO), arXiv:2309.06657; Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425.
#[doc(alias = "RSO")]
#[doc(alias = "SLiC")]
pub fn hinge_dpo_loss(ratios: &LogRatios, config: &HingeDpoConfig) -> Result<PreferenceLoss> {
    positive("hinge_dpo_loss", "beta", config.beta)?;
    let rewards = ratios.rewards(config.beta)?;

    // max( 0, 1 − β · (ρ_w − ρ_l) )
    PreferenceLoss::new(hinge(&rewards.margin()?.affine(-1.0, 1.0)?)?, &rewards)
}
