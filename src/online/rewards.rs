//! From one score per answer to one reward per token (survey §3.1).
//!
//! In one sentence: every token pays for leaving the reference, and the last one receives the score.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r(x, y) | `scores` | `[batch]` |
//! | log π_old, log π_ref | `old`, `reference` | `[batch, time]` |
//! | β | [`ShapedRewardsConfig::beta`], or [`KlController::beta`](crate::online::controller::KlController::beta) | number |
//! | rₜ | the result of [`shaped_rewards`] | `[batch, time]` |
//!
//! Read next: [`crate::online::advantages`], which passes a token's reward back to the tokens before it.

use super::kl::KlEstimator;
use crate::error::{Result, non_negative};
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, weighted};
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`shaped_rewards`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapedRewardsConfig {
    /// β ≥ 0, the price of one nat. Default 0.02, InstructGPT's (its appendix C.4). If a
    /// [`KlController`](crate::online::controller::KlController) steers β, set its current value here.
    #[doc(alias = "KL coefficient")]
    pub beta: f64,
    /// Which estimate of the KL enters the reward. Default k₁, the only one that leads to the optimum of
    /// the penalized objective.
    pub estimator: KlEstimator,
}

impl Default for ShapedRewardsConfig {
    fn default() -> Self {
        Self {
            beta: 0.02,
            estimator: KlEstimator::K1,
        }
    }
}

/// The reward of each token: constants.
///
/// # Equation
/// ```text
/// rₜ = −β · k( log π_ref(yₜ) − log π_old(yₜ) )  +  r(x, y) · [t is the last token that counts]
/// ```
/// # Shapes
/// `old` (the policy that wrote the answers) and `reference` `[batch, time]`, `scores` `[batch]`;
/// the result is `[batch, time]`, 0 where the mask does not count. An answer without a counted
/// token gets no reward, and its score may be anything.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the shapes or types differ, [`Error::Parameter`] unless
/// β is finite and not negative.
/// # Properties
/// * Σₜ rₜ = r(x, y) − β Σₜ k. With k₁ this is the penalized reward of the whole answer, the paper's
///   eq. 2.
/// * k₁ leads to π* ∝ π_ref · e^{r/β}. k₂ and k₃ as rewards do not: their gradient at the reference
///   is 0 to first order, so nothing holds a policy there (see [`kl_loss`](crate::kl_loss)).
/// * Whitened scores change the meaning of β. If the scores of each batch are divided by their
///   standard deviation s and the KL is outside, the price of a nat is β·s. The fixed point is
///   π ∝ π_ref · e^{r/(βs)} with s the deviation under π itself. Ten times the rewards change nothing.
///   Below some β the policy collapses to the best answer in spite of the KL (in the tests it does so at
///   ½, but not at 1).
/// * β = 0 charges nothing, even where the reference finds a token impossible.
/// # Departures
/// The authors' code puts the score at the last position. Here it is the last position that counts,
/// wherever the padding is. There is no other difference. AlpacaFarm clamps k₁ at 0 from below, which
/// makes it biased; there is no such option here. The survey has no equation for this.
/// # Examples
/// ```
/// use candle_align::{ShapedRewardsConfig, TokenLogProbs, shaped_rewards};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// let old = TokenLogProbs::new(&Tensor::new(&[[-1.0f64, -2.0, 0.0]], &Device::Cpu)?, &mask)?;
/// let reference = Tensor::new(&[[-1.5f64, -1.0, 0.0]], &Device::Cpu)?;
/// let scores = Tensor::new(&[3.0f64], &Device::Cpu)?;
///
/// let config = ShapedRewardsConfig { beta: 0.5, ..Default::default() };
/// let rewards = shaped_rewards(&old, &reference, &scores, &config)?;
/// assert_eq!(rewards.to_vec2::<f64>()?, [[-0.5 * 0.5, -0.5 * -1.0 + 3.0, 0.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean score of the answers beside their mean KL
/// ([`Experience::mean_kl`](crate::Experience::mean_kl)), batch by batch. Their combination
/// E r − β KL is what training maximizes, and it should rise. If it falls while the score rises, the KL is
/// growing faster than the score pays for. If neither moves, β is too high or the scores do not differ.
/// # Try
/// * Put k₂ or k₃ into the reward instead of k₁, even at a large β. What becomes of the rare answers?
///   Solution: `tests/optimum/rollout.rs::k2_and_k3_in_the_reward_drop_answers_even_at_a_large_beta`.
/// * Whiten the scores and multiply all rewards by ten. Does the optimum move? Solution:
///   `tests/optimum/ppo.rs::whitened_scores_multiply_beta_by_their_deviation`.
/// # Source
/// Ziegler et al. 2019, arXiv:1909.08593v2, eq. 2; Ouyang et al. 2022, arXiv:2203.02155v1, eq. 2;
/// authors' code openai/lm-human-preferences, `train_policy.py`, `compute_rewards`.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "KL penalty")]
#[doc(alias = "reward shaping")]
#[doc(alias = "per-token KL")]
pub fn shaped_rewards(
    old: &TokenLogProbs,
    reference: &Tensor,
    scores: &Tensor,
    config: &ShapedRewardsConfig,
) -> Result<Tensor> {
    let function = "shaped_rewards";
    non_negative(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    axes.float("old", old.values(), &["batch", "time"])?;
    let reference = axes.float("reference", reference, &["batch", "time"])?;
    let scores = axes.float("scores", scores, &["batch"])?;

    // −β · k( log π_ref − log π_old )
    let x = masked(&(reference.detach() - old.values().detach())?, old.mask())?;
    let penalty = weighted(&config.estimator.at(&x)?, -config.beta)?;

    // + r(x, y) at the last token that counts
    let scores = scores.detach().unsqueeze(1)?.broadcast_as(x.shape())?;
    Ok((penalty + masked(&scores, &last_counted(old.mask())?)?)?)
}

/// 1 at the last position of each row that counts: u8 `[batch, time]`.
fn last_counted(mask: &Tensor) -> Result<Tensor> {
    let counts = mask.ne(0u8)?;
    if counts.elem_count() == 0 {
        return Ok(counts); // an empty tensor has no maximum
    }
    let time = mask.dim(1)? as u32;
    // t, and 0 where the mask does not count
    let positions = Tensor::arange(0, time, mask.device())?.unsqueeze(0)?;
    let positions = counts
        .to_dtype(DType::U32)?
        .broadcast_mul(&positions)?
        .contiguous()?;
    let last = positions.broadcast_eq(&positions.max_keepdim(1)?)?;
    Ok(last.mul(&counts)?)
}

/// The scores, less a penalty for every answer that did not end: constants.
///
/// # Equation
/// ```text
/// r′(x, y) = r(x, y) − p · [y has no end-of-sequence token]
/// ```
/// # Shapes
/// `scores` `[batch]`, `ended` u8 `[batch]`: 0 where the answer was cut off.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the shapes or types differ, [`Error::Parameter`] unless
/// the penalty is finite and not negative.
/// # Properties
/// * A penalty of 0 changes no score. No penalty changes the score of an answer that ended.
/// * The penalty is in units of the score. A penalty above the range of the scores puts every answer that
///   was cut off below every answer that ended.
/// * The result is a constant: no gradient reaches the scores.
/// # Departures
/// The authors' code sets the score of an answer without the end token to −1. Here p is subtracted, as in
/// later code, so that answers that were cut off keep their order.
/// # Examples
/// ```
/// use candle_align::online::rewards::missing_eos_penalty;
/// use candle_core::{Device, Tensor};
///
/// let scores = Tensor::new(&[2.0f64, 2.0], &Device::Cpu)?;
/// let ended = Tensor::new(&[1u8, 0], &Device::Cpu)?;
/// assert_eq!(missing_eos_penalty(&scores, &ended, 1.5)?.to_vec1::<f64>()?, [2.0, 2.0 - 1.5]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The share of answers with `ended` = 0, and their mean length. If the share rises during training, the
/// policy is rewarded for running into the limit: raise the penalty or the limit.
/// # Try
/// * How large must p be for every cut-off answer to rank last? Solution:
///   `tests/identities/ppo.rs::a_penalty_above_the_range_of_the_scores_puts_cut_off_answers_last`.
/// # Source
/// Authors' code of Ziegler et al. 2019, arXiv:1909.08593v2, openai/lm-human-preferences,
/// `train_policy.py` (a fixed score instead); the subtraction as in huggingface/trl, `PPOTrainer`.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "truncation penalty")]
pub fn missing_eos_penalty(scores: &Tensor, ended: &Tensor, penalty: f64) -> Result<Tensor> {
    let function = "missing_eos_penalty";
    non_negative(function, "penalty", penalty)?;
    let mut axes = Axes::new(function);
    let scores = axes.float("scores", scores, &["batch"])?;
    let ended = axes.mask("ended", ended, &["batch"])?;
    let scores = scores.detach();
    Ok(ended.where_cond(&scores, &(&scores - penalty)?)?)
}
