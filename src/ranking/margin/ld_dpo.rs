//! LD-DPO: the tokens beyond the shorter answer count for less (2024, after the survey).
//!
//! In one sentence: split each answer's log-probability at the length that both answers have, and weigh
//! what is beyond it by α.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log-probabilities of both answers under policy and reference | `policy`, `reference` | `[batch, time]` |
//! | l_p = min(│y_w│, │y_l│) | computed | `[batch]` |
//! | α | [`LdDpoConfig::alpha`] | number |
//!
//! Read next: [`r_dpo`](super::r_dpo).

use crate::error::{Result, positive, require};
use crate::log_probs::{Pair, TokenLogProbs};
use crate::math::{log_sigmoid, masked_sum, weighted};
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use crate::shape::Axes;
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`ld_dpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LdDpoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// α in [0, 1], the weight of a token beyond the shorter answer. Default 0.5; the paper searches it
    /// for each model. 1 is DPO.
    #[doc(alias = "ld_alpha")]
    pub alpha: f64,
}

impl Default for LdDpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 0.5,
        }
    }
}

/// Σ_{t ≤ l_p} log π(yₜ) + α Σ_{t > l_p} log π(yₜ) of both answers `[batch]`, where l_p is the shorter length.
///
/// Positions are counted among the tokens that the masks count, so a prompt before the answer changes nothing.
/// Use the sums with [`LogRatios::sums`] in any loss of this room.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the batches differ, [`Error::DType`](crate::Error::DType) if the types
/// differ, [`Error::Parameter`](crate::Error::Parameter) unless α is in \[0, 1\].
pub fn length_desensitized_sums(answers: &Pair<TokenLogProbs>, alpha: f64) -> Result<Pair<Tensor>> {
    let function = "length_desensitized_sums";
    require(
        (0.0..=1.0).contains(&alpha),
        function,
        "alpha",
        "in [0, 1]",
        alpha,
    )?;
    let mut axes = Axes::new(function);
    axes.float(
        "answers.chosen",
        answers.chosen.values(),
        &["batch", "chosen time"],
    )?;
    axes.float(
        "answers.rejected",
        answers.rejected.values(),
        &["batch", "rejected time"],
    )?;
    // l_p
    let shared = answers
        .chosen
        .lengths()?
        .minimum(&answers.rejected.lengths()?)?;

    let of = |answer: &TokenLogProbs| -> Result<Tensor> {
        let values = answer.values();
        if values.elem_count() == 0 {
            return answer.sum();
        }
        let counted = answer.mask().ne(0u8)?;
        let position = counted.to_dtype(values.dtype())?.cumsum(D::Minus1)?;
        let within = position.broadcast_le(&shared.unsqueeze(1)?)?;
        let before = masked_sum(values, &within.mul(&counted)?)?;
        let beyond = masked_sum(values, &within.eq(0u8)?.mul(&counted)?)?;
        Ok((before + weighted(&beyond, alpha)?)?)
    };
    Ok(Pair {
        chosen: of(&answers.chosen)?,
        rejected: of(&answers.rejected)?,
    })
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β·( ρ̂_w − ρ̂_l ) ),        ρ̂ = Σ_{t ≤ l_p} ρₜ + α Σ_{t > l_p} ρₜ,  l_p = min(│y_w│, │y_l│)
/// ```
/// # Shapes
/// All `[batch, time]`; chosen and rejected answers may be padded to different times. The loss and the
/// rewards β·ρ̂ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and 0 ≤ α ≤ 1,
/// [`Error::Shape`](crate::Error::Shape) if batches differ, [`Error::DType`](crate::Error::DType) unless
/// all are f32 or all are f64.
/// # Properties
/// * α = 1, and two answers of one length, are [`dpo_loss`](crate::dpo_loss).
/// * The reference is weighed like the policy, so the loss of an untouched policy is ln 2.
/// # Departures
/// None from TRL 1.16. Its release 0.24.0 counted positions from the start of the prompt, and it and
/// LLaMA-Factory weigh the policy alone: there the margin of an untouched policy is not 0.
/// # Examples
/// ```
/// use candle_align::ranking::{LdDpoConfig, ld_dpo_loss};
/// use candle_align::{Pair, TokenLogProbs};
/// use candle_core::{Device, Tensor};
///
/// let tokens = |x: &[f64]| -> candle_align::Result<TokenLogProbs> {
///     let values = Tensor::new(x, &Device::Cpu)?.unsqueeze(0)?;
///     TokenLogProbs::new(&values, &Tensor::ones(values.shape(), candle_core::DType::U8, &Device::Cpu)?)
/// };
/// let policy = Pair { chosen: tokens(&[-1.0, -0.5, -2.0])?, rejected: tokens(&[-3.0])? };
/// let reference = Pair { chosen: tokens(&[-1.5, -0.5, -1.0])?, rejected: tokens(&[-2.5])? };
/// let out = ld_dpo_loss(&policy, &reference, &LdDpoConfig { beta: 1.0, alpha: 0.25 })?;
/// // one token is shared; the two beyond it weigh ¼
/// let margin = (0.5 + 0.25 * (0.0 - 1.0)) - (-0.5);
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * A loss that is not ln 2 at the first step means that policy and reference were weighed differently.
/// # Try
/// * Put a prompt before the answers, outside the mask. Solution:
///   `tests/values/slips.rs::positions_are_counted_from_the_answer_not_from_the_prompt`.
/// # Source
/// Liu et al. 2024, arXiv:2409.06411; huggingface/trl, `trainer/dpo_trainer.py` of release 1.16.0,
/// `ld_alpha`.
#[doc(alias = "length-desensitized DPO")]
#[doc(alias = "ld_alpha")]
pub fn ld_dpo_loss(
    policy: &Pair<TokenLogProbs>,
    reference: &Pair<TokenLogProbs>,
    config: &LdDpoConfig,
) -> Result<PreferenceLoss> {
    positive("ld_dpo_loss", "beta", config.beta)?;

    // ρ̂
    let policy = length_desensitized_sums(policy, config.alpha)?;
    let reference = length_desensitized_sums(reference, config.alpha)?;
    let rewards = LogRatios::sums(&policy, &reference)?.rewards(config.beta)?;
    // −log σ( β·( ρ̂_w − ρ̂_l ) )
    PreferenceLoss::new(log_sigmoid(&rewards.margin()?)?.neg()?, &rewards)
}
