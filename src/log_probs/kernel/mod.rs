//! Log-probabilities of chosen tokens in one pass over the logits, and their gradient in another.
//!
//! ```text
//! forward:   one read       log p_c = (z_c − max) − log Σᵥ e^{zᵥ − max}
//! backward:  one read, one write        dzᵥ = g · ([v = c] − pᵥ)
//! ```
//! Rows that do not count are neither read nor computed. They hold 0, and their gradient is exactly 0.
//! Each row is computed by one thread, so the number of threads changes no result. A small number of
//! logits stays on the calling thread.

mod element;
mod infinite;
mod row;

use super::statistics::Statistics;
use candle_core::{CpuStorage, CustomOp1, DType, InplaceOp1, Layout, Result, Shape, Tensor, bail};
use element::{Element, Width};
use half::{bf16, f16};
use rayon::prelude::*;
pub(super) use row::Row;
use row::Slopes;
use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

/// The target of a row that does not count.
pub(super) const IGNORE: u32 = u32::MAX;

/// Up to this many logits no other thread is woken, because waking one takes longer than reading them.
pub(super) const FEW: usize = 1 << 15;

/// log p of the chosen token, and the other statistics requested, side by side: `[…, columns]`.
///
/// `logits` `[…, vocabulary]`, contiguous, on the CPU; one target per row, in range or [`IGNORE`].
pub(super) fn select(logits: &Tensor, targets: Arc<Vec<u32>>, ask: Statistics) -> Result<Tensor> {
    logits.apply_op1(Select::new(targets, ask))
}

pub(super) struct Select {
    targets: Arc<Vec<u32>>,
    ask: Statistics,
    /// Each row's statistics, kept for the backward pass.
    rows: OnceLock<Vec<Row>>,
}

/// The columns of the result, in their order.
pub(super) fn columns(ask: Statistics) -> usize {
    1 + ask.entropy as usize + ask.vocabulary_mean as usize + ask.log_collision as usize
}

/// The coefficients of a row's gradient from that of its columns.
fn slopes(ask: Statistics, stats: &Row, grad: &[f64]) -> Slopes {
    let mut grad = grad.iter().copied();
    let mut next = || grad.next().unwrap_or(0.0);
    // log p_c = z_c − lse
    let chosen = next();
    let mut slopes = Slopes {
        onehot: chosen,
        plain: -chosen,
        ..Slopes::default()
    };
    // dH/dz = −p (log p + H)
    if ask.entropy {
        let g = next();
        slopes.entropy = -g;
        slopes.plain += g * (stats.log_sum() - stats.entropy());
    }
    // d mean/dz = 1/V − p
    if ask.vocabulary_mean {
        let g = next();
        slopes.even = g / stats.count;
        slopes.plain -= g;
    }
    // d log Σp²/dz = 2 (p² / Σp² − p)
    if ask.log_collision {
        let g = next();
        slopes.squares = 2.0 * g / stats.squares;
        slopes.plain -= 2.0 * g;
    }
    slopes
}

impl Select {
    /// For logits with one target per row, in range or [`IGNORE`].
    pub(super) fn new(targets: Arc<Vec<u32>>, ask: Statistics) -> Self {
        Self {
            targets,
            ask,
            rows: OnceLock::new(),
        }
    }

    fn forward<T: Element>(&self, logits: &[T], vocabulary: usize) -> Vec<f64> {
        let ask = self.ask;
        let full = ask != Statistics::default();
        let width = Width::widest();
        let statistics = |(row, &target): (&[T], &u32)| match target {
            IGNORE => Row::default(),
            _ => infinite::statistics(width, row, full),
        };
        let rows: Vec<Row> = match logits.len() <= FEW {
            true => logits
                .chunks(vocabulary)
                .zip(self.targets.iter())
                .map(statistics)
                .collect(),
            false => logits
                .par_chunks(vocabulary)
                .zip(self.targets.par_iter())
                .map(statistics)
                .collect(),
        };
        let mut out = Vec::with_capacity(rows.len() * columns(ask));
        for (i, (stats, &target)) in rows.iter().zip(self.targets.iter()).enumerate() {
            let counts = target != IGNORE;
            let value = |x: f64| if counts { x } else { 0.0 };
            out.push(value(match counts {
                true => stats.log_p(logits[i * vocabulary + target as usize].to_f64()),
                false => 0.0,
            }));
            if ask.entropy {
                out.push(value(stats.entropy()));
            }
            if ask.vocabulary_mean {
                out.push(value(stats.mean()));
            }
            if ask.log_collision {
                out.push(value(stats.log_collision()));
            }
        }
        // set once: an operation runs forward once
        let _ = self.rows.set(rows);
        out
    }

    fn backward<T: Element>(
        &self,
        logits: &[T],
        vocabulary: usize,
        grad: &[f64],
    ) -> Result<Vec<T>> {
        let rows = self.rows();
        let columns = columns(self.ask);
        let whole = rows.len() * vocabulary == logits.len()
            && rows.len() == self.targets.len()
            && rows.len() * columns == grad.len();
        if !whole {
            bail!("selective log-softmax: rows, targets and gradients are not of one number");
        }
        let width = Width::widest();
        let mut out: Vec<T> = Vec::with_capacity(logits.len());
        let one =
            |out: &mut [MaybeUninit<T>], row: &[T], stats: &Row, target: u32, grad: &[f64]| {
                if target == IGNORE || grad.iter().all(|g| *g == 0.0) {
                    out.fill(MaybeUninit::new(T::default()));
                    return;
                }
                let slopes = slopes(self.ask, stats, grad);
                infinite::gradient(width, row, stats, &slopes, target as usize, out);
            };
        let place = &mut out.spare_capacity_mut()[..logits.len()];
        match logits.len() <= FEW {
            true => place
                .chunks_mut(vocabulary)
                .zip(logits.chunks(vocabulary))
                .zip(rows.iter().zip(self.targets.iter()))
                .zip(grad.chunks(columns))
                .for_each(|(((out, row), (stats, &t)), grad)| one(out, row, stats, t, grad)),
            false => place
                .par_chunks_mut(vocabulary)
                .zip(logits.par_chunks(vocabulary))
                .zip(rows.par_iter().zip(self.targets.par_iter()))
                .zip(grad.par_chunks(columns))
                .for_each(|(((out, row), (stats, &t)), grad)| one(out, row, stats, t, grad)),
        }
        // SAFETY: there are as many rows, targets and gradients as chunks (checked), so every chunk was
        // visited. Each visit wrote its whole chunk: with zeros, or in `gradient`, whose loops run over
        // all of `out` (its blocks and those of the row are equal in number and length).
        #[allow(unsafe_code)]
        unsafe {
            out.set_len(logits.len())
        };
        Ok(out)
    }
}

/// What the gradients of the rows are computed from. All rows count.
pub(super) struct RowGradients {
    rows: Vec<(Row, Slopes)>,
    targets: Arc<Vec<u32>>,
}

impl RowGradients {
    /// From the rows' statistics and the gradient of their columns.
    pub(super) fn new(
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
    pub(super) fn write_over(&self, logits: &Tensor, row: usize, symbol: usize) -> Result<()> {
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

fn slice<'a, T>(data: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("selective log-softmax: the logits are not contiguous"),
    }
}

impl CustomOp1 for Select {
    fn name(&self) -> &'static str {
        "selective-log-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut shape = layout.dims().to_vec();
        let vocabulary = match shape.last_mut() {
            Some(last) => std::mem::replace(last, columns(self.ask)),
            None => bail!("selective log-softmax: the logits are a scalar"),
        };
        let single = |out: Vec<f64>| CpuStorage::F32(out.into_iter().map(|x| x as f32).collect());
        let out = match storage {
            CpuStorage::F32(data) => single(self.forward(slice(data, layout)?, vocabulary)),
            CpuStorage::BF16(data) => {
                single(self.forward::<bf16>(slice(data, layout)?, vocabulary))
            }
            CpuStorage::F16(data) => single(self.forward::<f16>(slice(data, layout)?, vocabulary)),
            CpuStorage::F64(data) => {
                CpuStorage::F64(self.forward(slice(data, layout)?, vocabulary))
            }
            _ => bail!("selective log-softmax: logits must be f32, f64, bf16 or f16"),
        };
        Ok((out, Shape::from(shape)))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(logits, grad).map(Some)
    }
}

impl Select {
    /// The rows' statistics, empty before the forward pass.
    pub(super) fn rows(&self) -> &[Row] {
        self.rows.get().map(Vec::as_slice).unwrap_or(&[])
    }

    /// The gradient of the logits from that of the columns, after the forward pass.
    pub(super) fn gradient(&self, logits: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let vocabulary = logits.dim(candle_core::D::Minus1)?;
        let grad = grad.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let (storage, layout) = logits.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            bail!("selective log-softmax: the logits have left the CPU")
        };
        let device = logits.device();
        let shape = logits.shape();
        let out = match storage {
            CpuStorage::F32(data) => Tensor::from_vec(
                self.backward(slice(data, layout)?, vocabulary, &grad)?,
                shape,
                device,
            )?,
            CpuStorage::BF16(data) => Tensor::from_vec(
                self.backward(slice(data, layout)?, vocabulary, &grad)?,
                shape,
                device,
            )?,
            CpuStorage::F16(data) => Tensor::from_vec(
                self.backward(slice(data, layout)?, vocabulary, &grad)?,
                shape,
                device,
            )?,
            CpuStorage::F64(data) => Tensor::from_vec(
                self.backward(slice(data, layout)?, vocabulary, &grad)?,
                shape,
                device,
            )?,
            _ => bail!("selective log-softmax: logits must be f32, f64, bf16 or f16"),
        };
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_backward_pass_fits_its_forward_pass() {
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let (logits, grad) = (zeros((2, 3)), zeros((2, 1)));
        let op = Select::new(Arc::new(vec![0, 1]), Statistics::default());
        let refused = |logits: &Tensor, grad: &Tensor| {
            let error = op.gradient(logits, grad).unwrap_err().to_string();
            assert!(error.contains("are not of one number"), "{error}");
        };
        // nothing has run forward
        refused(&logits, &grad);
        logits.apply_op1_no_bwd(&op).unwrap();
        assert!(op.gradient(&logits, &grad).is_ok());
        refused(&logits, &zeros((1, 1)));
        refused(&zeros((3, 3)), &grad);
    }

    #[test]
    fn few_logits_and_many_give_the_same_bits() {
        let (rows, vocabulary) = (40, 1000);
        assert!(rows * vocabulary > FEW && vocabulary <= FEW);
        let data: Vec<f32> = (0..rows * vocabulary)
            .map(|i| (i as f32 * 0.7).sin() * 9.0)
            .collect();
        let logits = Tensor::from_vec(data, (rows, vocabulary), &Device::Cpu).unwrap();
        let ask = Statistics {
            entropy: true,
            vocabulary_mean: true,
            log_collision: true,
        };
        let passes = |logits: &Tensor, targets: Vec<u32>| {
            let op = Select::new(Arc::new(targets.clone()), ask);
            let columns = logits.apply_op1_no_bwd(&op).unwrap();
            let gradient = op.gradient(logits, &columns).unwrap();
            let place = logits.copy().unwrap();
            let rows = RowGradients::new(ask, op.rows(), Arc::new(targets), &columns).unwrap();
            rows.write_over(&place, 0, 0).unwrap();
            [columns, gradient, place].map(|t| t.to_vec2::<f32>().unwrap())
        };
        let targets: Vec<u32> = (0..rows as u32).map(|row| row * 7).collect();
        let many = passes(&logits, targets.clone());
        for (row, target) in targets.into_iter().enumerate() {
            let few = passes(&logits.narrow(0, row, 1).unwrap(), vec![target]);
            for (few, many) in few.iter().zip(&many) {
                assert_eq!(few[0], many[row], "row {row}");
            }
        }
    }
}
