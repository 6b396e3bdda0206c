//! R-DPO: DPO with a price on length (2024, after the survey).
//!
//! In one sentence: let a longer chosen answer count as ahead already, so that the policy does not learn
//! length in place of quality.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | │y_w│, │y_l│ | `lengths` | `[batch]` |
//! | α | [`RDpoConfig::alpha`] | number |
//!
//! Read next: [`length_normalized`](crate::ranking::reference::length_normalized) (divides instead).

use crate::error::{Result, positive, require};
use crate::log_probs::Pair;
use crate::math::log_sigmoid;
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`r_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RDpoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// α, the price of a token in the units of β times a log-ratio, finite. Default 0.01; the paper
    /// searches it. 0 is DPO, and below 0 length is rewarded.
    pub alpha: f64,
}

impl Default for RDpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 0.01,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β·(ρ_w − ρ_l) + α·(│y_w│ − │y_l│) )
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`](crate::ranking::LogRatios::sums). `lengths` `[batch]`, constants. The
/// loss is `[batch]`, and so are the rewards β·ρ + α·│y│, which are those of an answer before the price.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and α is finite,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * It is DPO at a shifted margin: the optimum on Bradley–Terry labels is π ∝ π_ref · e^{(r − α│y│)/β},
///   the reward less α per token.
/// * With equal lengths, or α = 0, it is [`dpo_loss`](crate::dpo_loss).
/// # Departures
/// None known. The sign of α is derived here from that optimum; there is no released code.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, RDpoConfig, r_dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let lengths = Pair { chosen: at(9.0)?, rejected: at(4.0)? };
/// let out = r_dpo_loss(&ratios, &lengths, &RDpoConfig { beta: 1.0, alpha: 0.1 })?;
/// let margin = 0.1 + 0.1 * 5.0;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean length of sampled answers beside the held-out accuracy: α is right when the first
///   stops growing and the second does not fall.
/// # Try
/// * Train with rewards that a length pays for. Solution:
///   `tests/optimum/since.rs::r_dpo_takes_the_price_of_length_off_the_reward`.
/// # Source
/// Park et al. 2024, arXiv:2403.19159, read in a summary, not in the paper.
#[doc(alias = "length-regularized DPO")]
pub fn r_dpo_loss(
    ratios: &LogRatios,
    lengths: &Pair<Tensor>,
    config: &RDpoConfig,
) -> Result<PreferenceLoss> {
    let function = "r_dpo_loss";
    let alpha = config.alpha;
    positive(function, "beta", config.beta)?;
    require(alpha.is_finite(), function, "alpha", "finite", alpha)?;
    let mut axes = Axes::new(function);
    axes.pair("ratios", ratios.scores())?;
    let lengths = axes.pair("lengths", lengths)?.detach();

    // β·ρ + α·│y│
    let rewards = ratios.rewards(config.beta)?;
    let rewards = Pair {
        chosen: (rewards.chosen + (lengths.chosen * alpha)?)?,
        rejected: (rewards.rejected + (lengths.rejected * alpha)?)?,
    };
    // −log σ( … )
    PreferenceLoss::new(log_sigmoid(&rewards.margin()?)?.neg()?, &rewards)
}
