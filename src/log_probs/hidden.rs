//! Log-probabilities directly from hidden states, without ever storing all logits.

use super::head::OutputHead;
use super::inputs::{Ahead, after_the_first, logits_type, mask_of, row_targets};
use super::kernel::{self, IGNORE};
use super::statistics::Statistics;
use super::tiles::{Sizes, select};
use super::token::TokenLogProbs;
use crate::error::Result;
use crate::shape::Axes;
use candle_core::{DType, Tensor};

/// Memory for the logits that exist at one time.
const HELD_BYTES: usize = 80 << 20;

impl TokenLogProbs {
    /// From a causal model's last hidden states: position t of `hidden` predicts token t + 1.
    ///
    /// As [`TokenLogProbs::next_token_with`] on the logits of `head`, in chunks of rows. Neither
    /// pass holds more than one chunk of logits, and rows that do not count are never computed.
    /// With a frozen matrix, no trained bias and no further statistics, the gradient of the hidden
    /// states is computed in the forward pass (two matrix products in all). Otherwise the backward pass
    /// computes each chunk's logits again.
    ///
    /// # Shapes
    /// `hidden` `[batch, time, dim]`; `tokens` and `mask` `[batch, time]`; the values are
    /// `[batch, time − 1]`. Products are in f64 for f64 hidden states and in f32 otherwise; the
    /// weights are converted to that type.
    ///
    /// # Errors
    /// As [`TokenLogProbs::next_token`].
    #[doc(alias = "fused linear cross entropy")]
    #[doc(alias = "chunked cross entropy")]
    pub fn from_hidden(
        hidden: &Tensor,
        head: &OutputHead,
        tokens: &Tensor,
        mask: &Tensor,
        statistics: Statistics,
    ) -> Result<Self> {
        let function = "TokenLogProbs::from_hidden";
        let mut axes = Axes::new(function);
        let hidden = axes.axes("hidden", hidden, &["batch", "time", "dim"])?;
        axes.axes("head.weight", &head.weight, &["vocabulary", "dim"])?;
        let tokens = axes.index("tokens", tokens, &["batch", "time"])?;
        let mask = mask_of(&mut axes, mask, &tokens, Ahead::Tokens)?;
        let (batch, time, dim) = hidden.dims3()?;
        let (tokens, mask) = after_the_first(function, &tokens, &mask)?;
        let vocabulary = head.weight.dim(0)?;
        let targets = row_targets(function, "tokens", &tokens, &mask, 1, vocabulary)?;

        let compute = match hidden.dtype() {
            DType::F64 => DType::F64,
            DType::F32 | DType::BF16 | DType::F16 => DType::F32,
            other => return Err(logits_type(function, "hidden", other)),
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
            let held = HELD_BYTES / compute.size_in_bytes();
            let sizes = Sizes::new(held, targets.len(), vocabulary);
            let selected = select(&rows, &head, targets, statistics, sizes)?;
            table = table.index_add(&counted, &selected, 0)?;
        }
        let table = table
            .reshape((batch, time, columns))?
            .narrow(1, 0, time - 1)?;
        Self::from_columns(&table, &mask, statistics)
    }
}
