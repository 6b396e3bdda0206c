//! One piece of code, compiled for every width of instructions and run at the widest.
//!
//! A kernel is an ordinary loop that the compiler vectorizes. It is compiled once per width, and the width
//! is chosen when the program runs:
//! ```text
//! widest(#[inline(always)] |fused| sums(fused, row))
//! ```
//! The closure and every function of ours that it calls are `#[inline(always)]`. A function that is not
//! inlined is compiled for the width of the whole program.

use std::ops::{Add, Div, Mul};

/// Whether a product and a sum compile to one instruction without a check of the processor.
const PLAIN_FMA: bool = cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64");

/// A width of instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Width(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The width that the program was compiled for.
    Plain,
    /// Eight numbers at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Sixteen.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Width {
    /// The widest.
    #[inline]
    pub(crate) fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
            let both = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
            return Self(if both { Kind::Avx512 } else { Kind::Avx2 });
        }
        Self(Kind::Plain)
    }

    /// Runs `work`, compiled for this width.
    #[inline(always)]
    pub(crate) fn run<R>(self, work: impl FnOnce(Fused) -> R) -> R {
        match self.0 {
            Kind::Plain => work(Fused(PLAIN_FMA)),
            // SAFETY: `widest` and `all`, which alone make this value, found the instructions.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kind::Avx2 => unsafe { avx2(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kind::Avx512 => unsafe { avx512(work) },
        }
    }

    /// Every width that this processor has, from the plain one on.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self(Kind::Plain)];
        #[cfg(target_arch = "x86_64")]
        match Self::widest().0 {
            Kind::Plain => {}
            Kind::Avx2 => all.push(Self(Kind::Avx2)),
            Kind::Avx512 => all.extend([Self(Kind::Avx2), Self(Kind::Avx512)]),
        }
        all
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<R>(work: impl FnOnce(Fused) -> R) -> R {
    work(Fused(true))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn avx512<R>(work: impl FnOnce(Fused) -> R) -> R {
    work(Fused(true))
}

/// Runs `work` in the widest instructions of this processor.
#[inline(always)]
pub(crate) fn widest<R>(work: impl FnOnce(Fused) -> R) -> R {
    Width::widest().run(work)
}

/// Whether a product and a sum are one instruction, known when the code is compiled. Without that
/// instruction, the standard library's `mul_add` is a function call for every number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fused(bool);

impl Fused {
    /// Two roundings, on every processor.
    pub(crate) const NEVER: Self = Self(false);
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
    fn root(self) -> Self;
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
            fn root(self) -> Self {
                self.sqrt()
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
        for width in Width::all() {
            let fused = PLAIN_FMA || width != Width(Kind::Plain);
            assert_eq!(in_one_rounding(width), fused, "{width:?}");
        }
    }

    #[test]
    fn the_widest_is_among_all() {
        assert_eq!(Width::all().last(), Some(&Width::widest()));
    }
}
