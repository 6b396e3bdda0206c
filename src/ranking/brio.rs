//! BRIO, bringing order: rank by a length-normalized log-probability and keep imitating (cited in survey §3.2.1).
//!
//! In one sentence: in the score that beam search ranks by, every candidate should lead every worse one
//! by a small margin for each place between them, while cross-entropy on the reference answer keeps the
//! model a generator.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log p(S│D) | [`Candidates::sums`] | `[batch, k]` |
//! | │S│ | [`Candidates::lengths`] | `[batch, k]` |
//! | M(S), the quality that orders the candidates | [`Candidates::rewards`]: only their order matters | `[batch, k]` |
//! | λ, γ, α | [`BrioConfig::margin`], [`BrioConfig::rank_weight`], [`BrioConfig::length_power`] | numbers |
//! | L_xent, before its sum over tokens | `reference`: [`sft_loss`](crate::sft_loss) on the reference answer | `[batch, time]` |
//! | γ · L_ctr, L_xent | [`ListLoss::ranking`], [`ListLoss::sft`] | `[batch]` |
//!
//! Read next: [`slic`](super::slic) (the same list on sums), [`rrhf`](super::rrhf) (without a margin),
//! [`expected_risk`](super::expected_risk) (the other root of SLiC).

use super::{ListLoss, ReferenceTokens, differences, normalized, reference_loss};
use crate::error::{Result, non_negative};
use crate::log_probs::Candidates;
use crate::math::{at_least_one, hinge, mask_count, masked_sum, weighted};
use crate::outputs::TokenLoss;
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

/// How [`brio_loss`] weighs each pair of candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrioPairs {
    /// Every pair has weight 1: the paper's sum.
    #[default]
    Sum,
    /// The pairs of a list that are the same number of places apart share a weight of 1, so they
    /// enter as their mean, as in the authors' code.
    MeanPerDistance,
}

/// Settings of [`brio_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrioConfig {
    /// λ, how far a candidate should lead another for each place between them, in units of f.
    /// Default 0.001, as in the paper and its code. Finite and not negative.
    pub margin: f64,
    /// γ, the weight of the ranking part. Default 100, the paper's; its code uses 10, with 0.1 for
    /// the cross-entropy. Finite and not negative.
    pub rank_weight: f64,
    /// α, the power of the length that divides a log-probability. Default 2, the paper's for
    /// CNN/DailyMail (0.6 for XSum); 0 gives the sum, 1 the mean per token. Finite and not negative.
    #[doc(alias = "length penalty")]
    #[doc(alias = "length normalization")]
    pub length_power: f64,
    /// How pairs are weighed. Default [`BrioPairs::Sum`], the paper's.
    pub pairs: BrioPairs,
    /// How the token losses of the reference answer become one number. Default
    /// [`ReferenceTokens::Sum`], the paper's; the authors' code uses [`ReferenceTokens::Mean`].
    pub reference: ReferenceTokens,
}

impl Default for BrioConfig {
    fn default() -> Self {
        Self {
            margin: 0.001,
            rank_weight: 100.0,
            length_power: 2.0,
            pairs: BrioPairs::default(),
            reference: ReferenceTokens::default(),
        }
    }
}

/// The loss of each list.
///
/// # Equation
/// ```text
/// f(S)   = Σₜ log p(sₜ│D, S₍<t₎) / │S│^α
/// L_ctr  = Σ_{i before j} max(0, f(Sⱼ) − f(Sᵢ) + (j − i) · λ)
/// L_xent = −Σₜ Σ_s p_true(s) log p(s│D, S*₍<t₎)
/// L      = L_xent + γ · L_ctr
/// ```
/// i and j are places in the ranking by reward, best first. As in
/// [`slic_list_loss`](super::slic::slic_list_loss), an answer's place is the number of strictly better
/// ones. Equal answers therefore share a place and make no pair, and j − i counts the answers at or
/// after place i and before place j.
/// # Shapes
/// Lists of up to k answers in any order. `reference` is the cross-entropy of the reference answer
/// S*, per token `[batch, time]` with its mask: [`sft_loss`](crate::sft_loss), with
/// `label_smoothing: 0.1` as in the paper. `None` gives L = γ · L_ctr, which the paper uses for a model
/// that only re-ranks. All of [`ListLoss`] is `[batch]`; `ranking` is γ · L_ctr, `sft` is L_xent.
/// # Errors
/// [`Error::Parameter`] unless λ, γ and α are finite and not negative; [`Error::Shape`] or
/// [`Error::DType`] if `reference` has another batch or type than the candidates.
/// # Properties
/// * Each pair short of its lead adds −γ/│Sᵢ│^α to the gradient of the better log-probability and
///   +γ/│Sⱼ│^α to that of the worse one; a pair exactly at its lead adds 0. For unequal lengths these
///   do not cancel, so the total mass of the candidates moves too.
/// * α = 0 and γ = 1 is [`slic_list_loss`](super::slic::slic_list_loss); λ = 0, α = 1 and γ = 1 is the
///   ranking part of [`rrhf_loss`](crate::rrhf_loss). Two answers are
///   [`slic_rank_loss`](super::slic::slic_rank_loss) on f.
/// * The loss is 0 exactly where every neighbor's lead is ≥ λ, and this set is never empty. Gradient
///   descent stops where its path enters the set. [`BrioPairs::MeanPerDistance`] changes the path, not
///   the set.
/// * Without ties, [`BrioPairs::MeanPerDistance`] gives pairs d places apart the weight 1/(K − d). Far
///   pairs weigh most: best against worst has weight 1. Up to two answers it changes nothing.
/// * Together with the cross-entropy the hinge is an exact penalty, so a large γ does not mean a large
///   lead. Take two one-token answers, where the better one is a share d of the references. The lead is
///   exactly λ for every γ ≥ σ(λ) − d ≥ 0, and log(d/(1 − d)) where that is more than λ.
/// * Only the order of the rewards matters. A list of one answer, or of equals, has L_ctr = 0.
/// * A log-probability of −∞ costs +∞ with a finite slope for an answer that has a worse one, and 0 for
///   the last.
/// # Departures
/// * None from the paper's equations by default. Its candidates have no ties; ragged lists and ties
///   are additions of this crate.
/// * The authors' code takes the mean over the pairs of each distance
///   ([`BrioPairs::MeanPerDistance`]) and the mean over the reference's tokens
///   ([`ReferenceTokens::Mean`]), then means over the batch. With both, and γ = 100, `loss` is
///   ten times that of the code's settings (10 and 0.1).
/// * The code also has a term in which the reference answer competes with every candidate under a
///   margin of its own. Its weight is 0 in every setting that the code ships with, so it is left out
///   here. A reference listed among the candidates with the highest reward competes by places.
/// * The code's settings for XSum multiply f by 0.01.
/// * The survey cites BRIO without an equation, and for a KL regularizer that BRIO does not have.
/// # Examples
/// ```
/// use candle_align::{BrioConfig, Candidates, SftConfig, TokenLogProbs, brio_loss, sft_loss};
/// use candle_core::{Device, Tensor};
///
/// let sums = Tensor::new(&[[-4.0f64, -9.0, -2.0]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[2.0f64, 3.0, 1.0]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[0.3f64, 0.5, 0.4]], &Device::Cpu)?;
/// let candidates = Candidates::new(&sums, &lengths, &rewards, None)?;
/// let reference = TokenLogProbs::new(
///     &Tensor::new(&[[-0.5f64, -0.25]], &Device::Cpu)?,
///     &Tensor::new(&[[1u8, 1]], &Device::Cpu)?,
/// )?;
/// let cross_entropy = sft_loss(&reference, None, &SftConfig::default())?;
///
/// let config = BrioConfig { margin: 0.25, rank_weight: 10.0, ..Default::default() };
/// let out = brio_loss(&candidates, Some(&cross_entropy), &config)?;
/// // f = −4/2², −9/3², −2/1²; the order is 2nd, 3rd, 1st: leads of 1, −1 and 0
/// let ranking = 10.0 * (0.0 + (0.25 + 1.0) + (2.0 * 0.25 + 0.0));
/// assert!((out.ranking.to_vec1::<f64>()?[0] - ranking).abs() < 1e-12);
/// assert!((out.sft.to_vec1::<f64>()?[0] - (0.5 + 0.25)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * [`ListLoss::ranking`] is γ · L_ctr: divide by γ before you compare runs. It is 0 once every neighbor
///   leads by λ, which with λ = 0.001 is a very small lead.
/// * If `ranking` falls while [`ListLoss::sft`] rises, the ranking part is taking mass away from the
///   reference answer: lower γ.
/// * With unequal lengths, watch [`Candidates::sums`] too. Sums that all fall together mean that the
///   order improves at the expense of every candidate.
/// # Try
/// * Does a γ of 100 give a larger lead than a γ of 1, beside cross-entropy? Solution:
///   `tests/optimum/brio.rs::beside_cross_entropy_the_lead_is_lambda_for_every_large_weight`.
/// * Choose settings that reproduce the authors' code up to a factor. Solution:
///   `tests/identities/brio.rs::the_authors_settings_are_a_tenth`.
/// # Source
/// Liu et al. 2022, arXiv:2203.16804v1, §3. The equations and hyper-parameters come from summaries of
/// the paper and from the authors' code; the paper's own equation numbers were not seen. Authors' code
/// yixinL7/BRIO, read at `0fe0117`: `model.py`, `RankingLoss`; `main.py`, `run`;
/// `label_smoothing_loss.py`; and at `312ceaa`: `config.py`.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "contrastive loss")]
#[doc(alias = "bringing order")]
#[doc(alias = "hinge")]
pub fn brio_loss(
    candidates: &Candidates,
    reference: Option<&TokenLoss>,
    config: &BrioConfig,
) -> Result<ListLoss> {
    let function = "brio_loss";
    non_negative(function, "margin", config.margin)?;
    non_negative(function, "rank_weight", config.rank_weight)?;
    non_negative(function, "length_power", config.length_power)?;

    // f(S) = log p(S) / │S│^α
    let scores = normalized(candidates, config.length_power)?;

    // max(0, f(Sⱼ) − f(Sᵢ) + (j − i) · λ): row i is the better answer, its place is the lower one
    let places = differences(&candidates.ranks()?)?.neg()?;
    let short = ((&places * config.margin)? - differences(&scores)?)?;
    let mut pairs = hinge(&short)?;

    // Σ_{i before j}, or Σ over distances of the mean over their pairs
    let preferences = candidates.preferences()?;
    if config.pairs == BrioPairs::MeanPerDistance {
        pairs = (pairs * share_of_distance(&places, &preferences)?)?;
    }
    let contrastive = masked_sum(&pairs, &preferences)?.sum(D::Minus1)?;
    let ranking = weighted(&contrastive, config.rank_weight)?;

    // L_xent
    let sft = reference_loss(function, candidates, reference, config.reference)?;

    ListLoss::new(&ranking, &sft)
}

/// Entry (i, j) is 1 over the number of pairs in the list that are as many places apart as i and j:
/// `[batch, k, k]`; 0 where (i, j) is no pair.
fn share_of_distance(places: &Tensor, preferences: &Tensor) -> Result<Tensor> {
    let mut shares = places.zeros_like()?;
    for distance in 1..places.dim(1)? {
        let here = places.eq(distance as f64)?.mul(preferences)?;
        let count = at_least_one(&mask_count(&here.flatten_from(1)?, places.dtype())?)?;
        let share = here
            .to_dtype(places.dtype())?
            .broadcast_div(&count.reshape(((), 1, 1))?)?;
        shares = (shares + share)?;
    }
    Ok(shares)
}
