//! Attention on the CPU as one operation: scores exist a block at a time, in both passes.
//!
//! A unit of work is a part of a tree on one key head (`unit.rs`), and `plan.rs` divides a batch into
//! units by its layout alone. Where units add to one sum (the gradients of a shared prompt's keys), their
//! parts are added in a fixed order. So the number of threads changes no bit.

mod backward;
mod forward;
mod number;
mod plan;
mod products;
mod unit;

use super::segments::Segments;
use candle_core::{
    CpuStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use half::{bf16, f16};
use number::Element;
use plan::{Call, Plan, padded};
use rayon::prelude::*;
use std::sync::OnceLock;
use unit::{Gradients, Inputs, Outputs, Statistics, Unit};

/// Up to this many scores no other thread is woken.
const FEW: usize = 1 << 12;
/// Rows that one thread puts together at a time.
const ROWS: usize = 32;

/// What the operation needs beside its three tensors.
pub(super) struct Settings {
    pub(super) scale: f64,
    pub(super) window: Option<usize>,
    pub(super) softcap: Option<f64>,
    /// Prefix keys of a tree, in front of the tokens' keys.
    pub(super) prefix: usize,
    /// Whether each tree has prefix keys of its own, one tree's after another's.
    pub(super) own_prefix: bool,
}

/// Attention of `q` `[tokens, heads, dim]` over `k` `[prefixes + tokens, kv_heads, dim]` and `v`, likewise:
/// contiguous, of one type, on the CPU, with at least one head.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    settings: &Settings,
) -> Result<Tensor> {
    let (_, heads, dim) = q.dims3()?;
    let (_, kv_heads, value_dim) = v.dims3()?;
    let call = Call {
        heads,
        kv_heads,
        dim,
        value_dim,
        scale: settings.scale,
        window: settings.window.unwrap_or(usize::MAX),
        softcap: settings.softcap,
        prefix: settings.prefix,
        own_prefix: settings.own_prefix,
    };
    let plan = Plan::new(segments, call);
    match q.dtype() {
        DType::F32 => q.apply_op3(k, v, Attention::<f32>::new(plan)),
        DType::F64 => q.apply_op3(k, v, Attention::<f64>::new(plan)),
        DType::BF16 => q.apply_op3(k, v, Attention::<bf16>::new(plan)),
        DType::F16 => q.apply_op3(k, v, Attention::<f16>::new(plan)),
        other => bail!("attention: {other:?} is no float type of the kernel"),
    }
}

struct Attention<T: Element> {
    plan: Plan,
    /// Each unit's, kept for the backward pass.
    statistics: OnceLock<Vec<Statistics<T::Compute>>>,
}

impl<T: Element> Attention<T> {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            statistics: OnceLock::new(),
        }
    }

    /// Does `work` for every unit, by part and then by key head.
    fn units<R: Send>(&self, work: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
        let units = 0..self.plan.parts.len() * self.plan.call.kv_heads;
        match self.plan.scores <= FEW {
            true => units.map(work).collect(),
            false => units.into_par_iter().map(work).collect(),
        }
    }

    fn unit<'a>(&'a self, unit: usize, inputs: Inputs<'a, T>) -> Unit<'a, T> {
        let kv_heads = self.plan.call.kv_heads;
        Unit::new(
            &self.plan,
            &self.plan.parts[unit / kv_heads],
            unit % kv_heads,
            inputs,
        )
    }

    fn forward(&self, inputs: Inputs<T>) -> Vec<T> {
        let done = self.units(|unit| self.unit(unit, inputs).forward());
        let (outputs, statistics): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        // set once: an operation runs forward once
        let _ = self.statistics.set(statistics);
        self.queries(&outputs, self.plan.call.value_dim)
    }

    /// The gradients of q, k and v.
    fn backward(&self, inputs: Inputs<T>, outputs: Outputs<T>) -> Result<[Vec<T>; 3]> {
        let Some(statistics) = self.statistics.get() else {
            bail!("attention: the backward pass is before the forward pass")
        };
        let of = |unit: usize| self.unit(unit, inputs).backward(&statistics[unit], outputs);
        let mut done: Vec<Gradients<T::Compute>> = self.units(of);
        let mut take = |part: fn(&mut Gradients<T::Compute>) -> &mut Vec<T::Compute>| {
            done.iter_mut()
                .map(|unit| std::mem::take(part(unit)))
                .collect::<Vec<_>>()
        };
        let Call { dim, value_dim, .. } = self.plan.call;
        Ok([
            self.queries(&take(|unit| &mut unit.q), dim),
            self.keys(&take(|unit| &mut unit.k), dim),
            self.keys(&take(|unit| &mut unit.v), value_dim),
        ])
    }

    /// The units' rows of queries as one tensor `[tokens, heads, dim]`.
    fn queries(&self, units: &[Vec<T::Compute>], dim: usize) -> Vec<T> {
        let Call {
            heads, kv_heads, ..
        } = self.plan.call;
        let group = self.plan.call.group() * dim;
        // the part of each token, and the token's number in it
        let mut places = vec![(0, 0); self.tokens()];
        for (i, part) in self.plan.parts.iter().enumerate() {
            let pieces = part.pieces.iter().flat_map(|piece| {
                let start = self.plan.segments[piece.segment].start;
                start + piece.from..start + piece.to
            });
            pieces
                .enumerate()
                .for_each(|(number, token)| places[token] = (i, number));
        }
        self.rows(places.len(), heads * dim, |token, row| {
            let (part, number) = places[token];
            for (head, row) in row.chunks_mut(group).enumerate() {
                let unit = &units[part * kv_heads + head];
                narrow(row, &unit[number * group..]);
            }
        })
    }

    /// The sum of the units' rows of keys as one tensor `[prefixes + tokens, kv_heads, dim]`.
    fn keys(&self, units: &[Vec<T::Compute>], dim: usize) -> Vec<T> {
        let Call {
            kv_heads, prefix, ..
        } = self.plan.call;
        let prefixes = self.plan.prefixes();
        let mut places = vec![(0, 0); prefixes + self.tokens()];
        for tree in 0..self.plan.trees.len() {
            let rows = self.plan.key_rows(tree).enumerate();
            rows.for_each(|(key, row)| places[row] = (tree, key));
        }
        let (stride, trees) = (padded(dim), &self.plan.trees);
        self.rows(places.len(), kv_heads * dim, |row, out| {
            let (tree, key) = places[row];
            // a common prefix has a part in every tree
            let parts = match row < prefix && !self.plan.call.own_prefix {
                true => 0..self.plan.parts.len(),
                false => trees[tree].parts.clone(),
            };
            for (head, out) in out.chunks_mut(dim).enumerate() {
                let of = |part: usize| &units[part * kv_heads + head][key * stride..][..dim];
                match parts.len() {
                    0 => out.fill(T::zero()),
                    1 => narrow(out, of(parts.start)),
                    _ => {
                        for (d, out) in out.iter_mut().enumerate() {
                            let sum = parts.clone().map(|part| of(part)[d]);
                            *out = T::narrow(sum.fold(T::Compute::default(), |a, b| a + b));
                        }
                    }
                }
            }
        })
    }

    fn tokens(&self) -> usize {
        self.plan
            .segments
            .last()
            .map_or(0, |segment| segment.bounds().end)
    }

    /// Rows that are written one by one.
    fn rows(
        &self,
        count: usize,
        length: usize,
        write: impl Fn(usize, &mut [T]) + Send + Sync,
    ) -> Vec<T> {
        let mut out = vec![T::zero(); count * length];
        let some = |(i, rows): (usize, &mut [T])| {
            let rows = rows.chunks_mut(length).enumerate();
            rows.for_each(|(row, out)| write(i * ROWS + row, out));
        };
        match length {
            0 => {}
            _ if self.plan.scores <= FEW => {
                out.chunks_mut(ROWS * length).enumerate().for_each(some)
            }
            _ => out.par_chunks_mut(ROWS * length).enumerate().for_each(some),
        }
        out
    }
}

fn narrow<T: Element>(out: &mut [T], from: &[T::Compute]) {
    for (out, x) in out.iter_mut().zip(from) {
        *out = T::narrow(*x);
    }
}

fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("attention: an argument is not contiguous"),
    }
}

impl<T: Element> CustomOp3 for Attention<T> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.forward(Inputs {
            q: slice(q, q_layout)?,
            k: slice(k, k_layout)?,
            v: slice(v, v_layout)?,
        });
        let Call {
            heads, value_dim, ..
        } = self.plan.call;
        Ok((
            T::to_cpu_storage_owned(out),
            Shape::from((self.tokens(), heads, value_dim)),
        ))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let tensors = [q, k, v, out, &grad];
        let guards = tensors.map(Tensor::storage_and_layout);
        let mut slices = Vec::with_capacity(tensors.len());
        for (storage, layout) in &guards {
            match &**storage {
                Storage::Cpu(storage) => slices.push(slice::<T>(storage, layout)?),
                _ => bail!("attention: an argument has left the CPU"),
            }
        }
        let inputs = Inputs {
            q: slices[0],
            k: slices[1],
            v: slices[2],
        };
        let outputs = Outputs {
            out: slices[3],
            grad: slices[4],
        };
        let gradients = self.backward(inputs, outputs)?;
        let [dq, dk, dv] = gradients;
        // a constant gets none
        let of = |x: &Tensor, grad: Vec<T>| match x.track_op() {
            true => Tensor::from_vec(grad, x.shape(), x.device()).map(Some),
            false => Ok(None),
        };
        Ok((of(q, dq)?, of(k, dk)?, of(v, dv)?))
    }
}
