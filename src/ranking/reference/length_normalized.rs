//! Length-normalized DPO: the margin is one of means per token (2024, after the survey).
//!
//! In one sentence: divide each log-ratio by the length of its answer before DPO compares them, so that a
//! long answer does not lead by its length.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | │y_w│, │y_l│ | `lengths` | `[batch]` |
//! | β | [`LengthNormalizedDpoConfig::beta`] | number |
//!
//! Read next: [`simpo`](crate::ranking::reference_free::simpo) (the same without a reference).

use super::LogRatios;
use crate::error::{Result, positive};
use crate::log_probs::Pair;
use crate::math::log_sigmoid;
use crate::outputs::PreferenceLoss;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`length_normalized_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LengthNormalizedDpoConfig {
    /// β > 0. Default 0.1, the value of TRL's `sigmoid_norm`, which it shares with the losses on sums. A
    /// mean per token is smaller than a sum by the length of the answer, so useful values are larger by as
    /// much.
    pub beta: f64,
}

impl Default for LengthNormalizedDpoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β · ρ_w/│y_w│ − β · ρ_l/│y_l│ )
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`], `lengths` `[batch]`. The loss and the rewards β · ρ/│y│ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::Argument`](crate::Error::Argument) if the ratios were divided by lengths before.
/// # Properties
/// * It is [`dpo_loss`](crate::dpo_loss) on means. ∂L/∂ρ_w = −β σ(−z)/│y_w│: a token of a short answer
///   weighs more than one of a long answer.
/// * Its optimum on Bradley–Terry labels is π ∝ π_ref · e^{│y│(r + c)/β}: the tilt grows with the length,
///   in either direction. It is not the optimum of reinforcement learning with a KL penalty.
/// * With equal lengths n it is DPO with β/n.
/// # Departures
/// None from TRL 1.16's `sigmoid_norm`. The technical report of Tülu 3, which made it known, uses a β that
/// was not looked up here.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LengthNormalizedDpoConfig, LogRatios, length_normalized_dpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let lengths = Pair { chosen: at(4.0)?, rejected: at(2.0)? };
/// let config = LengthNormalizedDpoConfig { beta: 2.0 };
/// let out = length_normalized_dpo_loss(&ratios, &lengths, &config)?;
/// let margin = 2.0 * (-0.4 / 4.0 + 0.5 / 2.0);
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean length of sampled answers. A loss that stays at ln 2 with a growing accuracy means
///   that β is meant for sums.
/// # Try
/// * Train answers of lengths 1 to 4 and compare with the closed form. Solution:
///   `tests/optimum/since.rs::means_per_token_tilt_the_optimum_by_length`.
/// # Source
/// Lambert et al. 2024 (Tülu 3), arXiv:2411.15124; huggingface/trl, `trainer/dpo_trainer.py` of release
/// 1.16.0, `sigmoid_norm`.
#[doc(alias = "sigmoid_norm")]
#[doc(alias = "length normalization")]
pub fn length_normalized_dpo_loss(
    ratios: &LogRatios,
    lengths: &Pair<Tensor>,
    config: &LengthNormalizedDpoConfig,
) -> Result<PreferenceLoss> {
    positive("length_normalized_dpo_loss", "beta", config.beta)?;

    // β · ρ/│y│
    let rewards = ratios.per_token(lengths)?.rewards(config.beta)?;
    // −log σ( … )
    PreferenceLoss::new(log_sigmoid(&rewards.margin()?)?.neg()?, &rewards)
}
