//! The logistic function and its neighbors, where ordinary operations would pass through ∞ − ∞ or 0 · ∞.

use super::log_sigmoid;
use crate::error::Result;
use crate::known::{readable, with_slope};
use candle_core::{DType, Tensor};

/// σ(x) = 1/(1 + e⁻ˣ), elementwise. Its slope is σ(x)σ(−x), which is 0 at ±∞.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    let x = readable(x)?;
    let plain = x.detach();
    let of = |x: Tensor| (x.exp()? + 1.0)?.recip();
    let value = of(plain.neg()?)?;
    let slope = (&value * of(plain)?)?;
    Ok(with_slope(&x, value, move |grad| grad * &slope)?)
}

/// σ(x) of one number.
pub(crate) fn logistic(x: f64) -> f64 {
    match x >= 0.0 {
        true => 1.0 / (1.0 + (-x).exp()),
        false => x.exp() / (1.0 + x.exp()),
    }
}

/// −(1 − ε) · log σ(z) − ε · log σ(−z), elementwise. At ε = 0 the second term is left out.
pub(crate) fn smoothed_logistic(z: &Tensor, epsilon: f64) -> Result<Tensor> {
    let right = (log_sigmoid(z)? * (epsilon - 1.0))?;
    match epsilon == 0.0 {
        true => Ok(right),
        false => Ok((right - (log_sigmoid(&z.neg()?)? * epsilon)?)?),
    }
}

/// eˣ − 1, elementwise, precise near 0. Above the largest exponent of the type (80 in f32, 700 in f64) value
/// and slope stay those of that exponent, so that two of them can be compared and a gradient is finite.
pub(crate) fn expm1(x: &Tensor) -> Result<Tensor> {
    let x = readable(x)?;
    let largest = if x.dtype() == DType::F32 { 80.0 } else { 700.0 };
    let plain = at_most(&x.detach(), largest)?;
    let power = plain.exp()?;
    // (eˣ − 1)/(eˣ + 1) = tanh(x/2)
    let value = ((&plain / 2.0)?.tanh()? * (&power + 1.0)?)?;
    Ok(with_slope(&x, value, move |grad| grad * &power)?)
}

/// log(1 − eˣ) of x ≤ 0, elementwise, outside the graph; −∞ at 0.
pub(crate) fn log1mexp(x: &Tensor) -> Result<Tensor> {
    let x = x.detach();
    let missing = ((&x / 2.0)?.tanh()? * (x.exp()? + 1.0)?)?.neg()?;
    Ok(missing.log()?)
}

/// min(x, largest), outside the graph; NaN stays NaN.
pub(crate) fn at_most(x: &Tensor, largest: f64) -> Result<Tensor> {
    let x = x.detach();
    let bound = x.zeros_like()?.affine(0.0, largest)?;
    Ok(x.gt(largest)?.where_cond(&bound, &x)?)
}

/// A value of two inputs, computed outside the graph, with its slope in each.
pub(crate) fn of_two(
    value: Tensor,
    (first, of_first): (&Tensor, Tensor),
    (second, of_second): (&Tensor, Tensor),
) -> Result<Tensor> {
    let nothing = value.zeros_like()?;
    let through_first = with_slope(first, value, move |grad| grad * &of_first)?;
    let through_second = with_slope(second, nothing, move |grad| grad * &of_second)?;
    Ok((through_first + through_second)?)
}
