//! Expected risk: the mean cost of a few answers under the policy's own shares (the root of SLiC's
//! reward loss, survey §3.2.1).
//!
//! In one sentence: the cost to expect if the model answered only with the candidates, each as often as
//! its length-normalized likelihood says, plus imitation of a reference answer.
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

use super::{ListLoss, ReferenceTokens, normalized, reference_loss};
use crate::error::{Error, Result, non_negative, require};
use crate::log_probs::Candidates;
use crate::math::{masked_sum, softmax, weighted};
use crate::outputs::TokenLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`expected_risk_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedRiskConfig {
    /// The power of the length that divides a log-probability. Default 1, the mean per token, as in
    /// the paper; 0 gives the sum, that is the probability itself. Finite and not negative.
    #[doc(alias = "length normalization")]
    pub length_power: f64,
    /// α in [0, 1], the weight of the reference answer's tokens; the risk has weight 1 − α. Default 0:
    /// the risk alone. The paper tunes it. The authors' command for translation uses 0.5, with costs
    /// a hundred times as large as here.
    pub token_weight: f64,
    /// How the token losses of the reference answer become one number. Default
    /// [`ReferenceTokens::Sum`].
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
/// Lists of up to k answers in any order. Rewards take the place of BLEU, which lies in [0, 1], but
/// may be any numbers. `reference` is the cross-entropy of the reference answer per token
/// `[batch, time]` with its mask: [`sft_loss`](crate::sft_loss), smoothed or not. All of
/// [`ListLoss`] is `[batch]`.
/// # Errors
/// [`Error::Parameter`] unless a is finite and not negative and 0 ≤ α ≤ 1. [`Error::Argument`] if
/// there is no reference although α > 0. [`Error::Shape`] or [`Error::DType`] if the reference has
/// another batch or type than the candidates, even where α = 0 leaves it out.
/// # Properties
/// * With shares p̃ = softmax s and mean cost c̄ = Σ p̃ cost, the gradient of L_risk with respect to
///   log p(u│x) is p̃ᵤ (costᵤ − c̄)/│u│^a. It vanishes for an answer without a share. Between two answers
///   z apart the pull is σ(z)σ(−z): strongest at the tie, so a badly wrong order is not corrected.
/// * a = 0 gives 1 + [`slic_expected_reward_loss`](super::slic::slic_expected_reward_loss): one minus the
///   expected reward. Adding a number to all rewards subtracts it from the loss and changes no gradient.
/// * For answers of equal length, or a = 0, only differences of log-probabilities matter, and answers
///   outside the list keep their mass. For unequal lengths their mass moves.
/// * L_risk has no minimizer. Its infimum is the least cost, approached as all mass goes to the best
///   answer. Over all K answers of one token, N · (c̄ − min cost) → (K − 1)/(Kη) under N steps of
///   gradient descent of size η. Several best answers share the mass freely.
/// * With α > 0 and references of distribution d there is a minimizer: over one-token answers
///   π(u) = α d(u)/(μ − (1 − α) reward(u)), with μ such that these sum to 1.
/// * The authors' code passes e^{s} where s belongs. It equals this loss on candidates of one token
///   whose log-probabilities are e^{s}. As 0 < e^{s} ≤ 1, no share there can exceed e/(e + K − 1): the
///   least risk of four answers is still far from the least cost.
/// * A list of one answer has L_risk = 1 − reward and gradient 0; an empty list has L_risk = 0.
/// * An answer of −∞ has no share and no slope; if it is the only one in its list, it has the whole
///   share.
/// # Departures
/// * None from the paper's equations for a given α. The paper's cost is 1 − BLEU; here it is 1 − reward.
/// * The authors' code takes a softmax of e^{s} in place of s (see above), has costs of 100 − BLEU in
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
/// # Inspect
/// * With α = 0, 1 − `loss` is the mean reward under the policy's shares. It lies between the lowest and
///   the highest reward of the list, so you see at once how far there is to go.
/// * A flat loss far above the least cost means saturated shares: one answer holds nearly all of the
///   softmax, and the gradient vanishes although the order is wrong. `length_power: 0` on long answers
///   makes this likely, because sums differ by many nats.
/// * With α > 0, watch [`ListLoss::ranking`] and [`ListLoss::sft`] apart: their sum can fall while the risk
///   rises.
/// # Try
/// * At which gap between two answers does the loss pull most? Solution:
///   `tests/identities/expected_risk.rs::two_answers_pull_most_at_the_tie_and_hardly_when_hopeless`.
/// * Add references. Where does training end now? Solution:
///   `tests/optimum/expected_risk.rs::beside_references_the_optimum_is_finite`.
/// # Source
/// Edunov et al. 2018, arXiv:1711.04956: the risk loss, eq. 4 by the caption of the paper's Figure 1, and
/// the weighted combination. Both formulas come from summaries and the authors' code, not from the
/// paper's text. Authors' code facebookresearch/fairseq, branch `classic_seqlevel`:
/// `fairseq/criterions/sequence_risk_criterion.py`, `sequence_forward`, read at `0283a9b`; the branch's
/// README, with the command for translation, read in a copy.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "minimum risk")]
#[doc(alias = "minimum risk training")]
#[doc(alias = "MRT")]
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
    let scores = normalized(candidates, config.length_power)?;

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
