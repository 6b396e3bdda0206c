//! The arithmetic of one step, and the check of its inputs.

use crate::simd::{Fused, Real, widest};
use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, Var, bail};
use half::{bf16, f16};
use rayon::prelude::*;

/// Numbers that are updated at a time.
const LANES: usize = 16;

/// How many elements one task updates: a few pages of each array.
pub(super) const CHUNK: usize = 1 << 14;

/// The coefficients of one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    /// 1 − η λ
    pub(super) keep: f64,
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    /// η / (1 − β₁ᵗ)
    pub(super) rate: f64,
    /// 1 / √(1 − β₂ᵗ): a product is cheaper than a quotient
    pub(super) scale: f64,
    pub(super) epsilon: f64,
}

/// The same arithmetic from ordinary operations.
pub(super) fn step_on_device(
    var: &Var,
    grad: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    master: &mut Option<Tensor>,
    u: Update,
) -> Result<()> {
    let grad = grad.to_dtype(m.dtype())?;
    *m = ((&*m * u.beta1)? + (&grad * (1.0 - u.beta1))?)?;
    *v = ((&*v * u.beta2)? + (grad.sqr()? * (1.0 - u.beta2))?)?;
    let theta = match master {
        Some(master) => master.clone(),
        None => var.as_detached_tensor(),
    };
    let step = (&*m / ((v.sqrt()? * u.scale)? + u.epsilon)?)?;
    let theta = ((theta * u.keep)? - (step * u.rate)?)?;
    var.set(&theta.to_dtype(var.dtype())?)?;
    if let Some(master) = master {
        *master = theta;
    }
    Ok(())
}

/// θ, m and v from g, over slices of one length, in the widest instructions available.
pub(super) fn step<T: Real>(theta: &mut [T], g: &[T], m: &mut [T], v: &mut [T], u: &Update) {
    widest(
        #[inline(always)]
        |fused| step_with(fused, theta, g, m, v, u),
    )
}

#[inline(always)]
fn step_with<T: Real>(
    fused: Fused,
    theta: &mut [T],
    g: &[T],
    m: &mut [T],
    v: &mut [T],
    u: &Update,
) {
    let n = theta.len();
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    let (beta1, beta2) = (T::nearest(u.beta1), T::nearest(u.beta2));
    let (rest1, rest2) = (T::nearest(1.0 - u.beta1), T::nearest(1.0 - u.beta2));
    let (keep, minus_rate) = (T::nearest(u.keep), T::nearest(-u.rate));
    let (scale, epsilon) = (T::nearest(u.scale), T::nearest(u.epsilon));
    let one = |theta: &mut T, g: T, m: &mut T, v: &mut T| {
        *m = fused.multiply_add(beta1, *m, rest1 * g);
        *v = fused.multiply_add(beta2, *v, rest2 * g * g);
        let root = fused.multiply_add(v.root(), scale, epsilon);
        *theta = fused.multiply_add(*theta, keep, minus_rate * (*m / root));
    };
    // Copies of a few numbers cannot overlap, which slices behind a closure might for all that the compiler
    // knows: so the loop over them becomes vector instructions.
    let (thetas, theta_rest) = theta.as_chunks_mut::<LANES>();
    let ((gs, g_rest), (ms, m_rest)) = (g.as_chunks::<LANES>(), m.as_chunks_mut::<LANES>());
    let (vs, v_rest) = v.as_chunks_mut::<LANES>();
    for (((theta, g), m), v) in thetas.iter_mut().zip(gs).zip(ms).zip(vs) {
        let (mut theta_now, g, mut m_now, mut v_now) = (*theta, *g, *m, *v);
        for i in 0..LANES {
            one(&mut theta_now[i], g[i], &mut m_now[i], &mut v_now[i]);
        }
        (*theta, *m, *v) = (theta_now, m_now, v_now);
    }
    for (((theta, g), m), v) in theta_rest.iter_mut().zip(g_rest).zip(m_rest).zip(v_rest) {
        one(theta, *g, m, v);
    }
}

pub(super) fn whole<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("adamw: a gradient is not contiguous"),
    }
}

/// Whether every element is finite, in the widest instructions available.
fn single_is_finite(data: &[f32]) -> bool {
    // only infinities and NaN have all exponent bits set; the loop looks for the largest exponent, since
    // such a loop becomes vector instructions
    #[inline(always)]
    fn body(data: &[f32]) -> bool {
        let exponents = data.iter().map(|x| x.to_bits() & 0x7f80_0000);
        exponents.fold(0, u32::max) < 0x7f80_0000
    }
    widest(
        #[inline(always)]
        |_| body(data),
    )
}

/// Whether every element is finite.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool> {
    fn all<T: Copy + Sync>(data: &[T], finite: impl Fn(T) -> bool + Sync) -> bool {
        data.par_chunks(CHUNK).all(|chunk| {
            // counted without an early exit: such a loop becomes vector instructions
            chunk.iter().map(|&x| !finite(x) as u32).sum::<u32>() == 0
        })
    }
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => {
            Ok(whole(data, layout)?.par_chunks(CHUNK).all(single_is_finite))
        }
        Storage::Cpu(CpuStorage::F64(data)) => Ok(all(whole(data, layout)?, f64::is_finite)),
        Storage::Cpu(CpuStorage::BF16(data)) => Ok(all(whole(data, layout)?, bf16::is_finite)),
        Storage::Cpu(CpuStorage::F16(data)) => Ok(all(whole(data, layout)?, f16::is_finite)),
        _ => {
            drop(storage);
            is_finite_on_device(tensor)
        }
    }
}

/// The same from ordinary operations: 0 · x is 0, or NaN where x is not finite.
fn is_finite_on_device(tensor: &Tensor) -> Result<bool> {
    let sum = tensor.affine(0.0, 0.0)?.sum_all()?;
    Ok(sum.to_dtype(DType::F32)?.to_scalar::<f32>()? == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn what_is_not_finite_is_found_in_every_type() {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            for (value, want) in [(1.0, true), (f64::NAN, false), (f64::INFINITY, false)] {
                let t = Tensor::new(&[0.0, value, 2.0], &Device::Cpu).unwrap();
                let t = t.to_dtype(dtype).unwrap();
                assert_eq!(is_finite(&t).unwrap(), want, "{dtype:?} {value}");
                assert_eq!(is_finite_on_device(&t).unwrap(), want, "{dtype:?} {value}");
            }
        }
        // above every f32
        let t = Tensor::new(&[1e300, -1e300], &Device::Cpu).unwrap();
        assert!(is_finite(&t).unwrap() && is_finite_on_device(&t).unwrap());
    }
}
