//! A pairwise reward model with smoothed labels (after the survey).
//!
//! In one sentence: let each comparison be wrong with a small probability, so that scores stop growing on
//! comparisons without noise.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r_w, r_l | `scores` | `[batch]` |
//! | ε | [`SmoothedRewardConfig::label_smoothing`] | number |
//!
//! Read next: [`pairwise_reward_loss`](crate::pairwise_reward_loss).

use crate::error::{Result, require};
use crate::log_probs::Pair;
use crate::math::smoothed_logistic;
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`smoothed_reward_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothedRewardConfig {
    /// ε in [0, ½): the share of comparisons assumed to be wrong. Default 0.1. 0 is the plain loss.
    pub label_smoothing: f64,
}

impl Default for SmoothedRewardConfig {
    fn default() -> Self {
        Self {
            label_smoothing: 0.1,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −(1 − ε) · log σ( r_w − r_l ) − ε · log σ( r_l − r_w )
/// ```
/// # Shapes
/// `scores` `[batch]`. The loss is `[batch]`; the rewards beside it are the scores.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless 0 ≤ ε < ½, [`Error::Shape`](crate::Error::Shape)
/// if sizes differ, [`Error::DType`](crate::Error::DType) unless both are f32 or f64 alike.
/// # Properties
/// * It is [`dpo_loss`](crate::dpo_loss) with the same ε, β = 1 and no reference, on scores. ε = 0 is
///   [`pairwise_reward_loss`](crate::pairwise_reward_loss).
/// * On a lone pair without noise the scores end log((1 − ε)/ε) apart.
/// # Departures
/// None from GRM's `pos_reg`-free form. The same code also has a term −w · log σ of the batch mean of r_w;
/// it depends on the batch and is not here.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::online::reward_models::{SmoothedRewardConfig, smoothed_reward_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let scores = Pair { chosen: at(1.5)?, rejected: at(0.5)? };
/// let out = smoothed_reward_loss(&scores, &SmoothedRewardConfig { label_smoothing: 0.2 })?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// assert!((out.loss.to_vec1::<f64>()?[0] - (0.8 * lost(1.0) + 0.2 * lost(-1.0))).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Yang et al. 2024 (GRM), arXiv:2406.10216; authors' code YangRui2015/Generalizable-Reward-Model,
/// `reward_trainer.py`.
#[doc(alias = "label smoothing")]
pub fn smoothed_reward_loss(
    scores: &Pair<Tensor>,
    config: &SmoothedRewardConfig,
) -> Result<PreferenceLoss> {
    let function = "smoothed_reward_loss";
    let epsilon = config.label_smoothing;
    let inside = (0.0..0.5).contains(&epsilon);
    require(inside, function, "label_smoothing", "in [0, 0.5)", epsilon)?;
    let scores = Axes::new(function).pair("scores", scores)?;
    let margin = scores.margin()?;

    // −(1 − ε) · log σ( r_w − r_l ) − ε · log σ( r_l − r_w )
    PreferenceLoss::new(smoothed_logistic(&margin, epsilon)?, &scores)
}
