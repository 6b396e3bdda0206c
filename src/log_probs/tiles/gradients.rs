//! The gradients of hidden states, matrix and bias from those of the columns.

use super::walk::{Wants, gradients_by_rows, gradients_by_symbols};
use super::work::Work;
use crate::error::Result;
use crate::log_probs::composed;
use crate::log_probs::head::OutputHead;
use crate::log_probs::kernel;
use crate::log_probs::statistics::Statistics;
use candle_core::{Tensor, Var};

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

/// The gradients on the CPU. Each row's sum is known from the forward pass.
pub(super) fn on_tiles(
    work: &Work,
    hidden: &Tensor,
    rows: &[kernel::Row],
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    let rows = kernel::RowGradients::new(work.ask, rows, work.targets.clone(), grad)?;
    gradients_by_symbols(&work.head, hidden, work.sizes, wants, |tile| {
        let logits = tile.head.logits(&tile.hidden)?;
        on_cpu(tile.head, &rows, logits, tile.row, tile.symbol)
    })
}

/// The gradients from ordinary operations.
pub(super) fn on_rows(
    work: &Work,
    hidden: &Tensor,
    grad: &Tensor,
    wants: Wants,
) -> Result<[Option<Tensor>; 3]> {
    gradients_by_rows(&work.head, hidden, work.sizes, wants, |tile| {
        let logits = tile.head.logits(&tile.hidden)?;
        let targets = &work.targets[tile.row..tile.row + tile.rows];
        let grad = grad.narrow(0, tile.row, tile.rows)?;
        composed_gradient(tile.head, &logits, targets, work.ask, &grad)
    })
}
