//! Sequence likelihood calibration: a better answer should lead by a margin (survey §3.2.1).
//!
//! In one sentence: rank a model's own answers by quality and push, with a hinge or by expected reward,
//! until their likelihoods are in that order; a regularizer holds the rest in place.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log P(ŷ₊│x), log P(ŷ₋│x) | `policy.chosen`, `policy.rejected`: sums over tokens | `[batch]` |
//! | s(ŷ₊), s(ŷ₋) | `similarity.chosen`, `similarity.rejected` | `[batch]` |
//! | log P(ŷᵢ│x), s(ŷᵢ) | [`Candidates::sums`], [`Candidates::rewards`] | `[batch, k]` |
//! | β (δ in SLiC-HF) | [`SlicConfig::delta`] | number |
//! | KL regularizer | [`slic_kl_regularizer`] | `[batch, time]` |
//! | cross-entropy regularizer | [`sft_loss`](crate::sft_loss) on the target | `[batch, time]` |
//! | λ | the caller multiplies | number |
//!
//! A whole step is one calibration loss plus λ times one regularizer on the target:
//!
//! ```
//! use candle_align::{Pair, Reduction, SftConfig, SlicConfig, TokenLogProbs, sft_loss, slic_rank_loss};
//! use candle_core::{Device, Tensor};
//!
//! let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
//! let pair = Pair { chosen: at(-3.0)?, rejected: at(-2.5)? };
//! let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
//! let target = TokenLogProbs::new(&Tensor::new(&[[-0.3f64, -0.2]], &Device::Cpu)?, &mask)?;
//!
//! let calibration = slic_rank_loss(&pair, &SlicConfig::default())?.loss.mean(0)?;
//! let cross_entropy = sft_loss(&target, None, &SftConfig::default())?.reduce(Reduction::SequenceMean)?;
//! let loss = (calibration + (cross_entropy * 0.5)?)?.to_scalar::<f64>()?;
//! assert!((loss - ((1.0 + 3.0 - 2.5) + 0.5 * (0.3 + 0.2))).abs() < 1e-12);
//! # Ok::<(), candle_align::Error>(())
//! ```
//!
//! Read next: [`brio`](super::brio) (where the list loss comes from), [`expected_risk`](super::expected_risk)
//! (where the reward loss comes from), [`rrhf`](super::rrhf) (the list without a margin).

use super::differences;
use crate::error::{Result, non_negative};
use crate::known::readable;
use crate::log_probs::{Candidates, Pair};
use crate::math::{hinge, log_softmax, masked, masked_sum, softmax, weighted};
use crate::outputs::PreferenceLoss;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`slic_rank_loss`], [`slic_margin_loss`] and [`slic_list_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlicConfig {
    /// δ, the number of nats by which the better answer should lead: in total (rank), per unit of
    /// similarity (margin) or per place in the ranking (list). Default 1, SLiC-HF's value for the rank
    /// loss. The SLiC paper calls it β and chose it by hand for each of the three. Finite and not
    /// negative.
    #[doc(alias = "margin")]
    pub delta: f64,
}

impl Default for SlicConfig {
    fn default() -> Self {
        Self { delta: 1.0 }
    }
}

/// The rank loss: the better answer should lead by δ.
///
/// # Equation
/// ```text
/// L = max(0, δ − log P(ŷ₊│x) + log P(ŷ₋│x))
/// ```
/// # Shapes
/// Both `[batch]`: sums of token log-probabilities. The loss is `[batch]`; the result's rewards are the
/// log-probabilities.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType)
/// unless both are f32 or f64 alike, [`Error::Parameter`](crate::Error::Parameter) unless δ is
/// finite and not negative.
/// # Properties
/// * While the lead is below δ the gradients are −1 and +1; at δ and above they are 0.
/// * Only the difference of the log-probabilities matters: nothing holds their sum or the mass of
///   other answers.
/// * Without noise, training stops after finitely many steps, at the first point with all leads ≥ δ.
///   With noisy labels on two answers the optimum is a lead of δ for the majority, however small the
///   majority. With more answers, one optimum has leads that are whole multiples of δ, and clearly
///   ordered answers may end level.
/// * [`slic_margin_loss`] with similarities 1 apart, and [`slic_list_loss`] on two answers, equal this
///   loss.
/// * A log-probability of −∞ costs +∞ with slope −1 for the chosen answer, and 0 for the rejected one.
/// # Departures
/// None from the paper for a given pair; how pairs are drawn is data. The survey prints no equation.
/// # Examples
/// ```
/// use candle_align::{Pair, SlicConfig, slic_rank_loss};
/// use candle_core::{Device, Tensor};
///
/// let policy = Pair {
///     chosen: Tensor::new(&[-3.0f64, -1.0], &Device::Cpu)?,
///     rejected: Tensor::new(&[-3.5f64, -4.0], &Device::Cpu)?,
/// };
/// let out = slic_rank_loss(&policy, &SlicConfig::default())?;
/// // a lead of 0.5 is short of 1 by 0.5; a lead of 3 is enough
/// assert_eq!(out.loss.to_vec1::<f64>()?, [1.0 + 3.0 - 3.5, 0.0]);
/// assert_eq!(out.rewards.accuracy()?.to_scalar::<f64>()?, 1.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the share of pairs whose loss is exactly 0: they have their lead and no longer train. Once it
///   is near 1 the rank loss has ended, by design.
/// * `out.rewards.accuracy()` of 1 with a positive loss means that the order is right and the leads are
///   short of δ.
/// * Watch `policy.chosen` itself. If both log-probabilities fall while the lead grows, the regularizer is
///   too weak: nothing in the hinge holds their sum.
/// # Try
/// * Flip 5 % of the labels of one pair, then 45 %. What lead does each majority get? Solution:
///   `tests/optimum/slic.rs::rank_under_noise_leads_by_delta_for_the_majority_of_any_size`.
/// * Add cross-entropy on the target. Does the lead still reach δ? Solution:
///   `tests/optimum/slic.rs::cross_entropy_stops_the_lead_before_delta`.
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1; Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425, eq. 4.
#[doc(alias = "hinge")]
#[doc(alias = "calibration loss")]
#[doc(alias = "SLiC-HF")]
pub fn slic_rank_loss(policy: &Pair<Tensor>, config: &SlicConfig) -> Result<PreferenceLoss> {
    let function = "slic_rank_loss";
    non_negative(function, "delta", config.delta)?;
    let policy = Axes::new(function).pair("policy", policy)?;

    // max(0, δ − log P(ŷ₊) + log P(ŷ₋))
    let loss = hinge(&policy.margin()?.affine(-1.0, config.delta)?)?;
    PreferenceLoss::new(loss, &policy)
}

/// The margin loss: the better answer should lead in proportion to how much better it is.
///
/// # Equation
/// ```text
/// L = max(0, δ · (s(ŷ₊) − s(ŷ₋)) − log P(ŷ₊│x) + log P(ŷ₋│x))
/// ```
/// # Shapes
/// All `[batch]`; `policy` holds sums of token log-probabilities, `similarity` constants. The loss is
/// `[batch]`; the result's rewards are the log-probabilities.
/// # Errors
/// As for [`slic_rank_loss`], for all four tensors.
/// # Properties
/// * Gradients as in [`slic_rank_loss`]; none reach the similarities.
/// * Where δ · (s(ŷ₊) − s(ŷ₋)) is a constant, this is [`slic_rank_loss`] with that constant.
/// * On all pairs, neighbors in the ranking alone decide where the loss is 0. The edge of that set is
///   π ∝ e^{δ·s}, the optimum of reinforcement learning with β = 1/δ and a uniform reference; every
///   policy beyond the edge is as good.
/// * Equal similarities ask for a lead of 0. A pair the wrong way round asks for a negative lead.
/// * A log-probability of −∞ costs +∞ with slope −1 for the chosen answer, and 0 for the rejected one.
/// # Departures
/// The similarity is an input here; the paper takes an F value over spans of the model's own decoder
/// states. The survey prints no equation.
/// # Examples
/// ```
/// use candle_align::{Pair, SlicConfig, slic_margin_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.0)?, rejected: at(-3.5)? };
/// let similarity = Pair { chosen: at(0.75)?, rejected: at(0.25)? };
/// let out = slic_margin_loss(&policy, &similarity, &SlicConfig { delta: 4.0 })?;
/// assert_eq!(out.loss.to_vec1::<f64>()?, [4.0 * (0.75 - 0.25) + 3.0 - 3.5]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Plot `out.rewards.margin()` against `similarity.margin()`: pairs below the line of slope δ are those
///   that still train.
/// * A loss near 0 from the start means that the leads asked for are tiny: similarities that differ by
///   hundredths need a δ in the hundreds to ask for whole nats.
/// * Count the pairs with `similarity.chosen` below `similarity.rejected`. They ask for a negative lead and
///   are probably mislabeled.
/// # Try
/// * Train on all pairs of a list. At which leads does training stop? Solution:
///   `tests/optimum/slic.rs::margin_and_list_stop_at_their_leads`.
/// * Find similarities that turn this loss into the rank loss. Solution:
///   `tests/identities/slic.rs::a_margin_of_one_size_is_the_rank_loss`.
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1.
#[doc(alias = "hinge")]
#[doc(alias = "max-margin")]
pub fn slic_margin_loss(
    policy: &Pair<Tensor>,
    similarity: &Pair<Tensor>,
    config: &SlicConfig,
) -> Result<PreferenceLoss> {
    let function = "slic_margin_loss";
    non_negative(function, "delta", config.delta)?;
    let mut axes = Axes::new(function);
    let policy = axes.pair("policy", policy)?;
    let similarity = axes.pair("similarity", similarity)?;

    // max(0, δ (s(ŷ₊) − s(ŷ₋)) − log P(ŷ₊) + log P(ŷ₋))
    let lead = weighted(&similarity.detach().margin()?, config.delta)?;
    PreferenceLoss::new(hinge(&(lead - policy.margin()?)?)?, &policy)
}

/// The list loss: every answer should lead every worse one, by δ for each place between them.
///
/// # Equation
/// ```text
/// L = Σ_{i before j} max(0, δ · │i − j│ − log P(ŷᵢ│x) + log P(ŷⱼ│x))
/// ```
/// i and j are places in the ranking by reward, best first. An answer's place is the number of
/// strictly better ones, so equal answers share a place and make no pair, and │i − j│ counts the
/// answers at or after place i and before place j.
/// # Shapes
/// Lists of up to k answers in any order; the result is `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless δ is finite and not negative. Shapes and
/// types were checked when the [`Candidates`] were made.
/// # Properties
/// * Each pair that is short of its lead adds −1 to the gradient of the better answer and +1 to
///   that of the worse one; a pair exactly at its lead adds 0.
/// * Two answers give [`slic_rank_loss`]. δ = 0 on length means gives the ranking part of
///   [`rrhf_loss`](crate::rrhf_loss).
/// * Only the order of the rewards and the differences of log-probabilities matter.
/// * The loss is 0 exactly where all adjacent leads are ≥ δ. For the rank loss with the same δ on all
///   pairs that set is the same, but here far pairs push earlier.
/// * A list of one answer, or of equals, has loss 0.
/// * A log-probability of −∞ costs +∞ with a finite slope for an answer that has a worse one, and 0 for
///   the last.
/// # Departures
/// The paper's candidates have no ties. BRIO, from which the loss comes, divides each
/// log-probability by │y│^α; SLiC does not. The survey prints no equation.
/// # Examples
/// ```
/// use candle_align::{Candidates, SlicConfig, slic_list_loss};
/// use candle_core::{Device, Tensor};
///
/// let sums = Tensor::new(&[[-4.0f64, -3.0, -3.5]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[4.0f64, 3.0, 3.0]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[0.1f64, 0.9, 0.5]], &Device::Cpu)?;
/// let candidates = Candidates::new(&sums, &lengths, &rewards, None)?;
///
/// let loss = slic_list_loss(&candidates, &SlicConfig { delta: 0.75 })?.to_vec1::<f64>()?[0];
/// // second against first, third against second, third against first
/// assert_eq!(loss, (0.75 + 3.0 - 3.5) + (0.75 + 3.5 - 4.0) + (2.0 * 0.75 + 3.0 - 4.0));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Know the loss at a tie: k answers that are all equally likely, without tied rewards, cost
///   δ · k(k² − 1)/6. Compare only lists of the same k.
/// * A start far above that means that the order is wrong. It is often the order of lengths: sums of
///   log-probabilities put short answers first.
/// * Ask [`ranking_accuracy`](crate::online::reward_model::ranking_accuracy) of [`Candidates::sums`] for the order itself.
/// # Try
/// * Write a list of three as rank losses of its pairs. Which δ does each pair get? Solution:
///   `tests/identities/slic.rs::a_list_is_the_rank_losses_of_its_pairs_with_their_distances`.
/// * Swap rewards of 1, 2, 3 for 1, 2, 300. What changes? Solution:
///   `tests/identities/slic.rs::the_list_sees_the_order_of_the_rewards_only`.
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1; after Liu et al. 2022 (BRIO), arXiv:2203.16804.
#[doc(alias = "list-wise")]
#[doc(alias = "hinge")]
pub fn slic_list_loss(candidates: &Candidates, config: &SlicConfig) -> Result<Tensor> {
    non_negative("slic_list_loss", "delta", config.delta)?;

    // δ · │i − j│: row i is the better answer, its rank is the lower one
    let lead = (differences(&candidates.ranks()?)? * -config.delta)?;

    // Σ_{i before j} max(0, δ │i − j│ − log P(ŷᵢ) + log P(ŷⱼ))
    let short = (lead - differences(candidates.sums())?)?;
    let pairs = masked_sum(&hinge(&short)?, &candidates.preferences()?)?;
    Ok(pairs.sum(D::Minus1)?)
}

/// The reward loss: minus the expected reward if the policy answered only from the list.
///
/// # Equation
/// ```text
/// L = −Σᵢ s(ŷᵢ) · P(ŷᵢ│x) / Σⱼ P(ŷⱼ│x)
/// ```
/// # Shapes
/// Lists of up to k answers in any order; the result is `[batch]`.
/// # Errors
/// Only candle's own. Shapes and types were checked when the [`Candidates`] were made.
/// # Properties
/// * With p̃ = softmax ℓ over the list and s̄ = Σ p̃ s, the gradient is −p̃ᵢ(sᵢ − s̄): it sums to 0,
///   and over all possible answers it is the policy gradient without a KL penalty.
/// * Only differences of log-probabilities matter, so answers outside the list keep their mass. Adding a
///   number to all rewards subtracts it from the loss and changes no gradient.
/// * The infimum is minus the highest reward, approached as all mass goes to the best answer. Over
///   all K answers, N · (max s − s̄) → (K − 1)/(Kα) under N steps of gradient descent of size α.
///   Several best answers share the mass freely.
/// * It equals [`expected_risk_loss`](super::expected_risk::expected_risk_loss) on sums (`length_power: 0`),
///   minus 1.
/// * Like the margin loss, and unlike rank and list, it depends on the scale of the rewards. A list of
///   one answer has loss −s and gradient 0.
/// * An answer of −∞ has no share and no slope; if it is the only one in its list, it has the whole
///   share.
/// # Departures
/// The survey calls it "expected rank loss". That the shares are a softmax over the candidates rests on
/// one summary of the paper (see Source).
/// # Examples
/// ```
/// use candle_align::{Candidates, slic_expected_reward_loss};
/// use candle_core::{Device, Tensor};
///
/// let sums = Tensor::new(&[[0.6f64.ln(), 0.2f64.ln()]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[5.0f64, 7.0]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[1.0f64, 3.0]], &Device::Cpu)?;
/// let candidates = Candidates::new(&sums, &lengths, &rewards, None)?;
///
/// let loss = slic_expected_reward_loss(&candidates)?.to_vec1::<f64>()?[0];
/// assert!((loss + (0.75 * 1.0 + 0.25 * 3.0)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * −`loss` is the mean reward of the list under the policy's shares: it lies between the lowest and the
///   highest reward.
/// * A flat loss below the best reward means saturated shares. Sums of long answers differ by many nats,
///   so one candidate holds nearly all of the softmax and the gradient vanishes; length-normalized
///   scores ([`expected_risk_loss`](super::expected_risk::expected_risk_loss)) saturate later.
/// * Sample from the policy: the loss gives no gradient to the total mass of the list, so answers outside
///   it stay as likely as they were.
/// # Try
/// * Compute the gradient over all possible answers by hand and compare it with the policy gradient.
///   Solution: `tests/identities/slic.rs::expected_reward_of_all_answers_is_the_policy_gradient`.
/// * Leave the best answer out of the list. What happens to its probability? Solution:
///   `tests/optimum/slic.rs::expected_reward_of_a_list_leaves_the_answers_outside_it`.
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1, read in summaries, not in the paper. Two independent ones
/// agree that the loss is an expected reward; one writes out the softmax, which is the form of Edunov et
/// al. 2018, arXiv:1711.04956, from which the loss comes.
#[doc(alias = "minimum risk")]
#[doc(alias = "policy gradient")]
#[doc(alias = "expected rank loss")]
pub fn slic_expected_reward_loss(candidates: &Candidates) -> Result<Tensor> {
    // P(ŷᵢ) / Σⱼ P(ŷⱼ)
    let shares = softmax(candidates.sums(), candidates.mask())?;

    // −Σᵢ s(ŷᵢ) · …
    Ok((candidates.rewards() * shares)?.sum(D::Minus1)?.neg()?)
}

/// The KL regularizer: how far each next-token distribution on the target has moved.
///
/// # Equation
/// ```text
/// lₜ = Σᵥ P_θ(v│ȳ₍<t₎, x) · [ log P_θ(v│ȳ₍<t₎, x) − log P_ft(v│ȳ₍<t₎, x) ]
/// ```
/// This is KL(P_θ ‖ P_ft) over the whole vocabulary, with the policy first.
/// # Shapes
/// Both logits `[batch, time, vocabulary]`, `mask` u8 `[batch, time]`; the result is `[batch, time]`
/// with its mask. All three are aligned: position t of the logits predicts the token that position
/// t of the mask counts. A decoder-only model's logits are one position earlier than the tokens they predict:
/// pass `logits.narrow(1, 0, time − 1)` and the mask of
/// [`TokenLogProbs::next_token`](crate::TokenLogProbs::next_token).
///
/// Both are f32 or both f64. bf16 and f16 are converted to f32 first, also for a bf16 or f16 reference
/// beside an f32 policy.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) as above.
/// # Properties
/// * lₜ ≥ 0 up to rounding. Where both distributions agree, as at the first step, lₜ and its gradient
///   are 0.
/// * ∂lₜ/∂(logit of v) = P_θ(v) · [ log P_θ(v)/P_ft(v) − lₜ ]; no gradient reaches the reference.
/// * For uniform reference logits, lₜ = log V − H(P_θ).
/// * Adding a number to all logits of a position changes nothing. Logits of −∞ are allowed: a token
///   that the policy excludes adds 0; a token that only the reference excludes makes lₜ = +∞.
/// * It only slows the rank loss on two answers: the lead z starts at z₀ and stops
///   where λ σ(z) σ(−z) (z − z₀) = 1, or at δ.
/// # Departures
/// * The direction, with the policy first, rests on one summary of the paper (see Source). The other
///   direction, the forward KL(P_ft ‖ P_θ) of distillation, has the gradient P_θ − P_ft.
/// * The KL is exact over the vocabulary, not an estimate from sampled tokens.
/// * The survey names the regularizer without an equation.
/// # Examples
/// ```
/// use candle_align::{Reduction, slic_kl_regularizer};
/// use candle_core::{Device, Tensor};
///
/// // ¾ and ¼ against ½ and ½; the second position does not count
/// let policy = Tensor::new(&[[[3.0f64.ln(), 0.0], [5.0, 1.0]]], &Device::Cpu)?;
/// let reference = Tensor::new(&[[[7.0f64, 7.0], [0.0, 1.0]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0]], &Device::Cpu)?;
///
/// let kl = slic_kl_regularizer(&policy, &reference, &mask)?;
/// let sum = kl.reduce(Reduction::Sum)?.to_scalar::<f64>()?;
/// assert!((sum - (0.75 * (0.75f64 / 0.5).ln() + 0.25 * (0.25f64 / 0.5).ln())).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean over counted tokens ([`Reduction::TokenMean`](crate::Reduction::TokenMean)). It is 0 at the
///   first step; another value means that the reference is not the start or the logits are misaligned.
/// * If it keeps rising, λ is too small for the calibration loss beside it. The pull of the KL weakens as
///   the policy moves far away.
/// * +∞ means a token that the reference excludes (a logit of −∞) and the policy does not.
/// # Try
/// * Swap policy and reference. Is the KL the same? Solution:
///   `tests/values/slic.rs::kl_has_the_policy_in_front`.
/// * Add the KL to the rank loss on two answers and predict where the lead stops. Solution:
///   `tests/optimum/slic.rs::the_kl_stops_the_lead_before_delta`.
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, §2, read in summaries, not in the paper. Two independent ones
/// agree that there is such a regularizer per token of the target; one gives its direction.
#[doc(alias = "KL penalty")]
#[doc(alias = "KL regularizer")]
#[doc(alias = "reverse KL")]
pub fn slic_kl_regularizer(
    policy_logits: &Tensor,
    reference_logits: &Tensor,
    mask: &Tensor,
) -> Result<TokenLoss> {
    let mut axes = Axes::new("slic_kl_regularizer");
    let policy = at_least_single(policy_logits)?;
    let reference = match policy.dtype() {
        DType::F32 => at_least_single(reference_logits)?,
        _ => readable(reference_logits)?,
    };
    let logits = ["batch", "time", "vocabulary"];
    axes.float("policy_logits", &policy, &logits)?;
    axes.float("reference_logits", &reference, &logits)?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;

    // log P_θ, log P_ft; where the mask does not count both become uniform, their KL 0
    let counts = mask.unsqueeze(2)?.broadcast_as(policy.shape())?;
    let log_policy = log_softmax(&masked(&policy, &counts)?, None)?;
    let log_reference = log_softmax(&masked(&reference.detach(), &counts)?, None)?;

    // Σᵥ P_θ · [ log P_θ − log P_ft ], where 0 · log 0 = 0
    let p = log_policy.exp()?;
    let possible = p.gt(0.0)?;
    let difference = (masked(&log_policy, &possible)? - masked(&log_reference, &possible)?)?;
    Ok(TokenLoss {
        loss: (p * difference)?.sum(D::Minus1)?,
        mask,
    })
}

/// Converts bf16 and f16 to f32: a sum over a vocabulary in half precision is off in its second digit.
fn at_least_single(logits: &Tensor) -> Result<Tensor> {
    let logits = readable(logits)?;
    Ok(match logits.dtype() {
        DType::BF16 | DType::F16 => logits.to_dtype(DType::F32)?,
        _ => logits,
    })
}
