//! Reward-ranked fine-tuning: draw answers, keep the best, train on them (survey §3.1).
//!
//! In one sentence: each round draws K answers to every prompt, keeps the one with the highest
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
//! RAFT adds no loss. It selects answers, and a selection has no gradient, so it runs on the host and
//! returns row numbers. Row `prompt · k + i` is answer i to that prompt, as in
//! [`Samples`](crate::Samples) and
//! [`Candidates::from_token_log_probs`](crate::Candidates::from_token_log_probs).
//!
//! Read next: [`sampling`](super::sampling), where the answers come from;
//! [`rrhf`](crate::ranking::rrhf), which also learns from the order of the other answers.

use crate::error::{Error, Result, non_negative, require};
use crate::math::{require_finite, to_host};
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`kl_adjusted_rewards`].
///
/// K is the width of the rewards, and λ is [`SamplingConfig::temperature`](crate::SamplingConfig). The
/// paper uses K = 8, 16 and 32, and λ = 0.7, 0.85 and 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// β ≥ 0, the price in the ranking of each nat that an answer is away from the reference. Default
    /// 0, as in the paper, which also tries 0.005, 0.01 and 0.1.
    pub beta: f64,
}

/// The rewards by which answers are ranked.
///
/// # Equation
/// ```text
/// r̃(x, y) = r(x, y) − β · log( p_w(y│x) / p_0(y│x) )                              eq. 5
/// ```
/// # Shapes
/// `rewards`, `policy`, `reference` and the result are `[batch, k]`, of one type. The log-probabilities
/// are sums over tokens ([`TokenLogProbs::sum`](crate::TokenLogProbs::sum)). The result is a constant,
/// without history.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the inputs differ; [`Error::Parameter`] unless β is finite
/// and ≥ 0. The values are not checked here: [`best_of_k`] and [`top_share`] name one that is not finite.
/// # Properties
/// * β = 0, or a policy that still is the reference, leaves the rewards unchanged.
/// * The expectation over the policy's answers is E r − β KL(p_w‖p_0).
/// * At π* ∝ p_0 · e^{r/β} every answer has the same r̃, β log Z. So the best of k is any answer, and the
///   policy stays at π*. But π* does not attract: from nearby, a whole round moves far away, because even
///   a tiny difference of r̃ decides the selection. Only small mixtures of the old policy and the new one
///   converge to π*.
/// # Departures
/// None from the paper. The survey does not mention the term.
/// # Examples
/// ```
/// use candle_align::online::raft::{best_of_k, kl_adjusted_rewards};
/// use candle_align::RaftConfig;
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
/// # Inspect
/// * The mean of `policy − reference` over all drawn answers: the KL to the reference, round by round.
/// * In how many prompts [`best_of_k`] names another row than without β. If in none, β has no effect. If
///   in most, the KL decides the ranking and not the reward.
/// # Try
/// * Start a round exactly at π*, and another one next to it. Where does each end? Solution:
///   `tests/optimum/raft.rs::the_kl_penalized_optimum_is_a_fixed_point_that_does_not_attract`.
/// # Source
/// Dong et al. 2023, arXiv:2304.06767v4, eq. 5; the values of β: its table 7. Equation and values were
/// read in public summaries that quote them, not in the paper itself.
#[doc(alias = "KL penalty")]
#[doc(alias = "KL-regularized reward")]
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

/// The best answer to each prompt: the rows to train on.
///
/// # Equation
/// ```text
/// y*(x) = argmax_{i = 1…K} r(x, yᵢ)
/// B = { (x, y*(x)) },     L = −Σ_B log p_w(y*│x)
/// ```
/// The loss is [`sft_loss`](crate::sft_loss) on these rows.
/// # Shapes
/// `rewards` `[batch, k]` in f32 or f64, `mask` `[batch, k]` in u8; `None` counts all answers. The
/// result names one row `prompt · k + i` for each prompt that has an answer, in the order of the prompts.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] for other tensors; [`Error::Argument`] if a reward that
/// counts is not finite.
/// # Properties
/// * Only the order within a prompt matters: r → a·r + c(x) with a > 0 changes nothing.
/// * The distribution of the kept answer is B_n(y) = (F(r_y)ⁿ − F(r_y⁻)ⁿ) · p(y)/p(those that tie with y),
///   with n draws and F(c) = P(r ≤ c). It is the same whether the first of several ties is kept, as here,
///   or a random one.
/// * KL(B_n‖p) ≤ log n − (n − 1)/n. The two are nearly equal if no answer is likely, and the KL is smaller
///   if answers repeat. E max ≤ E r + w·√(½ log n), with w the range of the rewards.
/// * t rounds of the best of n equal one round of the best of nᵗ. In the limit all mass is on the highest
///   reward. After finitely many rounds no answer is lost: B_n(y) > 0 where p(y) > 0.
/// * With λ ≠ 1 the answers are drawn from p^{1/λ}. A λ below 1 sharpens the policy in each round even
///   if all rewards are equal.
/// * With one answer to each prompt this is fine-tuning on the policy's own answers.
/// # Departures
/// The survey describes the best 1/k of a whole batch. The paper has that variant in its appendix; here
/// it is [`top_share`]. The authors' published training counts every token of the sequence. Here the
/// mask of the sequence decides, and [`sample`](crate::sample) sets it on the answer alone.
/// # Examples
/// ```
/// use candle_align::online::raft::best_of_k;
/// use candle_align::{Reduction, SamplingConfig, SftConfig, TokenLogProbs, sample, sft_loss};
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
/// let config = SamplingConfig { answers: 8, max_new_tokens: 4, ends: vec![3], ..Default::default() };
/// let mut rng = StdRng::seed_from_u64(0);
/// let drawn = sample(model, &[[0], [1]], &config, &Device::Cpu, &mut rng)?;
/// let twos = |answer: &[u32]| answer.iter().filter(|&&token| token == 2).count() as f64;
/// let rewards: Vec<f64> = drawn.rows.iter().map(|row| twos(row.answer())).collect();
/// let rewards = Tensor::from_vec(rewards, (2, 8), &Device::Cpu)?;
///
/// // train on the best answer to each prompt
/// let batch = drawn.select(&best_of_k(&rewards, None)?)?.batch(0, &Device::Cpu)?;
/// assert_eq!(batch.tokens.dim(0)?, 2);
/// let log_probs = TokenLogProbs::next_token(&model(&batch.tokens)?, &batch.tokens, &batch.mask)?;
/// let loss = sft_loss(&log_probs, None, &SftConfig::default())?.reduce(Reduction::SequenceMean)?;
/// let gradient = loss.backward()?.get(&logits).unwrap().to_vec1::<f64>()?;
/// assert!(gradient[2] < 0.0, "2 becomes likelier: {gradient:?}");
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The mean reward of the kept answers less the mean of all that were drawn: the gain of this round.
///   When it falls to 0, the answers to each prompt are equal or tied, and a further round only repeats
///   them.
/// * The number of different answers to a prompt, round by round. When it falls much faster than the
///   reward rises, raise the temperature or stop.
/// # Try
/// * Which single round equals three rounds of the best of 2? Solution: `cargo run --example raft`.
/// * Give all answers the same reward and draw at λ = 0.85. What becomes of the policy? Solution:
///   `tests/optimum/raft.rs::a_temperature_below_one_sharpens_the_policy_without_any_reward`.
/// # Source
/// Dong et al. 2023, arXiv:2304.06767v4, §3.2 (the three steps), read in public summaries that agree, not
/// in the paper itself; authors' code OptimalScale/LMFlow, `pipeline/raft_aligner.py` (labels on every
/// token). The distribution of the best of n: Stiennon et al. 2020, arXiv:2009.01325, and Beirami et al.
/// 2024, arXiv:2401.01879v3 (log n − (n − 1)/n is an upper bound).
#[doc(alias = "best-of-n")]
#[doc(alias = "rejection sampling")]
#[doc(alias = "RAFT")]
#[doc(alias = "reward-ranked fine-tuning")]
pub fn best_of_k(rewards: &Tensor, mask: Option<&Tensor>) -> Result<Vec<usize>> {
    let (counted, k) = counted("best_of_k", rewards, mask)?;
    // y*(x) = argmax r(x, yᵢ), the first of ties
    Ok(prompts(&counted, k)
        .filter_map(|answers| ranked(answers).first().copied())
        .collect())
}

/// The best share of all answers, whatever their prompts: the rows to train on.
///
/// # Equation
/// ```text
/// B = the m highest of all r(x, yᵢ),     m = max(1, a · n rounded to the nearest)
/// ```
/// n is the number of answers that count and a the `share`; the survey's top 1/k is a = 1/k.
/// # Shapes
/// As [`best_of_k`]. The rows are in ascending order, not sorted by reward. One answer to each prompt is
/// `[batch, 1]`.
/// # Errors
/// As [`best_of_k`]; [`Error::Parameter`] unless 0 < a ≤ 1.
/// # Properties
/// * a = 1 keeps all. With one prompt, a = 1/k is [`best_of_k`].
/// * r → a·r + c changes nothing, but c(x) does: prompts whose answers all score low drop out. With the
///   rewards of a second prompt 1.5 lower, 93 % of the best quarter can belong to the first.
/// * The distribution of what is kept from one prompt is p/a above a cut in the reward, a part of that at
///   the cut, and 0 below: KL ≤ log 1/a, farther than the best of n = 1/a. Answers below the cut are lost
///   at once, whereas the best of n keeps a little of everything.
/// # Departures
/// The authors' code takes the integer part of a·n, which may be 0 and which rounding errors can
/// lower by one. Of tied rows the earlier one is kept here; their code leaves that to the sort. An early
/// version of it ranks the share of each process separately, a later one gathers all processes first;
/// here the batch is what the caller passes.
/// # Examples
/// ```
/// use candle_align::online::raft::{best_of_k, top_share};
/// use candle_core::{Device, Tensor};
///
/// // two answers to each of three prompts, the second prompt an easy one
/// let rewards = Tensor::new(&[[0.1f64, 0.4], [2.0, 3.0], [0.3, 0.2]], &Device::Cpu)?;
/// assert_eq!(best_of_k(&rewards, None)?, [1, 3, 4]);
/// assert_eq!(top_share(&rewards, None, 0.5)?, [1, 2, 3]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The kept rows of each prompt (`row / k`). A prompt without any is no longer trained on. If the same
/// prompts are missing in every round, they are hard or their rewards have another level: subtract each
/// prompt's mean reward, or use [`best_of_k`].
/// # Try
/// * Lower all rewards of one prompt by 1.5. Which selection notices? Solution:
///   `tests/optimum/raft.rs::hard_prompts_vanish_from_the_top_share_but_not_from_the_best_of_k`.
/// # Source
/// Wang et al. 2023, arXiv:2307.12966v1, §3.1; authors' code OptimalScale/LMFlow,
/// `pipeline/raft_aligner.py`, `_get_batch_dataset_top` (a = 0.2 by default), read at commits 0128b9c and
/// 5047f2f; Dong et al. 2023, arXiv:2304.06767v4, appendix (one answer to each prompt, the best 1/K of the
/// batch), read in a public summary, not in the paper itself.
#[doc(alias = "global ranking")]
#[doc(alias = "rejection sampling")]
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
/// Items of any type, each with one reward; a batch of any size. [`RefreshedSet::items`] holds at most
/// `capacity` items, the highest reward first.
/// # Errors
/// [`Error::Parameter`] if `capacity` is 0; [`Error::Argument`] if a reward is not finite, in which case
/// the set is unchanged.
/// # Properties
/// * Merging batches one after the other is the same as merging all at once. The order matters only where
///   rewards tie, and then the older item stays.
/// * A full set never gets worse: its lowest reward never falls.
/// # Departures
/// The survey has one sentence for this. It names no size and does not say what happens to old rewards.
/// Here an item keeps the reward it came with. If the reward changes (a new reward model, or β > 0,
/// where r̃ depends on the policy), score the items again and merge them into a new set. Items are
/// not compared with each other, so an item that was drawn twice is in the set twice.
/// # Examples
/// ```
/// use candle_align::online::raft::RefreshedSet;
///
/// let mut set = RefreshedSet::new(2)?;
/// set.merge([("fair", 0.5), ("bad", -1.0)])?;
/// set.merge([("good", 2.0), ("as fair", 0.5)])?;
/// assert_eq!(set.items(), [("good", 2.0), ("fair", 0.5)]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The lowest reward of the set and the number of different items. If new batches no longer change the
/// set, training repeats old answers: the set is too small, or the policy no longer finds better ones.
/// # Try
/// * Merge three batches in two different orders. When do the sets differ? Solution:
///   `tests/identities/raft.rs::merging_batch_by_batch_is_merging_at_once_and_never_makes_worse`.
/// # Source
/// Wang et al. 2023, arXiv:2307.12966v1, §3.1.
#[doc(alias = "replay buffer")]
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
    /// [`Error::Argument`] if a reward is not finite; the set is then unchanged.
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
        // a stable sort: of equal rewards the older comes first
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
