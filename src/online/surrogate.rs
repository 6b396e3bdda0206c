//! The clipped surrogate that PPO and its successors share.

use crate::error::Result;
use crate::math::masked;
use candle_core::Tensor;

/// Where the clip stops the gradient.
pub(super) struct Bounds {
    /// Â < 0: not below this ratio.
    pub low: f64,
    /// Â > 0: not above this ratio.
    pub high: f64,
    /// Â < 0: not above this ratio.
    pub most: Option<f64>,
}

/// max( −Âρ, −Â clip(ρ) ) of each token, and where the gradient stopped (u8).
///
/// `ratio` is 0 or more, and `advantages` are constants; both may be infinite.
pub(super) fn clipped(
    ratio: &Tensor,
    advantages: &Tensor,
    bounds: &Bounds,
) -> Result<(Tensor, Tensor)> {
    let reached = ratio.detach();

    // as a choice: the slope of a maximum would be halved at a tie.
    // Clipped where Â > 0 and ρ > high, or Â < 0 and ρ < low
    let (gain, harm) = (advantages.gt(0.0)?, advantages.lt(0.0)?);
    let above = gain.mul(&reached.gt(bounds.high)?)?;
    let below = harm.mul(&reached.lt(bounds.low)?)?;
    let mut stopped = above.add(&below)?;
    let constant = |x: f64| reached.zeros_like()?.affine(0.0, x);
    let mut bound = above.where_cond(&constant(bounds.high)?, &constant(bounds.low)?)?;

    // or Â < 0 and ρ > most
    if let Some(most) = bounds.most {
        let beyond = harm.mul(&reached.gt(most)?)?;
        bound = beyond.where_cond(&constant(most)?, &bound)?;
        stopped = stopped.add(&beyond)?;
    }
    let ratio_or_bound = stopped.where_cond(&bound, ratio)?;
    Ok((times(&ratio_or_bound, &advantages.neg()?)?, stopped))
}

/// x · c of a constant c: where c is 0 the product is 0 with slope 0, also beside an infinite x.
pub(super) fn times(x: &Tensor, constant: &Tensor) -> Result<Tensor> {
    Ok((masked(x, &constant.ne(0.0)?)? * constant)?)
}

/// a · b of two constants, 0 where either is.
pub(super) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let nothing = a.eq(0.0)?.add(&b.eq(0.0)?)?.eq(0u8)?;
    masked(&(a * b)?, &nothing)
}
