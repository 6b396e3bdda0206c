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
    /// [`products::plain`] with as many columns at a time as the registers hold.
    fn plain(fused: Fused, out: Sum<Self>, size: Size, a: Matrix<Self>, b: Matrix<Self>);
    /// [`products::transposed`], likewise.
    fn transposed(fused: Fused, out: Sum<Self>, size: Size, a: Matrix<Self>, b: Matrix<Self>);
}

/// Rows and columns of a product, and the length of its sums.
pub(super) type Size = (usize, usize, usize);

macro_rules! number {
    ($t:ty, $columns:literal, $exp:expr) => {
        impl Number for $t {
            const LOWEST: Self = <$t>::NEG_INFINITY;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn exp(fused: Fused, x: Self) -> Self {
                $exp(fused, x)
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
number!(f32, 16, exp);
number!(f64, 8, |_, x: f64| x.exp());

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
