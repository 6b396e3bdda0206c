//! Softmax and its logarithm over the positions that count, including infinities.

use super::masked;
use crate::error::Result;
use crate::known::with_slope;
use candle_core::{D, Tensor};

/// log( e^{xᵢ} / Σⱼ e^{xⱼ} ) over the last axis, among the positions that `mask` counts, and 0 at the others.
///
/// A position that does not count has no share, however small the others are. A single +∞ has the whole
/// share, and so has a −∞ that is the only position. Where two infinities would share, the result is NaN.
pub(crate) fn log_softmax(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    let plain = x.detach();
    let nothing = plain.zeros_like()?.affine(0.0, f64::NEG_INFINITY)?;
    let among = |x: &Tensor, otherwise: &Tensor| match mask {
        Some(mask) => mask.where_cond(x, otherwise),
        None => Ok(x.clone()),
    };

    // xᵢ − max, which is 0 for a single largest element even if that is infinite
    let counted = among(&plain, &nothing)?;
    let most = counted.max_keepdim(D::Minus1)?;
    let below = counted.broadcast_sub(&most)?;
    let leads = counted.broadcast_eq(&most)?;
    let leads = among(&leads, &leads.zeros_like()?)?;
    let alone = leads.to_dtype(x.dtype())?.sum_keepdim(D::Minus1)?.eq(1.0)?;
    let below = leads
        .broadcast_mul(&alone)?
        .where_cond(&below.zeros_like()?, &below)?;

    // … − log Σⱼ e^{xⱼ − max}
    let weights = among(&below.exp()?, &below.zeros_like()?)?;
    let total = weights.sum_keepdim(D::Minus1)?;
    let value = among(&below.broadcast_sub(&total.log()?)?, &below.zeros_like()?)?;

    // d/dxⱼ = [i = j] − pⱼ
    let shares = among(&weights.broadcast_div(&total)?, &below.zeros_like()?)?;
    let mask = mask.cloned();
    let backward = move |grad: &Tensor| {
        let grad = match &mask {
            Some(mask) => mask.where_cond(grad, &grad.zeros_like()?)?,
            None => grad.clone(),
        };
        &grad - shares.broadcast_mul(&grad.sum_keepdim(D::Minus1)?)?
    };
    Ok(with_slope(x, value, backward)?)
}

/// e^{xᵢ} / Σⱼ e^{xⱼ} among the positions that count, and 0 at the others.
pub(crate) fn softmax(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    masked(&log_softmax(x, Some(mask))?.exp()?, mask)
}
