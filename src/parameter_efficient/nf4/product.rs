//! Products with a weight in four bits, dequantized a part at a time.

use super::Nf4Linear;
use crate::parameter_efficient::frozen_linear::{compute_type, computed, rows};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Storage, Tensor, WithDType};
use candle_nn::Module;
use half::{bf16, f16};
use rayon::prelude::*;

/// How many elements of W are dequantized at a time.
const CHUNK: usize = 1 << 20;
/// The fewest columns of a product per pass; with fewer, memory bandwidth would limit the speed.
const NARROWEST: usize = 64;
/// How many elements one task dequantizes.
const PIECE: usize = 1 << 14;

#[derive(Clone, Copy)]
enum Side {
    /// x · Wᵀ, from rows of W.
    Forward,
    /// ∂L/∂y · W, from columns of W.
    Backward,
}

impl Nf4Linear {
    /// A · Wᵀ or A · W for rows of A, as many columns of the result at a time as [`CHUNK`] allows;
    /// `finish` makes a weight from a product of value and scale.
    fn product<T: WithDType>(
        &self,
        side: Side,
        a: &CpuStorage,
        start: usize,
        rows: usize,
        finish: impl Fn(f32) -> T + Copy + Sync,
    ) -> candle_core::Result<Vec<T>> {
        let (outputs, inputs) = self.sizes();
        let (depth, columns) = match side {
            Side::Forward => (inputs, outputs),
            Side::Backward => (outputs, inputs),
        };
        let a_layout = Layout::contiguous_with_offset((rows, depth), start);
        let step = (CHUNK / depth).max(NARROWEST).min(columns);
        let mut buffer = Vec::new();
        let mut y = vec![T::zero(); if step < columns { rows * columns } else { 0 }];
        for first in (0..columns).step_by(step) {
            let width = step.min(columns - first);
            buffer.resize(depth * width, T::zero());
            // where a piece of the buffer lies in W
            let (piece, layout) = match side {
                Side::Forward => (PIECE, Layout::contiguous((width, depth)).transpose(0, 1)?),
                Side::Backward => (width, Layout::contiguous((depth, width))),
            };
            buffer
                .par_chunks_mut(piece)
                .enumerate()
                .for_each(|(i, out)| {
                    let at = match side {
                        Side::Forward => first * inputs + i * PIECE,
                        Side::Backward => i * inputs + first,
                    };
                    self.weight().fill(at, out, finish);
                });
            let weights = T::to_cpu_storage_owned(buffer);
            let part = a.matmul(&weights, (1, rows, width, depth), &a_layout, &layout)?;
            let part = T::cpu_storage_data(part)?;
            if step == columns {
                return Ok(part);
            }
            for (y, part) in y.chunks_mut(columns).zip(part.chunks(width)) {
                y[first..first + width].copy_from_slice(part);
            }
            buffer = T::cpu_storage_data(weights)?;
        }
        Ok(y)
    }

    /// As [`Nf4Linear::product`], with the conversion for the type that the weight was quantized from.
    fn product_in_f32(
        &self,
        side: Side,
        a: &CpuStorage,
        start: usize,
        rows: usize,
    ) -> candle_core::Result<Vec<f32>> {
        match self.weight().dtype() {
            DType::BF16 => self.product(side, a, start, rows, |x| bf16::from_f32(x).to_f32()),
            DType::F16 => self.product(side, a, start, rows, |x| f16::from_f32(x).to_f32()),
            _ => self.product(side, a, start, rows, |x| x),
        }
    }

    /// Adds b to each row.
    fn biased<T: WithDType>(&self, mut y: Vec<T>) -> candle_core::Result<CpuStorage> {
        if let Some(bias) = self.bias() {
            let bias = bias.to_dtype(T::DTYPE)?.to_vec1::<T>()?;
            for y in y.chunks_mut(bias.len()) {
                y.iter_mut().zip(&bias).for_each(|(y, b)| *y += *b);
            }
        }
        Ok(T::to_cpu_storage_owned(y))
    }
}

impl Module for Nf4Linear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.check("Nf4Linear::forward", x)?;
        computed(
            x,
            compute_type(self.weight().dtype()),
            Product(self.clone()),
        )
    }
}

/// Wx + b as an operation on x: the backward pass does not see what it captures.
struct Product(Nf4Linear);

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "nf4-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let layer = &self.0;
        let (start, mut dims) = (layout.start_offset(), layout.dims().to_vec());
        dims.pop();
        let rows = dims.iter().product();
        dims.push(layer.sizes().0);
        let y = match x {
            CpuStorage::F64(_) => {
                layer.biased(layer.product(Side::Forward, x, start, rows, f64::from)?)?
            }
            _ => layer.biased(layer.product_in_f32(Side::Forward, x, start, rows)?)?,
        };
        Ok((y, Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        // ∂L/∂x = Wᵀ ∂L/∂y, for all rows in one product
        let (layer, rows) = (&self.0, rows(x));
        let grad = grad.contiguous()?;
        let (storage, layout) = grad.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("nf4-linear: the gradient has left the CPU")
        };
        let start = layout.start_offset();
        let (shape, device) = (x.shape(), x.device());
        let gradient = match storage {
            CpuStorage::F64(_) => {
                let gradient = layer.product(Side::Backward, storage, start, rows, f64::from)?;
                Tensor::from_vec(gradient, shape, device)?
            }
            _ => {
                let gradient = layer.product_in_f32(Side::Backward, storage, start, rows)?;
                Tensor::from_vec(gradient, shape, device)?
            }
        };
        Ok(Some(gradient))
    }
}
