//! The types of queries, keys and values, and the types that they are computed in.

use super::products::{self, Matrix, Sum};
use crate::exp::exp;
use crate::simd::{Fused, Real};
use candle_core::WithDType;
use half::{bf16, f16};
use std::ops::Sub;

/// What a kernel computes in: f32 or f64.
pub(super) trait Number: Real + Default + PartialOrd + Sub<Output = Self> + 'static {
    const LOWEST: Self;
    const ONE: Self;
    /// e^x for x ≤ 0.
    fn exp(fused: Fused, x: Self) -> Self;
    fn tanh(fused: Fused, x: Self) -> Self;
    /// [`products::plain`] with as many columns at a time as the registers hold.
    fn plain(fused: Fused, out: Sum<Self>, size: Size, a: Matrix<Self>, b: Matrix<Self>);
    /// [`products::transposed`], likewise.
    fn transposed(fused: Fused, out: Sum<Self>, size: Size, a: Matrix<Self>, b: Matrix<Self>);
}

/// Rows and columns of a product, and the length of its sums.
pub(super) type Size = (usize, usize, usize);

macro_rules! number {
    ($t:ty, $columns:literal, $exp:expr, $tanh:expr) => {
        impl Number for $t {
            const LOWEST: Self = <$t>::NEG_INFINITY;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn exp(fused: Fused, x: Self) -> Self {
                $exp(fused, x)
            }
            #[inline(always)]
            fn tanh(fused: Fused, x: Self) -> Self {
                $tanh(fused, x)
            }
            #[inline(always)]
            fn plain(fused: Fused, out: Sum<Self>, size: Size, a: Matrix<Self>, b: Matrix<Self>) {
                products::plain::<$t, $columns>(fused, out, size, a, b)
            }
            #[inline(always)]
            fn transposed(
                fused: Fused,
                out: Sum<Self>,
                size: Size,
                a: Matrix<Self>,
                b: Matrix<Self>,
            ) {
                products::transposed::<$t, $columns>(fused, out, size, a, b)
            }
        }
    };
}
number!(f32, 16, exp, tanh);
number!(f64, 8, |_, x: f64| x.exp(), |_, x: f64| x.tanh());

/// tanh x to a few units of the last place, in steps that the compiler vectorizes.
#[inline(always)]
fn tanh(fused: Fused, x: f32) -> f32 {
    // near 0 the quotient below would lose digits: x − x³/3 + 2x⁵/15 − 17x⁷/315
    let square = x * x;
    let series = fused.multiply_add(square, -17.0 / 315.0, 2.0 / 15.0);
    let series = fused.multiply_add(square, series, -1.0 / 3.0);
    let near = fused.multiply_add(x * square, series, x);
    let e = exp(fused, -2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    if x.abs() < 0.2 { near } else { far }
}

/// What is stored: f32, f64, bf16 or f16.
pub(in crate::ops::attention) trait Element: WithDType {
    type Compute: Number;
    fn widen(self) -> Self::Compute;
    fn narrow(x: Self::Compute) -> Self;
}

macro_rules! element {
    ($t:ty, $compute:ty, $widen:expr, $narrow:expr) => {
        impl Element for $t {
            type Compute = $compute;
            #[inline(always)]
            fn widen(self) -> $compute {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(x: $compute) -> Self {
                $narrow(x)
            }
        }
    };
}
element!(f32, f32, |x| x, |x| x);
element!(f64, f64, |x| x, |x| x);
element!(bf16, f32, bf16::to_f32, bf16::from_f32);
element!(f16, f32, f16::to_f32, f16::from_f32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Width;

    #[test]
    fn tanh_is_that_of_double_precision() {
        for width in Width::all() {
            let worst = (0..=40_000).fold(0.0, |worst: f64, i| {
                let x = (i - 20_000) as f32 * 5e-4;
                let found = width.run(
                    #[inline(always)]
                    |fused| tanh(fused, x),
                );
                let exact = f64::from(x).tanh();
                let off = (f64::from(found) - exact).abs() / exact.abs().max(1e-30);
                worst.max(if x == 0.0 { found.abs().into() } else { off })
            });
            assert!(worst < 4e-7, "{width:?}: {worst:e}");
        }
        let fused = |x: f32| Width::widest().run(|fused| tanh(fused, x));
        assert_eq!((fused(f32::INFINITY), fused(-1e30)), (1.0, -1.0));
        assert!(fused(f32::NAN).is_nan());
    }
}
