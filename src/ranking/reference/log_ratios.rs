//! How far the policy has moved from the reference on the two answers of each pair.

use super::score::FDivergence;
use crate::error::{Error, Result};
use crate::log_probs::Pair;
use crate::math::at_least_one;
use crate::shape::Axes;
use candle_core::Tensor;

/// ρ = log π_θ(y│x) − log π_ref(y│x) of both answers: what every loss with a reference reads.
///
/// Whether ρ is a sum over tokens, a mean, or the score of another divergence is said where the value is
/// made, so a loss cannot mistake one for the other:
///
/// | call | score of an answer |
/// |---|---|
/// | [`LogRatios::sums`] | ρ, a sum over tokens |
/// | `.scored(divergence)` | s(ρ), the score that belongs to another divergence than the reverse KL |
/// | `.per_token(&lengths)` | ρ/│y│ or s(ρ)/│y│ |
///
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::LogRatios;
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let lengths = Pair { chosen: at(4.0)?, rejected: at(2.0)? };
///
/// let sums = LogRatios::sums(&policy, &reference)?;
/// let means = sums.per_token(&lengths)?;
/// let gap = means.scores().margin()?.to_vec1::<f64>()?[0];
/// assert!((gap - (-0.4 / 4.0 + 0.5 / 2.0)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "implicit reward")]
#[derive(Clone, Debug)]
pub struct LogRatios {
    scores: Pair<Tensor>,
    per_token: bool,
}

impl LogRatios {
    /// From sums of token log-probabilities ([`TokenLogProbs::sum`](crate::TokenLogProbs::sum)), all `[batch]`.
    /// The reference is a constant and gets no gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] if sizes differ, [`Error::DType`] unless all are f32 or all are f64.
    pub fn sums(policy: &Pair<Tensor>, reference: &Pair<Tensor>) -> Result<Self> {
        let mut axes = Axes::new("LogRatios::sums");
        let policy = axes.pair("policy", policy)?;
        let reference = axes.pair("reference", reference)?.detach();
        Ok(Self {
            scores: Pair {
                chosen: (policy.chosen - reference.chosen)?,
                rejected: (policy.rejected - reference.rejected)?,
            },
            per_token: false,
        })
    }

    /// The scores s(ρ) that belong to another divergence; see [`FDivergence`].
    ///
    /// # Errors
    /// [`Error::Argument`] after [`LogRatios::per_token`]: the score is one of the whole answer.
    /// [`Error::Parameter`] unless α is finite.
    pub fn scored(&self, divergence: FDivergence) -> Result<Self> {
        if self.per_token {
            let problem = "are already divided by lengths; call `scored` before `per_token`";
            return Err(Error::argument("LogRatios::scored", "self", problem));
        }
        Ok(Self {
            scores: Pair {
                chosen: divergence.score(&self.scores.chosen)?,
                rejected: divergence.score(&self.scores.rejected)?,
            },
            per_token: false,
        })
    }

    /// Divides each score by the number of tokens of its answer, `[batch]`
    /// ([`TokenLogProbs::lengths`](crate::TokenLogProbs::lengths)). A length below 1 counts as 1.
    ///
    /// # Errors
    /// [`Error::Argument`] if they were divided before, [`Error::Shape`] if sizes differ, [`Error::DType`]
    /// unless the lengths have the type of the scores.
    pub fn per_token(&self, lengths: &Pair<Tensor>) -> Result<Self> {
        let function = "LogRatios::per_token";
        if self.per_token {
            let problem = "are already divided by lengths";
            return Err(Error::argument(function, "self", problem));
        }
        let mut axes = Axes::new(function);
        axes.pair("self", &self.scores)?;
        let lengths = axes.pair("lengths", lengths)?;
        let of = |score: &Tensor, length: &Tensor| -> Result<Tensor> {
            Ok((score / at_least_one(length)?)?)
        };
        Ok(Self {
            scores: Pair {
                chosen: of(&self.scores.chosen, &lengths.chosen)?,
                rejected: of(&self.scores.rejected, &lengths.rejected)?,
            },
            per_token: true,
        })
    }

    /// The scores of both answers `[batch]`.
    pub fn scores(&self) -> &Pair<Tensor> {
        &self.scores
    }

    /// β times the scores: the implicit rewards.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn rewards(&self, beta: f64) -> Result<Pair<Tensor>> {
        Ok(Pair {
            chosen: (&self.scores.chosen * beta)?,
            rejected: (&self.scores.rejected * beta)?,
        })
    }
}
