//! What a training loop needs of a language model.

use super::model::Decoder;
use crate::error::Result;
use crate::log_probs::{OutputHead, Statistics, TokenLogProbs};
use crate::ops::Segments;
use candle_core::{Tensor, Var};

/// What a pass through a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A step of training: with dropout, drawn from the seed.
    Train {
        /// The same seed drops the same elements.
        seed: u64,
    },
    /// The same model without dropout.
    Evaluation,
    /// The model without its adapters, and without dropout: the frozen reference of a trained adapter.
    Reference,
}

/// A causal language model: all that a training loop needs of it. [`Decoder`] is one. A model of yours
/// becomes one with three methods.
///
/// ```
/// use candle_align::decoder::{LanguageModel, Mode};
/// use candle_align::ops::Segments;
/// use candle_align::{OutputHead, Result};
/// use candle_core::{DType, Device, Tensor, Var};
///
/// /// A bigram model: the next token depends on the last one only.
/// struct Bigram {
///     embedding: Var,
///     head: Var,
/// }
///
/// impl LanguageModel for Bigram {
///     fn forward(&self, tokens: &[u32], _: &Segments, _: Mode) -> Result<Tensor> {
///         let ids = Tensor::new(tokens, &Device::Cpu)?;
///         Ok(self.embedding.index_select(&ids, 0)?)
///     }
///
///     fn head(&self) -> Result<OutputHead> {
///         OutputHead::new(self.head.as_tensor(), None)
///     }
///
///     fn vars(&self) -> Vec<(String, Var)> {
///         let vars = [("embedding", &self.embedding), ("head", &self.head)];
///         vars.map(|(name, var)| (name.to_string(), var.clone())).into()
///     }
/// }
///
/// let zeros = || Var::zeros((8, 2), DType::F32, &Device::Cpu);
/// let model = Bigram { embedding: zeros()?, head: zeros()? };
/// let (segments, tokens) = Segments::from_tokens(&[vec![1u32, 5, 7], vec![2, 3]])?;
/// let counts = Tensor::new(&[[0u8, 1, 1], [0, 1, 0]], &Device::Cpu)?;
/// let log_probs = model.log_probs(&tokens, &segments, &counts, Mode::Evaluation)?;
/// let sums = log_probs.sum()?.to_vec1::<f32>()?;
/// assert!((sums[0] + 2.0 * 8f32.ln()).abs() < 1e-6 && (sums[1] + 8f32.ln()).abs() < 1e-6);
/// # Ok::<(), candle_align::Error>(())
/// ```
pub trait LanguageModel {
    /// The last hidden states `[tokens, hidden]` of a flat batch.
    ///
    /// # Errors
    /// Those of the model.
    fn forward(&self, tokens: &[u32], segments: &Segments, mode: Mode) -> Result<Tensor>;

    /// The output layer over the vocabulary.
    ///
    /// # Errors
    /// Those of the model.
    fn head(&self) -> Result<OutputHead>;

    /// The trained variables by name.
    fn vars(&self) -> Vec<(String, Var)>;

    /// The log-probabilities `[rows, time − 1]` of the tokens that `mask` `[rows, time]` counts, rows as in
    /// [`Segments::to_rows`]. The logits are never stored whole.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`] and [`TokenLogProbs::from_hidden`].
    fn log_probs(
        &self,
        tokens: &[u32],
        segments: &Segments,
        mask: &Tensor,
        mode: Mode,
    ) -> Result<TokenLogProbs> {
        let hidden = self.forward(tokens, segments, mode)?;
        let tokens = segments.to_rows(&Tensor::new(tokens, hidden.device())?)?;
        let (hidden, head) = (segments.to_rows(&hidden)?, self.head()?);
        TokenLogProbs::from_hidden(&hidden, &head, &tokens, mask, Statistics::default())
    }
}

impl LanguageModel for Decoder {
    fn forward(&self, tokens: &[u32], segments: &Segments, mode: Mode) -> Result<Tensor> {
        self.pass("Decoder::forward", tokens, segments, mode)
    }

    fn head(&self) -> Result<OutputHead> {
        self.head()
    }

    fn vars(&self) -> Vec<(String, Var)> {
        self.vars()
    }
}
