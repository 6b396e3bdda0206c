//! One divergence per row of two sets of logits on the CPU, and the gradient of the student's.
//!
//! ```text
//! forward    one read of each row       max and log Σ e^{z − max} of both
//!            a second, from the cache    Σ q log(q/p), or the sums of the other directions
//! backward   one read, one write         dz = g · q · (log(q/p) − Σ q log(q/p)), …
//! ```
//! No probability is stored. Within a block of [`number::BLOCK`] symbols the partial sums are in the type of
//! the computation; from block to block they are in double precision. Each row is computed by one thread, so
//! the number of threads changes no result. Rows that do not count are not read.

mod block;
mod number;
mod parts;
mod row;
mod top;

use super::direction::{Direction, TopK};
use crate::simd::Width;
use candle_core::{
    CpuStorage, DType, Device, InplaceOp2, Layout, Result, Storage, Tensor, WithDType, bail,
};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use number::{BLOCK, Number};
pub(super) use parts::Row;
use rayon::prelude::*;
pub(super) use top::choose;

/// Up to this many logits no other thread is woken.
const FEW: usize = 1 << 15;

/// What is computed for every row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) direction: Direction,
    /// One over the temperature.
    pub(super) scale: f64,
    pub(super) top: Option<TopK>,
}

/// The type that logits of a type are computed in.
pub(super) fn compute_type(logits: DType) -> DType {
    match logits {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

fn vocabulary(logits: &Tensor) -> usize {
    logits.dims().last().copied().unwrap_or(1).max(1)
}

/// The rows `[…, vocabulary]` of two contiguous sets of logits; those that `counts` leaves out are empty.
pub(super) fn forward(
    student: &Tensor,
    teacher: &Tensor,
    counts: &[bool],
    plan: &Plan,
) -> Result<Vec<Row>> {
    match compute_type(student.dtype()) {
        DType::F64 => forward_in::<f64>(student, teacher, counts, plan),
        _ => forward_in::<f32>(student, teacher, counts, plan),
    }
}

fn forward_in<W: Number>(
    student: &Tensor,
    teacher: &Tensor,
    counts: &[bool],
    plan: &Plan,
) -> Result<Vec<Row>> {
    let len = vocabulary(student);
    let all = counts.len() * len;
    if student.elem_count() != all || teacher.elem_count() != all {
        bail!("divergence: logits and positions are not of one number");
    }
    let ((s, s_layout), (t, t_layout)) =
        (student.storage_and_layout(), teacher.storage_and_layout());
    let (Storage::Cpu(s), Storage::Cpu(t)) = (&*s, &*t) else {
        bail!("divergence: the logits have left the CPU")
    };
    let (s, t) = (W::reader(s, s_layout)?, W::reader(t, t_layout)?);
    let width = Width::widest();
    let one = |(row, counts): (usize, &bool)| match counts {
        true => width.run(
            #[inline(always)]
            |fused| row::forward(fused, plan, (&s, &t), (row * len, len)),
        ),
        false => Row::default(),
    };
    Ok(match all <= FEW {
        true => counts.iter().enumerate().map(one).collect(),
        false => counts.par_iter().enumerate().map(one).collect(),
    })
}

/// The gradient of the student's logits from that of the rows' divergences, after the forward pass.
pub(super) fn gradient(
    student: &Tensor,
    teacher: &Tensor,
    rows: &[Row],
    grad: &[f64],
    plan: &Plan,
) -> Result<Tensor> {
    match student.dtype() {
        DType::F64 => gradient_in(student, teacher, (rows, grad), plan, |from: &[f64], to| {
            to.copy_from_slice(from)
        }),
        DType::F32 => gradient_in(student, teacher, (rows, grad), plan, |from: &[f32], to| {
            to.copy_from_slice(from)
        }),
        DType::BF16 => gradient_in(
            student,
            teacher,
            (rows, grad),
            plan,
            |from: &[f32], to: &mut [bf16]| to.convert_from_f32_slice(from),
        ),
        DType::F16 => gradient_in(
            student,
            teacher,
            (rows, grad),
            plan,
            |from: &[f32], to: &mut [f16]| to.convert_from_f32_slice(from),
        ),
        other => bail!("divergence: logits of type {}", other.as_str()),
    }
}

fn gradient_in<W: Number, T: WithDType + Default>(
    student: &Tensor,
    teacher: &Tensor,
    (rows, grad): (&[Row], &[f64]),
    plan: &Plan,
    narrow: impl Fn(&[W], &mut [T]) + Sync,
) -> Result<Tensor> {
    let len = vocabulary(student);
    let all = rows.len() * len;
    if student.elem_count() != all || teacher.elem_count() != all || rows.len() != grad.len() {
        bail!("divergence: rows, logits and gradients are not of one number");
    }
    let ((s, s_layout), (t, t_layout)) =
        (student.storage_and_layout(), teacher.storage_and_layout());
    let (Storage::Cpu(s), Storage::Cpu(t)) = (&*s, &*t) else {
        bail!("divergence: the logits have left the CPU")
    };
    let (s, t) = (W::reader(s, s_layout)?, W::reader(t, t_layout)?);
    let width = Width::widest();
    // a row without a gradient stays as it is made: zeros
    let mut out = vec![T::default(); all];
    let one = |(at, (out, (row, &grad))): (usize, (&mut [T], (&Row, &f64)))| {
        if grad == 0.0 {
            return;
        }
        let (mut s_block, mut t_block) = ([W::default(); BLOCK], [W::default(); BLOCK]);
        for (i, out) in out.chunks_mut(BLOCK).enumerate() {
            let (from, n) = (at * len + i * BLOCK, out.len());
            s(from, &mut s_block[..n]);
            t(from, &mut t_block[..n]);
            width.run(
                #[inline(always)]
                |fused| {
                    let (s, t) = (&mut s_block[..n], &mut t_block[..n]);
                    row.gradient(fused, plan, grad, s, t, i * BLOCK)
                },
            );
            narrow(&s_block[..n], out);
        }
    };
    let of_rows = rows.iter().zip(grad);
    match all <= FEW {
        true => out.chunks_mut(len).zip(of_rows).enumerate().for_each(one),
        false => out
            .par_chunks_mut(len)
            .zip(rows.par_iter().zip(grad.par_iter()))
            .enumerate()
            .for_each(one),
    }
    Tensor::from_vec(out, student.shape(), &Device::Cpu)
}

/// Writes the gradient over a part of the student's logits, which are f32 or f64 and have no history: those
/// of the symbols from `symbol` on. All rows count.
pub(super) fn write_over(
    student: &Tensor,
    teacher: &Tensor,
    rows: &[Row],
    grad: &[f64],
    plan: &Plan,
    symbol: usize,
) -> Result<()> {
    let tile = Tile {
        rows,
        grad,
        plan,
        symbol,
    };
    student.inplace_op2(teacher, &tile)
}

struct Tile<'a> {
    rows: &'a [Row],
    grad: &'a [f64],
    plan: &'a Plan,
    symbol: usize,
}

impl Tile<'_> {
    fn run<W: Number>(
        &self,
        student: &mut [W],
        (teacher, layout): (&CpuStorage, &Layout),
        len: usize,
    ) -> Result<()> {
        let teacher = W::reader(teacher, layout)?;
        let width = Width::widest();
        let one = |(at, (s, (row, &grad))): (usize, (&mut [W], (&Row, &f64)))| {
            let mut t_block = [W::default(); BLOCK];
            for (i, s) in s.chunks_mut(BLOCK).enumerate() {
                let t = &mut t_block[..s.len()];
                teacher(at * len + i * BLOCK, t);
                let symbol = self.symbol + i * BLOCK;
                match grad == 0.0 {
                    true => s.fill(W::default()),
                    false => width.run(
                        #[inline(always)]
                        |fused| row.gradient(fused, self.plan, grad, s, t, symbol),
                    ),
                }
            }
        };
        match student.len() <= FEW {
            true => student
                .chunks_mut(len)
                .zip(self.rows.iter().zip(self.grad))
                .enumerate()
                .for_each(one),
            false => student
                .par_chunks_mut(len)
                .zip(self.rows.par_iter().zip(self.grad.par_iter()))
                .enumerate()
                .for_each(one),
        }
        Ok(())
    }
}

impl InplaceOp2 for Tile<'_> {
    fn name(&self) -> &'static str {
        "divergence-gradient"
    }

    fn cpu_fwd(
        &self,
        student: &mut CpuStorage,
        layout: &Layout,
        teacher: &CpuStorage,
        teacher_layout: &Layout,
    ) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("divergence: the logits are not contiguous")
        };
        let len = layout.dims().last().copied().unwrap_or(1).max(1);
        let teacher = (teacher, teacher_layout);
        match student {
            CpuStorage::F32(data) => self.run(&mut data[start..end], teacher, len),
            CpuStorage::F64(data) => self.run(&mut data[start..end], teacher, len),
            _ => bail!("divergence: in place, logits must be f32 or f64"),
        }
    }
}
