//! The divergence from two whole sets of logits.

use super::composed;
use super::kernel::{self, Plan, compute_type};
use crate::error::Result;
use crate::known::with_slope;
use candle_core::{DType, Tensor};

/// The number of logits in one chunk on a device other than the CPU.
const CHUNK_ELEMENTS: usize = 1 << 24;

/// The divergence at each position `[batch, time]` of logits `[batch, time, vocabulary]`, 0 where it does
/// not count.
pub(super) fn divergence(
    student: &Tensor,
    teacher: &Tensor,
    counts: Vec<bool>,
    plan: Plan,
) -> Result<Tensor> {
    let (batch, time, _) = student.dims3()?;
    let s = student.detach().contiguous()?;
    let t = teacher.detach().contiguous()?;
    if !s.device().is_cpu() {
        return elsewhere(student, (s, t), counts, plan);
    }
    let rows = kernel::forward(&s, &t, &counts, &plan)?;
    let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
    let values = Tensor::from_vec(values, (batch, time), s.device())?;
    let values = values.to_dtype(compute_type(s.dtype()))?;
    let backward = move |grad: &Tensor| {
        let grad = grad.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let counted = grad.iter().zip(&counts);
        let grad: Vec<f64> = counted
            .map(|(g, counts)| if *counts { *g } else { 0.0 })
            .collect();
        kernel::gradient(&s, &t, &rows, &grad, &plan)
    };
    Ok(with_slope(student, values, backward)?)
}

/// From ordinary operations, chunk by chunk.
fn elsewhere(
    student: &Tensor,
    (s, t): (Tensor, Tensor),
    counts: Vec<bool>,
    plan: Plan,
) -> Result<Tensor> {
    let (batch, time, vocabulary) = s.dims3()?;
    let flat = |x: &Tensor| x.reshape((batch * time, vocabulary));
    let (s, t) = (flat(&s)?, flat(&t)?);
    let rows: Vec<u32> = (0u32..)
        .zip(&counts)
        .filter(|c| *c.1)
        .map(|c| c.0)
        .collect();
    let size = (CHUNK_ELEMENTS / vocabulary).max(1);
    let zeros = Tensor::zeros(batch * time, compute_type(s.dtype()), s.device())?;
    let part = move |x: &Tensor, rows: &[u32]| {
        let index = Tensor::new(rows, x.device())?;
        Ok::<_, candle_core::Error>((x.index_select(&index, 0)?, index))
    };
    let mut values = zeros;
    for rows in rows.chunks(size) {
        let ((s, index), (t, _)) = (part(&s, rows)?, part(&t, rows)?);
        values = values.index_add(&index, &composed::divergence(&s, &t, &plan)?, 0)?;
    }
    let shape = student.shape().clone();
    let backward = move |grad: &Tensor| {
        let grad = grad.flatten_all()?;
        let mut all = s.zeros_like()?;
        for rows in rows.chunks(size) {
            let ((s, index), (t, _)) = (part(&s, rows)?, part(&t, rows)?);
            let grad = grad.index_select(&index, 0)?;
            let gradient = composed::gradient(&s, &t, &grad, &plan);
            let gradient = gradient.map_err(candle_core::Error::wrap)?;
            all = all.index_add(&index, &gradient, 0)?;
        }
        all.reshape(&shape)
    };
    Ok(with_slope(
        student,
        values.reshape((batch, time))?,
        backward,
    )?)
}

#[cfg(test)]
mod tests {
    use super::super::divergence::Direction;
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn other_devices_get_the_same_numbers() {
        let wave = |step: f64| {
            let data = (0..24).map(|i| (i as f64 * step).sin() * 3.0);
            Tensor::from_vec(data.collect::<Vec<f64>>(), (2, 3, 4), &Device::Cpu).unwrap()
        };
        let (student, teacher) = (Var::from_tensor(&wave(0.7)).unwrap(), wave(1.3));
        let counts = vec![true, false, true, true, true, false];
        let direction = Direction::JensenShannon { weight: 0.3 };
        let plan = Plan {
            direction,
            scale: 1.0,
            top: None,
        };
        let both = [
            divergence(&student, &teacher, counts.clone(), plan).unwrap(),
            elsewhere(
                &student,
                (student.as_detached_tensor(), teacher.clone()),
                counts,
                plan,
            )
            .unwrap(),
        ];
        let numbers = both.map(|values| {
            let grads = values.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let gradient = grads.get(&student).unwrap().flatten_all().unwrap();
            let flat = values.flatten_all().unwrap();
            [flat, gradient]
                .map(|t| t.to_vec1::<f64>().unwrap())
                .concat()
        });
        for (a, b) in numbers[0].iter().zip(&numbers[1]) {
            assert!((a - b).abs() < 1e-12, "{a} against {b}");
        }
        assert_eq!(both_zero(&numbers[0]), [1, 5]);
    }

    /// The positions without a value.
    fn both_zero(numbers: &[f64]) -> Vec<usize> {
        (0..6).filter(|&i| numbers[i] == 0.0).collect()
    }
}
