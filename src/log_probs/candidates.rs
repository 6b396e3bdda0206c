//! k answers to one prompt, with their rewards.

use super::TokenLogProbs;
use crate::error::{Error, Result};
use crate::math::{at_least_one, mask_count, masked, preferences, require_finite, to_host};
use crate::shape::Axes;
use candle_core::{DType, Tensor};

/// Sequence log-probabilities, lengths and rewards of up to k answers to each prompt.
///
/// The list losses take this type rather than a tensor of scores, so that none can confuse a sum with
/// a length mean: each loss reads the one that its paper uses. Answers may be in any order. A shorter
/// list is padded with mask 0, and the padding may hold anything, even NaN.
#[doc(alias = "completions")]
#[derive(Clone, Debug)]
pub struct Candidates {
    sums: Tensor,
    lengths: Tensor,
    rewards: Tensor,
    mask: Tensor,
}

impl Candidates {
    /// From sums of token log-probabilities, numbers of tokens, and rewards.
    ///
    /// # Shapes
    /// `sums`, `lengths`, `rewards` `[batch, k]`, all f32 or all f64; `mask` `[batch, k]` in u8. `None`
    /// counts all answers. An answer of length 0 is removed from its list. Rewards and lengths are
    /// constants and get no gradient.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] as above; [`Error::Argument`] if a reward that counts is not
    /// finite, or if a length that counts is not finite and at least 1. They are read to the host here,
    /// so that no loss has to.
    pub fn new(
        sums: &Tensor,
        lengths: &Tensor,
        rewards: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Self> {
        let function = "Candidates::new";
        let mut axes = Axes::new(function);
        let sums = axes.float("sums", sums, &["batch", "k"])?;
        let lengths = axes.float("lengths", lengths, &["batch", "k"])?;
        let rewards = axes.float("rewards", rewards, &["batch", "k"])?;
        let not_empty = lengths.ne(0.0)?;
        let mask = match mask {
            Some(mask) => {
                let mask = axes.mask("mask", mask, &["batch", "k"])?;
                mask.ne(0u8)?.mul(&not_empty)?
            }
            None => not_empty,
        };
        require_finite(function, "lengths", &lengths, &mask)?;
        let shortest = masked(&(&lengths - 1.0)?, &mask)?.to_dtype(DType::F64)?;
        if let Some(at) = to_host::<f64>(&shortest)?.iter().position(|l| *l < 0.0) {
            let problem =
                format!("is below 1 at flat position {at}; a mean over it has no meaning");
            return Err(Error::argument(function, "lengths", problem));
        }
        require_finite(function, "rewards", &rewards, &mask)?;
        Ok(Self {
            sums: masked(&sums, &mask)?,
            lengths: masked(&lengths, &mask)?.detach(),
            rewards: masked(&rewards, &mask)?.detach(),
            mask,
        })
    }

    /// From the rows of one forward pass: row `prompt · k + i` is answer i to that prompt.
    ///
    /// # Shapes
    /// `log_probs` of `batch · k` rows; `rewards` and `mask` `[batch, k]`.
    ///
    /// # Errors
    /// As [`Candidates::new`]; [`Error::Argument`] if the number of rows is not `batch · k`.
    pub fn from_token_log_probs(
        log_probs: &TokenLogProbs,
        rewards: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Self> {
        let function = "Candidates::from_token_log_probs";
        Axes::new(function).float("rewards", rewards, &["batch", "k"])?;
        let (batch, k) = rewards.dims2()?;
        let rows = log_probs.values().dim(0)?;
        if rows != batch * k {
            return Err(Error::argument(
                function,
                "log_probs",
                format!("has {rows} rows, expected {batch} · {k} (from `rewards`)"),
            ));
        }
        let (sums, lengths) = (log_probs.sum()?, log_probs.lengths()?);
        Self::new(
            &sums.reshape((batch, k))?,
            &lengths.reshape((batch, k))?,
            rewards,
            mask,
        )
    }

    /// ℓᵢ = log π(yᵢ│x), sums over tokens: `[batch, k]`, 0 where the mask does not count.
    pub fn sums(&self) -> &Tensor {
        &self.sums
    }

    /// pᵢ = ℓᵢ / |yᵢ|, means over tokens: `[batch, k]`, 0 where the mask does not count.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn means(&self) -> Result<Tensor> {
        Ok((&self.sums / at_least_one(&self.lengths)?)?)
    }

    /// |yᵢ| `[batch, k]`.
    pub fn lengths(&self) -> &Tensor {
        &self.lengths
    }

    /// rᵢ `[batch, k]`, constants.
    pub fn rewards(&self) -> &Tensor {
        &self.rewards
    }

    /// Which answers exist: u8 `[batch, k]`.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// How many answers of the list are strictly better: `[batch, k]`, and 0 for each best answer.
    pub(crate) fn ranks(&self) -> Result<Tensor> {
        let better_than = self.preferences()?.transpose(1, 2)?;
        mask_count(&better_than, self.sums().dtype())
    }

    /// Entry (i, j) is 1 where answer i has the strictly higher reward: u8 `[batch, k, k]`.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn preferences(&self) -> Result<Tensor> {
        preferences(&self.rewards, &self.mask)
    }
}
