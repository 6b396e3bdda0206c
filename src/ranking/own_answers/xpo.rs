//! XPO: online DPO with a bonus for leaving the reference (2024, after the survey).
//!
//! In one sentence: besides DPO on a pair, make answers of the reference less likely, so that the policy
//! tries what the reference does not.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | log π_θ(ỹ│x), ỹ ~ π_ref | `reference_answers`: sums over tokens | `[batch]` |
//! | α | [`XpoConfig::alpha`] | number |
//!
//! Read next: [`online_dpo`](super::online_dpo).

use crate::error::{Result, non_negative, positive};
use crate::math::{log_sigmoid, weighted};
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`xpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct XpoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// α ≥ 0, the weight of the bonus. Default 10⁻⁵, TRL's value. 0 is DPO.
    pub alpha: f64,
}

impl Default for XpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 1e-5,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β·(ρ_w − ρ_l) ) + α · log π_θ(ỹ│x)
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`](crate::ranking::LogRatios::sums). `reference_answers` `[batch]`: the
/// policy's log-probability of an answer that was drawn from the reference. The loss and the rewards β·ρ
/// are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and α ≥ 0,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * α = 0 is [`dpo_loss`](crate::dpo_loss).
/// * The bonus has the slope α whatever the policy: it lowers the likelihood of reference answers without
///   a bound, so α is small.
/// # Departures
/// None from TRL 1.13.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, XpoConfig, xpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = xpo_loss(&ratios, &at(-6.0)?, &XpoConfig { beta: 1.0, alpha: 0.01 })?;
/// let want = (1.0 + (-0.1f64).exp()).ln() + 0.01 * -6.0;
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the policy's log-probability of reference answers: it should fall slowly. A collapse means α is
///   too large.
/// # Try
/// * Turn the bonus off. Solution: `tests/identities/since.rs::without_its_bonus_xpo_is_dpo`.
/// # Source
/// Xie et al. 2024, arXiv:2405.21046; huggingface/trl, `experimental/xpo` of release 1.13.0.
#[doc(alias = "exploratory preference optimization")]
pub fn xpo_loss(
    ratios: &LogRatios,
    reference_answers: &Tensor,
    config: &XpoConfig,
) -> Result<PreferenceLoss> {
    let function = "xpo_loss";
    positive(function, "beta", config.beta)?;
    non_negative(function, "alpha", config.alpha)?;
    let mut axes = Axes::new(function);
    axes.pair("ratios", ratios.scores())?;
    let drawn = axes.float("reference_answers", reference_answers, &["batch"])?;
    let rewards = ratios.rewards(config.beta)?;

    // −log σ( β·(ρ_w − ρ_l) )
    let preference = log_sigmoid(&rewards.margin()?)?.neg()?;
    // + α · log π_θ(ỹ)
    PreferenceLoss::new((preference + weighted(&drawn, config.alpha)?)?, &rewards)
}
