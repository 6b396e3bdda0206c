//! GPTScore: how likely an answer is after a prompt that asks for the quality in question.

use crate::error::Result;
use crate::log_probs::TokenLogProbs;
use candle_core::Tensor;

/// The mean log-probability of each answer's tokens.
///
/// # Equation
/// ```text
/// GPTScore(h│d, a, S) = Σₜ wₜ log π(hₜ│h₍<t₎, T(d, a, S)),     wₜ = 1/m
/// ```
/// # Shapes
/// `log_probs` `[batch, time]` after the prompt T, which names the aspect a; the mask on the m tokens of the
/// answer. The result is `[batch]`.
/// # Errors
/// Only candle's own. An answer without a token has 0, as [`TokenLogProbs::mean`].
/// # Properties
/// * At most 0; −exp of it is no probability of the text, but e^{−score} is its perplexity after the prompt.
/// * A common and plain answer scores higher than a rare and good one: the score mixes quality with frequency.
/// * Scores of one judge and one prompt can be compared, others not.
/// # Departures
/// None: the authors' code averages, where the paper leaves the weights open. It is
/// [`TokenLogProbs::mean`] under the name that the survey uses.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::evaluation::by_model::gpt_score;
/// use candle_core::{Device, Tensor};
///
/// let values = Tensor::new(&[[-1.0f64, -3.0, 0.0]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// let scores = gpt_score(&TokenLogProbs::new(&values, &mask)?)?;
/// assert_eq!(scores.to_vec1::<f64>()?, [-2.0]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Fu et al. 2023, arXiv:2302.04166v2, §3; authors' code jinlanfu/GPTScore at commit db6a58f, `gpt3_score.py`.
#[doc(alias = "GPTScore")]
pub fn gpt_score(log_probs: &TokenLogProbs) -> Result<Tensor> {
    log_probs.mean()
}
