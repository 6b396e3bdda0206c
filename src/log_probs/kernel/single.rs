//! Where numbers are written, and the types computed in single precision.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::mem::MaybeUninit;

/// Elements read at a time.
pub(super) const BLOCK: usize = 1024;

/// A place to write a number to: memory that already holds one, or uninitialized memory.
pub(super) trait Slot<T> {
    fn put(&mut self, value: T);
}

impl<T> Slot<T> for MaybeUninit<T> {
    #[inline(always)]
    fn put(&mut self, value: T) {
        self.write(value);
    }
}

impl<T> Slot<T> for T {
    #[inline(always)]
    fn put(&mut self, value: T) {
        *self = value;
    }
}

/// A type computed in single precision.
pub(super) trait Single:
    Copy + Default + Send + Sync + Into<f64> + Slot<Self> + 'static
{
    /// The block as f32: itself, or converted into `buffer`.
    fn widen<'a>(block: &'a [Self], buffer: &'a mut [f32; BLOCK]) -> &'a [f32];
    /// Writes `f(x)` for each x of the block.
    fn write<O: Slot<Self>>(block: &[f32], out: &mut [O], f: impl Fn(f32) -> f32);
    /// A number in this type.
    fn round(value: f32) -> Self;
}

impl Single for f32 {
    #[inline(always)]
    fn widen<'a>(block: &'a [Self], _: &'a mut [f32; BLOCK]) -> &'a [f32] {
        block
    }
    #[inline(always)]
    fn write<O: Slot<Self>>(block: &[f32], out: &mut [O], f: impl Fn(f32) -> f32) {
        for (o, &x) in out.iter_mut().zip(block) {
            o.put(f(x));
        }
    }
    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }
}

macro_rules! half_single {
    ($t:ty) => {
        impl Single for $t {
            #[inline(always)]
            fn widen<'a>(block: &'a [Self], buffer: &'a mut [f32; BLOCK]) -> &'a [f32] {
                let buffer = &mut buffer[..block.len()];
                block.convert_to_f32_slice(buffer);
                buffer
            }
            #[inline(always)]
            fn write<O: Slot<Self>>(block: &[f32], out: &mut [O], f: impl Fn(f32) -> f32) {
                let (mut wide, mut narrow) = ([0f32; BLOCK], [<$t>::ZERO; BLOCK]);
                let n = block.len();
                for (w, &x) in wide.iter_mut().zip(block) {
                    *w = f(x);
                }
                narrow[..n].convert_from_f32_slice(&wide[..n]);
                for (o, x) in out.iter_mut().zip(narrow) {
                    o.put(x);
                }
            }
            #[inline(always)]
            fn round(value: f32) -> Self {
                <$t>::from_f32(value)
            }
        }
    };
}
half_single!(bf16);
half_single!(f16);
