//! The two types that rows are computed in, and how a row's blocks are read and written.

use crate::exp::exp;
use crate::simd::{Fused, Real};
use candle_core::{CpuStorage, Layout, Result, bail};
use half::slice::HalfFloatSliceExt;
use std::ops::{Neg, Sub};

/// Elements read at a time.
pub(super) const BLOCK: usize = 1024;

/// Reads logits from a position on, as many as fit.
pub(super) type Reader<'a, W> = Box<dyn Fn(usize, &mut [W]) + Send + Sync + 'a>;

/// f32, in which f32, bf16 and f16 are computed, or f64.
pub(super) trait Number:
    Real + Sub<Output = Self> + Neg<Output = Self> + PartialOrd + Default + Into<f64> + 'static
{
    /// The smallest normal number.
    const TINY: Self;
    const IMPOSSIBLE: Self;
    /// e^x for x ≤ 0.
    fn exp(fused: Fused, x: Self) -> Self;
    /// log x for normal x > 0.
    fn ln(fused: Fused, x: Self) -> Self;
    /// A reader of logits that are computed in this type.
    fn reader<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Reader<'a, Self>>;
}

fn slice<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("divergence: the logits are not contiguous"),
    }
}

impl Number for f64 {
    const TINY: Self = f64::MIN_POSITIVE;
    const IMPOSSIBLE: Self = f64::NEG_INFINITY;
    #[inline(always)]
    fn exp(_: Fused, x: Self) -> Self {
        x.exp()
    }
    #[inline(always)]
    fn ln(_: Fused, x: Self) -> Self {
        x.ln()
    }
    fn reader<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Reader<'a, Self>> {
        match storage {
            CpuStorage::F64(data) => {
                let data = slice(data, layout)?;
                Ok(Box::new(move |from, out| {
                    out.copy_from_slice(&data[from..from + out.len()])
                }))
            }
            _ => bail!("divergence: logits of two types"),
        }
    }
}

impl Number for f32 {
    const TINY: Self = f32::MIN_POSITIVE;
    const IMPOSSIBLE: Self = f32::NEG_INFINITY;
    #[inline(always)]
    fn exp(fused: Fused, x: Self) -> Self {
        exp(fused, x)
    }
    #[inline(always)]
    fn ln(fused: Fused, x: Self) -> Self {
        ln(fused, x)
    }
    fn reader<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Reader<'a, Self>> {
        Ok(match storage {
            CpuStorage::F32(data) => {
                let data = slice(data, layout)?;
                Box::new(move |from, out| out.copy_from_slice(&data[from..from + out.len()]))
            }
            CpuStorage::BF16(data) => {
                let data = slice(data, layout)?;
                Box::new(move |from, out| data[from..from + out.len()].convert_to_f32_slice(out))
            }
            CpuStorage::F16(data) => {
                let data = slice(data, layout)?;
                Box::new(move |from, out| data[from..from + out.len()].convert_to_f32_slice(out))
            }
            _ => bail!("divergence: logits of two types"),
        })
    }
}

/// The bits of √½, from which the mantissa is counted.
const ROOT_HALF: u32 = 0x3f35_04f3;
/// ln 2 in two parts; the first has few bits, so that its products are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// log x = n ln 2 + 2 artanh((m − 1)/(m + 1)), with x = 2ⁿ m and m in [√½, √2).
///
/// The series of artanh ends with the ninth power, which leaves a relative error of 2e-9.
#[inline(always)]
fn ln(fused: Fused, x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits.wrapping_sub(ROOT_HALF) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let n = exponent as f32;
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let p = fused.multiply_add(z, 1.0 / 9.0, 1.0 / 7.0);
    let p = fused.multiply_add(z, p, 1.0 / 5.0);
    let p = fused.multiply_add(z, p, 1.0 / 3.0);
    let double = s + s;
    let tail = fused.multiply_add(double * z, p, n * LN2_LOW);
    fused.multiply_add(n, LN2_HIGH, double + tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_two_units_in_the_last_place() {
        for fused in Fused::BOTH {
            let mut worst = 0f64;
            for i in 0..1_000_000u32 {
                // every exponent of a normal number, and mantissas all over
                let x = f32::from_bits((1 << 23) + i * 2130);
                let want = (x as f64).ln();
                let error = (ln(fused, x) as f64 - want).abs() / want.abs().max(0.1);
                worst = worst.max(error);
            }
            assert!(worst < 2.4e-7, "{fused:?}: {worst}");
            assert_eq!(ln(fused, 1.0), 0.0);
        }
    }
}
