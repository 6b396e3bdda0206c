//! The gradient of a part of the logits, written over that part.

use super::element::Element;
use super::row::Row;
use super::slopes::{Slopes, columns, slopes};
use super::{FEW, infinite};
use crate::log_probs::statistics::Statistics;
use crate::simd::Width;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// What the gradients of the rows are computed from. All rows count.
pub(in crate::log_probs) struct RowGradients {
    rows: Vec<(Row, Slopes)>,
    targets: Arc<Vec<u32>>,
}

impl RowGradients {
    /// From the rows' statistics and the gradient of their columns.
    pub(in crate::log_probs) fn new(
        ask: Statistics,
        rows: &[Row],
        targets: Arc<Vec<u32>>,
        grad: &Tensor,
    ) -> Result<Self> {
        let grad = grad.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let columns = columns(ask);
        if rows.len() != targets.len() || rows.len() * columns != grad.len() {
            bail!("selective log-softmax: rows, targets and gradients are not of one number");
        }
        let rows = rows.iter().zip(grad.chunks(columns));
        let rows = rows.map(|(row, grad)| (*row, slopes(ask, row, grad)));
        Ok(Self {
            rows: rows.collect(),
            targets,
        })
    }

    /// Writes the gradient over `logits`, which are f32 or f64 and have no history: the rows from `row` on,
    /// and in each row the symbols from `symbol` on.
    pub(in crate::log_probs) fn write_over(
        &self,
        logits: &Tensor,
        row: usize,
        symbol: usize,
    ) -> Result<()> {
        let end = row + logits.dim(0)?;
        logits.inplace_op1(&Tile {
            rows: &self.rows[row..end],
            targets: &self.targets[row..end],
            symbol,
        })
    }
}

/// The gradient of a part of the logits, written over that part.
struct Tile<'a> {
    rows: &'a [(Row, Slopes)],
    targets: &'a [u32],
    symbol: usize,
}

impl Tile<'_> {
    fn run<T: Element>(&self, logits: &mut [T], symbols: usize) {
        let width = Width::widest();
        let one = |row: &mut [T], stats: &Row, slopes: &Slopes, target: u32| {
            let target = (target as usize).checked_sub(self.symbol);
            infinite::gradient_in_place(width, row, stats, slopes, target);
        };
        match logits.len() <= FEW {
            true => logits
                .chunks_mut(symbols)
                .zip(self.rows.iter().zip(self.targets.iter()))
                .for_each(|(row, ((stats, slopes), &target))| one(row, stats, slopes, target)),
            false => logits
                .par_chunks_mut(symbols)
                .zip(self.rows.par_iter().zip(self.targets.par_iter()))
                .for_each(|(row, ((stats, slopes), &target))| one(row, stats, slopes, target)),
        }
    }
}

impl InplaceOp1 for Tile<'_> {
    fn name(&self) -> &'static str {
        "selective-log-softmax-gradient"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("selective log-softmax: the logits are not contiguous")
        };
        let symbols = layout.dims().last().copied().unwrap_or(1);
        match storage {
            CpuStorage::F32(data) => self.run(&mut data[start..end], symbols),
            CpuStorage::F64(data) => self.run(&mut data[start..end], symbols),
            _ => bail!("selective log-softmax: in place, logits must be f32 or f64"),
        }
        Ok(())
    }
}
