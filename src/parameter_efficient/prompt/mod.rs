//! Prompt tuning: learned vectors before the input (survey §3.3, supplementary parameters).
//!
//! In one sentence: put p vectors that belong to no token in front of the embedded input, and train
//! nothing but them.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | P_e | [`PromptEmbedding::values`] | `[length, dim]` |
//! | p, e | [`PromptConfig::length`], the width of the table | numbers |
//! | X_e | argument of [`PromptEmbedding::prepend`] | `[batch, time, dim]` |
//! | \[P_e; X_e\] | its result | `[batch, length + time, dim]` |
//!
//! Read next: [`prefix`](crate::parameter_efficient::prefix), which puts learned vectors into every layer.

mod start;

pub use start::{PromptConfig, PromptInit};

use crate::error::{Error, Result};
use crate::known::readable;
use crate::parameter_efficient::low_rank::named;
use crate::shape::{Axes, fits_trained};
use candle_core::{Tensor, Var};
use candle_nn::Module;
use rand::Rng;

/// Trained vectors in front of the embedded input.
///
/// # Equation
/// ```text
/// P(Y │ [P_e; X_e]),      P_e ∈ ℝ^{p × e} trained, everything else frozen
/// ```
/// # Shapes
/// `table`, the model's embeddings, `[vocabulary, dim]` in f32, f64, bf16 or f16; the vectors
/// `[length, dim]` are f64 for an f64 table and f32 for any other. `embeddings` `[batch, time, dim]`
/// in that type, or in a half type where that type is f32; the result is
/// `[batch, length + time, dim]` in the type of `embeddings`.
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] as above. From [`PromptEmbedding::new`] [`Error::Parameter`]
/// unless p ≥ 1 and [within the limits](super#sizes) and `common` ≥ 1; [`Error::Argument`] for an empty
/// text or label, for more labels than positions, and for a token outside the table.
/// # Properties
/// * p·e numbers are trained. The table gets no gradient and does not change.
/// * Virtual positions carry no loss: with [`PromptEmbedding::tokens`] and
///   [`PromptEmbedding::loss_mask`] the loss of the longer rows is that of the rows after
///   [`PromptEmbedding::cut`]. The longer rows allow one more token to be learned: the first one, which
///   the last virtual position predicts.
/// * Disabled, nothing is prepended, extended or cut: it is exactly the base model.
/// * A prompt made of a text's own rows acts as if the model read that text first, provided that no
///   position embedding tells them apart.
/// * A clone shares the vectors with its original.
/// # Departures
/// The paper's text-to-text model has relative positions. With rotary or absolute positions, a model that
/// reads the longer rows counts the prompt by itself, as PEFT's do: the vectors take positions 0 to
/// p − 1, and the first token position p. A model that numbers only the tokens must add
/// [`PromptEmbedding::virtual_positions`]. The paper's code drops labels that find no position, with a
/// warning; here they are an error. PEFT draws vocabulary from the whole table and may draw a row twice;
/// its random start is N(0, 1).
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{PromptConfig, PromptEmbedding, PromptInit};
/// use candle_core::{Device, Tensor};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let table = Tensor::new(&[[1.0f64, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
/// let init = PromptInit::Labels { labels: vec![vec![0, 2], vec![1]], common: 5000 };
/// let config = PromptConfig { length: 2, init };
/// let prompt = PromptEmbedding::new(&table, &config, &mut StdRng::seed_from_u64(0))?;
///
/// let x = Tensor::new(&[[[7.0f64, 8.0]]], &Device::Cpu)?;
/// let longer = prompt.prepend(&x)?;
/// let want = [[(1.0 + 5.0) / 2.0, (2.0 + 6.0) / 2.0], [3.0, 4.0], [7.0, 8.0]];
/// assert_eq!(longer.to_vec3::<f64>()?, [want]);
/// assert_eq!(prompt.cut(&longer)?.to_vec3::<f64>()?, [[[7.0, 8.0]]]);
/// assert_eq!(prompt.parameters(), 2 * 2);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The norms of the vectors beside those of the table's rows. Vectors far longer than any token's mean
///   that the learning rate is too high.
/// * The loss with the prompt switched off. If it equals the loss with the prompt, the forward pass does
///   not call [`PromptEmbedding::prepend`].
/// * The number of positions in the loss: [`PromptEmbedding::loss_mask`] adds none.
/// # Try
/// * Is there a task that no prompt can solve on a frozen model?
///   `tests/optimum/prompt.rs::a_prompt_cannot_tell_inputs_apart_that_the_model_adds_up`
/// * Replace a text by its own embeddings: does the model notice?
///   `tests/identities/prompt.rs::a_prompt_of_tokens_is_those_tokens`
/// # Source
/// Lester, Al-Rfou and Constant 2021, arXiv:2104.08691v2, §2 and §3.2; authors' code
/// google-research/prompt-tuning, `prompts.py`, `from_sample_of_embeddings` and
/// `from_embedded_list`.
#[doc(alias = "soft prompt")]
#[doc(alias = "prompt tuning")]
#[doc(alias = "virtual tokens")]
#[derive(Clone, Debug)]
pub struct PromptEmbedding {
    values: Var,
    enabled: bool,
}

impl PromptEmbedding {
    /// A prompt at its start, for a model with this embedding table; `rng` draws the random parts.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless the table is `[vocabulary, dim]` in f32, f64, bf16 or
    /// f16; [`Error::Parameter`] for a length or a `common` of 0 or beyond the limits; [`Error::Argument`]
    /// for an empty text or label, for more labels than positions, and for a token outside the table.
    pub fn new(table: &Tensor, config: &PromptConfig, rng: &mut impl Rng) -> Result<Self> {
        let values = config.start("PromptEmbedding::new", table, rng)?;
        Ok(Self {
            values,
            enabled: true,
        })
    }

    /// A prompt with these vectors `[length, dim]`, such as those of a file; they are copied.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless they have that shape, in f32 or f64;
    /// [`Error::Argument`] if there are none.
    pub fn from_values(values: &Tensor) -> Result<Self> {
        let function = "PromptEmbedding::from_values";
        Axes::new(function).float("values", values, &["length", "dim"])?;
        if values.dim(0)? == 0 {
            return Err(Error::argument(function, "values", "holds no vector"));
        }
        Ok(Self {
            values: Var::from_tensor(&values.detach().copy()?)?,
            enabled: true,
        })
    }

    /// \[P_e; X_e\]: the vectors before each row of `embeddings`.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless `embeddings` is `[batch, time, dim]` in the type of the
    /// vectors or, where that is f32, in a half type.
    pub fn prepend(&self, embeddings: &Tensor) -> Result<Tensor> {
        let function = "PromptEmbedding::prepend";
        let (length, dim) = self.values.dims2()?;
        let mut axes = Axes::new(function);
        axes.axes("values", &self.values, &["length", "dim"])?;
        axes.axes("embeddings", embeddings, &["batch", "time", "dim"])?;
        let kind = (self.values.dtype(), "`values`");
        fits_trained(function, "embeddings", embeddings, kind)?;
        let embeddings = readable(embeddings)?;
        if !self.enabled {
            return Ok(embeddings);
        }
        let batch = embeddings.dim(0)?;
        let values = self.values.to_dtype(embeddings.dtype())?;
        let values = values.unsqueeze(0)?.broadcast_as((batch, length, dim))?;
        Ok(Tensor::cat(
            &[&values.contiguous()?, &embeddings.contiguous()?],
            1,
        )?)
    }

    /// Tokens of the longer rows: 0 at the virtual positions, which no mask counts.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless `tokens` is `[batch, time]` in u32 or i64.
    pub fn tokens(&self, tokens: &Tensor) -> Result<Tensor> {
        Axes::new("PromptEmbedding::tokens").index("tokens", tokens, &["batch", "time"])?;
        self.extend(tokens, 0.0)
    }

    /// Which positions of the longer rows count in a loss: no virtual position does.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless `mask` is `[batch, time]` in u8.
    pub fn loss_mask(&self, mask: &Tensor) -> Result<Tensor> {
        Axes::new("PromptEmbedding::loss_mask").mask("mask", mask, &["batch", "time"])?;
        self.extend(mask, 0.0)
    }

    /// Which positions of the longer rows may be attended to: every virtual position may.
    ///
    /// # Errors
    /// As [`PromptEmbedding::loss_mask`].
    pub fn attention_mask(&self, mask: &Tensor) -> Result<Tensor> {
        Axes::new("PromptEmbedding::attention_mask").mask("mask", mask, &["batch", "time"])?;
        self.extend(mask, 1.0)
    }

    fn extend(&self, x: &Tensor, with: f64) -> Result<Tensor> {
        let shape = (x.dim(0)?, self.virtual_positions());
        let before = Tensor::full(with, shape, x.device())?.to_dtype(x.dtype())?;
        Ok(Tensor::cat(&[&before, &readable(x)?], 1)?)
    }

    /// An output of the longer rows, `[batch, length + time, ..]`, without the virtual positions.
    ///
    /// # Errors
    /// [`Error::Argument`] if it has no second axis, or one shorter than the prompt.
    pub fn cut(&self, output: &Tensor) -> Result<Tensor> {
        let skip = self.virtual_positions();
        match output.dims().get(1) {
            Some(&time) if time >= skip => Ok(readable(&output.narrow(1, skip, time - skip)?)?),
            _ => Err(Error::argument(
                "PromptEmbedding::cut",
                "output",
                format!(
                    "has shape {:?}, without the {skip} virtual positions on its second axis",
                    output.dims()
                ),
            )),
        }
    }

    /// How many positions [`PromptEmbedding::prepend`] adds: p, or 0 while disabled.
    pub fn virtual_positions(&self) -> usize {
        match self.enabled {
            true => self.values.dims()[0],
            false => 0,
        }
    }

    /// P_e `[length, dim]`.
    pub fn values(&self) -> &Var {
        &self.values
    }

    /// How many numbers are trained: p·e.
    pub fn parameters(&self) -> usize {
        self.values.elem_count()
    }

    /// The trained variable, under the name in PEFT's files: `prompt_embeddings`.
    /// `prefix` as for [`Adapter::trainable`](crate::parameter_efficient::Adapter::trainable).
    pub fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        vec![named(prefix, "prompt_embeddings", &self.values)]
    }

    /// Switches the prompt off, which gives exactly the base model, or on again.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// Whether anything is prepended.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

impl Module for PromptEmbedding {
    /// [`PromptEmbedding::prepend`]: goes between the embeddings and the first block.
    fn forward(&self, embeddings: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.prepend(embeddings)?)
    }
}
