//! Reward models: learn one number per answer from human comparisons (survey §3.1).
//!
//! In one sentence: maximize the likelihood of the comparisons that people made, so that the preferred
//! answer gets the higher score.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r_θ(x, y_w), r_θ(x, y_l) | `scores.chosen`, `scores.rejected` of [`pairwise_reward_loss`] | `[batch]` |
//! | r_θ(x, y₁) … r_θ(x, y_K) | `scores` of the other three losses | `[batch, k]` |
//! | the labelers' ranking | `rewards`: any numbers that order the answers, higher is better | `[batch, k]` |
//! | b, the answer that was picked | `best` of [`choose_best_loss`] | `[batch]` |
//! | m | `margin` | `[batch]`, or [`RankedRewardConfig::margin`] |
//!
//! | the label is | loss | at its optimum |
//! |---|---|---|
//! | the better of two | [`pairwise_reward_loss`] | r up to a constant per connected set of answers |
//! | a ranking, ties allowed | [`ranked_reward_loss`]: its pairs | the same |
//! | the best of K | [`choose_best_loss`]: one softmax | r up to a constant |
//! | a ranking | [`plackett_luce_reward_loss`]: a softmax per stage | r up to a constant |
//!
//! The four agree only if the labels follow the Bradley–Terry and Plackett–Luce models, in which an
//! answer wins with odds e^r. Scores come from a [`RewardHead`](crate::online::reward_head::RewardHead). No comparison
//! determines their additive constant; [`RewardNormalization`](crate::online::reward_head::RewardNormalization) sets it
//! afterwards.
//!
//! Read next: [`crate::ranking::dpo`] (the same pairwise loss, with the policy itself as the reward
//! model).

use crate::error::{Error, Result, non_negative};
use crate::log_probs::Pair;
use crate::math::{
    at_least_one, log_sigmoid, log_softmax, masked, masked_sum, plackett_luce, preferences, to_host,
};
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`pairwise_reward_loss`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairwiseRewardConfig {
    /// c ≥ 0, how strongly the scores of each pair are pulled towards a mean of 0. Default 0, which is
    /// InstructGPT's loss. Libraries that offer it recommend 0.01.
    #[doc(alias = "center_rewards_coefficient")]
    pub centering: f64,
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( r_w − r_l − m ) + c · ( r_w + r_l )²
/// ```
/// # Shapes
/// `scores.chosen`, `scores.rejected` and `margin` `[batch]`. The loss is `[batch]`. The rewards beside
/// it are the scores, without m. The margin is a constant and gets no gradient. `None` is m = 0.
/// # Errors
/// [`Error::Shape`] if sizes differ, [`Error::DType`] unless all are f32 or all are f64,
/// [`Error::Parameter`] unless c ≥ 0. The values of scores and margins are not checked.
/// # Properties
/// With c = 0:
/// * ∂L/∂r_w = −σ(r_l − r_w + m) = −∂L/∂r_l: −½ where the scores are equal and m = 0, and there
///   L = ln 2. Adding one number to both scores changes nothing, and gradient descent on the scores
///   never changes their sum.
/// * m = 0: the only optimum on Bradley–Terry labels is r up to one constant per set of answers
///   that the pairs connect, whichever pairs are drawn and however often.
/// * It equals [`ranked_reward_loss`], [`choose_best_loss`] and [`plackett_luce_reward_loss`] with two
///   answers. It also equals [`dpo_loss`](crate::dpo_loss) with β = 1 and no reference, where
///   log-probabilities take the place of scores.
/// * A margin stretches the scores. With a constant m the optimum of a single pair that is won with
///   probability p is log u, u = \[(2p − 1) + √((2p − 1)² + 4p(1 − p)e^(−2m))\] / (2(1 − p)e^(−m)), larger
///   than its log-odds. With three answers or more the optimum is no longer a multiple of r and depends
///   on which pairs are drawn. The margin a·(r_w − r_l) with its sign, negative where a label was
///   flipped, gives exactly (1 + a)·r; its absolute value does not.
///
/// With c > 0:
/// * If every answer is paired with only one other answer, only the constant is set, at r_w + r_l = 0.
///   If an answer is paired with several others, the scores shrink as well:
///   Σ_{i≠j}(sᵢ + sⱼ)² = 2(K − 2) Σs² + 2(Σs)². Subtracting a mean after training only moves the
///   constant ([`RewardNormalization`](crate::online::reward_head::RewardNormalization)).
///
/// With any c, a score of −∞ for the chosen answer costs +∞ with slope −1. For the rejected answer it
/// costs 0 (centering adds +∞). If both are −∞, there is no margin and the loss is NaN.
/// # Departures
/// None from InstructGPT's eq. 1 at K = 2, with m = 0 and c = 0. Margins are those of Llama 2, where
/// they grow with how clear the labeler's preference was. The centering term comes from later work. The
/// survey names reward models without an equation.
/// # Examples
/// ```
/// use candle_align::{Pair, PairwiseRewardConfig, pairwise_reward_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let scores = Pair { chosen: at(1.5)?, rejected: at(0.5)? };
/// let config = PairwiseRewardConfig { centering: 0.01 };
///
/// let out = pairwise_reward_loss(&scores, Some(&at(0.25)?), &config)?;
/// let loss = out.loss.to_vec1::<f64>()?[0];
/// // −log σ(1.5 − 0.5 − 0.25) + 0.01 · (1.5 + 0.5)²
/// assert!((loss - ((1.0 + (-0.75f64).exp()).ln() + 0.04)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// `out.rewards.accuracy()` and the loss on held-out pairs, beside those on the training pairs. The loss
/// is ln 2 when all scores are equal. If labels are noisy, even the true reward has an accuracy below 1.
/// If the held-out loss rises while `out.rewards.margin()` keeps growing on the training pairs, the model
/// is fitting noise: separable pairs have no finite optimum.
/// # Try
/// * Compare A only with B, and C only with D. Which of A and C gets the higher score? Solution:
///   `cargo run --example reward_model`, row "A with B, C with D".
/// * Does centering move the constant alone? Solution:
///   `tests/optimum/reward_model.rs::centering_pairs_fixes_the_constant_of_two_and_shrinks_four`.
/// # Source
/// Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155v1, eq. 1; margin: Touvron et al. 2023
/// (Llama 2), arXiv:2307.09288v2, eq. 2; centering: Eisenstein et al. 2023, arXiv:2312.09244.
#[doc(alias = "Bradley-Terry")]
#[doc(alias = "preference model")]
#[doc(alias = "reward model")]
pub fn pairwise_reward_loss(
    scores: &Pair<Tensor>,
    margin: Option<&Tensor>,
    config: &PairwiseRewardConfig,
) -> Result<PreferenceLoss> {
    let function = "pairwise_reward_loss";
    non_negative(function, "centering", config.centering)?;
    let mut axes = Axes::new(function);
    let scores = axes.pair("scores", scores)?;

    // r_w − r_l − m
    let mut ahead = scores.margin()?;
    if let Some(margin) = margin {
        let margin = axes.float("margin", margin, &["batch"])?;
        ahead = (ahead - margin.detach())?;
    }

    // −log σ( … )
    let mut loss = log_sigmoid(&ahead)?.neg()?;
    // + c · ( r_w + r_l )²
    if config.centering > 0.0 {
        let sum = (&scores.chosen + &scores.rejected)?;
        loss = (loss + (sum.sqr()? * config.centering)?)?;
    }
    PreferenceLoss::new(loss, &scores)
}

/// What [`ranked_reward_loss`] does with two answers of equal rank in the labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// The pair does not count. It adds nothing to the sum or to the number of pairs.
    #[default]
    Skip,
    /// The pair counts as one, half won by each answer. It pulls the two scores together. No margin
    /// applies, because neither answer should be ahead.
    Half,
}

/// Settings of [`ranked_reward_loss`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankedRewardConfig {
    /// How a tie in the labels is treated. Default [`Ties::Skip`]; the paper does not say.
    pub ties: Ties,
    /// m ≥ 0, by how much each better answer should be ahead. Default 0, the paper's loss.
    pub margin: f64,
    /// c ≥ 0, how strongly the scores of each list are pulled towards a mean of 0. Default 0, the
    /// paper's loss.
    pub centering: f64,
}

/// The loss of each list of ranked answers: the mean over its pairs.
///
/// # Equation
/// ```text
/// L = (1/N) Σ_{(w,l): r_w > r_l} −log σ( s_w − s_l − m )  +  c · ( (1/N) Σ_{(w,l)} (s_w + s_l) )²
/// ```
/// N = C(K, 2) without ties. Under [`Ties::Half`] a pair of equal rewards counts as one in N and in
/// both sums, with the loss ½[−log σ(sᵢ − sⱼ) − log σ(sⱼ − sᵢ)].
/// # Shapes
/// `scores`, `rewards`, `mask` `[batch, k]`; the result is `[batch]`. Answers may be in any order.
/// Shorter lists are padded with mask 0, and the padding may hold anything, even NaN. `None` counts
/// all. Only the order of the rewards matters; they get no gradient. A reward that is NaN is
/// compared with nothing.
/// # Errors
/// [`Error::Shape`] if sizes differ, [`Error::DType`] unless scores and rewards are both f32 or both f64
/// and the mask u8, [`Error::Parameter`] unless m ≥ 0 and c ≥ 0.
/// # Properties
/// * A list is one element of the batch, however many pairs it holds: average over `[batch]`. A list
///   without a pair that counts has loss 0 and gradient 0. That is a list of one answer, of none, or of
///   tied answers under [`Ties::Skip`].
/// * K = 2 is [`pairwise_reward_loss`], including margin and centering.
/// * With c = 0 nothing changes when one number is added to all scores of a list. At equal scores
///   and m = 0 the gradient of the answer at rank k is (2k − K − 1)/(2·C(K, 2)), and L = ln 2.
/// * On Plackett–Luce rankings its expectation is that of [`pairwise_reward_loss`] over uniformly
///   drawn pairs, although the pairs of a ranking depend on each other. So it has the same optimum, r up
///   to a constant. A margin stretches the scores, as there.
/// * Centering pulls one number per list, the mean of its scores (where all pairs count). So it sets
///   the constant and leaves the differences alone, unlike a penalty on each pair or on each score.
///   Lists that hold different answers to one prompt still pull the scores of that prompt together.
/// * A score of −∞ costs +∞ with a finite slope where a worse answer is ahead of it, and 0 in the last
///   place (centering adds +∞).
/// # Departures
/// None from the paper's eq. 1, whose expectation over pairs with 1/C(K, 2) is the mean over the pairs
/// of one prompt. Ragged lists, ties, margin and centering are not in the paper. The form of the
/// centering term is specific to this crate: the square of the mean over pairs. Others take the mean of
/// the squares, which also shrinks the scores. The survey names reward models without an equation.
/// # Examples
/// ```
/// use candle_align::{RankedRewardConfig, ranked_reward_loss};
/// use candle_core::{Device, Tensor};
///
/// let scores = Tensor::new(&[[2.0f64, 1.0, 0.5]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[9.0f64, 4.0, 7.0]], &Device::Cpu)?; // the first, the last, the second
///
/// let loss = ranked_reward_loss(&scores, &rewards, None, &RankedRewardConfig::default())?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// let want = (lost(2.0 - 0.5) + lost(2.0 - 1.0) + lost(0.5 - 1.0)) / 3.0;
/// assert!((loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// [`ranking_accuracy`] on held-out lists, and the loss, which is ln 2 at equal scores and m = 0. With
/// [`Ties::Skip`] a list of tied answers has loss 0. A batch with many of them has a low mean loss although
/// nothing was learned, so compare losses only between batches with as many ties.
/// # Try
/// * Two answers are better, worse or tied with fixed probabilities. Which gap in score does each choice of
///   [`Ties`] learn? Solution: `tests/optimum/reward_model.rs::half_a_tie_is_half_a_win_for_each`.
/// * Do the pairs of one ranking, which depend on each other, bias the reward? Solution:
///   `tests/optimum/reward_model.rs::rankings_teach_the_reward_up_to_a_constant`.
/// # Source
/// Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155v1, eq. 1.
#[doc(alias = "InstructGPT")]
#[doc(alias = "Bradley-Terry")]
pub fn ranked_reward_loss(
    scores: &Tensor,
    rewards: &Tensor,
    mask: Option<&Tensor>,
    config: &RankedRewardConfig,
) -> Result<Tensor> {
    let function = "ranked_reward_loss";
    non_negative(function, "margin", config.margin)?;
    non_negative(function, "centering", config.centering)?;
    let (scores, rewards, mask) = check_lists(function, scores, rewards, mask)?;
    let scores = masked(&scores, &mask)?;
    let pairs = Pairs::new(&rewards, &mask, config.ties)?;

    // (1/N) Σ −log σ( s_w − s_l − m ), of ties −log σ( s_i − s_j )
    let ahead = pairs.only(&across(&scores)?)?;
    let of_wins = log_sigmoid(&(&ahead - config.margin)?)?.neg()?;
    let of_ties = log_sigmoid(&ahead)?.neg()?;
    let mut loss = pairs.mean(&of_wins, &of_ties)?;

    // + c · ( (1/N) Σ (s_w + s_l) )²
    if config.centering > 0.0 {
        let sums = scores.unsqueeze(2)?.broadcast_add(&scores.unsqueeze(1)?)?;
        let center = pairs.mean(&sums, &sums)?;
        loss = (loss + (center.sqr()? * config.centering)?)?;
    }
    Ok(loss)
}

/// The loss of each choice of the best among K answers.
///
/// # Equation
/// ```text
/// L = −log ( e^{s_b} / Σᵢ e^{sᵢ} )
/// ```
/// # Shapes
/// `scores` and `mask` `[batch, k]`, `best` `[batch]` in u32 or i64; the result is `[batch]`.
/// Shorter lists are padded with mask 0, and the padding may hold anything, even NaN. `None` counts
/// all.
/// # Errors
/// [`Error::Shape`] if sizes differ; [`Error::DType`] unless scores are f32 or f64, the mask u8 and
/// `best` u32 or i64; [`Error::Argument`] if `best` is not in `0..k` or names an answer that the
/// mask leaves out. For that check `best` and the mask, a few bytes per list, are read to the host,
/// because candle treats some indices out of range as "ignore".
/// # Properties
/// * The gradient is softmax(s) − e_b: 1/K − e_b at equal scores, where L = ln K. Adding one number
///   to all scores of a list changes nothing.
/// * With two answers it is [`pairwise_reward_loss`]. It is the first factor of
///   [`plackett_luce_reward_loss`]; a full ranking adds the order of the rest.
/// * If b is drawn with probability softmax(r), the only optimum is r up to a constant.
/// * A list of one answer has loss 0. So has an empty list, whose `best` is not read.
/// * A score of −∞ costs +∞ with slope −1 if it belongs to the best answer. Otherwise the answer has no
///   effect, as if it were left out.
/// # Departures
/// None from the paper's eq. 1, except that K is free and the paper has K = 4. The survey names reward
/// models without an equation.
/// # Examples
/// ```
/// use candle_align::choose_best_loss;
/// use candle_core::{Device, Tensor};
///
/// let scores = Tensor::new(&[[1.0f64, 3.0, 0.0, 2.0]], &Device::Cpu)?;
/// let best = Tensor::new(&[3u32], &Device::Cpu)?;
///
/// let loss = choose_best_loss(&scores, &best, None)?.to_vec1::<f64>()?[0];
/// let odds = |s: f64| s.exp();
/// let want = -(odds(2.0) / (odds(1.0) + odds(3.0) + odds(0.0) + odds(2.0))).ln();
/// assert!((loss - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean loss on held-out lists, beside ln K, the loss of a model that cannot tell the answers apart. A
/// loss above ln K means confident and wrong: the model is fitting noise, or `best` indexes another order
/// of the answers.
/// # Try
/// * Draw the best answer with probability softmax(r) and train. What is left undetermined? Solution:
///   `tests/optimum/reward_model.rs::choices_of_the_best_teach_the_reward_up_to_a_constant`.
/// # Source
/// Ziegler et al. 2019, arXiv:1909.08593v2, eq. 1; authors' code openai/lm-human-preferences,
/// `lm_human_preferences/label_types.py`, `PickBest`.
#[doc(alias = "listwise softmax")]
pub fn choose_best_loss(scores: &Tensor, best: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let function = "choose_best_loss";
    let mut axes = Axes::new(function);
    let scores = axes.float("scores", scores, &["batch", "k"])?;
    let best = axes.index("best", best, &["batch"])?;
    let mask = counted(&mut axes, mask, &scores)?;
    let best = best_answers(function, &best, &mask)?;

    // log Σᵢ e^{sᵢ} − s_b; 0 for a list of none
    let log_shares = log_softmax(&masked(&scores, &mask)?, Some(&mask))?;
    Ok(masked_sum(&log_shares, &best)?.neg()?)
}

/// The loss of each list of ranked answers: the best of all, then the best of the rest, and so on.
///
/// # Equation
/// ```text
/// L = −Σ_{k=1}^{K−1} log ( e^{s₍ₖ₎} / Σ_{i≥k} e^{s₍ᵢ₎} )        s₍ₖ₎ is the score of the answer at rank k
/// ```
/// # Shapes
/// `scores`, `rewards`, `mask` `[batch, k]`; the result is `[batch]`. Answers may be in any order.
/// Shorter lists are padded with mask 0, and the padding may hold anything, even NaN. `None` counts
/// all. Only the order of the rewards matters; they get no gradient.
/// # Errors
/// [`Error::Shape`] if sizes differ, [`Error::DType`] unless scores and rewards are both f32 or both f64
/// and the mask u8.
/// # Properties
/// * Adding one number to all scores of a list changes nothing. At equal scores L = ln K!, and the
///   gradient of the answer at rank k is Σ_{j ≤ min(k, K−1)} 1/(K − j + 1) − 1\[k < K\].
/// * With two answers it is [`pairwise_reward_loss`]; the first stage alone is [`choose_best_loss`].
/// * On Plackett–Luce rankings the only optimum is r up to a constant, as for
///   [`ranked_reward_loss`], which weighs the same labels in another way.
/// * Answers with equal rewards do not compete with each other. Each is compared only with those that
///   are worse. A list of one answer has loss 0, and so has an empty list.
/// * The loss is a sum over the stages of a ranking, not a mean, so long lists weigh more.
/// * A score of −∞ costs 0 in the last place and +∞ with a finite slope before a finite one.
/// # Departures
/// The survey has no such loss. PRO and the ranking form of DPO build on it; here it applies to scores.
/// DPO's product runs to k = K, whose factor is 1. It is left out here, as in PRO. Ties and ragged lists
/// are not in the papers; see [`plackett_luce`].
/// # Examples
/// ```
/// use candle_align::plackett_luce_reward_loss;
/// use candle_core::{Device, Tensor};
///
/// let scores = Tensor::new(&[[2.0f64, 1.0, 0.5]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[9.0f64, 4.0, 7.0]], &Device::Cpu)?; // the first, the last, the second
///
/// let loss = plackett_luce_reward_loss(&scores, &rewards, None)?.to_vec1::<f64>()?[0];
/// let odds = |s: f64| s.exp();
/// let first = odds(2.0) / (odds(2.0) + odds(1.0) + odds(0.5));
/// let second = odds(0.5) / (odds(0.5) + odds(1.0));
/// assert!((loss + first.ln() + second.ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// [`ranking_accuracy`] on held-out lists, and the loss beside ln K!, its value at equal scores. Losses of
/// lists of different lengths do not compare: average them per K.
/// # Try
/// * Take rankings in which the first answer is either best or worst. Do pairs and stages still learn the
///   same scores? Solution:
///   `tests/optimum/reward_model.rs::labels_that_follow_no_such_model_part_the_objectives`.
/// # Source
/// Rafailov et al. 2023, arXiv:2305.18290v2, eq. 18 (the model; eqs. 19–20 put the policy in); Song et
/// al. 2023 (PRO), arXiv:2306.17492, eq. 4; Plackett 1975, Applied Statistics 24(2).
#[doc(alias = "Plackett-Luce")]
#[doc(alias = "ListMLE")]
pub fn plackett_luce_reward_loss(
    scores: &Tensor,
    rewards: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let (scores, rewards, mask) = check_lists("plackett_luce_reward_loss", scores, rewards, mask)?;
    // Σₖ [ log Σ_{i≥k} e^{s₍ᵢ₎} − s₍ₖ₎ ]
    plackett_luce(&scores, &rewards, &mask)
}

/// The share of all ranked pairs of a batch that the scores order as the rewards do.
///
/// A tie in score counts ½. A tie in reward is not a pair. Every pair weighs the same, whatever list it
/// is from. The result is a detached scalar, and NaN if there is no pair. For two answers it is
/// [`Pair::accuracy`].
///
/// # Errors
/// [`Error::Shape`] unless `scores`, `rewards` and `mask` are `[batch, k]`, [`Error::DType`] unless
/// scores and rewards are both f32 or both f64 and the mask u8.
///
/// ```
/// use candle_align::online::reward_model::ranking_accuracy;
/// use candle_core::{Device, Tensor};
///
/// let scores = Tensor::new(&[[2.0f64, 1.0, 1.0]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[7.0f64, 9.0, 4.0]], &Device::Cpu)?;
/// // first above third: right; second above first: wrong; second and third tie
/// let share = ranking_accuracy(&scores, &rewards, None)?.to_scalar::<f64>()?;
/// assert_eq!(share, (1.0 + 0.0 + 0.5) / 3.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "pairwise accuracy")]
pub fn ranking_accuracy(
    scores: &Tensor,
    rewards: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let (scores, rewards, mask) = check_lists("ranking_accuracy", scores, rewards, mask)?;
    let ahead = across(&scores.detach())?;
    let pairs = preferences(&rewards, &mask)?;
    let right = ahead.gt(0.0)?.to_dtype(ahead.dtype())?;
    let even = ahead.eq(0.0)?.to_dtype(ahead.dtype())?;
    let points = masked(&(right + (even * 0.5)?)?, &pairs)?.sum_all()?;
    Ok((points / pairs.to_dtype(ahead.dtype())?.sum_all()?)?)
}

/// The pairs of each list that count.
struct Pairs {
    /// Entry (i, j) is 1 where i is ranked above j.
    wins: Tensor,
    /// Entries (i, j) and (j, i) are 1 where i and j have equal rank, if such pairs count.
    ties: Option<Tensor>,
    /// N, at least 1: `[batch]`.
    count: Tensor,
}

impl Pairs {
    fn new(rewards: &Tensor, mask: &Tensor, ties: Ties) -> Result<Self> {
        let wins = preferences(rewards, mask)?;
        let ties = match ties {
            Ties::Skip => None,
            Ties::Half => Some(tied(rewards, mask)?),
        };
        let one = rewards.ones_like()?;
        let each = one.unsqueeze(2)?.broadcast_mul(&one.unsqueeze(1)?)?;
        let count = at_least_one(&total(&each, &each, &wins, ties.as_ref())?)?;
        Ok(Self { wins, ties, count })
    }

    /// `x` `[batch, k, k]` at the pairs that count, and 0 elsewhere: an answer less itself may be ∞ − ∞.
    fn only(&self, x: &Tensor) -> Result<Tensor> {
        match &self.ties {
            Some(ties) => masked(x, &self.wins.add(ties)?),
            None => masked(x, &self.wins),
        }
    }

    /// (1/N) Σ over pairs of numbers `[batch, k, k]`. A tie is half of (i, j) and half of (j, i).
    fn mean(&self, of_wins: &Tensor, of_ties: &Tensor) -> Result<Tensor> {
        let total = total(of_wins, of_ties, &self.wins, self.ties.as_ref())?;
        Ok((total / &self.count)?)
    }
}

/// Σ over the pairs of each list, of numbers `[batch, k, k]`.
fn total(
    of_wins: &Tensor,
    of_ties: &Tensor,
    wins: &Tensor,
    ties: Option<&Tensor>,
) -> Result<Tensor> {
    let mut each = masked(of_wins, wins)?;
    if let Some(ties) = ties {
        each = (each + (masked(of_ties, ties)? * 0.5)?)?;
    }
    Ok(each.flatten_from(1)?.sum(D::Minus1)?)
}

/// Entry (i, j) is 1 where rewardᵢ = rewardⱼ, i ≠ j and both count: u8 `[batch, k, k]`.
fn tied(rewards: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let counts = mask.ne(0u8)?;
    let both = counts.unsqueeze(2)?.broadcast_mul(&counts.unsqueeze(1)?)?;
    let alike = rewards.unsqueeze(2)?.broadcast_eq(&rewards.unsqueeze(1)?)?;
    let others = Tensor::eye(rewards.dim(1)?, DType::U8, rewards.device())?.eq(0u8)?;
    Ok(alike.mul(&both)?.broadcast_mul(&others)?)
}

/// Entry (i, j) is sᵢ − sⱼ: `[batch, k, k]`.
fn across(scores: &Tensor) -> Result<Tensor> {
    Ok(scores.unsqueeze(2)?.broadcast_sub(&scores.unsqueeze(1)?)?)
}

/// Checks the arguments of a loss over ranked lists. Without a mask, the mask returned is all ones.
fn check_lists(
    function: &'static str,
    scores: &Tensor,
    rewards: &Tensor,
    mask: Option<&Tensor>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let mut axes = Axes::new(function);
    let scores = axes.float("scores", scores, &["batch", "k"])?;
    let rewards = axes.float("rewards", rewards, &["batch", "k"])?;
    let mask = counted(&mut axes, mask, &scores)?;
    Ok((scores, rewards, mask))
}

/// The mask, or one of ones if none is given.
fn counted(axes: &mut Axes, mask: Option<&Tensor>, scores: &Tensor) -> Result<Tensor> {
    match mask {
        Some(mask) => axes.mask("mask", mask, &["batch", "k"]),
        None => Ok(Tensor::ones(scores.shape(), DType::U8, scores.device())?),
    }
}

/// 1 at the chosen answer of each list that is not empty: u8 `[batch, k]`. An error if the chosen answer
/// is not in its list.
fn best_answers(function: &'static str, best: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let k = mask.dim(1)?;
    let chosen = to_host::<i64>(&best.to_dtype(DType::I64)?)?;
    let counts = to_host::<u8>(mask)?;
    let mut marks = vec![0u8; counts.len()];
    let lists = counts.chunks(k.max(1)).zip(marks.chunks_mut(k.max(1)));
    for (row, (b, (counts, marks))) in chosen.iter().zip(lists).enumerate() {
        if counts.iter().all(|c| *c == 0) {
            continue;
        }
        let at = usize::try_from(*b).ok();
        let problem = match at.and_then(|b| Some((counts.get(b)?, marks.get_mut(b)?))) {
            None => format!("outside the {k} answers"),
            Some((0, _)) => "which the mask leaves out".to_string(),
            Some((_, mark)) => {
                *mark = 1;
                continue;
            }
        };
        let problem = format!("holds {b} in row {row}, {problem}");
        return Err(Error::argument(function, "best", problem));
    }
    Ok(Tensor::from_vec(marks, mask.shape(), mask.device())?)
}
