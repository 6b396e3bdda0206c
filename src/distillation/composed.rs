//! The same numbers as the kernel, from ordinary candle operations, for devices other than the CPU.

use super::direction::Direction;
use super::kernel::{Plan, choose, compute_type};
use crate::error::Result;
use crate::math::{log_softmax, masked};
use candle_core::{D, DType, Tensor, Var};

/// The divergence of every row of `student` and `teacher` `[rows, vocabulary]`: `[rows]`.
pub(super) fn divergence(student: &Tensor, teacher: &Tensor, plan: &Plan) -> Result<Tensor> {
    let compute = compute_type(student.dtype());
    let scaled = |x: &Tensor| x.to_dtype(compute)? * plan.scale;
    let (s, t) = (scaled(student)?, scaled(&teacher.detach())?);
    let (mut log_q, mut log_p) = (log_softmax(&s, None)?, log_softmax(&t, None)?);
    if plan.top.is_some() {
        let alone = alone(&s, &t, plan)?;
        log_q = with_the_others(&log_q, &alone)?;
        log_p = with_the_others(&log_p, &alone)?;
    }
    let (q, p) = (log_q.exp()?, log_p.exp()?);
    // Σ x log(x / of), where 0 · log 0 = 0
    let terms = |x: &Tensor, log_x: &Tensor, log_of: &Tensor| -> Result<Tensor> {
        let possible = x.ne(0.0)?;
        let log_x = masked(log_x, &possible)?;
        let log_of = masked(log_of, &possible)?;
        Ok((x * (log_x - log_of)?)?.sum(D::Minus1)?)
    };
    match plan.direction {
        Direction::Forward => terms(&p, &log_p, &log_q),
        Direction::Reverse => terms(&q, &log_q, &log_p),
        Direction::JensenShannon { weight } => {
            let m = ((&q * (1.0 - weight))? + (&p * weight)?)?;
            let somewhere = m.ne(0.0)?;
            let log_m = somewhere.where_cond(&m, &m.ones_like()?)?.log()?;
            let of_student = (terms(&q, &log_q, &log_m)? * (1.0 - weight))?;
            Ok((of_student + (terms(&p, &log_p, &log_m)? * weight)?)?)
        }
    }
}

/// Which symbols stand alone: u8 `[rows, vocabulary]`. Both sets of logits are read to the host.
fn alone(student: &Tensor, teacher: &Tensor, plan: &Plan) -> Result<Tensor> {
    let host = |x: &Tensor| x.detach().to_dtype(DType::F64)?.to_vec2::<f64>();
    let mut chosen = Vec::new();
    for (s, t) in host(student)?.iter().zip(host(teacher)?) {
        let mut row = vec![0u8; s.len()];
        if let Some(top) = plan.top {
            choose(s, &t, top).iter().for_each(|&v| row[v as usize] = 1);
        }
        chosen.extend(row);
    }
    Ok(Tensor::from_vec(chosen, student.shape(), student.device())?)
}

/// The log-probabilities of the symbols that stand alone, −∞ at the others, and one column for all others.
fn with_the_others(log_p: &Tensor, alone: &Tensor) -> Result<Tensor> {
    let impossible = log_p.zeros_like()?.affine(0.0, f64::NEG_INFINITY)?;
    let others = alone.where_cond(&impossible, log_p)?;
    // relative to the largest, so that the sum does not vanish
    let largest = others.detach().max_keepdim(1)?;
    let some = largest.ne(f64::NEG_INFINITY)?;
    let largest = masked(&largest, &some)?;
    let sum = others.broadcast_sub(&largest)?.exp()?.sum_keepdim(1)?;
    let log = (some.where_cond(&sum, &sum.ones_like()?)?.log()? + largest)?;
    let none = log.zeros_like()?.affine(0.0, f64::NEG_INFINITY)?;
    let log = some.where_cond(&log, &none)?;
    let each = alone.where_cond(log_p, &impossible)?;
    Ok(Tensor::cat(&[&each, &log], 1)?)
}

/// The gradient of the student's logits `[rows, vocabulary]` from that of the divergences `[rows]`.
pub(super) fn gradient(
    student: &Tensor,
    teacher: &Tensor,
    grad: &Tensor,
    plan: &Plan,
) -> Result<Tensor> {
    let variable = Var::from_tensor(student)?;
    let values = divergence(&variable, teacher, plan)?;
    let mut grads = (values * grad)?.sum_all()?.backward()?;
    Ok(grads
        .remove(&variable)
        .map_or_else(|| student.zeros_like(), Ok)?)
}

#[cfg(test)]
mod tests {
    use super::super::divergence::{ChosenBy, TopK};
    use super::super::kernel;
    use super::*;
    use candle_core::Device;

    /// How much two computations of one number in f64 may differ.
    const EXACT: f64 = 1e-12;

    #[test]
    fn both_ways_give_the_same_values_and_gradients() {
        let (none, certain) = (f64::NEG_INFINITY, f64::INFINITY);
        let student = [
            [0.3, -1.0, 2.0, 0.5, -0.2],
            [5.0, 5.0, 5.0, 5.0, 5.0],
            [1e3, -1e3, 0.0, 1.0, 2.0],
            [0.3, none, 2.0, none, 0.1],
            [0.3, -1.0, 2.0, 0.5, certain],
        ];
        let teacher = [
            [0.1, 1.0, -2.0, 0.4, 0.0],
            [5.0, 5.0, 5.0, 5.0, 5.0],
            [1.0, -1e3, 1.0, 1.0, 2.0],
            [0.3, none, 1.0, none, 0.4],
            [0.3, -1.0, 2.0, 0.5, 0.4],
        ];
        let student = Tensor::new(&student, &Device::Cpu).unwrap();
        let teacher = Tensor::new(&teacher, &Device::Cpu).unwrap();
        let grad = [0.7, -1.3, 0.2, 1.1, 0.4];
        let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let close = |a: &[f64], b: &[f64], what: &str| {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                let near = a == b || (a - b).abs() <= EXACT * b.abs().max(1.0);
                assert!(near, "{what}[{i}]: {a} against {b}");
            }
        };
        let choices = [ChosenBy::Student, ChosenBy::Teacher, ChosenBy::Either];
        let tops = choices
            .iter()
            .flat_map(|&of| [1, 2, 9].map(|k| TopK { k, of }));
        for top in std::iter::once(None).chain(tops.map(Some)) {
            for direction in [
                Direction::Forward,
                Direction::Reverse,
                Direction::JensenShannon { weight: 0.3 },
            ] {
                let plan = Plan {
                    direction,
                    scale: 1.0 / 1.7,
                    top,
                };
                let what = format!("{plan:?}");
                let rows = kernel::forward(&student, &teacher, &[true; 5], &plan).unwrap();
                let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
                let plain = divergence(&student, &teacher, &plan).unwrap();
                close(&values, &numbers(&plain), &what);

                let fused = kernel::gradient(&student, &teacher, &rows, &grad, &plan).unwrap();
                let place = student.copy().unwrap();
                kernel::write_over(&place, &teacher, &rows, &grad, &plan, 0).unwrap();
                let plain = gradient(
                    &student,
                    &teacher,
                    &Tensor::new(&grad, &Device::Cpu).unwrap(),
                    &plan,
                );
                let plain = numbers(&plain.unwrap());
                // the gradient of an infinite divergence may be NaN without the kernel
                let finite = |of: &Tensor| -> Vec<f64> {
                    let of = numbers(of)
                        .into_iter()
                        .zip(values.iter().flat_map(|v| [v; 5]));
                    of.map(|(x, v)| if v.is_finite() { x } else { 0.0 })
                        .collect()
                };
                let plain = Tensor::new(plain.as_slice(), &Device::Cpu).unwrap();
                close(
                    &finite(&fused),
                    &finite(&plain),
                    &format!("{what}, gradient"),
                );
                close(
                    &numbers(&place),
                    &numbers(&fused),
                    &format!("{what}, in place"),
                );
            }
        }
    }

    #[test]
    fn few_rows_and_many_give_the_same_bits_in_every_type() {
        let (rows, symbols) = (33, 1500);
        let wave = |step: f32| {
            let data = (0..rows * symbols).map(|i| (i as f32 * step).sin() * 6.0);
            Tensor::from_vec(data.collect::<Vec<f32>>(), (rows, symbols), &Device::Cpu).unwrap()
        };
        let (student, teacher) = (wave(0.7), wave(1.3));
        let grad: Vec<f64> = (0..rows).map(|i| (i as f64).sin()).collect();
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let (s, t) = (student.to_dtype(dtype), teacher.to_dtype(dtype));
            let (s, t) = (s.unwrap(), t.unwrap());
            for direction in [
                Direction::Forward,
                Direction::Reverse,
                Direction::JensenShannon { weight: 0.5 },
            ] {
                for k in [None, Some(40)] {
                    let top = k.map(|k| TopK {
                        k,
                        of: ChosenBy::Teacher,
                    });
                    let plan = Plan {
                        direction,
                        scale: 1.0,
                        top,
                    };
                    let many = kernel::forward(&s, &t, &vec![true; rows], &plan).unwrap();
                    let whole = kernel::gradient(&s, &t, &many, &grad, &plan).unwrap();
                    for row in 0..rows {
                        let (s, t) = (s.narrow(0, row, 1), t.narrow(0, row, 1));
                        let (s, t) = (s.unwrap(), t.unwrap());
                        let one = kernel::forward(&s, &t, &[true], &plan).unwrap();
                        assert_eq!(one[0].value, many[row].value, "{plan:?} {dtype:?}");
                        let part = kernel::gradient(&s, &t, &one, &grad[row..row + 1], &plan);
                        let bits = |t: &Tensor| {
                            let t = t.to_dtype(DType::F64).unwrap();
                            t.flatten_all().unwrap().to_vec1::<f64>().unwrap()
                        };
                        let want = whole.narrow(0, row, 1).unwrap();
                        assert_eq!(bits(&part.unwrap()), bits(&want), "{plan:?} {dtype:?}");
                    }
                }
            }
        }
    }
}
