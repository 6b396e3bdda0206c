//! Reward-ranked fine-tuning: draw answers, keep the best, learn them (survey §3.1).
//!
//! In one sentence: each round draws K answers to every prompt, keeps the one of the highest
//! reward, and fine-tunes on it with [`sft_loss`](crate::sft_loss).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | y₁ … y_K ~ p_w^{1/λ}(·│x) | [`sample`](crate::sample) | row `prompt · k + i` |
//! | r(x, y) | `rewards`, whatever scores an answer | `[batch, k]` |
//! | log p_w(y│x), log p_0(y│x) | `policy`, `reference`: sums over tokens | `[batch, k]` |
//! | r̃(x, y), β | [`kl_adjusted_rewards`], [`RaftConfig::beta`] | `[batch, k]`, number |
//! | B, the best answer to each prompt | [`best_of_k`] | row numbers |
//! | the survey's top 1/k of a batch | [`top_share`] | row numbers |
//! | the survey's global set, refreshed | [`RefreshedSet`] | items with their rewards |
//! | −Σ_B log p_w(y│x) | [`sft_loss`](crate::sft_loss) on the rows kept | `[batch, time]` |
//!
//! RAFT has no loss of its own. Its selections are choices, which have no gradient, so they are
//! made on the host and give row numbers. Row `prompt · k + i` is answer i to that prompt, as in
//! [`Samples`](crate::Samples) and
//! [`Candidates::from_token_log_probs`](crate::Candidates::from_token_log_probs).
//!
//! Read next: [`sampling`](super::sampling), where the answers come from;
//! [`rrhf`](crate::ranking::rrhf), which also learns from the order of the others.

use crate::error::{Error, Result, non_negative, require};
use crate::math::{require_finite, to_host};
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`kl_adjusted_rewards`].
///
/// K is the width of the rewards and λ is [`SamplingConfig::temperature`](crate::SamplingConfig);
/// the paper's K are 8, 16 and 32, its λ 0.7, 0.85 and 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// β ≥ 0, what a nat away from the reference costs an answer in the ranking. Default 0, the
    /// paper's; it also tries 0.005, 0.01 and 0.1.
    pub beta: f64,
}

/// The rewards by which answers are ranked.
///
/// # Equation
/// ```text
/// r̃(x, y) = r(x, y) − β · log( p_w(y│x) / p_0(y│x) )                              eq. 5
/// ```
/// # Shapes
/// `rewards`, `policy`, `reference` and the result `[batch, k]`, of one type. The log-probabilities
/// are sums over tokens ([`TokenLogProbs::sum`](crate::TokenLogProbs::sum)). Everything is constant:
/// the result has no history.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the inputs differ; [`Error::Parameter`] unless β is finite
/// and ≥ 0. Never for a value: [`best_of_k`] and [`top_share`] name one that is not finite.
/// # Properties
/// * β = 0, or a policy that is still the reference, leaves the rewards as they are.
/// * The expectation over answers of the policy is E r − β KL(p_w‖p_0).
/// * At π* ∝ p_0 · e^{r/β} every answer has the same r̃, β log Z, so the best of k is any answer and
///   the policy stays. It does not return there: from nearby, a whole round moves far away, since a
///   difference of r̃ however small decides all. Only small mixtures of the old policy and the new
///   tend to π*.
/// # Departures
/// None from the paper. The survey does not mention the term.
/// # Examples
/// ```
/// use candle_align::{RaftConfig, best_of_k, kl_adjusted_rewards};
/// use candle_core::{Device, Tensor};
///
/// let row = |x: [f64; 2]| Tensor::new(&[x], &Device::Cpu);
/// let (rewards, policy, reference) = (row([1.0, 1.2])?, row([-5.0, -2.0])?, row([-5.0, -9.0])?);
/// assert_eq!(best_of_k(&rewards, None)?, [1]);
///
/// let ranked = kl_adjusted_rewards(&rewards, &policy, &reference, &RaftConfig { beta: 0.1 })?;
/// // 1 − 0.1 · 0 and 1.2 − 0.1 · 7
/// assert_eq!(ranked.to_vec2::<f64>()?, [[1.0, 1.2 - 0.1 * 7.0]]);
/// assert_eq!(best_of_k(&ranked, None)?, [0]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Dong et al. 2023, arXiv:2304.06767, eq. 5, from two sets of notes that agree.
pub fn kl_adjusted_rewards(
    rewards: &Tensor,
    policy: &Tensor,
    reference: &Tensor,
    config: &RaftConfig,
) -> Result<Tensor> {
    let function = "kl_adjusted_rewards";
    non_negative(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    let rewards = axes.float("rewards", rewards, &["batch", "k"])?;
    let policy = axes.float("policy", policy, &["batch", "k"])?;
    let reference = axes.float("reference", reference, &["batch", "k"])?;
    let rewards = rewards.detach();
    if config.beta == 0.0 {
        return Ok(rewards);
    }
    // r̃ = r − β · ( log p_w − log p_0 )
    let log_ratio = (policy.detach() - reference.detach())?;
    Ok((rewards - (log_ratio * config.beta)?)?)
}

/// The best answer to each prompt: the rows to learn.
///
/// # Equation
/// ```text
/// y*(x) = argmax_{i = 1…K} r(x, yᵢ)
/// B = { (x, y*(x)) },     L = −Σ_B log p_w(y*│x)
/// ```
/// The loss is [`sft_loss`](crate::sft_loss) on these rows.
/// # Shapes
/// `rewards` `[batch, k]` in f32 or f64, `mask` `[batch, k]` in u8, all counted if `None`. The result
/// names one row `prompt · k + i` for each prompt that has an answer, in the order of the prompts.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] for other tensors; [`Error::Argument`] if a reward that
/// counts is not finite.
/// # Properties
/// * Only the order within a prompt counts: r → a·r + c(x) with a > 0 changes nothing.
/// * The law of what is kept is B_n(y) = (F(r_y)ⁿ − F(r_y⁻)ⁿ) · p(y)/p(those that tie with y), with n
///   draws and F(c) = P(r ≤ c). Taking the first of ties, as here, and a random one give this same
///   law.
/// * KL(B_n‖p) ≤ log n − (n − 1)/n: near equality where no answer is likely, less where answers
///   repeat. E max ≤ E r + w·√(½ log n), with w the range of the rewards.
/// * t rounds of the best of n are one of nᵗ, until all mass is on the highest reward. An answer
///   keeps probability in every finite round: B_n(y) > 0 where p(y) > 0.
/// * With λ ≠ 1 the law is that of the draws, p^{1/λ}: a λ below 1 sharpens the policy in each round
///   even if all rewards are equal.
/// * One answer to each prompt is fine-tuning on one's own answers.
/// # Departures
/// The survey describes the best 1/k of a whole batch; that is the paper's variant in its appendix,
/// here [`top_share`]. The authors' published training counts every token of the sequence; here the
/// mask of the sequence decides, and [`sample`](crate::sample) sets it on the answer alone.
/// # Examples
/// ```
/// use candle_align::{
///     Reduction, SamplingConfig, SftConfig, TokenLogProbs, best_of_k, sample, sft_loss,
/// };
/// use candle_core::{DType, Device, Tensor, Var};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// // a policy of four symbols that does not look at its prompt; 3 ends an answer
/// let logits = Var::zeros(4, DType::F64, &Device::Cpu)?;
/// let model = |tokens: &Tensor| {
///     let (batch, time) = tokens.dims2()?;
///     Ok(logits.broadcast_as((batch, time, 4))?)
/// };
///
/// // eight answers to each of two prompts, scored by how often they say 2
/// let config = SamplingConfig { answers: 8, max_new_tokens: 4, end: Some(3), ..Default::default() };
/// let mut rng = StdRng::seed_from_u64(0);
/// let drawn = sample(model, &[[0], [1]], &config, &Device::Cpu, &mut rng)?;
/// let twos = |answer: &[u32]| answer.iter().filter(|&&token| token == 2).count() as f64;
/// let rewards: Vec<f64> = drawn.rows.iter().map(|row| twos(row.answer())).collect();
/// let rewards = Tensor::from_vec(rewards, (2, 8), &Device::Cpu)?;
///
/// // the best answer to each prompt is learned
/// let batch = drawn.select(&best_of_k(&rewards, None)?)?.batch(0, &Device::Cpu)?;
/// assert_eq!(batch.tokens.dim(0)?, 2);
/// let log_probs = TokenLogProbs::next_token(&model(&batch.tokens)?, &batch.tokens, &batch.mask)?;
/// let loss = sft_loss(&log_probs, None, &SftConfig::default())?.reduce(Reduction::SequenceMean)?;
/// let gradient = loss.backward()?.get(&logits).unwrap().to_vec1::<f64>()?;
/// assert!(gradient[2] < 0.0, "2 becomes likelier: {gradient:?}");
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Dong et al. 2023, arXiv:2304.06767, §3, from two sets of notes that agree. The law of the best of
/// n: Stiennon et al. 2020, arXiv:2009.01325, and Beirami et al. 2024, arXiv:2401.01879.
pub fn best_of_k(rewards: &Tensor, mask: Option<&Tensor>) -> Result<Vec<usize>> {
    let (counted, k) = counted("best_of_k", rewards, mask)?;
    // y*(x) = argmax r(x, yᵢ), the first of ties
    Ok(prompts(&counted, k)
        .filter_map(|answers| ranked(answers).first().copied())
        .collect())
}

/// The best share of all answers, whatever their prompts: the rows to learn.
///
/// # Equation
/// ```text
/// B = the m highest of all r(x, yᵢ),     m = max(1, a · n rounded to the nearest)
/// ```
/// n is the number of answers that count and a the `share`; the survey's top 1/k is a = 1/k.
/// # Shapes
/// As [`best_of_k`]; the rows come in their order, not by reward. One answer to each prompt is
/// `[batch, 1]`.
/// # Errors
/// As [`best_of_k`]; [`Error::Parameter`] unless 0 < a ≤ 1.
/// # Properties
/// * a = 1 keeps all. With one prompt, a = 1/k is [`best_of_k`].
/// * r → a·r + c changes nothing, but c(x) does: prompts whose answers all score low lose their
///   place. With the rewards of a second prompt 1.5 lower, the best quarter can be 93 % of the first.
/// * The law of what is kept from one prompt is p/a above a cut in the reward, a part of that on it,
///   and 0 below: KL ≤ log 1/a, farther than the best of n = 1/a. What lies below is gone at once,
///   where the best of n keeps a little of everything.
/// # Departures
/// The authors' code takes the integer part of a·n, which may be 0 and which rounding errors can
/// lower by one. Ties: the earlier row is kept; theirs are left to the sort. It ranks the share of
/// each process apart; here the batch is what is passed.
/// # Examples
/// ```
/// use candle_align::{best_of_k, top_share};
/// use candle_core::{Device, Tensor};
///
/// // two answers to each of three prompts, the second prompt an easy one
/// let rewards = Tensor::new(&[[0.1f64, 0.4], [2.0, 3.0], [0.3, 0.2]], &Device::Cpu)?;
/// assert_eq!(best_of_k(&rewards, None)?, [1, 3, 4]);
/// assert_eq!(top_share(&rewards, None, 0.5)?, [1, 2, 3]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2023, arXiv:2307.12966v1, §3.1; Dong et al. 2023, arXiv:2304.06767, appendix, from
/// notes; authors' code OptimalScale/LMFlow, `pipeline/raft_aligner.py`, `_get_batch_dataset_top`
/// (a = 0.2 by default).
pub fn top_share(rewards: &Tensor, mask: Option<&Tensor>, share: f64) -> Result<Vec<usize>> {
    let function = "top_share";
    let in_range = share > 0.0 && share <= 1.0;
    require(in_range, function, "share", "in (0, 1]", share)?;
    let (counted, _) = counted(function, rewards, mask)?;
    let mut rows = ranked(&counted);
    // m = max(1, a · n)
    let kept = (share * rows.len() as f64).round().max(1.0);
    rows.truncate(kept as usize);
    rows.sort_unstable();
    Ok(rows)
}

/// The best answers of all rounds so far: the survey's global set, refreshed with each batch.
///
/// # Equation
/// ```text
/// G ← the `capacity` highest of G ∪ B
/// ```
/// # Shapes
/// Items of any type, each with one reward; a batch of any size. [`RefreshedSet::items`] are up to
/// `capacity`, the highest reward first.
/// # Errors
/// [`Error::Parameter`] if `capacity` is 0; [`Error::Argument`] if a reward is not finite, and the set
/// stays as it was.
/// # Properties
/// * Merging batches one after the other is merging all at once: what stands in the set depends on
///   the order only where rewards tie, and then the older item keeps its place.
/// * A full set never gets worse: its lowest reward only rises.
/// # Departures
/// The survey has one sentence for this and names neither a size nor what becomes of old rewards.
/// Here an item keeps the reward it came with; if the reward changes (a new reward model, or β > 0,
/// where r̃ depends on the policy), score the items again and merge them into a new set. Items are
/// not compared with each other: one that was drawn twice stands there twice.
/// # Examples
/// ```
/// use candle_align::RefreshedSet;
///
/// let mut set = RefreshedSet::new(2)?;
/// set.merge([("fair", 0.5), ("bad", -1.0)])?;
/// set.merge([("good", 2.0), ("as fair", 0.5)])?;
/// assert_eq!(set.items(), [("good", 2.0), ("fair", 0.5)]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2023, arXiv:2307.12966v1, §3.1.
#[derive(Clone, Debug, PartialEq)]
pub struct RefreshedSet<T> {
    capacity: usize,
    items: Vec<(T, f64)>,
}

impl<T> RefreshedSet<T> {
    /// An empty set that will hold up to `capacity` items.
    ///
    /// # Errors
    /// [`Error::Parameter`] if `capacity` is 0.
    pub fn new(capacity: usize) -> Result<Self> {
        let function = "RefreshedSet::new";
        require(capacity >= 1, function, "capacity", "at least 1", capacity)?;
        Ok(Self {
            capacity,
            items: Vec::new(),
        })
    }

    /// Adds items with their rewards, and keeps the best.
    ///
    /// # Errors
    /// [`Error::Argument`] if a reward is not finite; the set is then as it was.
    pub fn merge(&mut self, batch: impl IntoIterator<Item = (T, f64)>) -> Result<()> {
        let batch: Vec<(T, f64)> = batch.into_iter().collect();
        if let Some(at) = batch.iter().position(|(_, reward)| !reward.is_finite()) {
            return Err(Error::argument(
                "RefreshedSet::merge",
                format!("batch[{at}]"),
                format!("has the reward {}; it must be finite", batch[at].1),
            ));
        }
        self.items.extend(batch);
        // stable: of equal rewards the older first
        self.items.sort_by(|(_, a), (_, b)| descending(*a, *b));
        self.items.truncate(self.capacity);
        Ok(())
    }

    /// The items with their rewards, the best first.
    pub fn items(&self) -> &[(T, f64)] {
        &self.items
    }

    /// How many items it holds at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

/// The rewards that count, with their rows, and the width of the lists.
fn counted(
    function: &'static str,
    rewards: &Tensor,
    mask: Option<&Tensor>,
) -> Result<(Vec<(usize, f64)>, usize)> {
    let mut axes = Axes::new(function);
    let rewards = &axes.float("rewards", rewards, &["batch", "k"])?;
    let mask = match mask {
        Some(mask) => axes.mask("mask", mask, &["batch", "k"])?,
        None => Tensor::ones(rewards.shape(), DType::U8, rewards.device())?,
    };
    require_finite(function, "rewards", rewards, &mask)?;
    let rewards_on_host = to_host::<f64>(&rewards.to_dtype(DType::F64)?)?;
    let counted = rewards_on_host
        .into_iter()
        .enumerate()
        .zip(to_host::<u8>(&mask)?)
        .filter(|(_, counts)| *counts != 0)
        .map(|(answer, _)| answer)
        .collect();
    Ok((counted, rewards.dim(1)?))
}

/// The answers prompt by prompt; a prompt without any is left out.
fn prompts(counted: &[(usize, f64)], k: usize) -> impl Iterator<Item = &[(usize, f64)]> {
    counted.chunk_by(move |(a, _), (b, _)| a / k == b / k)
}

/// Rows by reward, the highest first; of equal rewards the earlier row first.
fn ranked(answers: &[(usize, f64)]) -> Vec<usize> {
    let mut answers = answers.to_vec();
    answers.sort_by(|(_, a), (_, b)| descending(*a, *b));
    answers.into_iter().map(|(row, _)| row).collect()
}

/// The higher first; 0 and −0 are equal. Rewards are finite.
fn descending(a: f64, b: f64) -> std::cmp::Ordering {
    b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal)
}
