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
use crate::log_probs::{OutputHead, Sum};
use candle_core::{DType, Tensor};

/// Memory for the logits that exist at one time.
const HELD_BYTES: usize = 64 << 20;

/// How much is computed at a time.
#[derive(Clone, Copy)]
struct Sizes {
    /// Whole rows.
    rows: usize,
    /// Rows and symbols in a tile.
    tile: (usize, usize),
}

impl Sizes {
    /// Sizes for which no more than about `held` logits of each model exist at once.
    fn new(held: usize, rows: usize, vocabulary: usize) -> Self {
        let height = rows.clamp(1, 4096);
        Self {
            rows: (held / vocabulary).clamp(16, 4096),
            tile: (height, (held / height).max(16)),
        }
    }
}

/// The start of each part, and its length.
fn spans(all: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..all)
        .step_by(size)
        .map(move |from| (from, size.min(all - from)))
}

/// What both passes share.
struct Work {
    student: OutputHead,
    teacher: OutputHead,
    /// The teacher's hidden states `[rows, dim]`.
    hidden: Tensor,
    plan: Plan,
    sizes: Sizes,
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
    let wants = Wants {
        hidden: hidden.track_op(),
        weight: head.weight().track_op(),
        bias: head.bias().is_some_and(Tensor::track_op),
    };
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

/// Which gradients are wanted.
#[derive(Clone, Copy)]
struct Wants {
    hidden: bool,
    weight: bool,
    bias: bool,
}

/// The gradients on the CPU, one part of the vocabulary at a time.
fn by_symbols(
    work: &Work,
    hidden: &Tensor,
    rows: &[Row],
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    let (vocabulary, count) = (work.student.weight().dim(0)?, hidden.dim(0)?);
    let (height, width) = work.sizes.tile;
    let to_weight = match wants.weight {
        true => Some(work.student.weight().zeros_like()?),
        false => None,
    };
    let mut to_bias = Vec::new();
    let mut to_hidden: Vec<Sum> = spans(count, height).map(|_| Sum::default()).collect();
    for (symbol, symbols) in spans(vocabulary, width) {
        let student = work.student.symbols(symbol, symbols)?;
        let teacher = work.teacher.symbols(symbol, symbols)?;
        let (mut weight, mut bias) = (Sum::default(), Sum::default());
        for ((row, n), to_hidden) in spans(count, height).zip(&mut to_hidden) {
            let h = hidden.narrow(0, row, n)?;
            let (s, t) = (
                student.logits(&h)?,
                teacher.logits(&work.hidden.narrow(0, row, n)?)?,
            );
            let (rows, grad) = (&rows[row..row + n], grad.narrow(0, row, n)?);
            let gradient = gradient(&student, s, &t, rows, &grad, &work.plan, symbol)?;
            if wants.hidden {
                to_hidden.add(gradient.matmul(student.weight())?)?;
            }
            if wants.weight {
                weight.add(gradient.t()?.matmul(&h)?)?;
            }
            if wants.bias {
                bias.add(gradient.sum(0)?)?;
            }
        }
        if let (Some(whole), Some(part)) = (&to_weight, weight.0) {
            whole.slice_set(&part, 0, symbol)?;
        }
        to_bias.extend(bias.0);
    }
    let joined = |parts: Vec<Tensor>| match parts.is_empty() {
        true => Ok(None),
        false => Tensor::cat(&parts, 0).map(Some),
    };
    let to_hidden = to_hidden.into_iter().filter_map(|sum| sum.0).collect();
    Ok([joined(to_hidden)?, to_weight, joined(to_bias)?])
}

/// The gradients from ordinary operations, a few rows at a time.
fn by_rows(
    work: &Work,
    hidden: &Tensor,
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    let (mut to_hidden, mut to_weight, mut to_bias) = (Vec::new(), Sum::default(), Sum::default());
    for (from, n) in spans(hidden.dim(0)?, work.sizes.rows) {
        let h = hidden.narrow(0, from, n)?;
        let s = work.student.logits(&h)?;
        let t = work.teacher.logits(&work.hidden.narrow(0, from, n)?)?;
        let gradient = composed::gradient(&s, &t, &grad.narrow(0, from, n)?, &work.plan)?;
        let gradient = work.student.before_cap(gradient, &s)?;
        if wants.hidden {
            to_hidden.push(gradient.matmul(work.student.weight())?);
        }
        if wants.weight {
            to_weight.add(gradient.t()?.matmul(&h)?)?;
        }
        if wants.bias {
            to_bias.add(gradient.sum(0)?)?;
        }
    }
    let to_hidden = match wants.hidden {
        true => Some(Tensor::cat(&to_hidden, 0)?),
        false => None,
    };
    Ok([to_hidden, to_weight.0, to_bias.0])
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
