//! Preference ranking optimization: learn from a whole ranking at once (survey §3.2.1, Eq. 3).
//!
//! In one sentence: from the best answer downwards, each answer must win a softmax against all worse
//! ones, and a wider gap between their rewards asks for a clearer win.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r_π(x, yᵏ): mean log-probability per token | [`Candidates::means`] | `[batch, k]` |
//! | r_φ(x, yᵏ) | [`Candidates::rewards`] | `[batch, k]` |
//! | T_kⁱ, T_kᵏ | [`ProConfig::temperature`] | |
//! | β = 0.05 · (l − 1)² | [`ProConfig::sft_weight`] · (l − 1)² | number, `[batch]` |
//! | n, l: answers in the list | those that [`Candidates::mask`] counts | `[batch]` |
//!
//! Read next: [`rrhf`](super::rrhf) (all pairs under a hinge), [`slic`](super::slic) (with a lead),
//! [`plackett_luce`](crate::math::plackett_luce) (the ranking part at T = 1).

use super::{ListLoss, best_answer_loss, differences};
use crate::error::{Result, non_negative};
use crate::log_probs::Candidates;
use crate::math::{log_softmax, mask_count, masked, masked_sum, over_last, weighted};
use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

/// The temperatures that divide the scores of one softmax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProTemperature {
    /// eqs. 8 and 9: each competitor's score is multiplied by the gap between its reward and that of
    /// the answer that should win. The winner's own score is multiplied by the widest such gap.
    #[default]
    RewardGaps,
    /// T = 1, eq. 4: the plain Plackett–Luce model.
    #[doc(alias = "Plackett-Luce")]
    One,
}

/// Settings of [`pro_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProConfig {
    /// How scores are scaled. Default [`ProTemperature::RewardGaps`], the paper's.
    pub temperature: ProTemperature,
    /// The weight of the SFT term before it is multiplied by (l − 1)², where l is the number of
    /// answers that count. Default 0.05, the paper's; finite and not negative.
    pub sft_weight: f64,
}

impl Default for ProConfig {
    fn default() -> Self {
        Self {
            temperature: ProTemperature::default(),
            sft_weight: 0.05,
        }
    }
}

/// The loss of each list.
///
/// # Equation
/// ```text
/// r_πᵏ    = (1/│yᵏ│) Σₜ log π(yₜᵏ│x, y₍<t₎ᵏ)                                                eq. 6
/// 1/T_kⁱ  = r_φᵏ − r_φⁱ   for each i worse than k,     1/T_kᵏ = maxᵢ 1/T_kⁱ           eqs. 8, 9
/// L_rank  = −Σₖ log( e^{r_πᵏ/T_kᵏ} / [ e^{r_πᵏ/T_kᵏ} + Σ_{i worse than k} e^{r_πⁱ/T_kⁱ} ] )  eq. 7
///         =  Σₖ log[ 1 + Σ_{i worse than k} e^{r_πⁱ/T_kⁱ − r_πᵏ/T_kᵏ} ]
/// L       = L_rank − 0.05 (l − 1)² · Σₜ log π(yₜ¹│x, y₍<t₎¹)                                eq. 5
/// ```
/// y¹ is the best answer; k runs over the answers that have a worse one. The last of a ranking has
/// none, so it contributes exactly 0, as in the paper's sum to n − 1.
/// # Shapes
/// Lists of up to k answers in any order; all of [`ListLoss`] is `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless the weight is finite and not negative.
/// Shapes and types were checked when the [`Candidates`] were made.
/// # Properties
/// * T = 1 is [`plackett_luce`](crate::math::plackett_luce) on the means. Two answers give
///   −log σ(r_π¹ − r_π²), or with temperatures −log σ((r_φ¹ − r_φ²)(r_π¹ − r_π²)).
/// * With temperatures the loss is not a function of differences of scores. With w_ki the softmax
///   share of answer i against k, Σᵢ │yⁱ│ ∂L_rank/∂ℓᵢ = −Σₖ Σ_{i worse than k} w_ki (r_φⁱ − r_φ^{worst}) ≤ 0:
///   raising all scores lowers the loss. At T = 1, and for two answers, this push is 0.
/// * Adding a number to all rewards of a list changes nothing. Multiplying them changes the
///   temperatures; at T = 1 only their order matters.
/// * With temperatures there is no minimizer. The loss of a fixed ranking falls to 0 as the policy
///   puts all mass on the best answer, like 1/N under N steps of gradient descent. Nothing in the loss
///   holds the policy back, and the SFT term pulls the same way.
/// * At T = 1, over rankings drawn from the Plackett–Luce model of rewards r, the optimum is
///   π(y) = e^{│y│(r + c)} with the one c for which these sum to 1. Longer answers come out sharper,
///   and a reference matters only as the start.
/// * ∂L_sft/∂ℓ₁ = −0.05 (l − 1)², always. A list of one answer has loss 0; where all rewards are
///   equal only the SFT term remains.
/// * A log-probability of −∞ costs 0 in the last place and +∞ before a finite one, with a finite slope
///   in both cases. Two of them in one softmax have no order: NaN.
/// # Departures
/// * The survey's Eq. 3 puts the probability π(y│x) into exp(·) in place of the mean
///   log-probability, leaves out the temperatures, and adds the SFT term in words only. As printed
///   the loss can never fall below Σₖ log(1 + (n − k)/e).
/// * The authors' code takes the log of 10⁻¹⁰ plus a sum of exponentials; here it is a log-sum-exp.
///   At scores near −5 and a gap of 10 the exponentials vanish beside the constant, and a loss of
///   0.007 comes out as 27. The code also scores the token after the answer's last one, and takes the
///   mean over the batch; here the caller reduces.
/// * As in the authors' code, the ranking uses mean log-probabilities but the SFT term is a sum, so it
///   weighs more on long answers.
/// * The paper needs strictly ordered rewards. A tie makes T infinite and turns the tied answer into a
///   constant e⁰ in the softmax, as in the authors' code. Here tied answers do not compete, and several
///   best answers share the SFT term as their mean. l counts every answer, tied or not.
/// * Extending rankings with the model's own samples (eq. 10) is data, not loss.
/// # Examples
/// ```
/// use candle_align::{Candidates, ProConfig, pro_loss};
/// use candle_core::{Device, Tensor};
///
/// // means −1, −1.1 and −1.5; the answers may stand in any order
/// let sums = Tensor::new(&[[-2.0f64, -1.1, -6.0]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[2.0f64, 1.0, 4.0]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[2.0f64, 1.8, 0.2]], &Device::Cpu)?;
/// let candidates = Candidates::new(&sums, &lengths, &rewards, None)?;
///
/// let out = pro_loss(&candidates, &ProConfig::default())?;
/// // the best has gaps of 0.2 and 1.8, the second one of 1.6
/// let first = ((-1.0 * 1.8f64).exp() + (-1.1 * 0.2f64).exp() + (-1.5 * 1.8f64).exp()).ln() + 1.0 * 1.8;
/// let second = ((-1.1 * 1.6f64).exp() + (-1.5 * 1.6f64).exp()).ln() + 1.1 * 1.6;
/// assert!((out.ranking.to_vec1::<f64>()?[0] - (first + second)).abs() < 1e-12);
/// assert!((out.sft.to_vec1::<f64>()?[0] - 0.05 * 4.0 * 2.0).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Compare [`ListLoss::ranking`] with [`ListLoss::sft`]. The weight of the SFT term grows as (l − 1)²:
///   it is 0.05 for two answers and 0.8 for five, on a sum over tokens. On long lists the ranking
///   part can become negligible beside it.
/// * Ask [`ranking_accuracy`](crate::online::reward_model::ranking_accuracy) of [`Candidates::means`] for the order itself.
///   With temperatures the ranking part of three or more answers also falls when all scores rise
///   together, so a falling loss alone does not show a better order.
/// * Watch the entropy of the policy, or its KL to the start: neither is in the loss, and the optimum of
///   a fixed ranking is the best answer alone.
/// # Try
/// * Rank by chance (Plackett–Luce) at T = 1. What do answers of three tokens learn? Solution:
///   `cargo run --example rankings`, and
///   `tests/optimum/pro.rs::at_temperature_one_lengths_sharpen_the_optimum`.
/// * Add a number to every mean of a list of three. Does the loss change? Solution:
///   `tests/identities/pro.rs::temperatures_push_the_likelihood_up`.
/// # Source
/// Song et al. 2023, arXiv:2306.17492v2, eqs. 4–9; authors' code AlibabaResearch/DAMO-ConvAI at
/// `64f4da7`, `PRO/train/utils/process_manager.py`, `compute_loss`.
#[doc(alias = "preference ranking optimization")]
#[doc(alias = "list-wise")]
#[doc(alias = "Plackett-Luce")]
pub fn pro_loss(candidates: &Candidates, config: &ProConfig) -> Result<ListLoss> {
    non_negative("pro_loss", "sft_weight", config.sft_weight)?;
    let worse = candidates.preferences()?;

    // r_πᵏ = ℓₖ / │yᵏ│
    let scores = candidates.means()?;

    // 1/T_kⁱ = r_φᵏ − r_φⁱ,  1/T_kᵏ = maxᵢ 1/T_kⁱ  (0 where nothing is worse: the factor is 1)
    let gaps = match config.temperature {
        ProTemperature::RewardGaps => differences(candidates.rewards())?,
        ProTemperature::One => worse.to_dtype(scores.dtype())?,
    };
    let gaps = masked(&gaps, &worse)?;
    let widest = over_last(&gaps, |gaps| gaps.max(D::Minus1))?;

    // r_πⁱ/T_kⁱ in row k, its own on the diagonal; k competes if anything is worse
    let itself = Tensor::eye(gaps.dim(1)?, DType::U8, gaps.device())?.broadcast_as(gaps.shape())?;
    let own = itself.mul(&widest.gt(0.0)?.unsqueeze(2)?.broadcast_as(gaps.shape())?)?;
    let factors = own.where_cond(&widest.unsqueeze(2)?.broadcast_as(gaps.shape())?, &gaps)?;
    let divided = scores.unsqueeze(1)?.broadcast_mul(&factors)?;

    // −log of the share of k against all that are worse, summed over k
    let log_shares = log_softmax(&divided, Some(&worse.add(&own)?))?;
    let ranking = masked_sum(&log_shares, &own)?.sum(D::Minus1)?.neg()?;

    // −0.05 (l − 1)² · ℓ₁
    let answers = mask_count(candidates.mask(), scores.dtype())?;
    let weight = weighted(&answers.affine(1.0, -1.0)?.sqr()?, config.sft_weight)?;
    let best = best_answer_loss(candidates)?;
    let sft = (masked(&best, &weight.ne(0.0)?)? * weight)?;

    ListLoss::new(&ranking, &sft)
}
