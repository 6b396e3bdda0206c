//! Answers whose mean difference between trainer and sampler leaves a band (2025, after the survey).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | the geometric mean of π_old/μ | from `old` and `sampler` | `[batch, time]` |
//! | the band | `low`, `high` | numbers |
//!
//! Read next: [`crate::online::rollout_correction::rollout_weights`], for single tokens.

use super::super::ratio::RatioLevel;
use super::weights::differences;
use crate::error::{Result, non_negative, positive, require};
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use candle_core::Tensor;

/// The answers within the band, at each of their tokens.
///
/// # Equation
/// ```text
/// keep = [ low ≤ e^{ (1/│y│) Σₜ ( log π_old(yₜ) − log μ(yₜ) ) } ≤ high ]
/// ```
/// # Shapes
/// `old`, `sampler` `[batch, time]`. The result is u8 `[batch, time]`, 0 where the mask does not count: for
/// [`corrected`](super::corrected).
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless low is finite and ≥ 0, and high is finite, > 0 and not below it.
/// # Properties
/// * The mean and not the sum: the band does not narrow as answers grow.
/// * Together with [`rollout_weights`](super::rollout_weights) of tokens without bounds it is seq-mask-TIS of OpenRLHF and
///   NeMo-RL.
/// * NaN in `sampler` counts as a difference of 0.
/// # Departures
/// None.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::rollout_correction::sequence_band;
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1], [1, 1]], &Device::Cpu)?;
/// let old = Tensor::new(&[[-1.0f64, -2.0], [-1.0, -2.0]], &Device::Cpu)?;
/// let old = TokenLogProbs::new(&old, &mask)?;
/// let sampler = Tensor::new(&[[-1.1f64, -1.9], [-1.0, -4.0]], &Device::Cpu)?; // means 0 and 1
/// let keep = sequence_band(&old, &sampler, 0.5, 2.0)?;
/// assert_eq!(keep.to_vec2::<u8>()?, [[1, 1], [0, 0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Ring-1T, arXiv:2510.18855 (a band); of sequences: OpenRLHF/OpenRLHF, `models/loss.py`.
#[doc(alias = "seq-mask-TIS")]
pub fn sequence_band(old: &TokenLogProbs, sampler: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let function = "sequence_band";
    non_negative(function, "low", low)?;
    positive(function, "high", high)?;
    require(high >= low, function, "high", ">= low", high)?;
    let differences = differences(function, ("old", old), sampler)?;
    let mean = RatioLevel::SequenceMean.exponent(&differences, old.mask())?;
    let ratio = mean.exp()?;
    let within = ratio.ge(low)?.mul(&ratio.le(high)?)?;
    masked(&within, old.mask())
}
