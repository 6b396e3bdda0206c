//! Log-probabilities of chosen tokens.

use super::inputs::{Ahead, after_the_first, logits_type, mask_of, not_empty, row_targets};
use super::statistics::Statistics;
use super::{composed, kernel};
use crate::error::{Result, non_negative};
use crate::known::readable;
use crate::math::{at_least_one, mask_count, masked, masked_sum};
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// The log-probability of every token of a batch, and which of them count.
///
/// Positions that do not count hold exactly 0 and get no gradient, whatever the logits or the token there
/// are: padding, a prompt, NaN.
#[doc(alias = "logprobs")]
#[derive(Clone, Debug)]
pub struct TokenLogProbs {
    values: Tensor,
    mask: Tensor,
    entropy: Option<Tensor>,
    vocabulary_mean: Option<Tensor>,
    log_collision: Option<Tensor>,
}

impl TokenLogProbs {
    /// From a causal model's output: position t of `logits` predicts token t + 1.
    ///
    /// # Equation
    /// ```text
    /// values[b, t] = logits[b, t, yₜ₊₁] − log Σᵥ e^{logits[b, t, v]}        where mask[b, t+1] ≠ 0
    /// ```
    /// The mask belongs to the tokens. Set it on the answer and its end-of-sequence token, and leave it
    /// 0 on the prompt and on padding. The mask of the first token is never read, since nothing
    /// predicts that token.
    ///
    /// # Shapes
    /// `logits` `[batch, time, vocabulary]` in f32, f64, bf16 or f16; `tokens` `[batch, time]` in
    /// u32 or i64; `mask` `[batch, time]` in u8. Values are `[batch, time − 1]`, f64 for f64 logits
    /// and f32 otherwise.
    ///
    /// A logit of −∞ means that the symbol is impossible; a logit of +∞ means that it is certain. Two logits
    /// of +∞, or a row of −∞ alone, are not a distribution and give NaN.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) as above;
    /// [`Error::Argument`](crate::Error::Argument) if fewer than two positions are given or a token that
    /// counts is not in `0..vocabulary`. Tokens that are masked out may be anything, including −100.
    #[doc(alias = "selective_log_softmax")]
    #[doc(alias = "shift logits")]
    pub fn next_token(logits: &Tensor, tokens: &Tensor, mask: &Tensor) -> Result<Self> {
        Self::next_token_with(logits, tokens, mask, Statistics::default())
    }

    /// As [`TokenLogProbs::next_token`], with further statistics of each distribution.
    ///
    /// # Errors
    /// As [`TokenLogProbs::next_token`].
    pub fn next_token_with(
        logits: &Tensor,
        tokens: &Tensor,
        mask: &Tensor,
        statistics: Statistics,
    ) -> Result<Self> {
        let function = "TokenLogProbs::next_token";
        let mut axes = Axes::new(function);
        let logits = axes.axes("logits", logits, &["batch", "time", "vocabulary"])?;
        let tokens = axes.index("tokens", tokens, &["batch", "time"])?;
        let mask = mask_of(&mut axes, mask, &tokens, Ahead::Tokens)?;
        let (tokens, mask) = after_the_first(function, &tokens, &mask)?;
        // the targets are shifted, not the logits, which would have to be copied
        let targets = row_targets(function, "tokens", &tokens, &mask, 1, logits.dim(2)?)?;
        compute(function, &logits, targets, &mask, statistics)
    }

    /// From logits that already are at the position of the token that they predict, without a shift.
    ///
    /// # Shapes
    /// `logits` `[batch, time, vocabulary]`, `targets` and `mask` `[batch, time]`; values
    /// `[batch, time]`. Element types as for [`TokenLogProbs::next_token`].
    ///
    /// # Errors
    /// As [`TokenLogProbs::next_token`], but one position is enough.
    pub fn aligned(
        logits: &Tensor,
        targets: &Tensor,
        mask: &Tensor,
        statistics: Statistics,
    ) -> Result<Self> {
        let function = "TokenLogProbs::aligned";
        let mut axes = Axes::new(function);
        let logits = axes.axes("logits", logits, &["batch", "time", "vocabulary"])?;
        let targets = axes.index("targets", targets, &["batch", "time"])?;
        let mask = mask_of(&mut axes, mask, &targets, Ahead::Predicted)?;
        let targets = row_targets(function, "targets", &targets, &mask, 0, logits.dim(2)?)?;
        compute(function, &logits, targets, &mask, statistics)
    }

    /// From log-probabilities computed elsewhere, such as a cached reference.
    ///
    /// Both belong to the predicted tokens. The mask is that of [`TokenLogProbs::next_token`] without its
    /// first column, as [`TokenLogProbs::mask`] returns it.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) unless both are `[batch, time]`,
    /// [`Error::DType`](crate::Error::DType) unless the values are f32 or f64 and the mask u8.
    pub fn new(values: &Tensor, mask: &Tensor) -> Result<Self> {
        let mut axes = Axes::new("TokenLogProbs::new");
        let values = axes.float("values", values, &["batch", "time"])?;
        let mask = mask_of(&mut axes, mask, &values, Ahead::Predicted)?;
        Ok(Self {
            values: masked(&values, &mask)?,
            mask,
            entropy: None,
            vocabulary_mean: None,
            log_collision: None,
        })
    }

    /// From columns side by side, `[batch, time, columns]`, in the order of [`kernel::select`].
    pub(super) fn from_columns(columns: &Tensor, mask: &Tensor, ask: Statistics) -> Result<Self> {
        let mut next = 0;
        let mut column = || -> Result<Tensor> {
            next += 1;
            readable(&columns.narrow(2, next - 1, 1)?.squeeze(2)?)
        };
        Ok(Self {
            values: column()?,
            mask: mask.clone(),
            entropy: ask.entropy.then(&mut column).transpose()?,
            vocabulary_mean: ask.vocabulary_mean.then(&mut column).transpose()?,
            log_collision: ask.log_collision.then(&mut column).transpose()?,
        })
    }

    /// log π(yₜ│x, y₍<t₎) `[batch, time]`, 0 where the mask does not count.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// Which positions count: u8 `[batch, time]`.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// The entropy of each distribution `[batch, time]`, if [`Statistics::entropy`] asked for it.
    pub fn entropy(&self) -> Option<&Tensor> {
        self.entropy.as_ref()
    }

    /// The mean log-probability over the vocabulary `[batch, time]`, if
    /// [`Statistics::vocabulary_mean`] asked for it.
    pub fn vocabulary_mean(&self) -> Option<&Tensor> {
        self.vocabulary_mean.as_ref()
    }

    /// log Σᵥ pᵥ² of each distribution `[batch, time]`, if [`Statistics::log_collision`] asked for it.
    pub fn log_collision(&self) -> Option<&Tensor> {
        self.log_collision.as_ref()
    }

    /// log π(y│x) = Σₜ log π(yₜ│x, y₍<t₎): one number per sequence, `[batch]`.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn sum(&self) -> Result<Tensor> {
        masked_sum(&self.values, &self.mask)
    }

    /// The number of tokens that count, |y|: `[batch]`, in the type of the values.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn lengths(&self) -> Result<Tensor> {
        mask_count(&self.mask, self.values.dtype())
    }

    /// log π(y│x) / |y|: `[batch]`, and 0 for a sequence that counts no token.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn mean(&self) -> Result<Tensor> {
        self.length_penalized(1.0)
    }

    /// log π(y│x) / |y|^α: `[batch]`. α = 0 is the sum, and α = 1 is the mean. A sequence that counts no
    /// token has 0.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless α is finite and not negative.
    #[doc(alias = "length normalization")]
    pub fn length_penalized(&self, alpha: f64) -> Result<Tensor> {
        non_negative("TokenLogProbs::length_penalized", "alpha", alpha)?;
        let penalty = at_least_one(&self.lengths()?)?.powf(alpha)?;
        Ok((self.sum()? / penalty)?)
    }

    /// The same numbers without their history, as a reference or an old policy.
    pub fn detach(&self) -> Self {
        Self {
            values: self.values.detach(),
            mask: self.mask.clone(),
            entropy: self.entropy.as_ref().map(Tensor::detach),
            vocabulary_mean: self.vocabulary_mean.as_ref().map(Tensor::detach),
            log_collision: self.log_collision.as_ref().map(Tensor::detach),
        }
    }
}

/// The computation behind both constructors, after the check of shapes. `targets` holds one symbol per
/// row of the logits, or [`kernel::IGNORE`]. Positions past the end of the mask are left out.
fn compute(
    function: &'static str,
    logits: &Tensor,
    targets: Vec<u32>,
    mask: &Tensor,
    statistics: Statistics,
) -> Result<TokenLogProbs> {
    let (batch, time, _) = logits.dims3()?;
    if !matches!(
        logits.dtype(),
        DType::F32 | DType::F64 | DType::BF16 | DType::F16
    ) {
        return Err(logits_type(function, "logits", logits.dtype()));
    }
    not_empty(function, logits)?;
    // not reshaped, because each step of the graph costs another copy of the gradient
    let logits = logits.contiguous()?;
    let columns = match logits.device().is_cpu() {
        true => kernel::select(&logits, Arc::new(targets), statistics)?,
        false => composed::select_in_chunks(&logits, targets, statistics)?,
    };
    let columns = columns.reshape((batch, time, kernel::columns(statistics)))?;
    TokenLogProbs::from_columns(&columns.narrow(1, 0, mask.dim(1)?)?, mask, statistics)
}

/// The kernel's forward and backward pass, outside any graph.
pub(super) fn values_and_gradient(
    logits: &Tensor,
    targets: &Tensor,
    mask: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let function = "selective_log_softmax_with_gradient";
    let mut axes = Axes::new(function);
    let logits = axes.axes("logits", logits, &["batch", "time", "vocabulary"])?;
    let targets = axes.index("targets", targets, &["batch", "time"])?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    not_empty(function, &logits)?;
    let targets = row_targets(function, "targets", &targets, &mask, 0, logits.dim(2)?)?;
    let op = kernel::Select::new(Arc::new(targets), Statistics::default());
    let values = logits.apply_op1_no_bwd(&op)?;
    let gradient = op.gradient(&logits, &values.ones_like()?)?;
    Ok((values, gradient))
}
