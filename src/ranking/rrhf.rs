//! Rank responses to align with human feedback: the least that a ranking can ask (survey §3.2.1).
//!
//! In one sentence: wherever a worse answer is likelier per token than a better one, pay the
//! difference; and imitate the best.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | pᵢ: mean log-probability per token | [`Candidates::means`] | `[batch, k]` |
//! | rᵢ | [`Candidates::rewards`]: only their order counts | `[batch, k]` |
//! | i′ = argmaxᵢ rᵢ | the best answer, or the mean over several | |
//! | L_rank, L_ft | [`ListLoss::ranking`], [`ListLoss::sft`] | `[batch]` |
//!
//! Read next: [`slic`](super::slic) (the same hinge with a lead), [`pro`](super::pro) (a softmax).

use super::{ListLoss, best_answer_loss, differences};
use crate::error::{Result, non_negative};
use crate::log_probs::Candidates;
use crate::math::{hinge, masked_sum, weighted};
use candle_core::D;
use serde::{Deserialize, Serialize};

/// Settings of [`rrhf_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RrhfConfig {
    /// The weight of the ranking part. Default 1, eq. 5; the paper found 10 and 100 worse. Finite
    /// and not negative.
    pub rank_weight: f64,
    /// The weight of the SFT part. Default 1, eq. 5; 0 leaves it out. Finite and not negative.
    pub sft_weight: f64,
}

impl Default for RrhfConfig {
    fn default() -> Self {
        Self {
            rank_weight: 1.0,
            sft_weight: 1.0,
        }
    }
}

/// The loss of each list.
///
/// # Equation
/// ```text
/// pᵢ     = Σₜ log π(yᵢₜ│x, yᵢ₍<t₎) / │yᵢ│                              eq. 2
/// L_rank = Σ_{rᵢ < rⱼ} max(0, pᵢ − pⱼ)                                 eq. 3
/// L_ft   = −Σₜ log π(yᵢ′ₜ│x, yᵢ′₍<t₎),   i′ = argmaxᵢ rᵢ                eq. 4
/// L      = L_rank + L_ft                                               eq. 5, both weights 1
/// ```
/// # Shapes
/// Lists of up to k answers in any order; all of [`ListLoss`] is `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless both weights are finite and not negative.
/// Shapes and types were checked when the [`Candidates`] were made.
/// # Properties
/// * Each violated pair adds +1/│yᵢ│ to the gradient of the worse answer's log-probability and
///   −1/│yⱼ│ to that of the better one's. A pair in order adds 0, and so does one with pᵢ = pⱼ:
///   there is no margin. Equal rewards make no pair.
/// * L_rank is [`slic_list_loss`](super::slic::slic_list_loss) with δ = 0 on the length means.
/// * L_rank is 0, with gradient 0, for every policy whose means are ordered as the rewards, also
///   for one whose means are all equal.
/// * With the SFT part on a single best answer there is no minimiser: all mass goes to that answer,
///   1 − π(best) → (K − 1)/(KαN) after N steps of gradient descent of size α, as under SFT alone.
///   Ranking does not prevent the collapse.
/// * With a varying best answer of distribution q (say, the best of m samples) the SFT part aims
///   at q. Where q contradicts the order of the rewards, each violated pair of one-token answers
///   moves as much mass from worse to better as the ranking part weighs, until the two meet; above
///   a finite weight the optimum is q made monotone by pooling neighbours.
/// * Only the order of the rewards counts. A list of one answer, or of equals, has L_rank = 0.
/// * −∞ for the best answer costs +∞ with a finite slope, for the worst one 0.
/// # Departures
/// * None from eqs. 2–5 as long as one answer is best. Several best answers share L_ft as its mean;
///   the authors' code takes the first.
/// * The authors' code divides by another length: it overwrites the ignored labels before it counts
///   them, so that every answer has the padded length, and the scores are in effect sums. Its SFT
///   term is a mean over the padded length too, and for more than one prompt to a batch it looks
///   for every best answer within the first prompt's list. Its ranking weight is 100 by default, 1
///   in its scripts.
/// * The survey prints no equation for RRHF; it takes over the index i′ in its Eq. 1 without saying
///   what it is.
/// # Examples
/// ```
/// use candle_align::{Candidates, RrhfConfig, rrhf_loss};
/// use candle_core::{Device, Tensor};
///
/// // means −2, −1 and −1.5
/// let sums = Tensor::new(&[[-4.0f64, -3.0, -1.5]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[2.0f64, 3.0, 1.0]], &Device::Cpu)?;
/// let rewards = Tensor::new(&[[0.9f64, 0.1, 0.5]], &Device::Cpu)?;
/// let candidates = Candidates::new(&sums, &lengths, &rewards, None)?;
///
/// let out = rrhf_loss(&candidates, &RrhfConfig::default())?;
/// // the best is behind both others, the second behind the worst
/// let ranking = (-1.0 + 2.0) + (-1.5 + 2.0) + (-1.0 + 1.5);
/// assert!((out.ranking.to_vec1::<f64>()?[0] - ranking).abs() < 1e-12);
/// assert!((out.sft.to_vec1::<f64>()?[0] - 4.0).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Yuan et al. 2023, arXiv:2304.05302v3, eqs. 2–5; authors' code GanjinZero/RRHF at `026adca`,
/// `train.py`, `rrhf_loss`, `get_score`, `sft_loss`.
pub fn rrhf_loss(candidates: &Candidates, config: &RrhfConfig) -> Result<ListLoss> {
    non_negative("rrhf_loss", "rank_weight", config.rank_weight)?;
    non_negative("rrhf_loss", "sft_weight", config.sft_weight)?;

    // Σ_{rᵢ < rⱼ} max(0, pᵢ − pⱼ): row j is the better answer
    let behind = differences(&candidates.means()?)?.neg()?;
    let pairs = masked_sum(&hinge(&behind)?, &candidates.preferences()?)?;
    let ranking = weighted(&pairs.sum(D::Minus1)?, config.rank_weight)?;

    // −Σₜ log π(yᵢ′ₜ│x, yᵢ′₍<t₎)
    let sft = weighted(&best_answer_loss(candidates)?, config.sft_weight)?;

    ListLoss::new(&ranking, &sft)
}
