//! The product of a matrix with a few rows: what a decoder computes for each token that it draws.
//!
//! A general product first packs the matrix, which takes as long as a few rows themselves. Here each row of the
//! matrix is read once, and a half type is widened as it is read.

use super::element::{Element, of_tensor};
use super::rows::row;
use crate::simd::{Fused, widest};
use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

/// Up to this many rows it is faster than a general product.
const FEW: usize = 32;
/// Rows of the matrix that a thread takes at a time.
const EACH: usize = 64;
/// Partial sums of a product of two rows.
const LANES: usize = 8;
/// Rows of the matrix whose products with a row of x are summed side by side.
const TILE: usize = 8;

/// W x for all rows `[rows, in]` of x, with W `[out, in]` in f32, bf16 or f16. Neither is part of a graph.
pub(crate) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (x, weight) = (x.detach().contiguous()?, weight.detach());
    let (rows, inputs) = x.dims2()?;
    let (outputs, width) = weight.dims2()?;
    let here = x.device().is_cpu() && weight.device().is_cpu() && weight.is_contiguous();
    let fits = rows <= FEW && width == inputs && x.elem_count() > 0 && outputs > 0;
    if !here || !fits || x.dtype() != DType::F32 || weight.dtype() == DType::F64 {
        return x.matmul(&weight.to_dtype(x.dtype())?.t()?);
    }
    let read = [&x, &weight].map(Tensor::storage_and_layout);
    let x_rows = of_tensor::<f32>(&read[0])?;
    let y = match weight.dtype() {
        DType::BF16 => few(x_rows, of_tensor::<half::bf16>(&read[1])?, inputs),
        DType::F16 => few(x_rows, of_tensor::<half::f16>(&read[1])?, inputs),
        _ => few(x_rows, of_tensor::<f32>(&read[1])?, inputs),
    };
    Tensor::from_vec(y, (rows, outputs), x.device())
}

fn few<T: Element<Wide = f32>>(x: &[f32], weight: &[T], n: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / n, weight.len() / n);
    let mut y = vec![0f32; rows * outputs];
    // a task's part of every row
    let mut tasks: Vec<Vec<&mut [f32]>> = Vec::new();
    tasks.resize_with(outputs.div_ceil(EACH), || Vec::with_capacity(rows));
    for y in y.chunks_mut(outputs) {
        for (task, part) in tasks.iter_mut().zip(y.chunks_mut(EACH)) {
            task.push(part);
        }
    }
    let work = tasks.into_par_iter().zip(weight.par_chunks(EACH * n));
    work.for_each(|(mut y, weight)| {
        widest(
            #[inline(always)]
            |fused| part(fused, x, weight, n, &mut y),
        )
    });
    y
}

/// The products of all rows of x with some rows of the matrix.
#[inline(always)]
fn part<T: Element<Wide = f32>>(
    fused: Fused,
    x: &[f32],
    weight: &[T],
    n: usize,
    y: &mut [&mut [f32]],
) {
    let outputs = weight.len() / n;
    let mut wide = [const { Vec::new() }; TILE];
    for output in (0..outputs).step_by(TILE) {
        // past the end the last row stands in
        let mut at = output;
        let w = wide.each_mut().map(|wide| {
            let w = T::wide(row(weight, n, at.min(outputs - 1)), wide);
            at += 1;
            w
        });
        for (x, y) in x.chunks_exact(n).zip(y.iter_mut()) {
            let sums = tile(fused, w, x);
            let y = &mut y[output..];
            let some = y.len().min(TILE);
            y[..some].copy_from_slice(&sums[..some]);
        }
    }
}

/// Σ w x for each row of the matrix.
#[allow(clippy::needless_range_loop)] // the compiler vectorizes loops over numbers, not over iterators
#[inline(always)]
fn tile(fused: Fused, w: [&[f32]; TILE], x: &[f32]) -> [f32; TILE] {
    let whole = x.len() / LANES;
    let x_lanes = &x.as_chunks::<LANES>().0[..whole];
    let w_lanes = w.map(|w| &w.as_chunks::<LANES>().0[..whole]);
    let mut lanes = [[0f32; LANES]; TILE];
    for k in 0..whole {
        for a in 0..TILE {
            let (w, x, old) = (w_lanes[a][k], x_lanes[k], lanes[a]);
            // a new array, so that the compiler keeps it in one register
            let mut new = [0f32; LANES];
            for i in 0..LANES {
                new[i] = fused.multiply_add(w[i], x[i], old[i]);
            }
            lanes[a] = new;
        }
    }
    let mut out = [0f32; TILE];
    for a in 0..TILE {
        let mut rest = 0.0;
        for k in whole * LANES..x.len() {
            rest = fused.multiply_add(w[a][k], x[k], rest);
        }
        let [p, q, r, s, t, u, v, z] = lanes[a];
        out[a] = ((p + q) + (r + s)) + ((t + u) + (v + z)) + rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::numbers;

    #[test]
    fn few_rows_and_many_give_the_same_products() {
        for (rows, inputs, outputs) in
            [(1, 3, 1), (4, 8, 2), (5, 37, 65), (16, 64, 131), (33, 9, 4)]
        {
            let x = numbers(&[rows, inputs], 2.0, DType::F32);
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                let weight = numbers(&[outputs, inputs], 1.0, dtype);
                let found = product(&x, &weight).unwrap();
                let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
                let want = double(&x).matmul(&double(&weight).t().unwrap()).unwrap();
                let error = (double(&found) - want).unwrap().abs().unwrap();
                let error = error.max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(error < 1e-5, "{rows} {inputs} {outputs} {dtype:?}: {error}");
            }
        }
    }

    #[test]
    fn what_the_kernel_does_not_take_goes_to_the_general_product() {
        let of = |x: &Tensor, weight: &Tensor| product(x, weight).map_err(|e| e.to_string());
        let [x, weight] = [&[2, 6], &[4, 6]].map(|shape| numbers(shape, 1.0, DType::F32));
        let want = x.matmul(&weight.t().unwrap()).unwrap();
        let far = |found: Tensor| {
            let far = (found.to_dtype(DType::F32).unwrap() - &want).unwrap();
            let far = far.abs().unwrap().max_all().unwrap();
            far.to_scalar::<f32>().unwrap()
        };
        // other layouts, and other types
        let across = weight.t().unwrap().contiguous().unwrap().t().unwrap();
        assert!(far(of(&x, &across).unwrap()) < 1e-5);
        let part = numbers(&[2, 12], 1.0, DType::F32);
        let narrow = part.narrow(1, 0, 6).unwrap();
        let whole = of(&narrow.copy().unwrap(), &weight).unwrap();
        let both = (of(&narrow, &weight).unwrap() - whole).unwrap();
        let both = both.abs().unwrap().max_all().unwrap();
        assert!(both.to_scalar::<f32>().unwrap() < 1e-6);
        let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
        assert!(far(of(&double(&x), &double(&weight)).unwrap()) < 1e-5);
        assert!(far(of(&x, &double(&weight)).unwrap()) < 1e-5);
        assert!(far(of(&double(&x), &weight).unwrap()) < 1e-5);
        // nothing, and what does not fit
        for (rows, outputs, inputs) in [(0, 4, 6), (2, 0, 6), (0, 0, 6), (2, 4, 0)] {
            let [x, weight] = [&[rows, inputs], &[outputs, inputs]]
                .map(|shape| Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu).unwrap());
            // a result or candle's own error, and no panic
            if let Ok(found) = of(&x, &weight) {
                assert_eq!(found.dims(), [rows, outputs]);
            }
        }
        assert!(of(&x, &numbers(&[4, 5], 1.0, DType::F32)).is_err());
        assert!(of(&x, &numbers(&[4, 12], 1.0, DType::F32)).is_err());
    }
}
