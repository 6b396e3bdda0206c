//! The same numbers as the kernel, from ordinary candle operations, for devices other than the CPU.

use super::kernel::IGNORE;
use super::statistics::Statistics;
use crate::known::One;
use crate::math::{log_softmax, masked};
use candle_core::{D, DType, Tensor, Var};

/// As [`super::kernel::select`], with the same columns.
pub(super) fn select(
    logits: &Tensor,
    targets: &[u32],
    ask: Statistics,
) -> crate::error::Result<Tensor> {
    let (rows, vocabulary) = logits.dims2()?;
    let device = logits.device();
    let logits = match logits.dtype() {
        DType::F64 => logits.clone(),
        _ => logits.to_dtype(DType::F32)?,
    };
    let counts: Vec<u8> = targets.iter().map(|&t| (t != IGNORE) as u8).collect();
    let targets: Vec<u32> = targets
        .iter()
        .map(|&t| if t == IGNORE { 0 } else { t })
        .collect();
    let counts = Tensor::from_vec(counts, (rows, 1), device)?;
    let targets = Tensor::from_vec(targets, (rows, 1), device)?;

    // A row that does not count becomes a row of zeros, so its content cannot reach the softmax.
    let wide = counts.broadcast_as((rows, vocabulary))?;
    let logits = masked(&logits, &wide)?;
    let log_p = log_softmax(&logits, None)?;

    // log p of the chosen symbol
    let mut columns = vec![masked(&log_p.gather(&targets, 1)?, &counts)?];
    // H = −Σᵥ pᵥ log pᵥ, where 0 · log 0 = 0
    if ask.entropy {
        let p = log_p.exp()?;
        let terms = (&p * masked(&log_p, &p.gt(0.0)?)?)?;
        columns.push(masked(&terms.sum_keepdim(1)?.neg()?, &counts)?);
    }
    // (1/V) Σᵥ log pᵥ over the possible symbols
    if ask.vocabulary_mean {
        let possible = logits.gt(f64::NEG_INFINITY)?;
        let total = masked(&log_p, &possible)?.sum_keepdim(1)?;
        let mean = (total / possible.to_dtype(log_p.dtype())?.sum_keepdim(1)?)?;
        columns.push(masked(&mean, &counts)?);
    }
    // log Σᵥ pᵥ²
    if ask.log_collision {
        let log = (&log_p * 2.0)?.log_sum_exp(1)?.unsqueeze(1)?;
        columns.push(masked(&log, &counts)?);
    }
    Ok(Tensor::cat(&columns, 1)?)
}

/// The number of logits in one chunk. Its intermediate tensors are a small multiple of that.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// [`select`] for logits `[…, vocabulary]` of any number of rows, computed and differentiated chunk
/// by chunk. Besides the gradient itself, this needs memory for one chunk only. The result is
/// `[rows, columns]`.
pub(super) fn select_in_chunks(
    logits: &Tensor,
    targets: Vec<u32>,
    ask: Statistics,
) -> crate::error::Result<Tensor> {
    in_chunks_of(CHUNK_ELEMENTS, logits, targets, ask)
}

fn in_chunks_of(
    elements: usize,
    logits: &Tensor,
    targets: Vec<u32>,
    ask: Statistics,
) -> crate::error::Result<Tensor> {
    let vocabulary = logits.dim(D::Minus1)?;
    let size = (elements / vocabulary).max(1);
    let rows = targets.len();
    let spans = move || {
        (0..rows)
            .step_by(size)
            .map(move |from| (from, size.min(rows - from)))
    };
    let flat = logits.detach().reshape((rows, vocabulary))?;

    let mut columns = Vec::new();
    for (from, n) in spans() {
        columns.push(select(
            &flat.narrow(0, from, n)?,
            &targets[from..from + n],
            ask,
        )?);
    }
    let columns = match columns.is_empty() {
        true => select(&flat, &targets, ask)?,
        false => Tensor::cat(&columns, 0)?,
    };
    if !logits.track_op() {
        return Ok(columns);
    }
    let shape = logits.shape().clone();
    let backward = move |grad: &Tensor| -> candle_core::Result<Tensor> {
        let mut parts = Vec::new();
        for (from, n) in spans() {
            let chunk = Var::from_tensor(&flat.narrow(0, from, n)?)?;
            let columns =
                select(&chunk, &targets[from..from + n], ask).map_err(candle_core::Error::wrap)?;
            let mut grads = (columns * grad.narrow(0, from, n)?)?
                .sum_all()?
                .backward()?;
            parts.push(
                grads
                    .remove(&chunk)
                    .map_or_else(|| chunk.zeros_like(), Ok)?,
            );
        }
        Tensor::cat(&parts, 0)?.reshape(&shape)
    };
    Ok(logits.apply_op1(One::new(columns, backward))?)
}

#[cfg(test)]
mod tests {
    use super::super::kernel;
    use super::*;
    use candle_core::Device;
    use std::sync::Arc;

    /// How much two computations of one number in f64 may differ.
    const EXACT: f64 = 1e-12;

    fn numbers(t: &Tensor) -> Vec<f64> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn both_ways_give_the_same_values_and_gradients() {
        let forbidden = f64::NEG_INFINITY;
        let data = [
            [0.3, -1.0, 2.0, forbidden],
            [f64::NAN, 0.0, 0.0, 0.0],
            [5.0, 5.0, 5.0, 5.0],
            [1e3, -1e3, 0.0, 1.0],
            [0.3, f64::INFINITY, 2.0, forbidden],
            [0.3, f64::INFINITY, 2.0, forbidden],
        ];
        let logits = Var::new(&data, &Device::Cpu).unwrap();
        let targets = vec![2, IGNORE, 0, 0, 1, 2];
        for bits in 0..8 {
            let ask = Statistics {
                entropy: bits & 1 != 0,
                vocabulary_mean: bits & 2 != 0,
                log_collision: bits & 4 != 0,
            };
            let fused = kernel::select(&logits, Arc::new(targets.clone()), ask).unwrap();
            let plain = select(&logits, &targets, ask).unwrap();
            assert_eq!(fused.dims(), plain.dims());
            let weights = Tensor::arange(1u32, fused.elem_count() as u32 + 1, &Device::Cpu)
                .and_then(|w| w.to_dtype(DType::F64)?.sin()?.reshape(fused.shape()))
                .unwrap();
            let gradient = |out: &Tensor| {
                let loss = (out * &weights).unwrap().sum_all().unwrap();
                numbers(loss.backward().unwrap().get(&logits).unwrap())
            };
            // one row at a time, and four at a time, where the last chunk is shorter
            let [ones, fours] =
                [5, 16].map(|size| in_chunks_of(size, &logits, targets.clone(), ask).unwrap());
            for other in [plain, ones, fours] {
                for (a, b) in numbers(&fused).iter().zip(numbers(&other)) {
                    let close = *a == b || (a - b).abs() <= EXACT * b.abs().max(1.0);
                    assert!(close, "{ask:?}: {a} against {b}");
                }
                for (a, b) in gradient(&fused).iter().zip(gradient(&other)) {
                    let close = (a - b).abs() <= EXACT * b.abs().max(1.0);
                    assert!(close, "{ask:?}: gradient {a} against {b}");
                }
            }
        }
    }
}
