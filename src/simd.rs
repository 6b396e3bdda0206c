//! One piece of code, compiled for every width of instructions and run at the widest.
//!
//! A kernel is an ordinary loop that the compiler vectorizes. [`pulp`] compiles it once per width and
//! chooses when the program runs:
//! ```text
//! Width::widest().run(#[inline(always)] |fused| sums(fused, row))
//! ```
//! The closure and every function of ours that it calls are `#[inline(always)]`. A function that is not
//! inlined is compiled for the width of the whole program.

use pulp::{Arch, Simd, WithSimd};
use std::ops::{Add, Div, Mul};

/// Whether a product and a sum compile to one instruction without a check of the processor.
const PLAIN_FMA: bool = cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64");

/// A width of instructions that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width(Arch);

impl Width {
    /// The widest.
    #[inline]
    pub(crate) fn widest() -> Self {
        Self(Arch::new())
    }

    /// Runs `work`, compiled for this width.
    #[inline(always)]
    pub(crate) fn run<R>(self, work: impl FnOnce(Fused) -> R) -> R {
        self.0.dispatch(Work(work))
    }

    /// Every width that this processor has, from the plain one on.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Arch::Scalar];
        #[cfg(target_arch = "x86_64")]
        all.extend(pulp::x86::V3::try_new().map(Arch::V3));
        all.push(Arch::new());
        all.into_iter().map(Self).collect()
    }
}

struct Work<F>(F);

impl<R, F: FnOnce(Fused) -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> R {
        // every wider x86 has the instruction; WebAssembly does not
        let wide = cfg!(target_arch = "x86_64") && !S::IS_SCALAR;
        (self.0)(Fused(wide || PLAIN_FMA))
    }
}

/// Whether a product and a sum are one instruction, known when the code is compiled. Without that
/// instruction, the standard library's `mul_add` is a function call for every number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fused(bool);

impl Fused {
    #[cfg(test)]
    pub(crate) const BOTH: [Self; 2] = [Self(true), Self(false)];

    /// a · b + c, in one rounding where the processor has it.
    #[inline(always)]
    pub(crate) fn multiply_add<T: Real>(self, a: T, b: T, c: T) -> T {
        if self.0 { a.fused(b, c) } else { a * b + c }
    }
}

/// f32 or f64.
pub(crate) trait Real:
    Copy + Send + Sync + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The nearest number of this type.
    fn nearest(x: f64) -> Self;
    /// self · b + c in one rounding.
    fn fused(self, b: Self, c: Self) -> Self;
}

macro_rules! real {
    ($($t:ty),*) => {$(
        impl Real for $t {
            #[inline(always)]
            fn nearest(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn fused(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
        }
    )*};
}
real!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    /// (1 + ε)(1 − ε) − 1, which is −ε² in one rounding and 0 in two.
    fn in_one_rounding(width: Width) -> bool {
        let [a, b, c] = std::hint::black_box([1.0 + f64::EPSILON, 1.0 - f64::EPSILON, -1.0]);
        width.run(
            #[inline(always)]
            |fused| fused.multiply_add(a, b, c) != 0.0,
        )
    }

    #[test]
    fn only_the_plain_width_may_round_twice() {
        let all = Width::all();
        assert_eq!(in_one_rounding(all[0]), PLAIN_FMA);
        for &width in &all[1..] {
            let plain = matches!(width.0, Arch::Scalar);
            let fused = cfg!(target_arch = "x86_64") && !plain || PLAIN_FMA;
            assert_eq!(in_one_rounding(width), fused, "{width:?}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_widest_is_what_the_processor_has() {
        let widest = Width::widest().0;
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi2");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        assert_eq!(matches!(widest, Arch::V4(_)), avx512, "{widest:?}");
        assert_eq!(matches!(widest, Arch::V3(_)), avx2 && !avx512, "{widest:?}");
    }
}
