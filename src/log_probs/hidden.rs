//! Log-probabilities straight from hidden states: the logits are never stored whole.

use super::kernel::{self, IGNORE};
use super::statistics::Statistics;
use super::token::{TokenLogProbs, row_targets};
use super::{composed, recomputed};
use crate::error::positive;
use crate::shape::Axes;
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor, Var, bail};
use std::sync::Arc;

/// Memory for the logits of one chunk of rows.
const CHUNK_BYTES: usize = 80 << 20;

/// The output layer of a language model: `logits = cap · tanh( (h Wᵀ + b) / cap ) / temperature`.
#[derive(Clone, Debug)]
pub struct OutputHead {
    weight: Tensor,
    bias: Option<Tensor>,
    temperature: f64,
    soft_cap: Option<f64>,
}

impl OutputHead {
    /// From the output matrix `[vocabulary, dim]` and, if there is one, its bias `[vocabulary]`.
    ///
    /// A matrix with a history (a variable, or what was computed from one) gets a gradient; any
    /// other is frozen, and nothing is computed or kept for it.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the two agree, [`Error::Argument`] for a vocabulary of 0.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let function = "OutputHead::new";
        let mut axes = Axes::new(function);
        axes.axes("weight", weight, &["vocabulary", "dim"])?;
        if let Some(bias) = bias {
            axes.axes("bias", bias, &["vocabulary"])?;
        }
        if weight.dim(0)? == 0 {
            return Err(Error::argument(function, "weight", "has a vocabulary of 0"));
        }
        Ok(Self {
            weight: weight.clone(),
            bias: bias.cloned(),
            temperature: 1.0,
            soft_cap: None,
        })
    }

    /// Divides the logits by a temperature.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless it is finite and > 0.
    pub fn with_temperature(mut self, temperature: f64) -> Result<Self> {
        positive("OutputHead::with_temperature", "temperature", temperature)?;
        self.temperature = temperature;
        Ok(self)
    }

    /// Keeps the logits within ±cap by a hyperbolic tangent, before the temperature.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless it is finite and > 0.
    pub fn with_soft_cap(mut self, cap: f64) -> Result<Self> {
        positive("OutputHead::with_soft_cap", "cap", cap)?;
        self.soft_cap = Some(cap);
        Ok(self)
    }

    /// The logits of these rows, from the weights as they stand in `self`.
    fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let mut logits = hidden.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            logits = logits.broadcast_add(bias)?;
        }
        if let Some(cap) = self.soft_cap {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        match self.temperature {
            1.0 => Ok(logits),
            temperature => logits / temperature,
        }
    }

    /// From the gradient of the logits to that of h Wᵀ + b.
    fn before_cap(&self, gradient: Tensor, logits: &Tensor) -> candle_core::Result<Tensor> {
        let gradient = match self.soft_cap {
            // 1 − tanh²
            Some(cap) => {
                let tanh = (logits * (self.temperature / cap))?;
                (gradient * tanh.sqr()?.affine(-1.0, 1.0)?)?
            }
            None => gradient,
        };
        match self.temperature {
            1.0 => Ok(gradient),
            temperature => gradient / temperature,
        }
    }
}

impl TokenLogProbs {
    /// From a causal model's last hidden states: position t of `hidden` predicts token t + 1.
    ///
    /// As [`TokenLogProbs::next_token_with`] on the logits of `head`, in chunks of rows: neither
    /// pass holds more than one chunk of logits, and rows that do not count are never computed.
    /// With a frozen matrix, no bias to train and no further statistics, the gradient of the hidden
    /// states is found in the forward pass (two matrix products in all); otherwise each chunk's
    /// logits are computed again in the backward pass.
    ///
    /// # Shapes
    /// `hidden` `[batch, time, dim]`; `tokens` and `mask` `[batch, time]`; the values are
    /// `[batch, time − 1]`. Products are in f64 for f64 hidden states and in f32 otherwise; the
    /// weights are converted to that type.
    ///
    /// # Errors
    /// As [`TokenLogProbs::next_token`].
    pub fn from_hidden(
        hidden: &Tensor,
        head: &OutputHead,
        tokens: &Tensor,
        mask: &Tensor,
        statistics: Statistics,
    ) -> Result<Self> {
        let function = "TokenLogProbs::from_hidden";
        let mut axes = Axes::new(function);
        axes.axes("hidden", hidden, &["batch", "time", "dim"])?;
        axes.axes("head.weight", &head.weight, &["vocabulary", "dim"])?;
        axes.index("tokens", tokens, &["batch", "time"])?;
        axes.mask("mask", mask, &["batch", "time"])?;
        let (batch, time, dim) = hidden.dims3()?;
        let (tokens, mask) = super::token::after_the_first(function, tokens, mask)?;
        let vocabulary = head.weight.dim(0)?;
        let targets = row_targets(function, "tokens", &tokens, &mask, 1, vocabulary)?;

        let compute = match hidden.dtype() {
            DType::F64 => DType::F64,
            DType::F32 | DType::BF16 | DType::F16 => DType::F32,
            other => return Err(super::token::logits_type(function, "hidden", other)),
        };
        let head = OutputHead {
            weight: head.weight.to_dtype(compute)?,
            bias: head
                .bias
                .as_ref()
                .map(|b| b.to_dtype(compute))
                .transpose()?,
            ..head.clone()
        };
        let device = hidden.device();
        let columns = kernel::columns(statistics);
        let counted: Vec<u32> = (0u32..)
            .zip(&targets)
            .filter(|(_, target)| **target != IGNORE)
            .map(|(row, _)| row)
            .collect();
        let mut table = Tensor::zeros((batch * time, columns), compute, device)?;
        if !counted.is_empty() {
            let targets: Vec<u32> = counted.iter().map(|&row| targets[row as usize]).collect();
            let counted = Tensor::new(counted.as_slice(), device)?;
            let rows = hidden.reshape((batch * time, dim))?;
            let rows = rows.index_select(&counted, 0)?.to_dtype(compute)?;
            let chunk = CHUNK_BYTES / (vocabulary * compute.size_in_bytes());
            let selected = select(&rows, &head, targets, statistics, chunk.clamp(16, 4096))?;
            table = table.index_add(&counted, &selected, 0)?;
        }
        let table = table
            .reshape((batch, time, columns))?
            .narrow(1, 0, time - 1)?;
        Self::from_columns(&table, &mask, statistics)
    }
}

/// One chunk: its rows of hidden states, their targets, and what the forward pass leaves.
struct Chunk {
    hidden: Tensor,
    logits: Tensor,
    columns: Tensor,
    op: Option<kernel::Select>,
    targets: Vec<u32>,
    ask: Statistics,
}

impl Chunk {
    fn new(hidden: Tensor, head: &OutputHead, targets: &[u32], ask: Statistics) -> Result<Self> {
        let logits = head.logits(&hidden)?;
        let targets = targets.to_vec();
        let (op, columns) = match logits.device().is_cpu() {
            true => {
                let op = kernel::Select::new(Arc::new(targets.clone()), ask);
                let columns = logits.apply_op1_no_bwd(&op)?;
                (Some(op), columns)
            }
            false => (None, composed::select(&logits, &targets, ask)?),
        };
        Ok(Self {
            hidden,
            logits,
            columns,
            op,
            targets,
            ask,
        })
    }

    /// The gradient of h Wᵀ + b from that of the columns; the logits' memory serves for it if it can.
    fn backward(&self, head: &OutputHead, grad: &Tensor) -> Result<Tensor> {
        let gradient = match &self.op {
            Some(op) if head.soft_cap.is_none() => {
                op.gradient_in_place(&self.logits, grad)?;
                self.logits.clone()
            }
            Some(op) => op.gradient(&self.logits, grad)?,
            None => {
                let logits = Var::from_tensor(&self.logits)?;
                let columns = composed::select(&logits, &self.targets, self.ask)?;
                let mut grads = (columns * grad)?.sum_all()?.backward()?;
                grads
                    .remove(&logits)
                    .map_or_else(|| logits.zeros_like(), Ok)?
            }
        };
        Ok(head.before_cap(gradient, &self.logits)?)
    }
}

/// The rows of each chunk: first and number.
fn spans(rows: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows)
        .step_by(size)
        .map(move |from| (from, size.min(rows - from)))
}

/// The columns of every row of `hidden` `[rows, dim]`, with their gradients, `chunk` rows at a time.
fn select(
    hidden: &Tensor,
    head: &OutputHead,
    targets: Vec<u32>,
    ask: Statistics,
    chunk: usize,
) -> Result<Tensor> {
    let trained = head.weight.track_op() || head.bias.as_ref().is_some_and(Tensor::track_op);
    let plain = OutputHead {
        weight: head.weight.detach(),
        bias: head.bias.as_ref().map(Tensor::detach),
        ..head.clone()
    };
    // with one column and frozen weights, a row's gradient is a number times a known direction
    let ahead = hidden.track_op() && !trained && ask == Statistics::default();
    let detached = hidden.detach();

    let (mut columns, mut directions) = (Vec::new(), Vec::new());
    for (from, n) in spans(hidden.dim(0)?, chunk) {
        let chunk = detached.narrow(0, from, n)?;
        let chunk = Chunk::new(chunk, &plain, &targets[from..from + n], ask)?;
        if ahead {
            let one = chunk.columns.ones_like()?;
            directions.push(chunk.backward(&plain, &one)?.matmul(&plain.weight)?);
        }
        columns.push(chunk.columns);
    }
    let columns = Tensor::cat(&columns, 0)?;
    if !hidden.track_op() && !trained {
        return Ok(columns);
    }
    if ahead {
        let directions = Tensor::cat(&directions, 0)?;
        let backward = move |grad: &Tensor| directions.broadcast_mul(grad);
        return Ok(hidden.apply_op1(recomputed::One::new(columns, backward))?);
    }

    let wants = (
        hidden.track_op(),
        head.weight.track_op(),
        head.bias.as_ref().is_some_and(Tensor::track_op),
    );
    let backward = move |hidden: &Tensor, grad: &Tensor| {
        gradients(hidden, &plain, &targets, ask, chunk, grad, wants)
    };
    let bias = match &head.bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(1, hidden.dtype(), hidden.device())?,
    };
    Ok(hidden.apply_op3(
        &head.weight,
        &bias,
        recomputed::Three::new(columns, backward),
    )?)
}

/// The gradients of hidden states, matrix and bias, of those that are wanted.
fn gradients(
    hidden: &Tensor,
    head: &OutputHead,
    targets: &[u32],
    ask: Statistics,
    chunk: usize,
    grad: &Tensor,
    (of_hidden, of_weight, of_bias): (bool, bool, bool),
) -> Result<[Option<Tensor>; 3]> {
    let (mut to_hidden, mut to_weight, mut to_bias) = (Vec::new(), Sum::default(), Sum::default());
    for (from, n) in spans(hidden.dim(0)?, chunk) {
        let chunk = hidden.detach().narrow(0, from, n)?;
        let chunk = Chunk::new(chunk, head, &targets[from..from + n], ask)?;
        let gradient = chunk.backward(head, &grad.narrow(0, from, n)?)?;
        if of_hidden {
            to_hidden.push(gradient.matmul(&head.weight)?);
        }
        if of_weight {
            to_weight.add(gradient.t()?.matmul(&chunk.hidden)?)?;
        }
        if of_bias {
            to_bias.add(gradient.sum(0)?)?;
        }
    }
    let to_hidden = match of_hidden {
        true => Some(Tensor::cat(&to_hidden, 0)?),
        false => None,
    };
    Ok([to_hidden, to_weight.0, to_bias.0])
}

/// A sum of tensors, added up in the memory of the first.
#[derive(Default)]
struct Sum(Option<Tensor>);

impl Sum {
    fn add(&mut self, term: Tensor) -> candle_core::Result<()> {
        match &self.0 {
            None => self.0 = Some(term),
            Some(total) if total.device().is_cpu() => {
                total.inplace_op2(&term.contiguous()?, &AddTo)?
            }
            Some(total) => self.0 = Some((total + term)?),
        }
        Ok(())
    }
}

struct AddTo;

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        "add-to"
    }

    fn cpu_fwd(
        &self,
        total: &mut CpuStorage,
        total_layout: &Layout,
        term: &CpuStorage,
        term_layout: &Layout,
    ) -> candle_core::Result<()> {
        use rayon::prelude::*;
        fn add<T: Copy + Send + Sync + std::ops::AddAssign>(
            total: &mut [T],
            total_layout: &Layout,
            term: &[T],
            term_layout: &Layout,
        ) -> candle_core::Result<()> {
            let (Some((a, b)), Some((c, d))) = (
                total_layout.contiguous_offsets(),
                term_layout.contiguous_offsets(),
            ) else {
                bail!("add-to: a term is not contiguous")
            };
            total[a..b]
                .par_chunks_mut(1 << 14)
                .zip(term[c..d].par_chunks(1 << 14))
                .for_each(|(total, term)| {
                    for (t, x) in total.iter_mut().zip(term) {
                        *t += *x;
                    }
                });
            Ok(())
        }
        match (total, term) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => add(a, total_layout, b, term_layout),
            (CpuStorage::F64(a), CpuStorage::F64(b)) => add(a, total_layout, b, term_layout),
            _ => bail!("add-to: terms of different types"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

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
            let numbers = |chunk: usize| {
                let head = match trained {
                    true => OutputHead::new(&weight, Some(&bias)),
                    false => OutputHead::new(&weight.as_detached_tensor(), None),
                };
                let out = select(&hidden, &head.unwrap(), targets.clone(), ask, chunk).unwrap();
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
            let whole = numbers(100);
            for chunk in [1, 2, 3, 7] {
                for (a, b) in numbers(chunk).iter().zip(&whole) {
                    assert!(
                        (a - b).abs() <= DOUBLE,
                        "chunks of {chunk}: {a} against {b}"
                    );
                }
            }
        }
    }
}
