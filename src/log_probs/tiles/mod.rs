//! Log-probabilities and their gradients from hidden states, a tile of logits at a time.
//!
//! ```text
//! forward    whole rows, a few at a time; each row's maximum and sum are kept
//! backward   for each part of the vocabulary W_c and each part of the rows h_r:
//!              logits  = h_r W_cᵀ                              computed again
//!              G       = g · (onehot − e^{logits − lse})       in the logits' memory
//!              dh_r   += G W_c         dW_c += Gᵀ h_r
//! ```
//! With one column and frozen weights the gradient is computed in the forward pass, up to the factor g.

mod gradients;
mod walk;
mod work;

use super::head::OutputHead;
use super::statistics::Statistics;
use super::{composed, kernel};
use crate::error::Result;
use crate::known;
use candle_core::Tensor;
use gradients::{composed_gradient, on_cpu, on_rows, on_tiles};
use std::sync::Arc;
pub(crate) use walk::{Sizes, Tile, Wants, gradients_by_rows, gradients_by_symbols, spans};
use work::Work;

/// The columns of every row of `hidden` `[rows, dim]`, with their gradients.
pub(super) fn select(
    hidden: &Tensor,
    head: &OutputHead,
    targets: Vec<u32>,
    ask: Statistics,
    sizes: Sizes,
) -> Result<Tensor> {
    let trained = head.weight.track_op() || head.bias.as_ref().is_some_and(Tensor::track_op);
    let plain = OutputHead {
        weight: head.weight.detach(),
        bias: head.bias.as_ref().map(Tensor::detach),
        ..head.clone()
    };
    let targets = Arc::new(targets);
    let work = Work {
        head: plain,
        targets,
        ask,
        sizes,
    };
    // with one column and frozen weights, a row's gradient is a number times a known direction
    let ahead = hidden.track_op() && !trained && ask == Statistics::default();
    let detached = hidden.detach();

    let (mut columns, mut directions, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (from, n) in spans(hidden.dim(0)?, work.sizes.rows) {
        let hidden = detached.narrow(0, from, n)?;
        let logits = work.head.logits(&hidden)?;
        let targets = Arc::new(work.targets[from..from + n].to_vec());
        let (chunk, stats) = match logits.device().is_cpu() {
            true => {
                let op = kernel::Select::new(targets.clone(), ask);
                (logits.apply_op1_no_bwd(&op)?, op.rows().to_vec())
            }
            false => (composed::select(&logits, &targets, ask)?, Vec::new()),
        };
        if ahead {
            let one = chunk.ones_like()?;
            let gradient = match logits.device().is_cpu() {
                true => {
                    let rows = kernel::RowGradients::new(ask, &stats, targets, &one)?;
                    on_cpu(&work.head, &rows, logits, 0, 0)?
                }
                false => composed_gradient(&work.head, &logits, &targets, ask, &one)?,
            };
            directions.push(gradient.matmul(&work.head.weight)?);
        }
        columns.push(chunk);
        rows.extend(stats);
    }
    let columns = Tensor::cat(&columns, 0)?;
    if !hidden.track_op() && !trained {
        return Ok(columns);
    }
    if ahead {
        let directions = Tensor::cat(&directions, 0)?;
        let backward = move |grad: &Tensor| directions.broadcast_mul(grad);
        return Ok(hidden.apply_op1(known::One::new(columns, backward))?);
    }

    let wants = Wants::of(hidden, head);
    let backward = move |hidden: &Tensor, grad: &Tensor| match hidden.device().is_cpu() {
        true => on_tiles(&work, &hidden.detach(), &rows, grad, wants),
        false => on_rows(&work, &hidden.detach(), grad, wants),
    };
    let bias = match &head.bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(1, hidden.dtype(), hidden.device())?,
    };
    Ok(hidden.apply_op3(&head.weight, &bias, known::Three::new(columns, backward))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Two orders of the same double-precision arithmetic.
    const DOUBLE: f64 = 1e-12;

    fn wave(shape: &[usize], step: f64) -> Var {
        let n: usize = shape.iter().product();
        let data: Vec<f64> = (0..n).map(|i| (i as f64 * step).sin()).collect();
        Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn the_size_of_a_chunk_changes_nothing() {
        let (hidden, weight, bias) = (wave(&[7, 3], 0.7), wave(&[5, 3], 1.1), wave(&[5], 0.4));
        let targets: Vec<u32> = vec![0, 4, 2, 1, 3, 3, 0];
        let all = Statistics {
            entropy: true,
            vocabulary_mean: true,
            log_collision: true,
        };
        for (trained, ask) in [
            (false, Statistics::default()),
            (true, Statistics::default()),
            (true, all),
        ] {
            let numbers = |sizes: Sizes| {
                let head = match trained {
                    true => OutputHead::new(&weight, Some(&bias)),
                    false => OutputHead::new(&weight.as_detached_tensor(), None),
                };
                let out = select(&hidden, &head.unwrap(), targets.clone(), ask, sizes).unwrap();
                let grads = (&out * out.sin().unwrap())
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .backward()
                    .unwrap();
                let mut all = vec![out];
                all.extend(
                    [&hidden, &weight, &bias]
                        .iter()
                        .filter_map(|v| grads.get(v).cloned()),
                );
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                all.iter().flat_map(flat).collect::<Vec<f64>>()
            };
            let whole = numbers(Sizes {
                rows: 100,
                tile: (100, 100),
            });
            for sizes in [(1, 1, 1), (2, 3, 2), (3, 2, 4), (7, 7, 3), (16, 5, 16)] {
                let (rows, tile) = (sizes.0, (sizes.1, sizes.2));
                for (a, b) in numbers(Sizes { rows, tile }).iter().zip(&whole) {
                    assert!((a - b).abs() <= DOUBLE, "{sizes:?}: {a} against {b}");
                }
            }
        }
    }

    #[test]
    fn rows_and_symbols_give_the_same_gradients() {
        let (hidden, weight, bias) = (wave(&[7, 3], 0.7), wave(&[5, 3], 1.1), wave(&[5], 0.4));
        let hidden = hidden.as_detached_tensor();
        let head = OutputHead::new(
            &weight.as_detached_tensor(),
            Some(&bias.as_detached_tensor()),
        );
        let head = head.and_then(|h| h.with_soft_cap(0.8)).unwrap();
        let targets = Arc::new(vec![0, 4, 2, 1, 3, 3, 0]);
        let ask = Statistics {
            entropy: true,
            vocabulary_mean: true,
            log_collision: true,
        };
        let op = kernel::Select::new(targets.clone(), ask);
        let columns = head.logits(&hidden).unwrap();
        let columns = columns.apply_op1_no_bwd(&op).unwrap();
        let work = Work {
            head,
            targets,
            ask,
            sizes: Sizes {
                rows: 3,
                tile: (4, 2),
            },
        };
        let wants = Wants {
            hidden: true,
            weight: true,
            bias: true,
        };
        let grad = columns.sin().unwrap();
        let by_symbols = on_tiles(&work, &hidden, op.rows(), &grad, wants).unwrap();
        let by_rows = on_rows(&work, &hidden, &grad, wants).unwrap();
        for (a, b) in by_symbols.iter().zip(&by_rows) {
            let (a, b) = (a.as_ref().unwrap(), b.as_ref().unwrap());
            let worst = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            assert!(worst.to_scalar::<f64>().unwrap() <= DOUBLE);
        }
    }
}
