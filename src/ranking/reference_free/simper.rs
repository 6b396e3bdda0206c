//! SimPER: a difference of inverse perplexities (2025, after the survey).
//!
//! In one sentence: raise the inverse perplexity of the chosen answer and lower that of the rejected one,
//! with nothing to tune.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | (1/│y│) log π_θ(y│x) | `means` | `[batch]` |
//!
//! Read next: [`simpo`](super::simpo).

use crate::error::Result;
use crate::log_probs::Pair;
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −exp( (1/│y_w│) log π_θ(y_w│x) ) + exp( (1/│y_l│) log π_θ(y_l│x) )
/// ```
/// # Shapes
/// `means` `[batch]`: means of token log-probabilities
/// ([`TokenLogProbs::mean`](crate::TokenLogProbs::mean)). The loss and the rewards, the two inverse
/// perplexities, are `[batch]`.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless
/// both are f32 or f64 alike.
/// # Properties
/// * It lies in (−1, 1) and tends to −1 as the chosen answer becomes certain and the rejected one
///   impossible. There is no finite optimum.
/// * ∂L/∂l̄ = ∓e^l̄: an answer that is unlikely per token hardly moves. From an untrained model, with e^l̄
///   near 1/vocabulary, nothing does.
/// * Equal means have the loss 0.
/// # Departures
/// None from the authors' code.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{simper_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let means = Pair { chosen: at(-0.8)?, rejected: at(-1.5)? };
/// let out = simper_loss(&means)?;
/// let want = (-1.5f64).exp() - (-0.8f64).exp();
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch both inverse perplexities. If they start near 0, fine-tune on demonstrations first.
/// # Try
/// * Compare the slope at a mean of −1 with that at −10. Solution:
///   `tests/values/since.rs::simper_hardly_moves_an_unlikely_answer`.
/// # Source
/// Xiao et al. 2025, arXiv:2502.00883; authors' code tengxiao1/SimPER, `scripts/simper_trainer.py`.
#[doc(alias = "inverse perplexity")]
pub fn simper_loss(means: &Pair<Tensor>) -> Result<PreferenceLoss> {
    let means = Axes::new("simper_loss").pair("means", means)?;

    // e^{l̄_w}, e^{l̄_l}
    let inverse = Pair {
        chosen: means.chosen.exp()?,
        rejected: means.rejected.exp()?,
    };
    PreferenceLoss::new(inverse.margin()?.neg()?, &inverse)
}
