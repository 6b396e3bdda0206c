//! The level of the ratio between two policies: token, sequence, or a sequence's value with a token's slope.
//!
//! In one sentence: the same log-ratios of tokens are exponentiated one by one, after their mean over the
//! answer, or after their sum.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(yₜ│x, y₍<t₎), log π_old(yₜ│x, y₍<t₎) | `new`, `old` | `[batch, time]` |
//! | ρₜ, s(θ), sₜ(θ) | [`RatioLevel`] | `[batch, time]` |
//!
//! Read next: [`crate::online::policy_gradient`], whose losses take a level.

use super::kl::bounded_exp;
use crate::error::Result;
use crate::known::with_slope;
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, masked_mean, masked_sum};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Over what a ratio is taken.
#[doc(alias = "importance_sampling_level")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// ρₜ: each token has its own ratio. PPO, GRPO, DAPO, CISPO.
    #[default]
    Token,
    /// The geometric mean of the token ratios, e^(mean of the log-ratios): GSPO. All tokens share it, and its
    /// gradient reaches all of them.
    #[doc(alias = "geometric mean")]
    SequenceMean,
    /// The ratio of the whole answers, e^(sum of the log-ratios): RLOO.
    SequenceSum,
    /// The value of [`RatioLevel::SequenceMean`] with the slope of the token's own ratio: GSPO-token. With
    /// advantages that differ within an answer each token keeps its own.
    TokenOfSequenceMean,
}

/// The ratio of two policies at a level, differentiable in the new one.
///
/// # Equation
/// ```text
/// dₜ = log π_θ(yₜ│x, y₍<t₎) − log π_old(yₜ│x, y₍<t₎)
/// token:                   e^{dₜ}
/// sequence_mean:           s = e^{ (1/│y│) Σₜ dₜ } = ( Πₜ e^{dₜ} )^{1/│y│}
/// sequence_sum:            e^{ Σₜ dₜ } = π_θ(y│x) / π_old(y│x)
/// token_of_sequence_mean:  stop[s] · π_θ(yₜ) / stop[π_θ(yₜ)]
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`. The result is `[batch, time]` at every level: the tokens of an answer share
/// the ratio of a sequence. It is 0 where the mask does not count. `old` gets no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) unless `old` has the shape and
/// type of `new`.
/// # Properties
/// * Where the policies agree, every level is 1. For answers of one token all levels are the same.
/// * Sums over tokens of a shared ratio count it │y│ times.
///   [`Reduction::MeanOfSequenceMeans`](crate::Reduction) counts it once for each answer. A token mean weighs
///   the answers by their lengths (trl#3823).
/// * The slope of `sequence_mean` in each log-probability is s/│y│, so that over the │y│ tokens it adds up to
///   that of `token_of_sequence_mean`: with one advantage per answer both have the same gradient.
/// * The sum leaves 1 fastest: 100 tokens with log-ratios of 0.03 have ratios of 1.03, a mean of 1.03 and a sum
///   of 20.1.
/// # Departures
/// Beyond e²⁰ ([`LOG_RATIO_BOUND`](crate::online::kl::LOG_RATIO_BOUND)) a ratio follows its tangent. verl stops
/// log s at 10, without a slope beyond.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::ratio::{RatioLevel, importance_ratio};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.5f64, -1.2]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-0.9f64, -1.0]], &Device::Cpu)?;
///
/// // log-ratios 0.4 and −0.2
/// let s = importance_ratio(&new, &old, RatioLevel::SequenceMean)?.to_vec2::<f64>()?;
/// assert!((s[0][0] - 0.1f64.exp()).abs() < 1e-15);
/// assert_eq!(s[0][0], s[0][1]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Try
/// * Give an answer one advantage and compare the gradients of the two forms of GSPO. Solution:
///   `tests/identities/policy_gradient.rs::both_forms_of_gspo_agree_where_an_answer_has_one_advantage`.
/// # Source
/// Zheng et al. 2025, arXiv:2507.18071, eq. 7 and 14 (mean, token form); Ahmadian et al. 2024,
/// arXiv:2402.14740v2 (whole answers); levels as in huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0.
pub fn importance_ratio(new: &TokenLogProbs, old: &Tensor, level: RatioLevel) -> Result<Tensor> {
    let mut axes = Axes::new("importance_ratio");
    axes.float("new", new.values(), &["batch", "time"])?;
    let old = axes.float("old", old, &["batch", "time"])?;
    let log_ratio = masked(&(new.values() - old.detach())?, new.mask())?;
    masked(&level.ratio(&log_ratio, new.mask())?, new.mask())
}

impl RatioLevel {
    /// e^{…} of the log-ratios of tokens, which are 0 where the mask does not count.
    pub(super) fn ratio(self, log_ratio: &Tensor, mask: &Tensor) -> Result<Tensor> {
        bounded_exp(&self.exponent(log_ratio, mask)?)
    }

    /// The logarithm of the ratio, the same at every token of a sequence.
    pub(super) fn exponent(self, log_ratio: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let of_sequence = match self {
            Self::Token => return Ok(log_ratio.clone()),
            Self::SequenceMean => masked_mean(log_ratio, mask)?,
            Self::SequenceSum => masked_sum(log_ratio, mask)?,
            Self::TokenOfSequenceMean => masked_mean(&log_ratio.detach(), mask)?,
        };
        let shared = of_sequence.unsqueeze(1)?.broadcast_as(log_ratio.shape())?;
        match self {
            Self::TokenOfSequenceMean => {
                // the value of the sequence, the slope of the token
                let value = shared.contiguous()?;
                Ok(with_slope(log_ratio, value, |grad| Ok(grad.clone()))?)
            }
            _ => Ok(shared),
        }
    }
}
