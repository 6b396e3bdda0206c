//! The softmax of attention: only over what a position may see.
//!
//! ```text
//! p_s = e^{x_s − max} / Σ e^{x − max}   over the visible s;   0 elsewhere, exactly
//! dx  = p · (g − Σ g p)
//! ```
//! One pass over the scores instead of candle's seven operations, each of which would write a
//! tensor of their size; and no exponential of −10⁹, which costs the C library three times that of
//! a number.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// Which of `[rows, columns]` may be seen; rows repeat over the scores' leading dimensions.
#[derive(Clone)]
pub struct Visible {
    mask: Arc<Vec<bool>>,
    columns: usize,
}

impl Visible {
    /// From a mask by rows of this length.
    pub fn new(mask: Vec<bool>, columns: usize) -> Self {
        Self {
            mask: Arc::new(mask),
            columns,
        }
    }

    /// What came before, and itself: `[time, time]`.
    pub fn causal(time: usize) -> Self {
        Self::new(
            (0..time * time).map(|i| i % time <= i / time).collect(),
            time,
        )
    }

    /// The mask, row by row.
    pub fn mask(&self) -> &[bool] {
        &self.mask
    }

    fn row(&self, row: usize) -> &[bool] {
        let rows = (self.mask.len() / self.columns).max(1);
        let from = row % rows * self.columns;
        &self.mask[from..from + self.columns]
    }
}

/// The weights of `scores` `[…, rows, columns]` (f32 or f64, on the CPU).
pub fn visible_softmax(scores: &Tensor, visible: &Visible) -> Result<Tensor> {
    scores
        .contiguous()?
        .apply_op1(VisibleSoftmax(visible.clone()))
}

struct VisibleSoftmax(Visible);

macro_rules! passes {
    ($forward:ident, $backward:ident, $t:ty) => {
        fn $forward(visible: &Visible, scores: &[$t]) -> Vec<$t> {
            let mut out = vec![0.0; scores.len()];
            out.par_chunks_mut(visible.columns)
                .zip(scores.par_chunks(visible.columns))
                .enumerate()
                .with_min_len(64)
                .for_each(|(row, (out, scores))| {
                    let seen = visible.row(row);
                    let shown = || scores.iter().zip(seen).filter(|(_, seen)| **seen);
                    let max = shown().fold(<$t>::NEG_INFINITY, |a, (x, _)| a.max(*x));
                    let mut sum = 0.0;
                    for ((o, x), seen) in out.iter_mut().zip(scores).zip(seen) {
                        if *seen {
                            *o = (*x - max).exp();
                            sum += *o;
                        }
                    }
                    out.iter_mut().for_each(|o| *o /= sum);
                });
            out
        }

        fn $backward(columns: usize, weights: &[$t], grad: &[$t]) -> Vec<$t> {
            let mut out = vec![0.0; weights.len()];
            out.par_chunks_mut(columns)
                .zip(weights.par_chunks(columns).zip(grad.par_chunks(columns)))
                .with_min_len(64)
                .for_each(|(out, (p, g))| {
                    let mean: $t = p.iter().zip(g).map(|(p, g)| p * g).sum();
                    for ((o, p), g) in out.iter_mut().zip(p).zip(g) {
                        *o = p * (g - mean);
                    }
                });
            out
        }
    };
}
passes!(forward_single, backward_single, f32);
passes!(forward_double, backward_double, f64);

fn whole<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("visible softmax: not contiguous"),
    }
}

impl CustomOp1 for VisibleSoftmax {
    fn name(&self) -> &'static str {
        "visible-softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let columns = layout.dims().last().copied().unwrap_or(0);
        if columns != self.0.columns {
            bail!(
                "visible softmax: {columns} columns, {} expected",
                self.0.columns
            );
        }
        let out = match scores {
            CpuStorage::F32(x) => CpuStorage::F32(forward_single(&self.0, whole(x, layout)?)),
            CpuStorage::F64(x) => CpuStorage::F64(forward_double(&self.0, whole(x, layout)?)),
            _ => bail!("visible softmax: scores must be f32 or f64"),
        };
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, weights: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (a, b) = (weights.storage_and_layout(), grad.storage_and_layout());
        let (columns, shape, device) = (self.0.columns, weights.shape(), weights.device());
        Ok(Some(match (&*a.0, &*b.0) {
            (Storage::Cpu(CpuStorage::F32(p)), Storage::Cpu(CpuStorage::F32(g))) => {
                let out = backward_single(columns, whole(p, a.1)?, whole(g, b.1)?);
                Tensor::from_vec(out, shape, device)?
            }
            (Storage::Cpu(CpuStorage::F64(p)), Storage::Cpu(CpuStorage::F64(g))) => {
                let out = backward_double(columns, whole(p, a.1)?, whole(g, b.1)?);
                Tensor::from_vec(out, shape, device)?
            }
            _ => bail!("visible softmax: a gradient of another type"),
        }))
    }
}
