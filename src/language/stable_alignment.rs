//! Stable Alignment: imitate the best-rated answer and keep the others behind it (survey §3.2.2).
//!
//! In one sentence: the cross-entropy of the best answer, plus one hinge that asks the others to be
//! less likely than it, on average by as much as they are rated lower.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | J_SFT(yᵢ): cross-entropy per token | −[`Candidates::means`] | `[batch, k]` |
//! | rᵢ: ratings | [`Candidates::rewards`] | `[batch, k]` |
//! | y_best | the best answer, or the mean over several | |
//! | M | [`StableAlignmentConfig::margin`] / [`StableAlignmentConfig::rating_scale`] | number |
//! | λ | [`StableAlignmentConfig::ratio`] | number |
//!
//! The answers and their ratings come from a simulated society of models that revise each other's
//! drafts. That is data, not loss, and so is the text that puts a feedback and a revision into a prompt.
//!
//! Read next: [`rrhf`](crate::ranking::rrhf) (one hinge per pair), [`slic`](crate::ranking::slic)
//! (the same lead for each pair), [`second_thoughts`](super::second_thoughts).

use crate::error::{Result, non_negative, positive};
use crate::log_probs::Candidates;
use crate::math::{hinge, masked_mean, over_last, weighted};
use crate::outputs::ListLoss;
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

/// Which of the worse answers the hinge is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StableAlignmentForm {
    /// The hinge of the mean over all worse answers, which the authors ran.
    #[default]
    Mean,
    /// The hinge of the largest term: the answer that is furthest from the distance it should keep.
    Max,
}

/// Settings of [`stable_alignment_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StableAlignmentConfig {
    /// M, the lead in nats per token that a rating difference of one whole `rating_scale` asks for.
    /// Default 10, as in the authors' published command; finite and not negative.
    pub margin: f64,
    /// λ, the weight of the hinge. Default 0.2, as in the authors' published command; finite and not
    /// negative.
    pub ratio: f64,
    /// The scale of the ratings. Default 7, for ratings from 1 to 7 as in the authors' data; finite
    /// and above 0. With 1 the margin is the paper's M.
    pub rating_scale: f64,
    /// How the hinge combines the worse answers. Default [`StableAlignmentForm::Mean`].
    pub form: StableAlignmentForm,
}

impl Default for StableAlignmentConfig {
    fn default() -> Self {
        Self {
            margin: 10.0,
            ratio: 0.2,
            rating_scale: 7.0,
            form: StableAlignmentForm::default(),
        }
    }
}

/// The loss of each list.
///
/// # Equation
/// ```text
/// CEᵢ = −(1/│yᵢ│) Σₜ log π(yᵢₜ│x, yᵢ₍<t₎)
/// hᵢ  = CE_b − CEᵢ + (r_b − rᵢ) · M / rating_scale      for each i worse than the best, b
/// J   = CE_b + λ · max( 0, meanᵢ hᵢ )                    Mean
/// J   = CE_b + λ · max( 0, maxᵢ hᵢ )                     Max
/// ```
/// It is the hinge of the mean, not the mean of hinges. The mean runs over the m worse answers and
/// leaves out the best one, whose term would be 0.
/// # Shapes
/// Lists of up to k answers in any order; all of [`ListLoss`] is `[batch]`. [`ListLoss::sft`] is
/// CE_b, [`ListLoss::ranking`] the weighted hinge.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless margin and ratio are finite and not
/// negative and the rating scale is finite and above 0. Shapes and types were checked when the
/// [`Candidates`] were made.
/// # Properties
/// * With lengths n, the gradient is −(1 + λ·1{h > 0})/n_b for the best answer and
///   λ·1{h > 0}/(m nᵢ) for each worse one. It does not depend on that answer's own distance: the mean
///   form sees the ratings only through their mean. The max form moves the best answer and one other.
///   Where several terms are largest, they share the gradient.
/// * At the kink, h = 0, the hinge has slope 0.
/// * For two answers, both forms are CE_b + λ · [`slic_margin_loss`](crate::slic_margin_loss) of the
///   length means with δ = M/rating_scale and the ratings as similarities. Without a margin they
///   are CE_b + λ · the ranking part of [`rrhf_loss`](crate::rrhf_loss).
/// * The max form is never below the mean form, and the mean form never above the same loss with a
///   mean of hinges.
/// * Adding a number to all ratings changes nothing, nor does multiplying them and the scale by the same
///   number. Adding a number to all means leaves the hinge unchanged.
/// * The hinge of the mean is 0 on a half-space of cross-entropies, mean CEᵢ − CE_b ≥ M · mean
///   gap: driving one answer far away satisfies it for all. With lengths (3, 2, 4, 5), ratings (0, 1, ½, 2) and
///   M = 1 it is 0 at π = (2.247·10⁻⁶, ⅓, ⅓, ⅓), where the best answer is no likelier than two worse
///   ones.
/// * There is no minimizer: all mass goes to the best answer, 1 − π(best) → n_b(K − 1)/(KαN) after N
///   steps of gradient descent of size α, in both forms. The hinge switches off on the way and does
///   not switch on again.
/// * A list of one answer, or of equals, has no hinge: J = CE_b.
/// * A log-probability of −∞ costs +∞ with a finite slope for the best answer. For another answer it takes
///   the hinge of the mean to 0; the max form takes the largest of the others.
/// # Departures
/// * The paper's hinge has (r_b − rᵢ) M; only the authors' code divides by the rating scale. Set
///   `rating_scale` to 1 for the paper's form.
/// * The authors' code pairs answers with the wrong ratings. It sorts the ratings, but reads the
///   sorted list with indices into the unsorted one: for ratings (1, 5, 3) the mean gap comes out as
///   2 instead of 3. For a list that is already sorted the two agree.
/// * Where several answers are best, the authors' code takes one as best and pushes the others down,
///   with a margin of 0. Here CE_b is the mean over them in both terms, and the hinge covers only worse
///   answers, so the order of the answers changes nothing.
/// * The authors' code takes one prompt at a time, and its collator drops all but the last prompt of
///   a larger batch. Here each list of the batch has its own loss.
/// * The authors' code has defaults of M = 1 and λ = 0.5; its published command has 10 and 0.2, which are
///   the defaults here.
/// * The mixture of imitation, self-critique and realignment (5 : 1 : 1) is data, not loss. The
///   survey describes the method in words and prints no equation.
/// # Examples
/// ```
/// use candle_align::{Candidates, StableAlignmentConfig, stable_alignment_loss};
/// use candle_core::{Device, Tensor};
///
/// // cross-entropies 1, 0.5 and 2 per token; the second answer is rated best
/// let sums = Tensor::new(&[[-3.0f64, -1.0, -4.0]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[3.0f64, 2.0, 2.0]], &Device::Cpu)?;
/// let ratings = Tensor::new(&[[1.0f64, 5.0, 3.0]], &Device::Cpu)?;
/// let candidates = Candidates::new(&sums, &lengths, &ratings, None)?;
///
/// let out = stable_alignment_loss(&candidates, &StableAlignmentConfig::default())?;
/// let (first, third) = (0.5 - 1.0 + 4.0 * 10.0 / 7.0, 0.5 - 2.0 + 2.0 * 10.0 / 7.0);
/// let hinge = 0.2 * (first + third) / 2.0;
/// assert!((out.ranking.to_vec1::<f64>()?[0] - hinge).abs() < 1e-12);
/// assert!((out.loss.to_vec1::<f64>()?[0] - (0.5 + hinge)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * [`ListLoss::ranking`] of 0 does not mean that every answer keeps its distance. Look at
///   [`Candidates::means`] answer by answer: one that is very unlikely can hide others that are as likely
///   as the best.
/// * With the defaults, a gap of 4 rating points asks for 40/7 = 5.7 nats per token. While the hinge is on
///   it pushes worse answers far down: watch that sampled text stays fluent.
/// * Once the hinge is off, [`ListLoss::sft`] trains alone towards the best answer.
/// # Try
/// * Find a policy without hinge loss under which two worse answers are as likely as the best. Solution:
///   `tests/optimum/stable_alignment.rs::one_answer_driven_away_pays_for_all`.
/// * Compare the mean and the max form. Which one stops at the ratings themselves? Solution:
///   `cargo run --example stable_alignment`.
/// # Source
/// Liu et al. 2023, arXiv:2305.16960, "contrastive preference optimization". Authors' code
/// agi-templar/Stable-Alignment, read at `2fbf0e9`: `stable_alignment/alignment.py`,
/// `AlignmentTrainer.stable_alignment`, and the README with the published command. Of the paper only the
/// abstract was read: its form of the hinge, without the rating scale, is from memory.
#[doc(alias = "contrastive preference optimization")]
#[doc(alias = "CPO")]
#[doc(alias = "hinge")]
pub fn stable_alignment_loss(
    candidates: &Candidates,
    config: &StableAlignmentConfig,
) -> Result<ListLoss> {
    let function = "stable_alignment_loss";
    non_negative(function, "margin", config.margin)?;
    non_negative(function, "ratio", config.ratio)?;
    positive(function, "rating_scale", config.rating_scale)?;
    let ranks = candidates.ranks()?;
    let best = ranks.eq(0.0)?.mul(candidates.mask())?;
    let worse = ranks.gt(0.0)?;

    // CEᵢ, CE_b, r_b
    let cross_entropy = candidates.means()?.neg()?;
    let of_best = |x: &Tensor| masked_mean(x, &best);
    let sft = of_best(&cross_entropy)?;

    // hᵢ = CE_b − CEᵢ + (r_b − rᵢ) · M / rating_scale
    let behind = sft.unsqueeze(1)?.broadcast_sub(&cross_entropy)?;
    let gaps = of_best(candidates.rewards())?
        .unsqueeze(1)?
        .broadcast_sub(candidates.rewards())?;
    let scale = config.margin / config.rating_scale;
    let terms = (behind + (gaps * scale)?)?;

    // λ · max( 0, meanᵢ hᵢ ), the mean over all that are worse or over the largest
    let taken = match config.form {
        StableAlignmentForm::Mean => worse,
        StableAlignmentForm::Max => {
            // the order of the hᵢ, without the part that all of them share, which may be infinite
            let own = ((&cross_entropy + (candidates.rewards() * scale)?)?).neg()?;
            worse.mul(&largest(&own, &worse)?)?
        }
    };
    let ranking = weighted(&hinge(&masked_mean(&terms, &taken)?)?, config.ratio)?;

    ListLoss::new(&ranking, &sft)
}

/// 1 where a term is not below the largest of its list: u8 `[batch, k]`. A NaN is not below
/// anything, so it remains in the mean.
fn largest(terms: &Tensor, among: &Tensor) -> Result<Tensor> {
    let out = terms.zeros_like()?.affine(0.0, f64::NEG_INFINITY)?;
    let most = over_last(&among.where_cond(&terms.detach(), &out)?, |x| {
        x.max(D::Minus1)
    })?;
    let below = terms.lt(&most.unsqueeze(1)?.broadcast_as(terms.shape())?)?;
    Ok(below.eq(0u8)?)
}
