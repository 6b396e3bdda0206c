//! Code compiled for the widest instructions that the processor has, chosen when the program runs.

use pulp::{Arch, Simd, WithSimd};

/// A width of instructions that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width(Arch);

impl Width {
    /// The widest.
    #[inline]
    pub(crate) fn widest() -> Self {
        Self(Arch::new())
    }

    /// Runs `work`, compiled for this width. The closure and all functions in it are `#[inline(always)]`: one
    /// that is not inlined is compiled for the width of the whole program.
    #[inline(always)]
    pub(crate) fn run<R>(self, work: impl FnOnce(()) -> R) -> R {
        self.0.dispatch(Work(work))
    }
}

struct Work<F>(F);

impl<R, F: FnOnce(()) -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> R {
        (self.0)(())
    }
}
