//! GRM: a reward model that keeps its language model (2024, after the survey).
//!
//! In one sentence: besides the comparison of scores, train the language-model head of the same trunk on
//! the same answers, so that the trunk stays general.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r_w, r_l | `scores` | `[batch]` |
//! | log π_θ(y_w│x), log π_θ(y_l│x) | `policy`: sums over tokens | `[batch]` |
//! | α | [`GrmConfig::weight`] | number |
//!
//! Read next: [`pairwise_reward_loss`](crate::pairwise_reward_loss), [`dpo_loss`](crate::dpo_loss).

use crate::error::{Error, Result, positive, require};
use crate::log_probs::Pair;
use crate::math::{log_sigmoid, weighted};
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The term of the language-model head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GrmAuxiliary {
    /// DPO of the pair, with or without a reference: −log σ( β·(ρ_w − ρ_l) ).
    Dpo {
        /// β > 0.
        beta: f64,
    },
    /// The likelihood of the chosen answer: −log π(y_w).
    Sft,
    /// Its logistic form: −log σ( β · log π(y_w) ).
    LogSigmoid {
        /// β > 0.
        beta: f64,
    },
}

/// Settings of [`grm_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrmConfig {
    /// α in [0, 1], the share of the auxiliary term. Default 0.01, the authors' value.
    pub weight: f64,
    /// The auxiliary term. Default the likelihood of the chosen answer.
    pub auxiliary: GrmAuxiliary,
}

impl Default for GrmConfig {
    fn default() -> Self {
        Self {
            weight: 0.01,
            auxiliary: GrmAuxiliary::Sft,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = (1 − α) · ( −log σ( r_w − r_l ) ) + α · aux
/// ```
/// # Shapes
/// All `[batch]`; `policy` and `reference` hold sums of token log-probabilities. The reference is a
/// constant, which only the term of DPO reads; `None` is the reference-free form. The loss is `[batch]`;
/// the rewards beside it are the scores.
/// # Errors
/// [`Error::Parameter`] unless 0 ≤ α ≤ 1 and β > 0,
/// [`Error::Shape`] if sizes differ, [`Error::DType`] unless all
/// are f32 or all are f64, [`Error::Argument`] for a reference beside a term that
/// reads none.
/// # Properties
/// * α = 0 is [`pairwise_reward_loss`](crate::pairwise_reward_loss), α = 1 the auxiliary term alone.
/// * The scores and the policy meet only in the trunk: as inputs of this loss they do not see each other.
/// # Departures
/// None from the authors' code, whose terms are sums over tokens.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::online::reward_models::{GrmAuxiliary, GrmConfig, grm_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let scores = Pair { chosen: at(1.5)?, rejected: at(0.5)? };
/// let policy = Pair { chosen: at(-3.0)?, rejected: at(-4.0)? };
/// let config = GrmConfig { weight: 0.2, auxiliary: GrmAuxiliary::Dpo { beta: 0.5 } };
/// let out = grm_loss(&scores, &policy, None, &config)?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// assert!((out.loss.to_vec1::<f64>()?[0] - (0.8 * lost(1.0) + 0.2 * lost(0.5))).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Yang et al. 2024, arXiv:2406.10216; authors' code YangRui2015/Generalizable-Reward-Model,
/// `reward_trainer.py`.
#[doc(alias = "generalizable reward model")]
pub fn grm_loss(
    scores: &Pair<Tensor>,
    policy: &Pair<Tensor>,
    reference: Option<&Pair<Tensor>>,
    config: &GrmConfig,
) -> Result<PreferenceLoss> {
    let function = "grm_loss";
    let alpha = config.weight;
    require(
        (0.0..=1.0).contains(&alpha),
        function,
        "weight",
        "in [0, 1]",
        alpha,
    )?;
    let mut axes = Axes::new(function);
    let scores = axes.pair("scores", scores)?;
    let policy = axes.pair("policy", policy)?;

    // aux
    let auxiliary = match config.auxiliary {
        GrmAuxiliary::Dpo { beta } => {
            positive(function, "auxiliary.dpo.beta", beta)?;
            let mut margin = policy.margin()?;
            if let Some(reference) = reference {
                let reference = axes.pair("reference", reference)?.detach();
                margin = (margin - reference.margin()?)?;
            }
            log_sigmoid(&(margin * beta)?)?.neg()?
        }
        _ if reference.is_some() => {
            let problem = "is given, but only the auxiliary term of DPO reads one";
            return Err(Error::argument(function, "reference", problem));
        }
        GrmAuxiliary::Sft => policy.chosen.neg()?,
        GrmAuxiliary::LogSigmoid { beta } => {
            positive(function, "auxiliary.log_sigmoid.beta", beta)?;
            log_sigmoid(&(&policy.chosen * beta)?)?.neg()?
        }
    };
    // (1 − α) · ( −log σ( r_w − r_l ) ) + α · aux
    let comparison = log_sigmoid(&scores.margin()?)?.neg()?;
    let loss = (weighted(&comparison, 1.0 - alpha)? + weighted(&auxiliary, alpha)?)?;
    PreferenceLoss::new(loss, &scores)
}
