//! Sequence likelihood calibration: a better answer should lead by a margin (survey §3.2.1).
//!
//! In one sentence: rank a model's own answers by how good they are, and push under a hinge (or
//! by expected reward) until their likelihoods stand in that order; a regulariser holds the rest.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log P(ŷ₊│x), log P(ŷ₋│x) | `policy.chosen`, `policy.rejected`: sums over tokens | `[batch]` |
//! | s(ŷ₊), s(ŷ₋) | `similarity.chosen`, `similarity.rejected` | `[batch]` |
//! | log P(ŷᵢ│x), s(ŷᵢ) | [`Candidates::sums`], [`Candidates::rewards`] | `[batch, k]` |
//! | β (δ in SLiC-HF) | [`SlicConfig::delta`] | number |
//! | KL regulariser | [`slic_kl_regulariser`] | `[batch, time]` |
//! | cross-entropy regulariser | [`sft_loss`](crate::sft_loss) on the target | `[batch, time]` |
//! | λ | the caller multiplies | number |
//!
//! A whole step is one calibration loss plus λ times one regulariser on the target:
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
    /// δ, by how many nats the better answer should lead: in all (rank), per unit of similarity
    /// (margin), per place in the ranking (list). Default 1, the value of SLiC-HF for the rank
    /// loss; the SLiC paper chose it by hand for each of the three and calls it β. Finite and not
    /// negative.
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
/// Both `[batch]`: sums of token log-probabilities. The loss is `[batch]`; the rewards beside it are
/// the log-probabilities.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType)
/// unless both are f32 or f64 alike, [`Error::Parameter`](crate::Error::Parameter) unless δ is
/// finite and not negative.
/// # Properties
/// * While the lead is below δ the gradients are −1 and +1; from δ on, δ included, they are 0.
/// * Only the difference of the log-probabilities counts: nothing holds their sum, nor the mass of
///   other answers.
/// * Without noise it stops after finitely many steps, at the first point with all leads ≥ δ. With
///   noisy labels on two answers the optimum is a lead of δ for the majority, whatever its size;
///   with more, one optimum has leads that are whole multiples of δ, and clearly ordered answers
///   may end level.
/// * [`slic_margin_loss`] with a gap of similarity of 1, and [`slic_list_loss`] on two answers,
///   are this loss.
/// * −∞ for the chosen answer costs +∞ with slope −1, for the rejected one 0.
/// # Departures
/// None from the paper for a given pair; which pair is drawn is data. The survey prints no equation.
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
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1; Zhao et al. 2023 (SLiC-HF), arXiv:2305.10425, eq. 4.
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
/// `[batch]`; the rewards beside it are the log-probabilities.
/// # Errors
/// As [`slic_rank_loss`], for all four tensors.
/// # Properties
/// * Gradients as in [`slic_rank_loss`]; none reach the similarities.
/// * Where δ · (s(ŷ₊) − s(ŷ₋)) is a constant, this is [`slic_rank_loss`] with that constant.
/// * On all pairs the zero set is implied by neighbours in the ranking alone. Its edge is
///   π ∝ e^{δ·s}, reinforcement learning with β = 1/δ and a uniform reference, but every policy
///   beyond the edge is as good.
/// * Equal similarities ask for a lead of 0. A pair the wrong way round asks for a negative lead.
/// * −∞ for the chosen answer costs +∞ with slope −1, for the rejected one 0.
/// # Departures
/// The similarity is an input; the paper takes an F value over spans of the model's own decoder
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
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1.
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
/// answers that stand at i or after it and before j.
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
/// * Only the order of the rewards counts, and only differences of log-probabilities.
/// * The zero set is that of all adjacent leads ≥ δ, the same as that of the rank loss with the
///   same δ on all pairs; far pairs push earlier.
/// * A list of one answer, or of equals, has loss 0.
/// * −∞ for an answer that has a worse one costs +∞ with a finite slope, for the last one 0.
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
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1; after Liu et al. 2022 (BRIO), arXiv:2203.16804.
pub fn slic_list_loss(candidates: &Candidates, config: &SlicConfig) -> Result<Tensor> {
    non_negative("slic_list_loss", "delta", config.delta)?;

    // δ · │i − j│: row i is the better answer, its rank is the lower one
    let lead = (differences(&candidates.ranks()?)? * -config.delta)?;

    // Σ_{i before j} max(0, δ │i − j│ − log P(ŷᵢ) + log P(ŷⱼ))
    let short = (lead - differences(candidates.sums())?)?;
    let pairs = masked_sum(&hinge(&short)?, &candidates.preferences()?)?;
    Ok(pairs.sum(D::Minus1)?)
}

/// The reward loss: minus the expected reward, if only the answers of the list could be given.
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
/// * Only differences of log-probabilities count, so the mass of answers outside the list is not
///   moved. Adding a number to all rewards subtracts it from the loss and changes no gradient.
/// * The infimum is minus the highest reward, approached as all mass goes to the best answer: over
///   all K answers, N · (max s − s̄) → (K − 1)/(Kα) under N steps of gradient descent of size α.
///   Several best answers share the mass freely.
/// * It is [`expected_risk_loss`](super::expected_risk::expected_risk_loss) on sums (`length_power: 0`), minus 1.
/// * Like the margin loss, and unlike rank and list, it depends on the scale of the rewards. A list of
///   one answer has loss −s and gradient 0.
/// * An answer of −∞ has no share and no slope; if it is the only one of its list, it has all.
/// # Departures
/// The survey calls it "expected rank loss". None from the notes of the paper: its shares are a softmax
/// over the candidates in the one set of them that writes the formula out.
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
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, eq. 1 (that it is an expected reward, from two sets of notes;
/// its form, from one, is that of Edunov et al. 2018, arXiv:1711.04956, from which the loss comes).
pub fn slic_expected_reward_loss(candidates: &Candidates) -> Result<Tensor> {
    // P(ŷᵢ) / Σⱼ P(ŷⱼ)
    let shares = softmax(candidates.sums(), candidates.mask())?;

    // −Σᵢ s(ŷᵢ) · …
    Ok((candidates.rewards() * shares)?.sum(D::Minus1)?.neg()?)
}

/// The KL regulariser: how far each next-token distribution on the target has moved.
///
/// # Equation
/// ```text
/// lₜ = Σᵥ P_θ(v│ȳ₍<t₎, x) · [ log P_θ(v│ȳ₍<t₎, x) − log P_ft(v│ȳ₍<t₎, x) ]
/// ```
/// This is KL(P_θ ‖ P_ft), over the whole vocabulary, with the policy in front.
/// # Shapes
/// Both logits `[batch, time, vocabulary]`, `mask` u8 `[batch, time]`; the result is `[batch, time]`
/// with its mask. All three are aligned: position t of the logits predicts the token that position
/// t of the mask counts. A decoder-only model's logits stand one step earlier than its tokens:
/// pass `logits.narrow(1, 0, time − 1)` and the mask of
/// [`TokenLogProbs::next_token`](crate::TokenLogProbs::next_token).
///
/// f32 or f64 alike; bf16 and f16 are raised to f32 first, and so is a bf16 or f16 reference beside
/// an f32 policy.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) as above.
/// # Properties
/// * lₜ ≥ 0 up to rounding, and 0 with gradient 0 where both distributions agree: the first step.
/// * ∂lₜ/∂(logit of v) = P_θ(v) · [ log P_θ(v)/P_ft(v) − lₜ ]; none reaches the reference.
/// * Against uniform reference logits, lₜ = log V − H(P_θ).
/// * Adding a number to all logits of a position changes nothing. Logits of −∞ are allowed: a token
///   that the policy excludes adds 0, one that only the reference excludes makes lₜ = +∞.
/// * With the rank loss on two answers it is a brake, not a wall: the lead z starts at z₀ and stops
///   where λ σ(z) σ(−z) (z − z₀) = 1, or at δ.
/// # Departures
/// The direction, with the policy in front, rests on one set of notes. The other one, the forward
/// KL(P_ft ‖ P_θ) of distillation, has the gradient P_θ − P_ft. It is exact over the vocabulary, not an
/// estimate from sampled tokens.
/// The survey names the regulariser without an equation.
/// # Examples
/// ```
/// use candle_align::{Reduction, slic_kl_regulariser};
/// use candle_core::{Device, Tensor};
///
/// // ¾ and ¼ against ½ and ½; the second position does not count
/// let policy = Tensor::new(&[[[3.0f64.ln(), 0.0], [5.0, 1.0]]], &Device::Cpu)?;
/// let reference = Tensor::new(&[[[7.0f64, 7.0], [0.0, 1.0]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0]], &Device::Cpu)?;
///
/// let kl = slic_kl_regulariser(&policy, &reference, &mask)?;
/// let sum = kl.reduce(Reduction::Sum)?.to_scalar::<f64>()?;
/// assert!((sum - (0.75 * (0.75f64 / 0.5).ln() + 0.25 * (0.25f64 / 0.5).ln())).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zhao et al. 2022, arXiv:2210.00045v1, §2: that there is one, per token of the target, from two sets
/// of notes that agree; its direction from one.
pub fn slic_kl_regulariser(
    policy_logits: &Tensor,
    reference_logits: &Tensor,
    mask: &Tensor,
) -> Result<TokenLoss> {
    let mut axes = Axes::new("slic_kl_regulariser");
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

/// bf16 and f16 as f32: a sum over a vocabulary in half precision is off in its second digit.
fn at_least_single(logits: &Tensor) -> Result<Tensor> {
    let logits = readable(logits)?;
    Ok(match logits.dtype() {
        DType::BF16 | DType::F16 => logits.to_dtype(DType::F32)?,
        _ => logits,
    })
}
