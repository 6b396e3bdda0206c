//! The few delicate primitives that the objectives share.
//!
//! Each is proven at the point where common forms go wrong: candle's `relu` has slope 1 at 0, its
//! `abs` slope +1, and a product with a mask turns a masked infinity into NaN. Masks are u8; 0
//! leaves a position out, and what stands there may be anything, even NaN.

mod softmax;

use crate::error::{Error, Result};
use crate::known::{readable, with_slope};
use crate::shape::Axes;
use candle_core::{D, DType, Tensor, WithDType};
pub(crate) use softmax::{log_softmax, softmax};

/// A score that hides a position from an attention over finite scores.
pub(crate) const MASKED: f64 = -1e30;

/// log σ(x) = −log(e⁰ + e⁻ˣ), elementwise.
///
/// Right in value and slope for every x: −∞ gives −∞ with slope 1, +∞ gives 0 with slope 0. The slope
/// at 0 is exactly ½, where the usual stable forms give 1 or 1.5 on candle (every DPO margin is 0 at
/// its first step).
///
/// # Errors
/// Only candle's own.
///
/// ```
/// # use candle_align::math::log_sigmoid;
/// # use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[0.0f64, -1e4], &Device::Cpu)?;
/// assert_eq!(log_sigmoid(&x)?.to_vec1::<f64>()?, [-(2.0f64.ln()), -1e4]);
/// # Ok::<(), candle_align::Error>(())
/// ```
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(softplus(&x.neg()?)?.neg()?)
}

/// log(1 + eˣ), elementwise; slope σ(x), ½ at 0. +∞ gives +∞ with slope 1, −∞ gives 0 with slope 0.
///
/// # Errors
/// Only candle's own.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    let x = readable(x)?;
    let plain = x.detach();
    // max(0, x) + log(1 + e^{−|x|})
    let tail = (plain.abs()?.neg()?.exp()? + 1.0)?.log()?;
    let value = (plain.maximum(0.0)? + tail)?;
    // σ(x) = 1/(1 + e⁻ˣ)
    let slope = (plain.neg()?.exp()? + 1.0)?.recip()?;
    Ok(with_slope(&x, value, move |grad| grad * &slope)?)
}

/// max(0, x), elementwise, with slope 0 at the kink; NaN stays NaN.
///
/// # Errors
/// Only candle's own.
pub fn hinge(x: &Tensor) -> Result<Tensor> {
    let x = &readable(x)?;
    Ok(x.le(0.0)?.where_cond(&x.zeros_like()?, x)?)
}

/// `x` where the mask counts, 0 elsewhere.
///
/// # Errors
/// Candle's own, if the shapes differ or the mask is not an integer tensor.
pub fn masked(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let x = readable(x)?;
    Ok(readable(mask)?.where_cond(&x, &x.zeros_like()?)?)
}

/// x · factor; 0 where the factor is: a term that a weight of 0 leaves out is no 0 · ∞.
pub(crate) fn weighted(x: &Tensor, factor: f64) -> Result<Tensor> {
    match factor == 0.0 {
        true => masked(x, &Tensor::zeros(x.shape(), DType::U8, x.device())?),
        false => Ok((x * factor)?),
    }
}

/// Σ over the last axis of the positions that count.
///
/// # Errors
/// As [`masked`].
pub fn masked_sum(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    Ok(masked(x, mask)?.sum(D::Minus1)?)
}

/// Mean over the last axis of the positions that count; 0 where none does.
///
/// # Errors
/// As [`masked`].
pub fn masked_mean(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    Ok((masked_sum(x, mask)? / at_least_one(&mask_count(mask, x.dtype())?)?)?)
}

/// How many positions of the last axis count, as a float tensor of `dtype`.
///
/// # Errors
/// Only candle's own.
pub fn mask_count(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    // Counted after a cast: a u8 sum overflows at 256.
    Ok(readable(mask)?.ne(0u8)?.to_dtype(dtype)?.sum(D::Minus1)?)
}

/// A reduction of the last axis; 0 where there is nothing to reduce, which candle refuses: an empty
/// batch has an empty loss.
pub(crate) fn over_last(
    x: &Tensor,
    reduce: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    match x.elem_count() {
        0 => Ok(x.sum(D::Minus1)?),
        _ => Ok(reduce(x)?),
    }
}

/// max(1, count): the divisor of a mean over what may be nothing.
pub(crate) fn at_least_one(count: &Tensor) -> Result<Tensor> {
    Ok(count.maximum(1.0)?.detach())
}

/// Which of two answers is preferred: entry (i, j) is 1 where rewardᵢ > rewardⱼ and both count.
///
/// `rewards` and `mask` are `[batch, k]`, the result is u8 `[batch, k, k]`. Equal rewards are no
/// preference either way; nor does NaN compare with anything.
///
/// # Errors
/// Candle's own, if the shapes differ.
pub fn preferences(rewards: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (batch, k) = rewards.dims2()?;
    let square = (batch, k, k);
    let (rewards, mask) = (readable(&rewards.detach())?, readable(mask)?);
    let row = rewards.unsqueeze(2)?.broadcast_as(square)?;
    let column = rewards.unsqueeze(1)?.broadcast_as(square)?;
    let mask = mask.ne(0u8)?;
    let both = mask
        .unsqueeze(2)?
        .broadcast_as(square)?
        .mul(&mask.unsqueeze(1)?.broadcast_as(square)?)?;
    Ok(row.gt(&column)?.mul(&both)?)
}

/// −log of the Plackett–Luce probability of a ranking: one loss per list.
///
/// # Equation
/// ```text
/// L = Σᵢ [ log( e^{sᵢ} + Σ_{j: rⱼ < rᵢ} e^{sⱼ} ) − sᵢ ]
/// ```
/// Without ties this is the usual product of softmaxes over what is left to choose from. Tied
/// answers do not compete with each other. `scores` and `rewards` may stand in any order; the last
/// of a ranking, a list of one, and an answer under the mask contribute exactly 0. A score of −∞
/// costs nothing in the last place and +∞ before a finite one; +∞ is the reverse.
///
/// # Shapes
/// `scores`, `rewards`, `mask` `[batch, k]`; output `[batch]`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, [`Error::DType`] unless scores and rewards are f32 or
/// f64 alike and the mask u8.
pub fn plackett_luce(scores: &Tensor, rewards: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mut axes = Axes::new("plackett_luce");
    let scores = axes.float("scores", scores, &["batch", "k"])?;
    let rewards = axes.float("rewards", rewards, &["batch", "k"])?;
    let mask = axes.mask("mask", mask, &["batch", "k"])?;

    // sⱼ at j of row i of a [k, k] square, where j is i itself or worse than i
    let (batch, k) = scores.dims2()?;
    let square = (batch, k, k);
    let across = masked(&scores, &mask)?.unsqueeze(1)?.broadcast_as(square)?;
    let itself = Tensor::eye(k, DType::U8, scores.device())?.broadcast_as(square)?;
    let competes = preferences(&rewards, &mask)?.add(&itself)?;

    // log( e^{sᵢ} + Σ_{j: rⱼ < rᵢ} e^{sⱼ} ) − sᵢ, on the diagonal
    let log_shares = log_softmax(&across, Some(&competes))?;
    let stages = masked_sum(&log_shares, &itself)?.neg()?;

    // Σᵢ
    masked_sum(&stages, &mask)
}

/// What [`whiten`] does with the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whiten {
    /// (x − mean) / std: mean 0, variance 1. For advantages.
    ZeroMean,
    /// (x − mean) / std + mean: variance 1 about the old mean. For rewards.
    KeepMean,
}

/// The number added to a variance before its root.
const WHITEN_EPSILON: f64 = 1e-8;
/// Keeps the root above 0 where that number has vanished beside the size of x: equal numbers, however
/// large, are whitened to 0.
const SMALLEST_VARIANCE: f64 = 1e-37;

/// Scales the counted positions of the whole batch to variance 1; other positions become 0.
///
/// # Equation
/// ```text
/// x̂ = (x − μ) / √(σ² + 10⁻⁸)      (+ μ for KeepMean)
/// ```
/// μ and σ² are the mean and the population variance (divided by n, as in the reference code of
/// fine-tuning from human preferences; other libraries divide by n − 1) of the counted positions. Beside
/// an infinite number all finite ones are alike: it is whitened as ±1 among zeros.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, [`Error::DType`] for other types than f32 or f64 with a
/// u8 mask.
pub fn whiten(x: &Tensor, mask: &Tensor, mean: Whiten) -> Result<Tensor> {
    let mut axes = Axes::new("whiten");
    let x = axes.float("x", x, &["batch", "time"])?;
    let counted = axes.mask("mask", mask, &["batch", "time"])?.flatten_all()?;
    if x.elem_count() == 0 {
        return Ok(x); // nothing has no largest
    }
    let flat = masked(&x.flatten_all()?, &counted)?;

    // the largest |x|, by which all is divided first: no square overflows
    let plain = flat.detach();
    let infinite = plain.abs()?.eq(f64::INFINITY)?;
    let signs = masked(&plain.sign()?, &infinite)?;
    let any = infinite.max(0)?.broadcast_as(plain.shape())?;
    let y = any.where_cond(&signs, &flat)?;
    let size = y.detach().abs()?.max(0)?.maximum(1.0)?;
    let y = y.broadcast_div(&size)?;

    // μ, σ²
    let mu = masked_mean(&y, &counted)?;
    let centred = masked(&y.broadcast_sub(&mu)?, &counted)?;
    let variance = masked_mean(&centred.sqr()?, &counted)?;

    // x̂
    let epsilon = (size.recip()? * WHITEN_EPSILON.sqrt())?.sqr()?;
    let deviation = ((variance + epsilon)? + SMALLEST_VARIANCE)?.sqrt()?;
    let scaled = centred.broadcast_div(&deviation)?;
    let out = match mean {
        Whiten::ZeroMean => scaled,
        Whiten::KeepMean => {
            let mu = masked_mean(&flat, &counted)?;
            masked(&scaled.broadcast_add(&mu)?, &counted)?
        }
    };
    Ok(out.reshape(x.shape())?)
}

/// Every element, row by row, on the host.
pub(crate) fn to_host<T: WithDType>(x: &Tensor) -> Result<Vec<T>> {
    // candle's own read panics on a view of nothing
    if x.elem_count() == 0 {
        return Ok(Vec::new());
    }
    Ok(x.flatten_all()?.to_vec1::<T>()?)
}

/// Reads every element to the host and requires it to be finite where the mask counts.
pub(crate) fn require_finite(
    function: &'static str,
    argument: &str,
    x: &Tensor,
    mask: &Tensor,
) -> Result<()> {
    let values = to_host::<f64>(&masked(x, mask)?.to_dtype(DType::F64)?)?;
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::argument(
            function,
            argument,
            format!(
                "holds {} at flat position {at}; it must be finite where the mask counts",
                values[at]
            ),
        )),
    }
}
