//! Prefix tuning: learned keys and values in every layer (survey §3.3, supplementary parameters).
//!
//! In one sentence: let every attention layer attend to p more positions, whose keys and values are
//! trained, while the model itself is frozen.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | P_θ | [`PrefixEncoder::values`] | `[length, 2 · layers · heads · head_dim]` |
//! | P_θ\[i, :\] = MLP_θ(P′_θ\[i, :\]) | [`Reparametrization::Mlp`] | P′ `[length, heads · head_dim]` |
//! | P_k, P_v of one layer | [`PrefixLayer::key`], [`PrefixLayer::value`] | `[heads, length, head_dim]` |
//! | Attn(q, \[P_k; K\], \[P_v; V\]) | [`prefix_attention`](crate::parameter_efficient::prefix::attention::prefix_attention) | `[batch, heads, time, head_dim]` |
//!
//! **Positions.** A prefix takes the first p positions of its row, and the tokens come after it: a
//! token's position is its index plus [`PrefixEncoder::virtual_positions`], wherever the model adds
//! positions to embeddings (GPT-2) or rotates queries and keys by them (Llama). PEFT counts in this way,
//! since to the model a prefix is a cache. The prefix's keys are used as they are, without rotation.
//!
//! Read next: [`prefix_attention`](mod@crate::parameter_efficient::prefix::attention) (what a prefix can do and what it cannot),
//! [`bottleneck`](crate::parameter_efficient::bottleneck) (the unified view).

pub mod attention;
mod form;

pub use form::Reparametrization;

use crate::error::{Error, Result, require};
use crate::parameter_efficient::low_rank::counted;
use crate::shape::{Axes, made, size, trained_type};
use candle_core::{DType, Device, Tensor, Var};
use form::Form;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Settings of [`PrefixEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixConfig {
    /// p ≥ 1, the number of positions of the prefix. Default 10, the best for table-to-text
    /// in the paper (§7.2; 200 for summarization).
    pub length: usize,
    /// What is trained. Default: the paper's network (§4.3).
    pub reparametrization: Reparametrization,
}

impl Default for PrefixConfig {
    fn default() -> Self {
        Self {
            length: 10,
            reparametrization: Reparametrization::Mlp { inner: 512 },
        }
    }
}

/// The attention layers that get a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixShape {
    /// L, the layers.
    pub layers: usize,
    /// The heads with their own keys and values: with grouped queries, fewer than the query heads.
    pub heads: usize,
    /// The width of one head.
    pub head_dim: usize,
}

impl PrefixShape {
    /// d_kv, the width of one layer's keys: heads · head_dim, or `usize::MAX` if the product is larger.
    pub fn width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }
}

/// The learned keys and values of one layer.
#[derive(Clone, Debug)]
pub struct PrefixLayer {
    /// P_k `[heads, length, head_dim]`.
    pub key: Tensor,
    /// P_v `[heads, length, head_dim]`.
    pub value: Tensor,
}

/// The trained parameters behind the prefixes of all layers.
///
/// # Equation
/// ```text
/// P_θ[i, :] ∈ ℝ^{2·L·d_kv}                          trained directly, or
/// P_θ[i, :] = W₂ tanh( W₁ P′[i, :] + b₁ ) + b₂      trained through P′, W₁, b₁, W₂, b₂
/// ```
/// Row i holds, for each layer, the key and then the value of position i, head by head. This is the
/// layout of PEFT's files.
/// # Shapes
/// P `[length, 2 · layers · heads · head_dim]`; with the network P′ `[length, d_kv]`, W₁
/// `[inner, d_kv]`, W₂ `[2 · layers · d_kv, inner]`. f32 or f64.
/// # Errors
/// [`Error::Parameter`] unless `length`, `inner`, `layers`, `heads` and `head_dim` are ≥ 1 and [within
/// the limits](super#sizes); [`Error::DType`] for a type other than f32 and f64.
/// # Properties
/// * 2·L·p·d_kv numbers are trained directly; with the network p·d_kv + inner·(d_kv + 1) +
///   2·L·d_kv·(inner + 1), of which 2·L·p·d_kv stay.
/// * [`PrefixEncoder::finish`] gives the same keys and values bit for bit, without the network.
/// * A prefix cannot start as the base model: even with all keys 0 it takes the share p/(p + Σe^{qk})
///   of the attention. Only keys whose scores tend to −∞ leave the model unchanged.
/// * The plain form can express everything that the network can. Gradient descent may still differ:
///   positions that share a network can collapse into one and stay so, where the plain form, from the
///   same keys and values, reaches the optimum. The paper found the plain form less stable, in a large
///   model.
/// * Disabled, [`PrefixEncoder::layers`] returns `None` for every layer, and the tokens' positions start
///   at 0 again: exactly the base model.
/// * The keys and values that the model computes from p tokens, used as a prefix, act as those tokens in
///   front, if the positions of what follows start at p.
/// * A clone shares the trained variables with its original.
/// # Departures
/// The paper calls its network an MLP and does not give its shape; this is the authors' code's. P′ has
/// the width d_kv, as in PEFT; in the authors' code it has the width of the model. Both start from
/// N(0, 1), and the maps from U(±1/√in), as in torch. The model belongs to the caller, and so do the
/// positions: with other positions than those above, a prefix from PEFT gives other logits than in PEFT.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{PrefixConfig, PrefixEncoder, PrefixShape, Reparametrization};
/// use candle_core::{DType, Device};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let shape = PrefixShape { layers: 2, heads: 2, head_dim: 3 };
/// let config = PrefixConfig { length: 5, reparametrization: Reparametrization::Mlp { inner: 7 } };
/// let mut rng = StdRng::seed_from_u64(0);
/// let prefix = PrefixEncoder::new(shape, &config, DType::F64, &Device::Cpu, &mut rng)?;
/// let d = 2 * 3;
/// assert_eq!(prefix.parameters(), 5 * d + 7 * (d + 1) + 2 * 2 * d * (7 + 1));
///
/// // after training
/// let plain = prefix.finish()?;
/// assert_eq!(plain.parameters(), 2 * 2 * 5 * d);
/// assert_eq!(plain.values()?.to_vec2::<f64>()?, prefix.values()?.to_vec2::<f64>()?);
/// let layers = plain.layers()?;
/// assert_eq!(layers[1].as_ref().unwrap().value.dims(), [2, 5, 3]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The gate λ of [`prefix_mixing`](crate::parameter_efficient::prefix_mixing), by layer and head. Near 0 the prefix is
///   ignored, and its gradients vanish with λ. Near 1 the layer reads only the prefix.
/// * The rows of [`PrefixEncoder::values`]: with the network they can become equal, and p positions then
///   act as one.
/// * The output for a prefix whose positions you permute: it must not change.
/// # Try
/// * When do all positions of a prefix become one, and does the plain form avoid it?
///   `tests/optimum/prefix.rs::through_the_network_all_positions_can_become_one`
/// * Can a prefix learn to be ignored?
///   `tests/optimum/prefix.rs::a_prefix_can_learn_to_leave_the_layer_alone`
/// * Can it reorder what a layer attends to?
///   `tests/identities/prefix.rs::a_prefix_never_reorders_what_the_layer_attends_to`
/// # Source
/// Li and Liang 2021, arXiv:2101.00190v1, §4.2 and §4.3; authors' code XiangLi1999/PrefixTuning,
/// `gpt2/train_control.py`, `PrefixTuning`; layout from PEFT 0.21.2, `PeftModel.get_prompt`.
#[doc(alias = "prefix tuning")]
#[doc(alias = "past_key_values")]
#[derive(Clone, Debug)]
pub struct PrefixEncoder {
    shape: PrefixShape,
    form: Form,
    enabled: bool,
}

impl PrefixEncoder {
    /// A prefix at its start; `rng` draws it.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a size of 0 or beyond the limits; [`Error::DType`] unless `dtype` is f32 or
    /// f64.
    pub fn new(
        shape: PrefixShape,
        config: &PrefixConfig,
        dtype: DType,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let function = "PrefixEncoder::new";
        let length = config.length;
        size(function, "length", length)?;
        let wide = check(function, shape)?;
        trained_type(function, dtype)?;
        let form = Form::new(
            function,
            [length, shape.width(), wide],
            config,
            dtype,
            device,
            rng,
        )?;
        Ok(Self {
            shape,
            form,
            enabled: true,
        })
    }

    /// The plain form with these keys and values `[length, 2 · layers · heads · head_dim]`, such as
    /// those of a file; they are copied.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] unless they have that shape, in f32 or f64;
    /// [`Error::Parameter`] for a size of 0 or beyond the limits.
    pub fn from_values(shape: PrefixShape, values: &Tensor) -> Result<Self> {
        let function = "PrefixEncoder::from_values";
        let expected = check(function, shape)?;
        Axes::new(function).float("values", values, &["length", "numbers"])?;
        let (length, found) = values.dims2()?;
        if found != expected {
            return Err(Error::Shape {
                function,
                argument: "values".to_string(),
                shape: values.dims().to_vec(),
                expected: format!("length, 2*layers*heads*head_dim={expected}"),
            });
        }
        require(length >= 1, function, "length", ">= 1", length)?;
        Ok(Self {
            shape,
            form: Form::Plain(Var::from_tensor(&values.detach().copy()?)?),
            enabled: true,
        })
    }

    /// P, differentiable.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn values(&self) -> Result<Tensor> {
        self.form.values()
    }

    /// Keys and values of every layer, differentiable; `None` while disabled. Call it once per
    /// forward pass: the network runs for all layers at once.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn layers(&self) -> Result<Vec<Option<PrefixLayer>>> {
        let PrefixShape {
            layers,
            heads,
            head_dim,
        } = self.shape;
        if !self.enabled {
            return Ok(vec![None; layers]);
        }
        // [length, 2 · layers, heads, head_dim] to [2 · layers, heads, length, head_dim]
        let all = self
            .values()?
            .reshape((self.length(), 2 * layers, heads, head_dim))?
            .permute((1, 2, 0, 3))?
            .contiguous()?;
        (0..layers)
            .map(|l| {
                Ok(Some(PrefixLayer {
                    key: all.get(2 * l)?,
                    value: all.get(2 * l + 1)?,
                }))
            })
            .collect()
    }

    /// Keys and values of one layer, each `[length, heads, head_dim]`, differentiable.
    pub(crate) fn of_layer(&self, layer: usize) -> Result<(Tensor, Tensor)> {
        let PrefixShape {
            heads, head_dim, ..
        } = self.shape;
        let (values, width) = (self.values()?, self.shape.width());
        let part = |number: usize| -> Result<Tensor> {
            let part = values.narrow(1, number * width, width)?.contiguous()?;
            Ok(part.reshape((self.length(), heads, head_dim))?)
        };
        Ok((part(2 * layer)?, part(2 * layer + 1)?))
    }

    /// The plain form with the current values: what remains after training.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn finish(&self) -> Result<Self> {
        Ok(Self {
            shape: self.shape,
            form: Form::Plain(Var::from_tensor(&self.values()?.detach().copy()?)?),
            enabled: self.enabled,
        })
    }

    /// Whether the keys and values themselves are trained.
    pub fn is_plain(&self) -> bool {
        matches!(self.form, Form::Plain(_))
    }

    /// p.
    pub fn length(&self) -> usize {
        self.form.length()
    }

    /// How many positions come before the first token's: p, or 0 while disabled. A model with rotary
    /// or absolute positions gives token t the position t plus this number.
    pub fn virtual_positions(&self) -> usize {
        match self.enabled {
            true => self.length(),
            false => 0,
        }
    }

    /// The layers that it was made for.
    pub fn shape(&self) -> PrefixShape {
        self.shape
    }

    /// How many numbers are trained.
    pub fn parameters(&self) -> usize {
        counted(&self.trainable(""))
    }

    /// The trained variables, sorted by name: `prompt_embeddings`, as in PEFT's files, or with the network
    /// `embedding.weight`, `transform.0.bias`, `transform.0.weight`, `transform.2.bias` and
    /// `transform.2.weight`, as in its modules. `prefix` as for
    /// [`Adapter::trainable`](crate::parameter_efficient::Adapter::trainable).
    pub fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        self.form.trainable(prefix)
    }

    /// Switches the prefix off, which gives exactly the base model, or on again.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// Whether the layers have a prefix.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

/// The numbers of one position over all layers, for a shape within the limits.
fn check(function: &'static str, shape: PrefixShape) -> Result<usize> {
    let PrefixShape {
        layers,
        heads,
        head_dim,
    } = shape;
    size(function, "layers", layers)?;
    size(function, "heads", heads)?;
    size(function, "head_dim", head_dim)?;
    made(function, "layers", &[2, layers, heads, head_dim])?;
    Ok(2 * layers * heads * head_dim)
}
