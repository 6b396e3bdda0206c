//! The way through logits that are never stored whole: the sizes of tiles, and the gradients that come out of
//! them.

use crate::error::Result;
use crate::log_probs::head::OutputHead;
use crate::log_probs::sum::Sum;
use candle_core::Tensor;

/// The start of each part, and its length.
pub(crate) fn spans(all: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..all)
        .step_by(size)
        .map(move |from| (from, size.min(all - from)))
}

/// How much is computed at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Whole rows.
    pub(crate) rows: usize,
    /// Rows and symbols in a tile.
    pub(crate) tile: (usize, usize),
}

impl Sizes {
    /// Sizes for which no more than about `held` logits exist at once.
    pub(crate) fn new(held: usize, rows: usize, vocabulary: usize) -> Self {
        let height = rows.clamp(1, 4096);
        Self {
            rows: (held / vocabulary).clamp(16, 4096),
            tile: (height, (held / height).max(16)),
        }
    }
}

/// Which gradients are wanted.
#[derive(Clone, Copy)]
pub(crate) struct Wants {
    pub(crate) hidden: bool,
    pub(crate) weight: bool,
    pub(crate) bias: bool,
}

impl Wants {
    /// Those of what is tracked.
    pub(crate) fn of(hidden: &Tensor, head: &OutputHead) -> Self {
        Self {
            hidden: hidden.track_op(),
            weight: head.weight.track_op(),
            bias: head.bias.as_ref().is_some_and(Tensor::track_op),
        }
    }
}

/// Some rows, and some symbols from `symbol` on.
pub(crate) struct Tile<'a> {
    /// For these symbols.
    pub(crate) head: &'a OutputHead,
    /// `[rows, dim]`.
    pub(crate) hidden: Tensor,
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) symbol: usize,
    pub(crate) symbols: usize,
}

/// The gradients of hidden states, matrix and bias, one part of the vocabulary at a time. `gradient` gives that
/// of h Wᵀ + b on a tile. So the gradient of the matrix is written once, and only that of the hidden states,
/// which is small, is accumulated.
pub(crate) fn gradients_by_symbols(
    head: &OutputHead,
    hidden: &Tensor,
    sizes: Sizes,
    wants: Wants,
    gradient: impl Fn(&Tile) -> Result<Tensor>,
) -> Result<[Option<Tensor>; 3]> {
    let (vocabulary, count) = (head.weight.dim(0)?, hidden.dim(0)?);
    let (height, width) = sizes.tile;
    let to_weight = match wants.weight {
        true => Some(head.weight.zeros_like()?),
        false => None,
    };
    let mut to_bias = Vec::new();
    let mut to_hidden: Vec<Sum> = spans(count, height).map(|_| Sum::default()).collect();
    for (symbol, symbols) in spans(vocabulary, width) {
        let part = head.symbols(symbol, symbols)?;
        let (mut weight, mut bias) = (Sum::default(), Sum::default());
        for ((row, rows), to_hidden) in spans(count, height).zip(&mut to_hidden) {
            let tile = Tile {
                head: &part,
                hidden: hidden.narrow(0, row, rows)?,
                row,
                rows,
                symbol,
                symbols,
            };
            let gradient = gradient(&tile)?;
            if wants.hidden {
                to_hidden.add(gradient.matmul(&part.weight)?)?;
            }
            if wants.weight {
                weight.add(gradient.t()?.matmul(&tile.hidden)?)?;
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

/// The same for whole rows, a few at a time.
pub(crate) fn gradients_by_rows(
    head: &OutputHead,
    hidden: &Tensor,
    sizes: Sizes,
    wants: Wants,
    gradient: impl Fn(&Tile) -> Result<Tensor>,
) -> Result<[Option<Tensor>; 3]> {
    let symbols = head.weight.dim(0)?;
    let (mut to_hidden, mut to_weight, mut to_bias) = (Vec::new(), Sum::default(), Sum::default());
    for (row, rows) in spans(hidden.dim(0)?, sizes.rows) {
        let tile = Tile {
            head,
            hidden: hidden.narrow(0, row, rows)?,
            row,
            rows,
            symbol: 0,
            symbols,
        };
        let gradient = gradient(&tile)?;
        if wants.hidden {
            to_hidden.push(gradient.matmul(&head.weight)?);
        }
        if wants.weight {
            to_weight.add(gradient.t()?.matmul(&tile.hidden)?)?;
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
