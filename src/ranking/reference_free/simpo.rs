//! SimPO: no reference, means per token and a required lead (2024, after the survey).
//!
//! In one sentence: rank answers by the mean log-probability of their tokens, which is what decoding goes
//! by, and ask the better one to lead by a margin.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | (1/│y│) log π_θ(y│x) | `means.chosen`, `means.rejected` | `[batch]` |
//! | β | [`SimpoConfig::beta`] | number |
//! | γ | [`SimpoConfig::margin`] | number |
//!
//! Read next: [`cpo`](super::cpo), [`alpha_po`](super::alpha_po),
//! [`pairwise_reward_loss`](crate::pairwise_reward_loss) (the same margin on scores).

use crate::error::{Result, positive, require};
use crate::log_probs::Pair;
use crate::math::log_sigmoid;
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The lead that the chosen answer should have, in one of the two conventions in use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RequiredLead {
    /// γ, in the units of β times a log-probability: subtracted after the multiplication by β. The paper's γ,
    /// and TRL's `simpo_gamma`.
    Gamma(f64),
    /// γ/β, in nats per token: subtracted before it. The authors' code and HALOs: `gamma_beta_ratio`.
    GammaOverBeta(f64),
}

impl RequiredLead {
    /// γ, for the β beside it.
    pub(super) fn gamma(self, function: &'static str, beta: f64) -> Result<f64> {
        let (field, value, gamma) = match self {
            Self::Gamma(gamma) => ("margin.gamma", gamma, gamma),
            Self::GammaOverBeta(ratio) => ("margin.gamma_over_beta", ratio, ratio * beta),
        };
        require(value.is_finite(), function, field, "finite", value)?;
        Ok(gamma)
    }
}

/// Settings of [`simpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimpoConfig {
    /// β > 0. Default 2, the lower end of the authors' range of 2 to 10. TRL's default is 0.1, which suits
    /// sums.
    pub beta: f64,
    /// γ or γ/β. Default γ/β = 0.5, the upper end of the authors' range of 0.3 to 0.5; TRL's default is γ
    /// = 0.5.
    #[doc(alias = "gamma")]
    #[doc(alias = "simpo_gamma")]
    #[doc(alias = "gamma_beta_ratio")]
    pub margin: RequiredLead,
}

impl Default for SimpoConfig {
    fn default() -> Self {
        Self {
            beta: 2.0,
            margin: RequiredLead::GammaOverBeta(0.5),
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β · (1/│y_w│) log π_θ(y_w│x) − β · (1/│y_l│) log π_θ(y_l│x) − γ )
/// ```
/// # Shapes
/// `means` `[batch]`: means of token log-probabilities
/// ([`TokenLogProbs::mean`](crate::TokenLogProbs::mean)). The loss and the rewards, β times the means, are
/// `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and γ is finite,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless
/// both are f32 or f64 alike.
/// # Properties
/// * It is [`pairwise_reward_loss`](crate::pairwise_reward_loss) with margin γ, where β times means take
///   the place of scores. So it has that loss's optimum: a pair that is won with probability p ends at x =
///   β(l̄_w − l̄_l), e^x = [(2p − 1) + √((2p − 1)² + 4p(1 − p)e^(−2γ))]/(2(1 − p)e^(−γ)), beyond its
///   log-odds.
/// * With γ = 0 and sums in place of means it is [`dpo_loss`](crate::dpo_loss) without a reference.
/// * Nothing ties the policy to a start: it is held by early stopping alone.
/// # Departures
/// None from the paper. TRL computes this loss in its CPO trainer, whose default adds the likelihood of
/// the chosen answer with weight 1 (`cpo_alpha`); here nothing is added.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{RequiredLead, SimpoConfig, simpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let means = Pair { chosen: at(-0.8)?, rejected: at(-1.5)? };
/// let config = SimpoConfig { beta: 2.0, margin: RequiredLead::GammaOverBeta(0.5) };
/// let out = simpo_loss(&means, &config)?;
/// let margin = 2.0 * (-0.8 + 1.5) - 2.0 * 0.5;
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The loss of equal means is log(1 + e^γ), not ln 2. Watch both means: without a reference they may
///   fall together.
/// # Try
/// * Train one pair that is won nine times in ten. Where does the margin stop? Solution:
///   `tests/optimum/since.rs::a_required_lead_stretches_the_margin_beyond_the_log_odds`.
/// # Source
/// Meng et al. 2024, arXiv:2405.14734; authors' code princeton-nlp/SimPO.
#[doc(alias = "simple preference optimization")]
#[doc(alias = "gamma_beta_ratio")]
pub fn simpo_loss(means: &Pair<Tensor>, config: &SimpoConfig) -> Result<PreferenceLoss> {
    let function = "simpo_loss";
    positive(function, "beta", config.beta)?;
    let gamma = config.margin.gamma(function, config.beta)?;
    let means = Axes::new(function).pair("means", means)?;

    // β · means
    let rewards = Pair {
        chosen: (means.chosen * config.beta)?,
        rejected: (means.rejected * config.beta)?,
    };
    // −log σ( … − γ )
    PreferenceLoss::new(log_sigmoid(&(rewards.margin()? - gamma)?)?.neg()?, &rewards)
}
