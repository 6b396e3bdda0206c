//! f-DPO: another divergence than the reverse KL between policy and reference (2023, after the survey).
//!
//! In one sentence: DPO's implicit reward is the derivative of the divergence that holds the policy back, so
//! another divergence gives another score of the same log-ratio.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios::sums`] | `[batch]` |
//! | f′ | [`FDivergence::score`], or [`LogRatios::scored`] | `[batch]` |
//! | β | [`FDpoConfig::beta`] | number |
//!
//! Read next: [`dpo`](crate::ranking::dpo), [`ipo`](super::ipo).

pub use super::score::FDivergence;

use super::LogRatios;
use crate::error::{Result, positive};
use crate::math::log_sigmoid;
use crate::outputs::PreferenceLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`f_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FDpoConfig {
    /// β > 0. Default 0.1, as in DPO.
    pub beta: f64,
    /// The divergence. Default the reverse KL, which is DPO.
    pub divergence: FDivergence,
}

impl Default for FDpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            divergence: FDivergence::ReverseKl,
        }
    }
}

/// The loss of each pair under the score of a divergence.
///
/// # Equation
/// ```text
/// L = −log σ( β · s(ρ_w) − β · s(ρ_l) ),        s = f′ up to a constant
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`]. Loss and rewards β · s(ρ) are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and α is finite;
/// [`Error::Argument`](crate::Error::Argument) if the ratios were divided by lengths.
/// # Properties
/// * The reverse KL is [`dpo_loss`](crate::dpo_loss), and so is α → 1. α = 0 is the forward KL.
/// * All scores have slope 1 at ρ = 0 but Jensen–Shannon's, whose slope is ½: at the first step the others
///   have DPO's gradient.
/// * [`LogRatios::scored`] puts the same score in front of every loss of a difference: IPO, hinge, EXO,
///   robust DPO, DiscoPOP, length-normalized DPO. Losses that read each answer alone (NCA, BCO, APO, SPPO)
///   rely on a normalizer that only the reverse KL has as a constant.
/// * The forward KL of a rejected answer that lost k nats pulls like e^k: it mends large losses of mass
///   first.
/// # Departures
/// TRL 1.16 stops the exponents at 80 and loses the gradient there; its α-divergence has no f64. Here the
/// exponent stops as late as the type allows and the slope stays. The forward KL of TRL does not stop and
/// gives NaN below ρ ≈ −88 in f32.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{FDivergence, FDpoConfig, LogRatios, f_dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?;
///
/// let config = FDpoConfig { beta: 1.0, divergence: FDivergence::ForwardKl };
/// let loss = f_dpo_loss(&ratios, &config)?.loss.to_vec1::<f64>()?[0];
/// // s(−0.4) = 1 − e^0.4, s(−0.5) = 1 − e^0.5
/// let margin = 0.5f64.exp() - 0.4f64.exp();
/// assert!((loss - (1.0 + (-margin).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * `out.rewards` are β · s(ρ), not β · ρ: log the log-ratios themselves beside them.
/// * A loss of a single pair that dwarfs the batch, with the forward KL, is an answer that the policy has
///   nearly dropped.
/// # Try
/// * Compare the slopes of all four scores at ρ = 0 and at ρ = −3. Solution:
///   `tests/identities/since.rs::every_score_starts_with_the_slope_of_the_log_ratio_but_jensen_shannon`.
/// # Source
/// Wang et al. 2023, arXiv:2309.16240v1, eq. 8 and table 1.
#[doc(alias = "f-DPO")]
#[doc(alias = "forward KL")]
#[doc(alias = "Jensen-Shannon")]
#[doc(alias = "alpha divergence")]
pub fn f_dpo_loss(ratios: &LogRatios, config: &FDpoConfig) -> Result<PreferenceLoss> {
    positive("f_dpo_loss", "beta", config.beta)?;
    let rewards = ratios.scored(config.divergence)?.rewards(config.beta)?;

    // −log σ( β · s(ρ_w) − β · s(ρ_l) )
    PreferenceLoss::new(log_sigmoid(&rewards.margin()?)?.neg()?, &rewards)
}
