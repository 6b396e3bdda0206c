//! The same numbers from ordinary candle operations, for devices other than the CPU.

use super::kernel::IGNORE;
use super::token::Statistics;
use crate::math::masked;
use candle_core::{D, DType, Tensor};
use candle_nn::ops::log_softmax;

/// As [`super::kernel::select`], with the same columns.
pub(super) fn select(logits: &Tensor, targets: &[u32], ask: Statistics) -> crate::Result<Tensor> {
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

    // A row that does not count becomes a row of zeros: what stood there cannot reach the softmax.
    let wide = counts.broadcast_as((rows, vocabulary))?;
    let log_p = log_softmax(&masked(&logits, &wide)?, D::Minus1)?;

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
        let possible = log_p.gt(f64::NEG_INFINITY)?;
        let total = masked(&log_p, &possible)?.sum_keepdim(1)?;
        let mean = (total / possible.to_dtype(log_p.dtype())?.sum_keepdim(1)?)?;
        columns.push(masked(&mean, &counts)?);
    }
    Ok(Tensor::cat(&columns, 1)?)
}

#[cfg(test)]
mod tests {
    use super::super::kernel;
    use super::*;
    use candle_core::{Device, Var};
    use std::sync::Arc;

    /// What two computations in f64 of one number may differ by.
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
        ];
        let logits = Var::new(&data, &Device::Cpu).unwrap();
        let targets = vec![2, IGNORE, 0, 0];
        for (entropy, vocabulary_mean) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let ask = Statistics {
                entropy,
                vocabulary_mean,
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
            for (a, b) in numbers(&fused).iter().zip(numbers(&plain)) {
                assert!(
                    (a - b).abs() <= EXACT * b.abs().max(1.0),
                    "{ask:?}: {a} against {b}"
                );
            }
            for (a, b) in gradient(&fused).iter().zip(gradient(&plain)) {
                assert!(
                    (a - b).abs() <= EXACT * b.abs().max(1.0),
                    "{ask:?}: gradient {a} against {b}"
                );
            }
        }
    }
}
