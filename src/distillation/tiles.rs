//! The divergence from hidden states, a tile of both models' logits at a time.
//!
//! ```text
//! forward    whole rows, a few at a time; what determines each row's gradient is kept
//! backward   for each part of the vocabulary and each part of the rows:
//!              both models' logits                             computed again
//!              G = g · ∂D/∂logits                              in the memory of the student's logits
//!              dh_r += G W_c         dW_c += Gᵀ h_r
//! ```
//! With a frozen student matrix the gradient is computed in the forward pass, up to the factor g.

use super::composed;
use super::kernel::{self, Plan, Row, compute_type};
use crate::error::Result;
use crate::known::Three;
use crate::known::with_slope;
use crate::log_probs::{
    OutputHead, Sizes, Tile, Wants, gradients_by_rows, gradients_by_symbols, spans,
};
use candle_core::{DType, Tensor};

/// Memory for the logits that exist at one time.
const HELD_BYTES: usize = 64 << 20;

/// What both passes share.
struct Work {
    student: OutputHead,
    teacher: OutputHead,
    /// The teacher's hidden states `[rows, dim]`.
    hidden: Tensor,
    plan: Plan,
    sizes: Sizes,
}

impl Work {
    /// The logits of the student and of the teacher on a tile.
    fn logits(&self, tile: &Tile) -> Result<(Tensor, Tensor)> {
        let teacher = self.teacher.symbols(tile.symbol, tile.symbols)?;
        let hidden = self.hidden.narrow(0, tile.row, tile.rows)?;
        Ok((tile.head.logits(&tile.hidden)?, teacher.logits(&hidden)?))
    }
}

/// The divergence at each position `[batch, time]`, 0 where it does not count.
pub(super) fn divergence(
    student: (&Tensor, &OutputHead),
    teacher: (&Tensor, &OutputHead),
    counts: &[bool],
    plan: Plan,
) -> Result<Tensor> {
    let (batch, time, _) = student.0.dims3()?;
    let (device, vocabulary) = (student.0.device(), student.1.weight().dim(0)?);
    let compute = compute_type(student.0.dtype());
    let zeros = Tensor::zeros(batch * time, compute, device)?;
    let rows: Vec<u32> = (0u32..).zip(counts).filter(|c| *c.1).map(|c| c.0).collect();
    if rows.is_empty() {
        return Ok(zeros.reshape((batch, time))?);
    }
    let index = Tensor::new(rows.as_slice(), device)?;
    let counted = |hidden: &Tensor| -> candle_core::Result<Tensor> {
        let flat = hidden.reshape((batch * time, hidden.dim(2)?))?;
        flat.index_select(&index, 0)?.to_dtype(compute)
    };
    let held = HELD_BYTES / 2 / compute.size_in_bytes();
    let head = student.1.to_dtype(compute)?;
    let work = Work {
        student: head.detach()?,
        teacher: teacher.1.to_dtype(compute)?.detach()?,
        hidden: counted(&teacher.0.detach())?,
        plan,
        sizes: Sizes::new(held, rows.len(), vocabulary),
    };
    let selected = select(&counted(student.0)?, &head, work)?;
    Ok(zeros
        .index_add(&index, &selected, 0)?
        .reshape((batch, time))?)
}

/// The divergence of every row of `hidden` `[rows, dim]`.
fn select(hidden: &Tensor, head: &OutputHead, work: Work) -> Result<Tensor> {
    let wants = Wants::of(hidden, head);
    let trained = wants.weight || wants.bias;
    let ahead = wants.hidden && !trained;
    let detached = hidden.detach();
    let (mut values, mut directions, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (from, n) in spans(hidden.dim(0)?, work.sizes.rows) {
        let s = work.student.logits(&detached.narrow(0, from, n)?)?;
        let t = work.teacher.logits(&work.hidden.narrow(0, from, n)?)?;
        let (part, stats) = forward(&s, &t, &work.plan)?;
        if ahead {
            let one = part.ones_like()?;
            let gradient = gradient(&work.student, s, &t, &stats, &one, &work.plan, 0)?;
            directions.push(gradient.matmul(work.student.weight())?);
        }
        values.push(part);
        rows.extend(stats);
    }
    let values = Tensor::cat(&values, 0)?;
    if ahead {
        let directions = Tensor::cat(&directions, 0)?;
        let backward = move |grad: &Tensor| directions.broadcast_mul(&grad.unsqueeze(1)?);
        return Ok(with_slope(hidden, values, backward)?);
    }
    if !trained {
        return Ok(values);
    }
    let backward = move |hidden: &Tensor, grad: &Tensor| match hidden.device().is_cpu() {
        true => by_symbols(&work, &hidden.detach(), &rows, grad, wants),
        false => by_rows(&work, &hidden.detach(), grad, wants),
    };
    let bias = match head.bias() {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(1, hidden.dtype(), hidden.device())?,
    };
    Ok(hidden.apply_op3(head.weight(), &bias, Three::new(values, backward))?)
}

/// The divergence of each row, and on the CPU what its gradient needs.
fn forward(s: &Tensor, t: &Tensor, plan: &Plan) -> Result<(Tensor, Vec<Row>)> {
    if !s.device().is_cpu() {
        return Ok((composed::divergence(s, t, plan)?, Vec::new()));
    }
    let rows = kernel::forward(s, t, &vec![true; s.dim(0)?], plan)?;
    let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
    let values = Tensor::from_vec(values, rows.len(), s.device())?;
    Ok((values.to_dtype(s.dtype())?, rows))
}

/// The gradient of h Wᵀ + b for the student's logits from `symbol` on, in their memory if possible.
fn gradient(
    head: &OutputHead,
    s: Tensor,
    t: &Tensor,
    rows: &[Row],
    grad: &Tensor,
    plan: &Plan,
    symbol: usize,
) -> Result<Tensor> {
    if !s.device().is_cpu() {
        let gradient = composed::gradient(&s, t, grad, plan)?;
        return Ok(head.before_cap(gradient, &s)?);
    }
    let gradient = match head.caps() {
        // the cap's slope needs the logits themselves
        true => s.copy()?,
        false => s.clone(),
    };
    let grad = grad.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    kernel::write_over(&gradient, t, rows, &grad, plan, symbol)?;
    Ok(head.before_cap(gradient, &s)?)
}

/// The gradients on the CPU.
fn by_symbols(
    work: &Work,
    hidden: &Tensor,
    rows: &[Row],
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    gradients_by_symbols(&work.student, hidden, work.sizes, wants, |tile| {
        let (s, t) = work.logits(tile)?;
        let rows = &rows[tile.row..tile.row + tile.rows];
        let grad = grad.narrow(0, tile.row, tile.rows)?;
        gradient(tile.head, s, &t, rows, &grad, &work.plan, tile.symbol)
    })
}

/// The gradients from ordinary operations.
fn by_rows(
    work: &Work,
    hidden: &Tensor,
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    gradients_by_rows(&work.student, hidden, work.sizes, wants, |tile| {
        let (s, t) = work.logits(tile)?;
        let grad = grad.narrow(0, tile.row, tile.rows)?;
        let gradient = composed::gradient(&s, &t, &grad, &work.plan)?;
        Ok(tile.head.before_cap(gradient, &s)?)
    })
}

#[cfg(test)]
mod tests {
    use super::super::divergence::{ChosenBy, Direction, TopK};
    use super::*;
    use candle_core::{Device, Var};

    /// Two orders of the same double-precision arithmetic.
    const DOUBLE: f64 = 1e-12;

    fn wave(shape: &[usize], step: f64) -> Var {
        let n: usize = shape.iter().product();
        let data: Vec<f64> = (0..n).map(|i| (i as f64 * step).sin()).collect();
        Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu).unwrap()).unwrap()
    }

    fn work(student: &OutputHead, plan: Plan, sizes: Sizes) -> Work {
        let teacher = OutputHead::new(&wave(&[5, 2], 0.9), None).unwrap();
        Work {
            student: student.detach().unwrap(),
            teacher: teacher.detach().unwrap(),
            hidden: wave(&[7, 2], 0.3).as_detached_tensor(),
            plan,
            sizes,
        }
    }

    fn plans() -> [Plan; 3] {
        let plan = |direction, top| Plan {
            direction,
            scale: 0.8,
            top,
        };
        let of = ChosenBy::Either;
        [
            plan(Direction::Reverse, None),
            plan(Direction::JensenShannon { weight: 0.3 }, None),
            plan(Direction::Forward, Some(TopK { k: 2, of })),
        ]
    }

    #[test]
    fn the_size_of_a_chunk_changes_nothing() {
        let (hidden, weight, bias) = (wave(&[7, 3], 0.7), wave(&[5, 3], 1.1), wave(&[5], 0.4));
        for plan in plans() {
            for trained in [false, true] {
                let numbers = |rows: usize, tile: (usize, usize)| {
                    let head = match trained {
                        true => OutputHead::new(&weight, Some(&bias)),
                        false => OutputHead::new(&weight.as_detached_tensor(), None),
                    };
                    let head = head.and_then(|head| head.with_soft_cap(0.9)).unwrap();
                    let work = work(&head, plan, Sizes { rows, tile });
                    let out = select(&hidden, &head, work).unwrap();
                    let grads = out.sin().unwrap().sum_all().unwrap().backward().unwrap();
                    let mut all = vec![out];
                    let found = [&hidden, &weight, &bias].map(|v| grads.get(v).cloned());
                    all.extend(found.into_iter().flatten());
                    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                    all.iter().flat_map(flat).collect::<Vec<f64>>()
                };
                let whole = numbers(100, (100, 100));
                for (rows, tile) in [(1, (1, 1)), (2, (3, 2)), (3, (2, 4)), (7, (7, 3))] {
                    let parts = numbers(rows, tile);
                    assert_eq!(parts.len(), whole.len());
                    for (a, b) in parts.iter().zip(&whole) {
                        assert!((a - b).abs() <= DOUBLE, "{rows} {tile:?}: {a} against {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_and_symbols_give_the_same_gradients() {
        let (hidden, weight, bias) = (wave(&[7, 3], 0.7), wave(&[5, 3], 1.1), wave(&[5], 0.4));
        let hidden = hidden.as_detached_tensor();
        let head = OutputHead::new(&weight, Some(&bias)).unwrap();
        let head = head.with_soft_cap(0.8).unwrap();
        let wants = Wants {
            hidden: true,
            weight: true,
            bias: true,
        };
        for plan in plans() {
            let tile = (4, 2);
            let work = work(&head, plan, Sizes { rows: 3, tile });
            let s = work.student.logits(&hidden).unwrap();
            let t = work.teacher.logits(&work.hidden).unwrap();
            let (values, rows) = forward(&s, &t, &plan).unwrap();
            let grad = values.sin().unwrap();
            let by_symbols = by_symbols(&work, &hidden, &rows, &grad, wants).unwrap();
            let by_rows = by_rows(&work, &hidden, &grad, wants).unwrap();
            for (a, b) in by_symbols.iter().zip(&by_rows) {
                let (a, b) = (a.as_ref().unwrap(), b.as_ref().unwrap());
                let worst = (a - b).unwrap().abs().unwrap().max_all().unwrap();
                assert!(worst.to_scalar::<f64>().unwrap() <= DOUBLE, "{plan:?}");
            }
        }
    }
}
