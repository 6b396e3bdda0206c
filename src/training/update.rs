//! One step of a variable, in place on the CPU.

use super::state::Moments;
use super::step::{CHUNK, Update, step, step_on_device, whole};
use crate::simd::Real;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};
use half::{bf16, f16};
use rayon::prelude::*;
use std::sync::Mutex;

impl Moments {
    /// One step of this variable. `grad` is contiguous, in the type of the variable or of its master copy.
    pub(super) fn update(&mut self, var: &Var, grad: &Tensor, update: Update) -> Result<()> {
        match self {
            Self::Device { m, v, master } => step_on_device(var, grad, m, v, master, update),
            _ => var.inplace_op2(
                grad,
                &Step {
                    moments: Mutex::new(self),
                    update,
                },
            ),
        }
    }
}

/// What is said of a gradient that is neither in its variable's type nor in that of its master copy.
const MISMATCH: &str = "adamw: a gradient has another type than its variable";

/// The arithmetic of one step over arrays of one length.
struct Step<'a> {
    moments: Mutex<&'a mut Moments>,
    update: Update,
}

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        theta: &mut CpuStorage,
        theta_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        use CpuStorage::{BF16, F16, F32, F64};
        let mut moments = self.moments.lock().unwrap_or_else(|e| e.into_inner());
        let (of, by, u) = (theta_layout, grad_layout, &self.update);
        match (theta, grad, &mut **moments) {
            (F32(theta), F32(grad), Moments::Single { m, v, .. }) => {
                step_wide(whole_mut(theta, of)?, whole(grad, by)?, m, v, u)
            }
            (F64(theta), F64(grad), Moments::Double { m, v }) => {
                step_wide(whole_mut(theta, of)?, whole(grad, by)?, m, v, u)
            }
            (theta, grad, Moments::Single { m, v, master }) => {
                let Some(master) = master else {
                    bail!("{MISMATCH}")
                };
                let narrow = Narrow { m, v, master, u };
                match (theta, grad) {
                    (BF16(theta), BF16(grad)) => {
                        narrow.step(whole_mut(theta, of)?, whole(grad, by)?, bf16::from_f32)
                    }
                    (BF16(theta), F32(grad)) => {
                        narrow.step(whole_mut(theta, of)?, whole(grad, by)?, bf16::from_f32)
                    }
                    (F16(theta), F16(grad)) => {
                        narrow.step(whole_mut(theta, of)?, whole(grad, by)?, f16::from_f32)
                    }
                    (F16(theta), F32(grad)) => {
                        narrow.step(whole_mut(theta, of)?, whole(grad, by)?, f16::from_f32)
                    }
                    _ => bail!("{MISMATCH}"),
                }
            }
            _ => bail!("{MISMATCH}"),
        }
        Ok(())
    }
}

fn whole_mut<'a, T>(data: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut data[start..end]),
        None => bail!("adamw: a variable is not contiguous"),
    }
}

/// A step of a variable in f32 or f64.
fn step_wide<T: Real>(theta: &mut [T], grad: &[T], m: &mut [T], v: &mut [T], u: &Update) {
    theta
        .par_chunks_mut(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
        .for_each(|((theta, grad), (m, v))| step(theta, grad, m, v, u));
}

/// The state of a variable in bf16 or f16.
struct Narrow<'a> {
    m: &'a mut [f32],
    v: &'a mut [f32],
    master: &'a mut [f32],
    u: &'a Update,
}

impl Narrow<'_> {
    /// A step of the master copy, rounded into the variable.
    fn step<T: Copy + Send, G: Copy + Sync + Into<f32>>(
        self,
        theta: &mut [T],
        grad: &[G],
        round: impl Fn(f32) -> T + Sync,
    ) {
        let (m, v) = (self.m.par_chunks_mut(CHUNK), self.v.par_chunks_mut(CHUNK));
        theta
            .par_chunks_mut(CHUNK)
            .zip(grad.par_chunks(CHUNK))
            .zip(m.zip(v))
            .zip(self.master.par_chunks_mut(CHUNK))
            .for_each(|(((theta, grad), (m, v)), master)| {
                let wide: Vec<f32> = grad.iter().map(|&g| g.into()).collect();
                step(master, &wide, m, v, self.u);
                for (t, w) in theta.iter_mut().zip(master) {
                    *t = round(*w);
                }
            });
    }
}
