//! Generative reward model: the score is the probability of a verdict (2024, after the survey).
//!
//! In one sentence: ask a language model whether an answer is right, and read the score off the
//! probability of its next word, yes or no.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log p(Yes│…), log p(No│…) | `accept`, `reject` | `[batch]` |
//!
//! Read next: [`sft_loss`](crate::sft_loss) (how the verdict is learned), [`outcome`](super::outcome).

use crate::error::Result;
use crate::math::sigmoid;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// What a verdict's probability is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictShare {
    /// Of all words: p(Yes).
    AllWords,
    /// Of the two verdicts: p(Yes)/(p(Yes) + p(No)).
    TwoVerdicts,
}

/// The score of each answer, between 0 and 1.
///
/// # Equation
/// ```text
/// score = p(Yes)   or   p(Yes) / ( p(Yes) + p(No) ) = σ( log p(Yes) − log p(No) )
/// ```
/// # Shapes
/// Both `[batch]`: log-probabilities of the two words at the place of the verdict. The score is `[batch]`,
/// with its history.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless
/// both are f32 or f64 alike.
/// # Properties
/// * Where no other word has mass the two shares agree.
/// * The share of two does not fall because the model would rather say a third word; the share of all
///   does.
/// * With a chain of thought before the verdict, draw several and take the mean of their scores.
/// # Departures
/// The paper scores by p(Yes). The verdict is learned by [`sft_loss`](crate::sft_loss) on its word, beside
/// λ times the same loss on correct solutions.
/// # Examples
/// ```
/// use candle_align::online::reward_models::{VerdictShare, verdict_score};
/// use candle_core::{Device, Tensor};
///
/// let at = |p: f64| Tensor::new(&[p.ln()], &Device::Cpu);
/// let (yes, no) = (at(0.6)?, at(0.2)?);
/// let score = |share| -> candle_align::Result<f64> { Ok(verdict_score(&yes, &no, share)?.to_vec1()?[0]) };
/// assert!((score(VerdictShare::AllWords)? - 0.6).abs() < 1e-12);
/// assert!((score(VerdictShare::TwoVerdicts)? - 0.75).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zhang et al. 2024 (generative verifiers), arXiv:2408.15240, read in a summary, not in the paper.
#[doc(alias = "generative verifier")]
#[doc(alias = "LLM as a judge")]
pub fn verdict_score(accept: &Tensor, reject: &Tensor, share: VerdictShare) -> Result<Tensor> {
    let mut axes = Axes::new("verdict_score");
    let accept = axes.float("accept", accept, &["batch"])?;
    let reject = axes.float("reject", reject, &["batch"])?;
    match share {
        // p(Yes)
        VerdictShare::AllWords => Ok(accept.exp()?),
        // σ( log p(Yes) − log p(No) )
        VerdictShare::TwoVerdicts => sigmoid(&(accept - reject)?),
    }
}
