//! Low-rank adaptation of an embedding table (LoRA's authors' code; beside survey Eq. 4).
//!
//! In one sentence: a token's vector plus a combination of r trained directions, with r trained
//! numbers per token.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | W₀ᵀ | [`LoraEmbedding::base`]: frozen, one row per token | `[vocabulary, dim]` |
//! | A | [`LoraEmbedding::a`] | `[rank, vocabulary]` |
//! | B | [`LoraEmbedding::b`] | `[dim, rank]` |
//! | ΔWᵀ | [`LoraEmbedding::delta`]: s·(B·A)ᵀ | `[vocabulary, dim]` |
//!
//! Read next: [`lora`](crate::parameter_efficient::lora).

use crate::error::{Result, require};
use crate::parameter_efficient::adapter::{Adapter, AdapterState, names};
use crate::parameter_efficient::frozen_linear::{compute_type, stored_type};
use crate::parameter_efficient::low_rank::{LowRank, changed, normal};
use crate::parameter_efficient::{LoraBias, LoraConfig};
use crate::shape::{Axes, made};
use candle_core::{Tensor, Var};
use candle_nn::{Embedding, Module};
use rand::Rng;

/// A frozen embedding table with a trained low-rank change.
///
/// # Equation
/// ```text
/// h(t) = W₀ᵀ[t] + s · B A[:, t]              s = α/r, or α/√r
/// A = 0,   B ~ N(0, 1)                       at the start
/// ```
/// It is [`LoraLinear`](crate::parameter_efficient::LoraLinear) on the one-hot vector of t, without dropout, and with the
/// initial roles of A and B exchanged.
/// # Shapes
/// Tokens of any shape, in u8, u32 or i64. The result has one more axis, `dim`, in the type of the
/// base table. A and B are f64 for an f64 table and f32 for any other.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) unless the table
/// is `[vocabulary, dim]` in f32, f64, bf16 or f16; [`Error::Parameter`](crate::Error::Parameter)
/// unless r ≥ 1 and [within the limits](super#sizes), α > 0, and dropout and bias are at their defaults,
/// since an embedding has neither; [`Error::Argument`](crate::Error::Argument) from
/// [`Adapter::merge`], as for the linear layer. A token outside the vocabulary is candle's error,
/// except for the largest number of its type, for which candle gives 0.
/// # Properties
/// * At the start h is the base table's row bit for bit, ∂L/∂B = 0 and ∂L/∂A ≠ 0.
/// * r(vocabulary + dim) numbers are trained; the table gets no gradient.
/// * A token that does not occur gets the gradient 0 for its column of A. Yet its vector can change with
///   B, once its column is not 0.
/// * Merging, unmerging and disabling are as for the linear layer.
/// # Departures
/// The survey and the paper's equation cover linear layers only. As in the authors' code and PEFT,
/// [`LoraInit`](crate::parameter_efficient::LoraInit) makes no difference here. PEFT ignores dropout for embeddings; here it
/// is an error.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{LoraConfig, LoraEmbedding};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Embedding, Module};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let table = Tensor::new(&[[1.0f64, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
/// let config = LoraConfig { rank: 1, alpha: 4.0, ..Default::default() };
/// let layer = LoraEmbedding::new(&Embedding::new(table, 2), &config, &mut StdRng::seed_from_u64(0))?;
///
/// layer.a().set(&Tensor::new(&[[0.0f64, 0.0, 10.0]], &Device::Cpu)?)?;
/// layer.b().set(&Tensor::new(&[[7.0f64], [8.0]], &Device::Cpu)?)?;
/// let h = layer.forward(&Tensor::new(&[2u32, 0], &Device::Cpu)?)?;
/// let s = 4.0 / 1.0;
/// assert_eq!(h.to_vec2::<f64>()?, [[5.0 + s * 7.0 * 10.0, 6.0 + s * 8.0 * 10.0], [1.0, 2.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Hu et al. 2021, arXiv:2106.09685v2; authors' code microsoft/LoRA, `loralib/layers.py`,
/// `Embedding`.
#[doc(alias = "LoRA embedding")]
#[derive(Clone, Debug)]
pub struct LoraEmbedding {
    base: Embedding,
    update: LowRank,
    state: AdapterState,
}

impl LoraEmbedding {
    /// A layer at its start. The base table is shared, not copied; `rng` draws B.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) for a table that is
    /// not `[vocabulary, dim]` in f32, f64, bf16 or f16; [`Error::Parameter`](crate::Error::Parameter) for
    /// a setting out of its range, and for dropout or a trained bias.
    pub fn new(base: &Embedding, config: &LoraConfig, rng: &mut impl Rng) -> Result<Self> {
        let function = "LoraEmbedding::new";
        config.check(function)?;
        let neither = "at its default: an embedding has none";
        require(
            config.dropout == 0.0,
            function,
            "dropout",
            neither,
            config.dropout,
        )?;
        require(
            config.bias == LoraBias::Frozen,
            function,
            "bias",
            neither,
            format!("{:?}", config.bias),
        )?;
        let table = base.embeddings().detach();
        Axes::new(function).axes("base", &table, &["vocabulary", "dim"])?;
        let dtype = compute_type(stored_type(function, "base", &table)?);
        let (vocabulary, dim) = table.dims2()?;
        made(function, "rank", &[config.rank, vocabulary])?;
        made(function, "rank", &[dim, config.rank])?;
        let a = Var::zeros((config.rank, vocabulary), dtype, table.device())?;
        let b = normal(1.0, (dim, config.rank), dtype, table.device(), rng)?;
        let base = Embedding::new(table, dim);
        let names = names!("LoraEmbedding", "merged_embedding");
        Ok(Self {
            state: AdapterState::named(names, base.clone(), 0.0),
            base,
            update: LowRank {
                a,
                b,
                scale: config.scale(),
            },
        })
    }

    /// The merged table, to save or to serve.
    ///
    /// # Errors
    /// As [`Adapter::merge`].
    pub fn merged_embedding(&self) -> Result<Embedding> {
        let (table, _) = self.merged_weights()?;
        Ok(Embedding::new(table, self.base.hidden_size()))
    }

    /// The frozen base table.
    pub fn base(&self) -> &Embedding {
        &self.base
    }

    /// A `[rank, vocabulary]`.
    pub fn a(&self) -> &Var {
        &self.update.a
    }

    /// B `[dim, rank]`.
    pub fn b(&self) -> &Var {
        &self.update.b
    }

    /// s.
    pub fn scale(&self) -> f64 {
        self.update.scale
    }

    /// ΔWᵀ = s·(B·A)ᵀ `[vocabulary, dim]`, differentiable.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn delta(&self) -> Result<Tensor> {
        Ok(self.update.delta()?.t()?)
    }
}

impl Adapter for LoraEmbedding {
    /// `lora_embedding_A` and `lora_embedding_B`, without a `.weight`.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        vec![
            ("lora_embedding_A", &self.update.a),
            ("lora_embedding_B", &self.update.b),
        ]
    }

    fn adapted(&self, tokens: &Tensor, _: &Tensor) -> Result<Tensor> {
        // W₀ᵀ[t]
        let base = self.base.forward(tokens)?.to_dtype(self.update.a.dtype())?;
        // s · B A[:, t]
        let update = self.update.columns(&tokens.flatten_all()?)?;
        Ok((&base + update.reshape(base.shape())?)?)
    }

    fn state(&self) -> &AdapterState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        &mut self.state
    }

    fn merge_weight(&self, table: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(changed(table, &self.delta()?)?))
    }

    fn merge_bias(&self, _: Option<&Tensor>) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

impl Module for LoraEmbedding {
    /// [`Adapter::forward_eval`].
    fn forward(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(tokens)?)
    }
}
