//! Rank responses to align with human feedback: ask only for the right order (survey §3.2.1).
//!
//! In one sentence: pay the difference wherever a worse answer is likelier per token than a better
//! one, and imitate the best answer.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | pᵢ: mean log-probability per token | [`Candidates::means`] | `[batch, k]` |
//! | rᵢ | [`Candidates::rewards`]: only their order matters | `[batch, k]` |
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
    /// The weight of the ranking part. Default 1, as in eq. 5; the paper found 10 and 100 worse. Finite
    /// and not negative.
    pub rank_weight: f64,
    /// The weight of the SFT part. Default 1, as in eq. 5; 0 leaves it out. Finite and not negative.
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
///   −1/│yⱼ│ to that of the better one's. A pair in order adds 0, and so does a pair with pᵢ = pⱼ,
///   because there is no margin. Equal rewards make no pair.
/// * L_rank is [`slic_list_loss`](super::slic::slic_list_loss) with δ = 0 on the length means.
/// * L_rank is 0, with gradient 0, for every policy whose means are ordered as the rewards are, and for
///   every policy whose means are all equal.
/// * With the SFT part on a single best answer there is no minimizer. All mass goes to that answer, as
///   under SFT alone: 1 − π(best) → (K − 1)/(KαN) after N steps of gradient descent of size α. The
///   ranking part does not prevent this collapse.
/// * If the best answer varies with distribution q (say, the best of m samples), the SFT part aims
///   at q. Where q contradicts the order of the rewards, each violated pair of one-token answers
///   moves as much mass from worse to better as the ranking part weighs, until the two are equal. Above
///   a finite weight the optimum is q made monotone by pooling neighbors.
/// * Only the order of the rewards matters. A list of one answer, or of equals, has L_rank = 0.
/// * A log-probability of −∞ costs +∞ with a finite slope for the best answer, and 0 for the worst.
/// # Departures
/// * None from eqs. 2–5 as long as one answer is best. For several best answers L_ft is the mean over
///   them; the authors' code takes the first.
/// * The authors' code divides by another length. It overwrites the ignored labels before it counts
///   them, so every answer has the padded length and the scores are in effect sums. Its SFT term is a
///   mean over the padded length too. With more than one prompt in a batch it looks for every best
///   answer within the first prompt's list. Its ranking weight is 100 by default and 1 in its scripts.
/// * The survey prints no equation for RRHF. Its Eq. 1 uses RRHF's index i′ without defining it.
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
/// # Inspect
/// * [`ListLoss::ranking`] reaches 0 as soon as the means are in order, by however little. From then on
///   [`ListLoss::sft`] trains alone: falling SFT loss and falling entropy are the collapse onto the best
///   answer.
/// * A ranking part of exactly 0 from the first step teaches nothing. Check for lists of equal rewards,
///   and for answers whose means are all equal.
/// * Ask [`ranking_accuracy`](crate::online::reward_model::ranking_accuracy) of [`Candidates::means`]: a tie counts ½ there,
///   while the loss is content with it.
/// # Try
/// * Start from equal means and train the ranking part alone. What moves? Solution:
///   `tests/optimum/rrhf.rs::a_uniform_policy_does_not_move`.
/// * Train with both parts, then with the ranking part alone. Which one ends at a single answer?
///   Solution: `cargo run --example rankings`.
/// # Source
/// Yuan et al. 2023, arXiv:2304.05302v3, eqs. 2–5; authors' code GanjinZero/RRHF at `026adca`,
/// `train.py`, `rrhf_loss`, `get_score`, `sft_loss`.
#[doc(alias = "rank responses")]
#[doc(alias = "hinge")]
#[doc(alias = "rank loss")]
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
