//! Log-probabilities of chosen tokens.

use crate::error::non_negative;
use crate::math::{at_least_one, mask_count, masked, masked_sum};
use crate::shape::Axes;
use crate::{Error, Result};
use candle_core::{D, DType, Tensor};
use candle_nn::ops::log_softmax;

/// What else to compute from the logits, beside the log-probability of the chosen token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// H = −Σᵥ pᵥ log pᵥ per token, for an entropy bonus.
    pub entropy: bool,
    /// (1/V) Σᵥ log pᵥ per token, for label smoothing.
    pub vocabulary_mean: bool,
}

/// The log-probability of every token of a batch, and which of them count.
///
/// Positions that do not count hold exactly 0 and get no gradient, whatever the logits or the
/// token there: padding, a prompt, NaN.
#[derive(Clone, Debug)]
pub struct TokenLogProbs {
    values: Tensor,
    mask: Tensor,
    entropy: Option<Tensor>,
    vocabulary_mean: Option<Tensor>,
}

impl TokenLogProbs {
    /// From a causal model's output: position t of `logits` predicts token t + 1.
    ///
    /// # Equation
    /// ```text
    /// values[b, t] = logits[b, t, yₜ₊₁] − log Σᵥ e^{logits[b, t, v]}        where mask[b, t+1] ≠ 0
    /// ```
    /// The mask belongs to the tokens: set it on the answer and its end-of-sequence token, leave it
    /// 0 on the prompt and on padding. The mask of the first token is never read, since nothing
    /// predicts it.
    ///
    /// # Shapes
    /// `logits` `[batch, time, vocabulary]` in f32, f64, bf16 or f16; `tokens` `[batch, time]` in
    /// u32 or i64; `mask` `[batch, time]` in u8. Values are `[batch, time − 1]`, f64 for f64 logits
    /// and f32 otherwise.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] as above; [`Error::Argument`] if fewer than two
    /// positions are given or a token that counts is not in `0..vocabulary`. Tokens under the mask
    /// may be anything, −100 included.
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
        axes.axes("logits", logits, &["batch", "time", "vocabulary"])?;
        axes.index("tokens", tokens, &["batch", "time"])?;
        axes.mask("mask", mask, &["batch", "time"])?;
        let time = tokens.dim(1)?;
        if time < 2 {
            return Err(Error::argument(
                function,
                "tokens",
                format!("has {time} position(s); the first predicts the second, so two are needed"),
            ));
        }
        compute(
            function,
            &logits.narrow(1, 0, time - 1)?,
            &tokens.narrow(1, 1, time - 1)?,
            &mask.narrow(1, 1, time - 1)?,
            statistics,
        )
    }

    /// From logits that already stand at the position of the token they predict: no shift.
    ///
    /// # Shapes
    /// `logits` `[batch, time, vocabulary]`, `targets` and `mask` `[batch, time]`; values
    /// `[batch, time]`. Element types as for [`TokenLogProbs::next_token`].
    ///
    /// # Errors
    /// As [`TokenLogProbs::next_token`], without the two positions.
    pub fn aligned(
        logits: &Tensor,
        targets: &Tensor,
        mask: &Tensor,
        statistics: Statistics,
    ) -> Result<Self> {
        let function = "TokenLogProbs::aligned";
        let mut axes = Axes::new(function);
        axes.axes("logits", logits, &["batch", "time", "vocabulary"])?;
        axes.index("targets", targets, &["batch", "time"])?;
        axes.mask("mask", mask, &["batch", "time"])?;
        compute(function, logits, targets, mask, statistics)
    }

    /// From log-probabilities computed elsewhere, such as a cached reference.
    ///
    /// # Errors
    /// [`Error::Shape`] unless both are `[batch, time]`, [`Error::DType`] unless the values are f32
    /// or f64 and the mask u8.
    pub fn new(values: &Tensor, mask: &Tensor) -> Result<Self> {
        let mut axes = Axes::new("TokenLogProbs::new");
        axes.float("values", values, &["batch", "time"])?;
        axes.mask("mask", mask, &["batch", "time"])?;
        Ok(Self {
            values: masked(values, mask)?,
            mask: mask.clone(),
            entropy: None,
            vocabulary_mean: None,
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

    /// log π(y│x) / |y|: `[batch]`; 0 for a sequence that counts no token.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn mean(&self) -> Result<Tensor> {
        self.length_penalised(1.0)
    }

    /// log π(y│x) / |y|^α: `[batch]`; α = 0 is the sum, α = 1 the mean. 0 for a sequence that
    /// counts no token.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless α is finite and not negative.
    pub fn length_penalised(&self, alpha: f64) -> Result<Tensor> {
        non_negative("TokenLogProbs::length_penalised", "alpha", alpha)?;
        let penalty = at_least_one(&self.lengths()?)?.powf(alpha)?;
        Ok((self.sum()? / penalty)?)
    }

    /// The same numbers without their history: a reference or an old policy.
    pub fn detach(&self) -> Self {
        Self {
            values: self.values.detach(),
            mask: self.mask.clone(),
            entropy: self.entropy.as_ref().map(Tensor::detach),
            vocabulary_mean: self.vocabulary_mean.as_ref().map(Tensor::detach),
        }
    }
}

/// The work behind both constructors, after their shapes were checked.
fn compute(
    function: &'static str,
    logits: &Tensor,
    targets: &Tensor,
    mask: &Tensor,
    statistics: Statistics,
) -> Result<TokenLogProbs> {
    let (batch, time, vocabulary) = logits.dims3()?;
    let logits = match logits.dtype() {
        DType::F32 | DType::F64 => logits.clone(),
        DType::BF16 | DType::F16 => logits.to_dtype(DType::F32)?,
        other => {
            return Err(Error::DType {
                function,
                argument: "logits".to_string(),
                found: other.as_str(),
                expected: "f32, f64, bf16 or f16".to_string(),
            });
        }
    };
    let targets = counted_targets(function, targets, mask, vocabulary)?;

    // A row that does not count becomes a row of zeros: what stood there cannot reach the softmax.
    let counts = mask.unsqueeze(2)?.broadcast_as((batch, time, vocabulary))?;
    let log_p = log_softmax(&masked(&logits, &counts)?, D::Minus1)?;

    // log p of the chosen token
    let chosen = log_p.gather(&targets.unsqueeze(2)?, 2)?.squeeze(2)?;

    // H = −Σᵥ pᵥ log pᵥ, where 0 · log 0 = 0
    let entropy = match statistics.entropy {
        true => {
            let p = log_p.exp()?;
            let terms = (&p * masked(&log_p, &p.gt(0.0)?)?)?;
            Some(masked(&terms.sum(D::Minus1)?.neg()?, mask)?)
        }
        false => None,
    };

    // (1/V) Σᵥ log pᵥ
    let vocabulary_mean = match statistics.vocabulary_mean {
        true => Some(masked(&log_p.mean(D::Minus1)?, mask)?),
        false => None,
    };
    Ok(TokenLogProbs {
        values: masked(&chosen, mask)?,
        mask: mask.clone(),
        entropy,
        vocabulary_mean,
    })
}

/// The targets as i64, 0 where the mask does not count; an error for one outside the vocabulary.
fn counted_targets(
    function: &'static str,
    targets: &Tensor,
    mask: &Tensor,
    vocabulary: usize,
) -> Result<Tensor> {
    let targets = masked(
        &targets.to_dtype(DType::I64)?.contiguous()?,
        &mask.contiguous()?,
    )?;
    // Checked here: candle reads some indices out of range as "ignore" without an error.
    let flat = targets.flatten_all()?.to_vec1::<i64>()?;
    if let Some(at) = flat.iter().position(|&t| t < 0 || t >= vocabulary as i64) {
        let time = targets.dim(1)?;
        return Err(Error::argument(
            function,
            if function.ends_with("aligned") {
                "targets"
            } else {
                "tokens"
            },
            format!(
                "holds {} in row {}, outside the vocabulary of {vocabulary}",
                flat[at],
                at / time
            ),
        ));
    }
    Ok(targets)
}
