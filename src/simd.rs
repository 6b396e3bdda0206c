//! Code compiled for the widest instructions that the processor has, chosen when the program runs.

/// Runs `op`, compiled for those instructions together with every `#[inline(always)]` function in it.
#[inline(always)]
pub(crate) fn dispatch<R>(op: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(op)
}
