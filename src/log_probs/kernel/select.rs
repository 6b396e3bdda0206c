//! The operation: log-probabilities forward, the logits' gradient backward.

use super::element::Element;
use super::row::Row;
use super::slopes::{columns, slopes};
use super::{FEW, IGNORE, infinite};
use crate::log_probs::statistics::Statistics;
use crate::simd::Width;
use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

/// The operation over the logits of a batch; backward needs what forward has kept.
pub(in crate::log_probs) struct Select {
    targets: Arc<Vec<u32>>,
    ask: Statistics,
    /// Each row's statistics, kept for the backward pass.
    rows: OnceLock<Vec<Row>>,
}

impl Select {
    /// For logits with one target per row, in range or [`IGNORE`].
    pub(in crate::log_probs) fn new(targets: Arc<Vec<u32>>, ask: Statistics) -> Self {
        Self {
            targets,
            ask,
            rows: OnceLock::new(),
        }
    }

    fn forward<T: Element>(&self, logits: &[T], vocabulary: usize) -> Vec<f64> {
        let ask = self.ask;
        let full = ask != Statistics::default();
        let width = Width::widest();
        let statistics = |(row, &target): (&[T], &u32)| match target {
            IGNORE => Row::default(),
            _ => infinite::statistics(width, row, full),
        };
        let rows: Vec<Row> = match logits.len() <= FEW {
            true => logits
                .chunks(vocabulary)
                .zip(self.targets.iter())
                .map(statistics)
                .collect(),
            false => logits
                .par_chunks(vocabulary)
                .zip(self.targets.par_iter())
                .map(statistics)
                .collect(),
        };
        let mut out = Vec::with_capacity(rows.len() * columns(ask));
        for (i, (stats, &target)) in rows.iter().zip(self.targets.iter()).enumerate() {
            let counts = target != IGNORE;
            let value = |x: f64| if counts { x } else { 0.0 };
            out.push(value(match counts {
                true => stats.log_p(logits[i * vocabulary + target as usize].to_f64()),
                false => 0.0,
            }));
            if ask.entropy {
                out.push(value(stats.entropy()));
            }
            if ask.vocabulary_mean {
                out.push(value(stats.mean()));
            }
            if ask.log_collision {
                out.push(value(stats.log_collision()));
            }
        }
        // set once: an operation runs forward once
        let _ = self.rows.set(rows);
        out
    }

    fn backward<T: Element>(
        &self,
        logits: &[T],
        vocabulary: usize,
        grad: &[f64],
    ) -> Result<Vec<T>> {
        let rows = self.rows();
        let columns = columns(self.ask);
        let whole = rows.len() * vocabulary == logits.len()
            && rows.len() == self.targets.len()
            && rows.len() * columns == grad.len();
        if !whole {
            bail!("selective log-softmax: rows, targets and gradients are not of one number");
        }
        let width = Width::widest();
        let mut out: Vec<T> = Vec::with_capacity(logits.len());
        let one =
            |out: &mut [MaybeUninit<T>], row: &[T], stats: &Row, target: u32, grad: &[f64]| {
                if target == IGNORE || grad.iter().all(|g| *g == 0.0) {
                    out.fill(MaybeUninit::new(T::default()));
                    return;
                }
                let slopes = slopes(self.ask, stats, grad);
                infinite::gradient(width, row, stats, &slopes, target as usize, out);
            };
        let place = &mut out.spare_capacity_mut()[..logits.len()];
        match logits.len() <= FEW {
            true => place
                .chunks_mut(vocabulary)
                .zip(logits.chunks(vocabulary))
                .zip(rows.iter().zip(self.targets.iter()))
                .zip(grad.chunks(columns))
                .for_each(|(((out, row), (stats, &t)), grad)| one(out, row, stats, t, grad)),
            false => place
                .par_chunks_mut(vocabulary)
                .zip(logits.par_chunks(vocabulary))
                .zip(rows.par_iter().zip(self.targets.par_iter()))
                .zip(grad.par_chunks(columns))
                .for_each(|(((out, row), (stats, &t)), grad)| one(out, row, stats, t, grad)),
        }
        // SAFETY: there are as many rows, targets and gradients as chunks (checked), so every chunk was
        // visited. Each visit wrote its whole chunk: with zeros, or in `gradient`, whose loops run over
        // all of `out` (its blocks and those of the row are equal in number and length).
        #[allow(unsafe_code)]
        unsafe {
            out.set_len(logits.len())
        };
        Ok(out)
    }
}

fn slice<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("selective log-softmax: the logits are not contiguous"),
    }
}

impl CustomOp1 for Select {
    fn name(&self) -> &'static str {
        "selective-log-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut shape = layout.dims().to_vec();
        let vocabulary = match shape.last_mut() {
            Some(last) => std::mem::replace(last, columns(self.ask)),
            None => bail!("selective log-softmax: the logits are a scalar"),
        };
        let single = |out: Vec<f64>| CpuStorage::F32(out.into_iter().map(|x| x as f32).collect());
        let out = match storage {
            CpuStorage::F32(data) => single(self.forward(slice(data, layout)?, vocabulary)),
            CpuStorage::BF16(data) => single(self.forward(slice(data, layout)?, vocabulary)),
            CpuStorage::F16(data) => single(self.forward(slice(data, layout)?, vocabulary)),
            CpuStorage::F64(data) => {
                CpuStorage::F64(self.forward(slice(data, layout)?, vocabulary))
            }
            _ => bail!("selective log-softmax: logits must be f32, f64, bf16 or f16"),
        };
        Ok((out, Shape::from(shape)))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(logits, grad).map(Some)
    }
}

impl Select {
    /// The rows' statistics, empty before the forward pass.
    pub(in crate::log_probs) fn rows(&self) -> &[Row] {
        self.rows.get().map(Vec::as_slice).unwrap_or(&[])
    }

    /// The gradient of the logits from that of the columns, after the forward pass.
    pub(in crate::log_probs) fn gradient(&self, logits: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let grad = grad.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let (storage, layout) = logits.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            bail!("selective log-softmax: the logits have left the CPU")
        };
        let shape = logits.shape();
        match storage {
            CpuStorage::F32(data) => self.gradient_of(slice(data, layout)?, shape, &grad),
            CpuStorage::BF16(data) => self.gradient_of(slice(data, layout)?, shape, &grad),
            CpuStorage::F16(data) => self.gradient_of(slice(data, layout)?, shape, &grad),
            CpuStorage::F64(data) => self.gradient_of(slice(data, layout)?, shape, &grad),
            _ => bail!("selective log-softmax: logits must be f32, f64, bf16 or f16"),
        }
    }

    fn gradient_of<T: Element + WithDType>(
        &self,
        logits: &[T],
        shape: &Shape,
        grad: &[f64],
    ) -> Result<Tensor> {
        let vocabulary = shape.dims().last().copied().unwrap_or(1);
        let out = self.backward(logits, vocabulary, grad)?;
        Tensor::from_vec(out, shape, &Device::Cpu)
    }
}
