//! Supervised fine-tuning: raise the probability of a demonstrated answer (survey §3, Eq. 1).
//!
//! In one sentence: the cross-entropy of every token of the answer, given the prompt and the
//! answer so far.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log P(yₜ│x, y₍<t₎) | [`TokenLogProbs::values`] | `[batch, time]` |
//! | prompt left out | [`TokenLogProbs::mask`], 0 on the prompt, 1 on the answer and its end | `[batch, time]` |
//! | Σₜ, or a mean | [`Reduction`](crate::Reduction) | scalar |
//!
//! Read next: [`crate::ranking`], which adds worse answers to compare with. Later variants weigh the tokens:
//! [`dft`], by their probability; [`eaft`], by the entropy of the prediction.

pub mod dft;
pub mod eaft;

use crate::error::{Error, Result, require};
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`sft_loss`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// ε in [0, 1): the share of each target that is spread evenly over the vocabulary.
    /// Default 0, the survey's loss.
    #[doc(alias = "epsilon")]
    pub label_smoothing: f64,
}

/// The cross-entropy of each demonstrated token.
///
/// # Equation
/// ```text
/// lₜ = −w · [ (1 − ε) log P(yₜ│x, y₍<t₎) + (ε / V) Σᵥ log P(v│x, y₍<t₎) ]
/// L  = Σₜ lₜ                                                             Eq. 1, with w = 1, ε = 0
/// ```
/// # Shapes
/// `log_probs` `[batch, time]`, `weights` `[batch]`; the result is `[batch, time]` with its mask.
/// [`Reduction::SequenceMean`](crate::Reduction::SequenceMean) gives the survey's sum per example, [`Reduction::TokenMean`](crate::Reduction::TokenMean) the
/// mean over all tokens of a batch that most training code uses.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if `weights` is not `[batch]` in the type of the
/// log-probabilities; [`Error::Parameter`] unless 0 ≤ ε < 1; [`Error::Argument`] if ε > 0 and the
/// log-probabilities were computed without [`Statistics::vocabulary_mean`](crate::Statistics).
/// # Properties
/// * The gradient with respect to each counted log-probability is always −w(1 − ε).
/// * The optimum is the data's distribution under [`Reduction::Sum`](crate::Reduction::Sum) and
///   [`Reduction::SequenceMean`](crate::Reduction::SequenceMean); under [`Reduction::MeanOfSequenceMeans`](crate::Reduction::MeanOfSequenceMeans) it is
///   π(y) ∝ d(y)/|y|. With weights it is π ∝ d·w, so weights e^{r/β} on the reference's own answers
///   give the optimum of reinforcement learning with a KL penalty.
/// * Under [`Reduction::TokenMean`](crate::Reduction::TokenMean) the batch decides: π(y) ∝ d(y) · E[1/(|y| + the lengths of the
///   others in its batch)]. Large batches keep d; a batch of one learns
///   d(y)/|y|. A micro-batch acts as a batch unless it uses the divisor of its window
///   ([`Reduction::over`](crate::Reduction::over)).
/// * Smoothing every token makes each next-token distribution (1 − ε)d + ε/V. This is not the same as
///   smoothing whole answers.
/// * Weights multiply the losses and do not enter any divisor: a row of weight 0 contributes 0, but its
///   tokens still count. To divide by Σw, use [`Reduction::SumOver`](crate::Reduction::SumOver).
/// * An impossible token (−∞) costs +∞ with the same slope; in a row of weight 0 it costs 0. A target is
///   not spread over symbols with a logit of −∞.
/// # Departures
/// The survey's Eq. 1 carries an index i′ that it does not define (RRHF's index of the best
/// answer); here every row is an answer to learn. ε and w are not in the survey.
/// # Examples
/// ```
/// use candle_align::{Reduction, SftConfig, TokenLogProbs, sft_loss};
/// use candle_core::{Device, Tensor};
///
/// // four symbols, all equally likely; the prompt is one token, the answer two
/// let logits = Tensor::zeros((1, 3, 4), candle_core::DType::F64, &Device::Cpu)?;
/// let tokens = Tensor::new(&[[0u32, 2, 3]], &Device::Cpu)?;
/// let answer = Tensor::new(&[[0u8, 1, 1]], &Device::Cpu)?;
/// let log_probs = TokenLogProbs::next_token(&logits, &tokens, &answer)?;
///
/// let loss = sft_loss(&log_probs, None, &SftConfig::default())?;
/// let sum = loss.reduce(Reduction::Sum)?.to_scalar::<f64>()?;
/// assert!((sum - 2.0 * 4.0f64.ln()).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean loss per answer token on held-out examples. A uniform model scores ln V. A training
///   loss that falls while the held-out loss rises is memorization.
/// * A loss near 0 within the first steps often means that the targets are not shifted, so that the model
///   sees the token it should predict. A loss that ignores a change of the answer means that the mask
///   does not cover it.
/// * Watch the mean length of sampled answers against the data's: dividing each answer by its own length
///   makes short answers more likely than they are in the data.
/// # Try
/// * Four answers of different lengths are equally frequent in the data. What does each reduction learn?
///   Solution: `cargo run --example sft`.
/// * Train on a single demonstration and predict the loss after N steps. Solution:
///   `tests/optimum/sft.rs::one_demonstration_is_approached_like_one_over_the_steps`.
/// # Source
/// Wang et al. 2023, arXiv:2307.12966v1, Eq. 1.
#[doc(alias = "cross-entropy")]
#[doc(alias = "negative log-likelihood")]
#[doc(alias = "NLL")]
#[doc(alias = "supervised fine-tuning")]
#[doc(alias = "label smoothing")]
pub fn sft_loss(
    log_probs: &TokenLogProbs,
    weights: Option<&Tensor>,
    config: &SftConfig,
) -> Result<TokenLoss> {
    let function = "sft_loss";
    let epsilon = config.label_smoothing;
    require(
        (0.0..1.0).contains(&epsilon),
        function,
        "label_smoothing",
        "in [0, 1)",
        epsilon,
    )?;
    let mut axes = Axes::new(function);
    axes.float("log_probs", log_probs.values(), &["batch", "time"])?;

    // (1 − ε) log P(yₜ) + (ε / V) Σᵥ log P(v)
    let likelihood = match (epsilon > 0.0, log_probs.vocabulary_mean()) {
        (false, _) => log_probs.values().clone(),
        (true, Some(uniform)) => ((log_probs.values() * (1.0 - epsilon))? + (uniform * epsilon)?)?,
        (true, None) => {
            return Err(Error::argument(
                function,
                "log_probs",
                "was computed without Statistics::vocabulary_mean, which label_smoothing > 0 needs",
            ));
        }
    };

    // lₜ = −w · …
    let mut loss = likelihood.neg()?;
    if let Some(weights) = weights {
        let weights = axes.float("weights", weights, &["batch"])?.detach();
        let weights = weights.unsqueeze(1)?.broadcast_as(loss.shape())?;
        // a weight of 0 leaves the row out, even one of −∞
        loss = (masked(&loss, &weights.ne(0.0)?)? * weights)?;
    }
    Ok(TokenLoss {
        loss: masked(&loss, log_probs.mask())?,
        mask: log_probs.mask().clone(),
    })
}
