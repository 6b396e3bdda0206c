//! Outcome reward model: is the whole answer right? (after the survey).
//!
//! In one sentence: a classifier of answers by whether their result was right, instead of a comparison.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | the score at the last token | `scores` | `[batch]` |
//! | right or wrong | `labels` | `[batch]` |
//!
//! Read next: [`process`](super::process) (a label for each step).

use crate::error::Result;
use crate::known::with_slope;
use crate::math::{hinge, masked, sigmoid, softplus};
use crate::shape::Axes;
use candle_core::Tensor;

/// The loss of each answer.
///
/// # Equation
/// ```text
/// L = −y · log σ(s) − (1 − y) · log σ(−s)
/// ```
/// # Shapes
/// Both `[batch]`. Labels are constants between 0 and 1; their values are not checked. The loss is
/// `[batch]`.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless
/// both are f32 or f64 alike.
/// # Properties
/// * ∂L/∂s = σ(s) − y. The optimum is s = log(p/(1 − p)), p the share of right answers: unlike a
///   comparison it fixes the constant.
/// * A label of 1 or 0 and an infinite score on its side cost 0.
/// # Departures
/// None. It is the binary cross-entropy of σ(s), computed without σ.
/// # Examples
/// ```
/// use candle_align::online::reward_models::outcome_reward_loss;
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&x, &Device::Cpu);
/// let loss = outcome_reward_loss(&of([0.5, 2.0])?, &of([1.0, 0.0])?)?.to_vec1::<f64>()?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// assert!((loss[0] - lost(0.5)).abs() < 1e-12 && (loss[1] - lost(-2.0)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Cobbe et al. 2021 (verifiers), arXiv:2110.14168; named so by Uesato et al. 2022, arXiv:2211.14275.
#[doc(alias = "ORM")]
#[doc(alias = "outcome-supervised reward model")]
pub fn outcome_reward_loss(scores: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let mut axes = Axes::new("outcome_reward_loss");
    let scores = axes.float("scores", scores, &["batch"])?;
    let labels = axes.float("labels", labels, &["batch"])?.detach();
    binary_cross_entropy(&scores, &labels)
}

/// −y · log σ(s) − (1 − y) · log σ(−s) = log(1 + e^{−│s│}) + max(0, s)·(1 − y) + max(0, −s)·y.
pub(super) fn binary_cross_entropy(scores: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let plain = scores.detach();
    // a factor of 0 leaves its term out, even beside an infinite one
    let product = |a: Tensor, b: &Tensor| -> Result<Tensor> {
        let both = a.ne(0.0)?.mul(&b.ne(0.0)?)?;
        masked(&(a * b)?, &both)
    };
    let tail = softplus(&plain.abs()?.neg()?)?;
    let above = product(hinge(&plain)?, &labels.affine(-1.0, 1.0)?)?;
    let below = product(hinge(&plain.neg()?)?, labels)?;
    // σ(s) − y
    let slope = (sigmoid(&plain)? - labels)?;
    let value = ((tail + above)? + below)?;
    Ok(with_slope(scores, value, move |grad| grad * &slope)?)
}
