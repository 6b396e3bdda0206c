//! How per-token or per-example losses become one number.
//!
//! Implementations differ here, often without saying so. The divisor decides whether long answers weigh
//! more, and whether four micro-batches give the gradient of one large batch.
//!
//! | reduction | equation | divisor |
//! |---|---|---|
//! | [`Reduction::Sum`] | Σᵦ Σₜ l | none: the survey's Eq. 1, summed over the batch |
//! | [`Reduction::TokenMean`] | Σᵦ Σₜ l / Σᵦ Σₜ m | counted tokens of the batch |
//! | [`Reduction::SequenceMean`] | Σᵦ Σₜ l / B | sequences that count a token: the survey's Eq. 1, averaged |
//! | [`Reduction::MeanOfSequenceMeans`] | Σᵦ (Σₜ l / Σₜ m) / B | each sequence's own length, then sequences |
//! | [`Reduction::SumOver`] | Σᵦ Σₜ l / c | a given number |
//! | [`Reduction::SequenceMeansOver`] | Σᵦ (Σₜ l / Σₜ m) / c | each sequence's own length, then a given number |
//!
//! The last two take a fixed constant, or a count over the whole accumulation window:
//!
//! ```
//! # use candle_align::Reduction;
//! # use candle_core::{Device, Tensor};
//! # let loss = Tensor::new(&[[1.0f64, 2.0], [4.0, 0.0]], &Device::Cpu)?;
//! # let mask = Tensor::new(&[[1u8, 1], [1, 0]], &Device::Cpu)?;
//! let reduction = Reduction::TokenMean;
//! let whole = reduction.apply(&loss, &mask)?.to_scalar::<f64>()?;
//!
//! // the same loss from two micro-batches: count first, then divide each part by the window's count
//! let (parts, masks) = (loss.chunk(2, 0)?, mask.chunk(2, 0)?);
//! let window: f64 = masks.iter().map(|m| reduction.count(m)).sum::<Result<_, _>>()?;
//! let mut total = 0.0;
//! for (part, m) in parts.iter().zip(&masks) {
//!     total += reduction.over(window.max(1.0)).apply(part, m)?.to_scalar::<f64>()?;
//! }
//! assert_eq!(whole, 7.0 / 3.0);
//! assert!((total - whole).abs() < 1e-15);
//! # Ok::<(), candle_align::Error>(())
//! ```

use crate::error::{Result, positive};
use crate::math::{at_least_one, mask_count, masked_mean, masked_sum};
use crate::shape::Axes;
use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

/// How to turn a loss per token (or per example) into a scalar. Each variant is in common use.
#[doc(alias = "loss aggregation")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reduction {
    /// Σ over everything that counts.
    Sum,
    /// Σ divided by the counted tokens of the batch: every token weighs the same.
    TokenMean,
    /// Sum per sequence, then mean over the sequences that count at least one token.
    SequenceMean,
    /// Mean per sequence, then mean over the sequences that count at least one token. Its optimum is
    /// not the distribution of the data but π(y) ∝ d(y)/|y|.
    MeanOfSequenceMeans,
    /// Σ divided by a given number: a constant, or the tokens or sequences of a whole window.
    SumOver {
        /// The divisor, finite and > 0.
        count: f64,
    },
    /// Mean per sequence, and the Σ of the means divided by a given number: the sequences of a whole
    /// window.
    SequenceMeansOver {
        /// The divisor, finite and > 0.
        count: f64,
    },
}

impl Reduction {
    /// Reduces `loss` `[batch, time]` (or `[batch]`: one token each) to a scalar, under a u8 `mask` of the
    /// same shape. If nothing counts, the result is 0 with zero gradients.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shapes differ or have another rank,
    /// [`Error::DType`](crate::Error::DType) for other types,
    /// [`Error::Parameter`](crate::Error::Parameter) unless a given `count` is finite and > 0.
    pub fn apply(&self, loss: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let mut axes = Axes::new("Reduction::apply");
        let names: &[&str] = if loss.rank() == 1 {
            &["batch"]
        } else {
            &["batch", "time"]
        };
        let loss = axes.float("loss", loss, names)?;
        let mask = axes.mask("mask", mask, names)?;
        let (loss, mask) = match loss.rank() {
            1 => (loss.unsqueeze(1)?, mask.unsqueeze(1)?),
            _ => (loss, mask),
        };

        // Σₜ l, or the mean over the sequence's own tokens
        let sequences = match self {
            Self::MeanOfSequenceMeans | Self::SequenceMeansOver { .. } => {
                masked_mean(&loss, &mask)?
            }
            _ => masked_sum(&loss, &mask)?,
        };
        let total = sequences.sum(D::Minus1)?;

        // the divisor
        let dtype = loss.dtype();
        let divisor = match self {
            Self::Sum => return Ok(total),
            Self::SumOver { count } | Self::SequenceMeansOver { count } => {
                positive("Reduction::apply", "count", *count)?;
                return Ok((total / *count)?);
            }
            Self::TokenMean => mask_count(&mask.flatten_all()?, dtype)?,
            Self::SequenceMean | Self::MeanOfSequenceMeans => counted_sequences(&mask, dtype)?,
        };
        Ok((total / at_least_one(&divisor)?)?)
    }

    /// The number that [`Reduction::apply`] would divide by on this batch, before the guard against
    /// an empty one. Add it up over an accumulation window and pass the sum to [`Reduction::over`].
    ///
    /// A window that counts nothing gives 0, which is not a divisor, so pass max(1, count). The count is 1
    /// for [`Reduction::Sum`], and the given number for the variants that have one. This reads the mask to
    /// the host.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) unless the mask is `[batch, time]` or `[batch]`,
    /// [`Error::DType`](crate::Error::DType) unless it is u8.
    pub fn count(&self, mask: &Tensor) -> Result<f64> {
        let names: &[&str] = if mask.rank() == 1 {
            &["batch"]
        } else {
            &["batch", "time"]
        };
        let mask = Axes::new("Reduction::count").mask("mask", mask, names)?;
        let mask = if mask.rank() == 1 {
            mask.unsqueeze(1)?
        } else {
            mask
        };
        let count = match self {
            Self::Sum => return Ok(1.0),
            Self::SumOver { count } | Self::SequenceMeansOver { count } => return Ok(*count),
            Self::TokenMean => mask_count(&mask.flatten_all()?, DType::F64)?,
            Self::SequenceMean | Self::MeanOfSequenceMeans => counted_sequences(&mask, DType::F64)?,
        };
        Ok(count.to_scalar::<f64>()?)
    }

    /// The same reduction with its divisor replaced by `count`, for one micro-batch of a window.
    ///
    /// [`Reduction::Sum`], which has no divisor, and the two variants with a given number do not change.
    pub fn over(&self, count: f64) -> Self {
        match self {
            Self::TokenMean | Self::SequenceMean => Self::SumOver { count },
            Self::MeanOfSequenceMeans => Self::SequenceMeansOver { count },
            same => *same,
        }
    }
}

/// How many rows of the mask count at least one token.
fn counted_sequences(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    let counts = mask_count(mask, dtype)?;
    Ok(counts.gt(0.0)?.to_dtype(dtype)?.sum_all()?)
}
