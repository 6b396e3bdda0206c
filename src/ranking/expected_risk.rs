//! Expected risk: the mean cost of a few answers under the policy's own shares (the root of SLiC's
//! reward loss, survey §3.2.1).
//!
//! In one sentence: if the model could answer only with the candidates, each as often as its
//! length-normalised likelihood says, how much would that cost; beside it, imitation of a reference.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log p(u│x), before the division by length | [`Candidates::sums`] | `[batch, k]` |
//! | cost(t, u) = 1 − BLEU(t, u) | 1 − [`Candidates::rewards`] | `[batch, k]` |
//! | L_tok, before its sum over tokens | `reference`: [`sft_loss`](crate::sft_loss) on the target t | `[batch, time]` |
//! | α | [`ExpectedRiskConfig::token_weight`] | number |
//! | (1 − α) · L_risk, α · L_tok | [`ListLoss::ranking`], [`ListLoss::sft`] | `[batch]` |
//!
//! Read next: [`slic`](super::slic) (its reward loss is this one on sums), [`brio`](super::brio).

use super::{ListLoss, ReferenceTokens, normalised, reference_loss};
use crate::error::{Error, Result, non_negative, require};
use crate::log_probs::Candidates;
use crate::math::{masked_sum, softmax, weighted};
use crate::outputs::TokenLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`expected_risk_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedRiskConfig {
    /// The power of the length by which a log-probability is divided. Default 1, the mean per token,
    /// as in the paper; 0 is the sum, the probability itself. Finite and not negative.
    pub length_power: f64,
    /// α in [0, 1], the weight of the reference answer's tokens beside 1 − α for the risk. Default 0:
    /// the risk alone. The paper tunes it; its authors' command for translation has 0.5, for costs
    /// that are a hundred times these.
    pub token_weight: f64,
    /// How the tokens of the reference answer add up. Default [`ReferenceTokens::Sum`].
    pub reference: ReferenceTokens,
}

impl Default for ExpectedRiskConfig {
    fn default() -> Self {
        Self {
            length_power: 1.0,
            token_weight: 0.0,
            reference: ReferenceTokens::default(),
        }
    }
}

/// The loss of each list.
///
/// # Equation
/// ```text
/// s(u)    = log p(u│x) / │u│                            (here / │u│^a, a being length_power)
/// L_risk  = Σᵤ cost(u) · e^{s(u)} / Σᵤ′ e^{s(u′)},      cost(u) = 1 − reward(u)
/// L_tok   = −Σₜ log p(tₜ│x, t₍<t₎)
/// L       = α · L_tok + (1 − α) · L_risk
/// ```
/// # Shapes
/// Lists of up to k answers in any order; rewards take the place of BLEU, which lies in [0, 1], but
/// may be any numbers. `reference` is the cross-entropy of the reference answer per token
/// `[batch, time]` with its mask: [`sft_loss`](crate::sft_loss), smoothed or not. All of
/// [`ListLoss`] is `[batch]`.
/// # Errors
/// [`Error::Parameter`] unless a is finite and not negative and 0 ≤ α ≤ 1; [`Error::Argument`] if
/// there is no reference although α > 0; [`Error::Shape`] or [`Error::DType`] if it has another
/// batch or type than the candidates, also where α = 0 leaves it out.
/// # Properties
/// * With shares p̃ = softmax s, mean cost c̄ = Σ p̃ cost, the gradient of L_risk with respect to
///   log p(u│x) is p̃ᵤ (costᵤ − c̄)/│u│^a. It vanishes for an answer that has no share: of two answers
///   that are z apart the pull is σ(z)σ(−z), most at the tie, and a hopelessly wrong order stays.
/// * a = 0 is 1 + [`slic_expected_reward_loss`](super::slic::slic_expected_reward_loss): one minus the
///   expected reward. One number added to all rewards is taken off the loss and changes no gradient.
/// * Answers of one length, or a = 0: only differences of log-probabilities count, and answers
///   outside the list keep their mass. For unequal lengths it moves.
/// * L_risk has no minimiser: its infimum is the least cost, approached as all mass goes to the best
///   answer; over all K answers of one token N · (c̄ − min cost) → (K − 1)/(Kη) under N steps of
///   gradient descent of size η. Several best answers share the mass freely.
/// * With α > 0 and references of distribution d there is one: over one-token answers
///   π(u) = α d(u)/(μ − (1 − α) reward(u)), μ such that these sum to 1.
/// * The authors' code, which feeds e^{s} where s belongs, is this loss on candidates of one token
///   whose log-probabilities are e^{s}. As 0 < e^{s} ≤ 1, no share there can exceed e/(e + K − 1): the
///   least risk of four answers is still far from the least cost.
/// * A list of one answer has L_risk = 1 − reward and gradient 0; one of none has 0.
/// * An answer of −∞ has no share and no slope; if it is the only one of its list, it has all.
/// # Departures
/// * None from the paper's equations with α given; its cost is 1 − BLEU, here 1 − reward.
/// * The authors' code has a softmax of e^{s} in place of s (see above), costs of 100 − BLEU in
///   percent, and divides L_tok by the tokens of the batch.
/// * The survey cites the loss through SLiC, without an equation.
/// # Examples
/// ```
/// use candle_align::{Candidates, ExpectedRiskConfig, expected_risk_loss};
/// use candle_core::{Device, Tensor};
///
/// // per token, the first answer is three times as likely as the second
/// let sums = Tensor::new(&[[2.0 * 0.6f64.ln(), 3.0 * 0.2f64.ln()]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[2.0f64, 3.0]], &Device::Cpu)?;
/// let bleu = Tensor::new(&[[0.25f64, 0.75]], &Device::Cpu)?;
/// let candidates = Candidates::new(&sums, &lengths, &bleu, None)?;
///
/// let out = expected_risk_loss(&candidates, None, &ExpectedRiskConfig::default())?;
/// let risk = 0.75 * (1.0 - 0.25) + 0.25 * (1.0 - 0.75);
/// assert!((out.loss.to_vec1::<f64>()?[0] - risk).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Edunov et al. 2018, arXiv:1711.04956, the risk loss and the weighted combination (from notes, not
/// from the numbered equations); authors' code facebookresearch/fairseq, branch `classic_seqlevel`,
/// `sequence_risk_criterion.py`, `sequence_forward`, and the branch's README (seen in copies).
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn expected_risk_loss(
    candidates: &Candidates,
    reference: Option<&TokenLoss>,
    config: &ExpectedRiskConfig,
) -> Result<ListLoss> {
    let function = "expected_risk_loss";
    let alpha = config.token_weight;
    non_negative(function, "length_power", config.length_power)?;
    require(
        (0.0..=1.0).contains(&alpha),
        function,
        "token_weight",
        "in [0, 1]",
        alpha,
    )?;
    if reference.is_none() && alpha > 0.0 {
        let problem = "is None, but token_weight > 0 weighs its tokens";
        return Err(Error::argument(function, "reference", problem));
    }

    // s(u) = log p(u│x) / │u│^a
    let scores = normalised(candidates, config.length_power)?;

    // Σᵤ cost(u) · e^{s(u)} / Σᵤ′ e^{s(u′)}
    let costs = candidates.rewards().affine(-1.0, 1.0)?;
    let risk = masked_sum(
        &(costs * softmax(&scores, candidates.mask())?)?,
        candidates.mask(),
    )?;

    // α · L_tok + (1 − α) · L_risk
    let tokens = reference_loss(function, candidates, reference, config.reference)?;
    ListLoss::new(&weighted(&risk, 1.0 - alpha)?, &weighted(&tokens, alpha)?)
}
