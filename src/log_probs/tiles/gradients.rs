//! The gradients of hidden states, matrix and bias from those of the columns.

use super::work::{Work, spans};
use crate::error::Result;
use crate::log_probs::composed;
use crate::log_probs::head::OutputHead;
use crate::log_probs::kernel;
use crate::log_probs::statistics::Statistics;
use crate::log_probs::sum::Sum;
use candle_core::{Tensor, Var};

/// Which gradients are wanted.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    pub(super) hidden: bool,
    pub(super) weight: bool,
    pub(super) bias: bool,
}

/// The gradient of h Wᵀ + b for the logits of a tile, in their memory if possible.
pub(super) fn on_cpu(
    head: &OutputHead,
    rows: &kernel::RowGradients,
    logits: Tensor,
    row: usize,
    symbol: usize,
) -> Result<Tensor> {
    let gradient = match head.soft_cap {
        // the cap's slope needs the logits themselves
        Some(_) => logits.copy()?,
        None => logits.clone(),
    };
    rows.write_over(&gradient, row, symbol)?;
    Ok(head.before_cap(gradient, &logits)?)
}

/// The same from ordinary operations, for whole rows.
pub(super) fn composed_gradient(
    head: &OutputHead,
    logits: &Tensor,
    targets: &[u32],
    ask: Statistics,
    grad: &Tensor,
) -> Result<Tensor> {
    let variable = Var::from_tensor(logits)?;
    let columns = composed::select(&variable, targets, ask)?;
    let mut grads = (columns * grad)?.sum_all()?.backward()?;
    let gradient = grads
        .remove(&variable)
        .map_or_else(|| logits.zeros_like(), Ok)?;
    Ok(head.before_cap(gradient, logits)?)
}

/// The gradients on the CPU, one part of the vocabulary at a time. Each row's sum is known from the
/// forward pass. So the gradient of the matrix is written once, and only that of the hidden states,
/// which is small, is accumulated.
pub(super) fn gradients_by_symbols(
    work: &Work,
    hidden: &Tensor,
    rows: &[kernel::Row],
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    let rows = kernel::RowGradients::new(work.ask, rows, work.targets.clone(), grad)?;
    let head = &work.head;
    let (vocabulary, count) = (head.weight.dim(0)?, hidden.dim(0)?);
    let (height, width) = work.sizes.tile;
    let to_weight = match wants.weight {
        true => Some(head.weight.zeros_like()?),
        false => None,
    };
    let mut to_bias = Vec::new();
    let mut to_hidden: Vec<Sum> = spans(count, height).map(|_| Sum::default()).collect();
    for (symbol, symbols) in spans(vocabulary, width) {
        let part = OutputHead {
            weight: head.weight.narrow(0, symbol, symbols)?,
            bias: match &head.bias {
                Some(bias) => Some(bias.narrow(0, symbol, symbols)?),
                None => None,
            },
            ..head.clone()
        };
        let (mut weight, mut bias) = (Sum::default(), Sum::default());
        for ((row, n), to_hidden) in spans(count, height).zip(&mut to_hidden) {
            let hidden = hidden.narrow(0, row, n)?;
            let gradient = on_cpu(&part, &rows, part.logits(&hidden)?, row, symbol)?;
            if wants.hidden {
                to_hidden.add(gradient.matmul(&part.weight)?)?;
            }
            if wants.weight {
                weight.add(gradient.t()?.matmul(&hidden)?)?;
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
pub(super) fn gradients_by_rows(
    work: &Work,
    hidden: &Tensor,
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    let head = &work.head;
    let (mut to_hidden, mut to_weight, mut to_bias) = (Vec::new(), Sum::default(), Sum::default());
    for (from, n) in spans(hidden.dim(0)?, work.sizes.rows) {
        let hidden = hidden.narrow(0, from, n)?;
        let (targets, grad) = (&work.targets[from..from + n], grad.narrow(0, from, n)?);
        let logits = head.logits(&hidden)?;
        let gradient = composed_gradient(head, &logits, targets, work.ask, &grad)?;
        if wants.hidden {
            to_hidden.push(gradient.matmul(&head.weight)?);
        }
        if wants.weight {
            to_weight.add(gradient.t()?.matmul(&hidden)?)?;
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
