//! Two answers to one prompt.

use crate::error::{Error, Result};
use crate::known::readable;
use crate::shape::Axes;
use candle_core::{D, Tensor};

/// The preferred answer and the other one: log-probabilities, scores, or anything else that comes in
/// pairs.
#[doc(alias = "preference pair")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<T> {
    /// The answer that was preferred.
    pub chosen: T,
    /// The answer that was not.
    pub rejected: T,
}

impl Pair<Tensor> {
    /// Splits a tensor whose first half of rows are the chosen answers and whose second half are
    /// the rejected ones, as one forward pass over both returns them.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the first axis is even.
    pub fn from_rows(rows: &Tensor) -> Result<Self> {
        let count = rows.dims().first().copied().unwrap_or(0);
        if count % 2 != 0 || rows.rank() == 0 {
            return Err(Error::argument(
                "Pair::from_rows",
                "rows",
                format!("has shape {:?}; its first axis must be even", rows.dims()),
            ));
        }
        Ok(Self {
            chosen: readable(&rows.narrow(0, 0, count / 2)?)?,
            rejected: readable(&rows.narrow(0, count / 2, count / 2)?)?,
        })
    }

    /// chosen − rejected.
    ///
    /// # Errors
    /// Candle's own, if the shapes differ.
    #[doc(alias = "reward margin")]
    pub fn margin(&self) -> Result<Tensor> {
        Ok((readable(&self.chosen)? - readable(&self.rejected)?)?)
    }

    /// The share of pairs in which the chosen answer has the higher number. A tie counts ½, and a NaN
    /// margin counts as lost. The result is a detached scalar, and NaN if there is no pair.
    ///
    /// # Errors
    /// Candle's own, if the shapes differ.
    #[doc(alias = "reward accuracy")]
    pub fn accuracy(&self) -> Result<Tensor> {
        let margin = self.margin()?.detach().flatten_all()?;
        let wins = margin.gt(0.0)?.to_dtype(margin.dtype())?;
        let ties = margin.eq(0.0)?.to_dtype(margin.dtype())?;
        Ok((wins + (ties * 0.5)?)?.mean(D::Minus1)?)
    }

    /// Both tensors without their history.
    pub fn detach(&self) -> Self {
        Self {
            chosen: self.chosen.detach(),
            rejected: self.rejected.detach(),
        }
    }
}

impl Axes {
    /// Requires two tensors `[batch]` in f32 or f64, one for each answer of a pair.
    pub(crate) fn pair(&mut self, argument: &str, pair: &Pair<Tensor>) -> Result<Pair<Tensor>> {
        let mut answer = |which, x| self.float(&format!("{argument}.{which}"), x, &["batch"]);
        Ok(Pair {
            chosen: answer("chosen", &pair.chosen)?,
            rejected: answer("rejected", &pair.rejected)?,
        })
    }
}
