//! The few numerically delicate primitives that the objectives share.
//!
//! Each is tested at the point where common forms go wrong: candle's `relu` has slope 1 at 0, its
//! `abs` has slope +1 there, and a product with a mask turns a masked infinity into NaN. Masks are u8. A 0
//! leaves a position out, and the value there may be anything, even NaN.

mod logistic;
mod softmax;

use crate::error::{Error, Result};
use crate::known::{readable, with_slope};
use crate::shape::Axes;
use candle_core::{D, DType, Tensor, WithDType};
pub(crate) use logistic::{at_most, expm1, log1mexp, logistic, of_two, sigmoid, smoothed_logistic};
pub(crate) use softmax::{log_softmax, softmax};

/// A score that hides a position from an attention over finite scores.
pub(crate) const MASKED: f64 = -1e30;

/// The q-quantile of sorted numbers, interpolated between neighbors as NumPy and PyTorch do it; NaN of none.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = q * last as f64;
    let (below, weight) = (at.floor() as usize, at.fract());
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    // the two forms of an interpolation: each is exact at its own end
    match weight {
        0.0 => low,
        weight if weight < 0.5 => low + weight * (high - low),
        weight => high - (1.0 - weight) * (high - low),
    }
}

/// log σ(x) = −log(e⁰ + e⁻ˣ), elementwise.
///
/// Value and slope are correct for every x: −∞ gives −∞ with slope 1, and +∞ gives 0 with slope 0. The
/// slope at 0 is exactly ½, whereas the usual stable forms give 1 or 1.5 on candle. Every DPO margin is 0
/// at the first step.
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
#[doc(alias = "logsigmoid")]
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(softplus(&x.neg()?)?.neg()?)
}

/// log(1 + eˣ), elementwise. Its slope is σ(x), which is ½ at 0. +∞ gives +∞ with slope 1, and −∞ gives 0
/// with slope 0.
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
#[doc(alias = "relu")]
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

/// x · factor, or 0 if the factor is 0. So a term with weight 0 is left out and never becomes 0 · ∞.
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

/// Mean over the last axis of the positions that count, or 0 if none does.
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

/// A reduction of the last axis, or 0 if there is nothing to reduce, which is an error in candle. So an
/// empty batch has an empty loss.
pub(crate) fn over_last(
    x: &Tensor,
    reduce: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    match x.elem_count() {
        0 => Ok(x.sum(D::Minus1)?),
        _ => Ok(reduce(x)?),
    }
}

/// max(1, count): the divisor of a mean over possibly nothing.
pub(crate) fn at_least_one(count: &Tensor) -> Result<Tensor> {
    Ok(count.maximum(1.0)?.detach())
}

/// Which of two answers is preferred: entry (i, j) is 1 where rewardᵢ > rewardⱼ and both count.
///
/// `rewards` and `mask` are `[batch, k]`; the result is u8 `[batch, k, k]`. Equal rewards are no
/// preference either way, and NaN compares with nothing.
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
/// Without ties this is the usual product of softmaxes over the answers left to choose from. Tied
/// answers do not compete with each other. `scores` and `rewards` may be in any order. The last answer
/// of a ranking, a list of one, and an answer that is masked out contribute exactly 0. A score of −∞
/// costs nothing in the last place and +∞ before a finite one; +∞ is the reverse.
///
/// # Shapes
/// `scores`, `rewards`, `mask` `[batch, k]`; output `[batch]`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, [`Error::DType`] unless scores and rewards are both f32 or
/// both f64 and the mask u8.
#[doc(alias = "ListMLE")]
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

/// How [`whiten`] treats the mean.
#[doc(alias = "advantage whitening")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whiten {
    /// (x − mean) / std: mean 0, variance 1. For advantages.
    ZeroMean,
    /// (x − mean) / std + mean: variance 1 around the old mean. For rewards.
    KeepMean,
}

/// The number added to a variance before taking the root.
const WHITEN_EPSILON: f64 = 1e-8;
/// Keeps the root above 0 where [`WHITEN_EPSILON`] vanishes relative to the size of x. So equal numbers,
/// however large, are whitened to 0.
const SMALLEST_VARIANCE: f64 = 1e-37;

/// Scales the counted positions of the whole batch to variance 1; other positions become 0.
///
/// # Equation
/// ```text
/// x̂ = (x − μ) / √(σ² + 10⁻⁸)      (+ μ for KeepMean)
/// ```
/// μ and σ² are the mean and the population variance of the counted positions (divided by n, as in the
/// reference code of fine-tuning from human preferences; other libraries divide by n − 1). If a number is
/// infinite, all finite ones are equal relative to it, so the input is whitened as ±1 among zeros.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, [`Error::DType`] for other types than f32 or f64 with a
/// u8 mask.
#[doc(alias = "advantage whitening")]
#[doc(alias = "standardize")]
pub fn whiten(x: &Tensor, mask: &Tensor, mean: Whiten) -> Result<Tensor> {
    let mut axes = Axes::new("whiten");
    let x = axes.float("x", x, &["batch", "time"])?;
    let counted = axes.mask("mask", mask, &["batch", "time"])?.flatten_all()?;
    if x.elem_count() == 0 {
        return Ok(x); // an empty tensor has no maximum
    }
    let flat = masked(&x.flatten_all()?, &counted)?;

    // first divide by the largest |x|, so that no square overflows
    let plain = flat.detach();
    let infinite = plain.abs()?.eq(f64::INFINITY)?;
    let signs = masked(&plain.sign()?, &infinite)?;
    let any = infinite.max(0)?.broadcast_as(plain.shape())?;
    let y = any.where_cond(&signs, &flat)?;
    let size = y.detach().abs()?.max(0)?.maximum(1.0)?;
    let y = y.broadcast_div(&size)?;

    // μ, σ²
    let mu = masked_mean(&y, &counted)?;
    let centered = masked(&y.broadcast_sub(&mu)?, &counted)?;
    let variance = masked_mean(&centered.sqr()?, &counted)?;

    // x̂
    let epsilon = (size.recip()? * WHITEN_EPSILON.sqrt())?.sqr()?;
    let deviation = ((variance + epsilon)? + SMALLEST_VARIANCE)?.sqrt()?;
    let scaled = centered.broadcast_div(&deviation)?;
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
    // candle's own read panics on an empty view
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
