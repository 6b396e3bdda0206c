//! BRIO, bringing order: rank by a length-normalised log-probability, and go on imitating (cited in survey §3.2.1).
//!
//! In one sentence: every candidate should lead every worse one by a small margin for each place
//! between them, in the very score that beam search ranks by; cross-entropy on the reference answer
//! keeps the model a generator.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log p(S│D) | [`Candidates::sums`] | `[batch, k]` |
//! | │S│ | [`Candidates::lengths`] | `[batch, k]` |
//! | M(S), the quality that orders the candidates | [`Candidates::rewards`]: only their order counts | `[batch, k]` |
//! | λ, γ, α | [`BrioConfig::margin`], [`BrioConfig::rank_weight`], [`BrioConfig::length_power`] | numbers |
//! | L_xent, before its sum over tokens | `reference`: [`sft_loss`](crate::sft_loss) on the reference answer | `[batch, time]` |
//! | γ · L_ctr, L_xent | [`ListLoss::ranking`], [`ListLoss::sft`] | `[batch]` |
//!
//! Read next: [`slic`](super::slic) (the same list on sums), [`rrhf`](super::rrhf) (without a margin),
//! [`expected_risk`](super::expected_risk) (the other root of SLiC).

use super::{ListLoss, ReferenceTokens, differences, normalised, reference_loss};
use crate::error::{Result, non_negative};
use crate::log_probs::Candidates;
use crate::math::{at_least_one, hinge, mask_count, masked_sum, weighted};
use crate::outputs::TokenLoss;
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

/// What each pair of candidates weighs in [`brio_loss`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrioPairs {
    /// Every pair 1: the paper's sum.
    #[default]
    Sum,
    /// The pairs of a list that are the same number of places apart share a weight of 1: the mean
    /// over them, as in the authors' code.
    MeanPerDistance,
}

/// Settings of [`brio_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrioConfig {
    /// λ, by how much a candidate should lead another for each place between them, in units of f.
    /// Default 0.001, the paper's and its code's. Finite and not negative.
    pub margin: f64,
    /// γ, the weight of the ranking part. Default 100, the paper's; its code has 10 beside 0.1 for
    /// the cross-entropy. Finite and not negative.
    pub rank_weight: f64,
    /// α, the power of the length by which a log-probability is divided. Default 2, the paper's for
    /// CNN/DailyMail (0.6 for XSum); 0 is the sum, 1 the mean per token. Finite and not negative.
    pub length_power: f64,
    /// What each pair weighs. Default [`BrioPairs::Sum`], the paper's.
    pub pairs: BrioPairs,
    /// How the tokens of the reference answer add up. Default [`ReferenceTokens::Sum`], the paper's;
    /// the authors' code has [`ReferenceTokens::Mean`].
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
/// [`slic_list_loss`](super::slic::slic_list_loss) an answer's place is the number of strictly better
/// ones: equal answers share a place and make no pair, and j − i counts the answers that stand at i
/// or after it and before j.
/// # Shapes
/// Lists of up to k answers in any order. `reference` is the cross-entropy of the reference answer
/// S*, per token `[batch, time]` with its mask: [`sft_loss`](crate::sft_loss), with
/// `label_smoothing: 0.1` as in the paper. `None` is L = γ · L_ctr, the model that the paper trains
/// to re-rank only. All of [`ListLoss`] is `[batch]`; `ranking` is γ · L_ctr, `sft` is L_xent.
/// # Errors
/// [`Error::Parameter`] unless λ, γ and α are finite and not negative; [`Error::Shape`] or
/// [`Error::DType`] if `reference` has another batch or type than the candidates.
/// # Properties
/// * Each pair short of its lead adds −γ/│Sᵢ│^α to the gradient of the better log-probability and
///   +γ/│Sⱼ│^α to that of the worse; a pair exactly at its lead adds 0. For unequal lengths these do
///   not cancel: the mass of all candidates together moves too.
/// * α = 0 and γ = 1 is [`slic_list_loss`](super::slic::slic_list_loss); λ = 0, α = 1 and γ = 1 is the
///   ranking part of [`rrhf_loss`](crate::rrhf_loss). Two answers are
///   [`slic_rank_loss`](super::slic::slic_rank_loss) on f.
/// * The zero set is that of all leads of neighbours ≥ λ, and never empty. Gradient descent stops
///   where its path enters. [`BrioPairs::MeanPerDistance`] changes the path, not the set.
/// * Without ties [`BrioPairs::MeanPerDistance`] gives the pairs d places apart the weight 1/(K − d):
///   the far pairs count most, best against worst counts 1. Up to two answers it changes nothing.
/// * Beside the cross-entropy the hinge is an exact penalty, so that a large γ does not mean a large
///   lead: of two one-token answers, the better one being a share d of the references, the lead is
///   exactly λ for every γ ≥ σ(λ) − d ≥ 0, and log(d/(1 − d)) where that is more than λ.
/// * Only the order of the rewards counts. A list of one answer, or of equals, has L_ctr = 0.
/// * −∞ for an answer that has a worse one costs +∞ with a finite slope, for the last one 0.
/// # Departures
/// * None from the paper's equations by default. Its candidates have no ties; ragged lists and ties
///   are this crate's.
/// * The authors' code takes the mean over the pairs of each distance
///   ([`BrioPairs::MeanPerDistance`]) and the mean over the reference's tokens
///   ([`ReferenceTokens::Mean`]), then means over the batch. With both, and γ = 100, `loss` is
///   ten times that of its settings (10 and 0.1).
/// * A term there lets the reference answer compete with every candidate under a margin of its own.
///   Its weight is 0 in every setting that the code ships with, so it is left out; a reference that
///   stands among the candidates, with the highest reward, competes with them by places.
/// * Its settings for XSum multiply f by 0.01.
/// * The survey cites BRIO without an equation, for a KL regulariser that it does not have.
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
/// # Source
/// Liu et al. 2022, arXiv:2203.16804v1, §3 and its list of hyper-parameters (from notes, not from
/// the numbered equations); authors' code yixinL7/BRIO at `0fe0117`, `model.py`, `RankingLoss`,
/// `main.py`, `run`, `label_smoothing_loss.py`, and at `312ceaa`, `config.py`.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
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
    let scores = normalised(candidates, config.length_power)?;

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

/// Entry (i, j) is 1 over the number of the list's pairs that are as many places apart, `[batch, k, k]`;
/// 0 where (i, j) is no pair.
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
