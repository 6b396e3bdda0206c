//! A small decoder that can be trained.
//!
//! Candle's fused `softmax_last_dim`, `rms_norm`, `layer_norm` and `rope` have no backward pass
//! and do not report it, so everything here uses operations that have one. A test with
//! `training::grad_coverage` checks that all variables get gradients.
//!
//! ```text
//! h₀ = E[token] + P[position]
//! h  ← h + O · attention(norm(h))        causal, all heads at once
//! h  ← h + D · silu(U · norm(h))
//! logits = H · norm(h)
//! ```
//!
//! **Padding.** Rows of different lengths are padded on the right. No mask is needed: attention is
//! causal, so no real position sees the padding after it, and the mask of the loss excludes the padded
//! positions. Padding on the left is not supported.
//!
//! **Forgetting.** [`Transformer::hidden_with`] and [`Transformer::forward_with`] take a mask of
//! visible tokens: a past token under 0 gets no attention.
//!
//! **Adapters.** [`adapt`](super::adapters::adapt) puts any adapter on a frozen copy: instead of the
//! linear maps, around the two parts of a block, into the keys and values, or before the input.

use super::attention::{attend, shown};
use super::beside::{Adapters, Part};
use super::softmax::Visible;
use super::weights::{self, weight};
use candle_align::Result;
use candle_align::parameter_efficient::FrozenLinear;
use candle_core::{D, DType, Module, Tensor, Var};
use candle_nn::Linear;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The sizes of a [`Transformer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The number of symbols.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Attention heads; must divide `dim`.
    pub heads: usize,
    /// Blocks of attention and feed-forward.
    pub layers: usize,
    /// The longest row.
    pub max_len: usize,
    /// Width inside the feed-forward part.
    pub feed_forward: usize,
}

/// The model's output at every position.
#[derive(Clone, Debug)]
pub struct Output {
    /// After the last norm: `[batch, time, dim]`.
    pub hidden: Tensor,
    /// The logits of the symbol after each position: `[batch, time, vocabulary]`.
    pub logits: Tensor,
}

/// A linear map in the model: `candle_nn::Linear` or its replacement.
pub type Projection = Box<dyn Module + Send + Sync>;

struct Block {
    attention_norm: Tensor,
    qkv: Projection,
    output: Projection,
    feed_forward_norm: Tensor,
    up: Projection,
    down: Projection,
}

/// The model.
pub struct Transformer {
    config: Config,
    /// Every weight by name, in the order of the names. Variables if `trained`, copies if not.
    weights: BTreeMap<String, Tensor>,
    vars: Vec<(String, Var)>,
    blocks: Vec<Block>,
    head: Projection,
    adapters: Adapters,
}

impl Transformer {
    /// A model with random weights that depend on `rng` alone.
    ///
    /// # Errors
    /// If `heads` does not divide `dim`, or a size is 0.
    pub fn new(config: &Config, dtype: DType, rng: &mut StdRng) -> Result<Self> {
        let weights = weights::random(config, dtype, rng)?;
        Self::build(config, weights, true)
    }

    /// The model with these weights: variables if `trained`, copies that nothing changes if not.
    fn build(config: &Config, weights: BTreeMap<String, Tensor>, trained: bool) -> Result<Self> {
        let mut vars = Vec::new();
        let mut own = BTreeMap::new();
        for (name, tensor) in weights {
            // A copy, not `detach`: a detached tensor shares its storage with the variable.
            let tensor = tensor.detach().copy()?;
            let tensor = match trained {
                true => {
                    let var = Var::from_tensor(&tensor)?;
                    vars.push((name.clone(), var.clone()));
                    var.as_tensor().clone()
                }
                false => tensor,
            };
            own.insert(name, tensor);
        }
        let plain = |_: &str, weight: Tensor| -> Result<Projection> {
            Ok(Box::new(Linear::new(weight, None)))
        };
        let blocks = blocks(config, &own, plain)?;
        let head = Box::new(Linear::new(weight(&own, "head.weight")?.clone(), None));
        Ok(Self {
            config: config.clone(),
            weights: own,
            vars,
            blocks,
            head,
            adapters: Adapters::default(),
        })
    }

    /// The sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The variables, sorted by name; empty for a frozen model.
    pub fn vars(&self) -> Vec<(String, Var)> {
        self.vars.clone()
    }

    /// Every weight by name: what the model has without its adapters.
    pub fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }

    /// The number of parameters, without those that [`Self::map_linears`] added.
    pub fn parameters(&self) -> usize {
        self.weights.values().map(Tensor::elem_count).sum()
    }

    /// A frozen copy: the reference of a preference loss.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn frozen(&self) -> Result<Self> {
        Self::build(&self.config, self.weights.clone(), false)
    }

    /// A copy with its own variables: a policy that starts at this one.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn trainable(&self) -> Result<Self> {
        Self::build(&self.config, self.weights.clone(), true)
    }

    /// A frozen copy whose linear maps are what `replace` makes of their names and weights
    /// `[out, in]`: the place where an adapter goes. Names are `layers.0.attention.qkv`,
    /// `….attention.output`, `….feed_forward.up`, `….feed_forward.down`; embedding and head stay.
    ///
    /// # Errors
    /// Those of `replace`, and candle's own.
    pub fn map_linears(
        &self,
        replace: impl FnMut(&str, Tensor) -> Result<Projection>,
    ) -> Result<Self> {
        let mut model = self.frozen()?;
        model.blocks = blocks(&self.config, &model.weights, replace)?;
        model.head = Box::new(FrozenLinear::new(
            self.weight("head.weight")?.clone(),
            None,
        )?);
        Ok(model)
    }

    /// The same model with these adapters beside its linear maps.
    pub fn with_adapters(self, adapters: Adapters) -> Self {
        Self { adapters, ..self }
    }

    /// The adapters beside the linear maps; none in a plain model.
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// As [`Self::adapters`], to switch or replace them.
    pub fn adapters_mut(&mut self) -> &mut Adapters {
        &mut self.adapters
    }

    /// Hidden states and logits of all positions of `tokens` `[batch, time]` (u32).
    ///
    /// # Errors
    /// If a row is longer than `max_len` or a token is outside the vocabulary.
    pub fn forward(&self, tokens: &Tensor) -> Result<Output> {
        self.forward_with(tokens, None)
    }

    /// As [`Self::forward`], with the mask of [`Self::hidden_with`].
    ///
    /// # Errors
    /// As [`Self::hidden_with`].
    pub fn forward_with(&self, tokens: &Tensor, visible: Option<&Tensor>) -> Result<Output> {
        let hidden = self.hidden_with(tokens, visible)?;
        let (batch, time, dim) = hidden.dims3()?;
        let logits = self
            .head
            .forward(&hidden.reshape((batch * time, dim))?)?
            .reshape((batch, time, ()))?;
        Ok(Output { hidden, logits })
    }

    /// The hidden states without logits: `[batch, time, dim]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn hidden(&self, tokens: &Tensor) -> Result<Tensor> {
        self.hidden_with(tokens, None)
    }

    /// As [`Self::hidden`], where position t sees token s ≤ t only if `visible` is not 0 there: u8
    /// `[batch, time]` (token s, for all positions) or `[batch, time, time]` (position t, token s).
    ///
    /// # Errors
    /// As [`Self::forward`]; if `visible` has another shape, or hides the first token from any
    /// position, because the first position would then see nothing.
    pub fn hidden_with(&self, tokens: &Tensor, visible: Option<&Tensor>) -> Result<Tensor> {
        let (batch, time) = tokens.dims2()?;
        let c = &self.config;
        if time > c.max_len {
            fail!("{time} positions, but max_len is {}", c.max_len);
        }
        let tokens = tokens.contiguous()?.flatten_all()?;
        let position = self.weight("position.weight")?.narrow(0, 0, time)?;
        let h = self
            .weight("embedding.weight")?
            .index_select(&tokens, 0)?
            .reshape((batch, time, c.dim))?
            .broadcast_add(&position)?;
        let h = self.adapters.prepend(&h)?;
        let with_prompt = h.dim(1)? != time;
        let time = h.dim(1)?;
        let mut h = h.reshape((batch * time, c.dim))?;
        let prefixes = self.adapters.prefixes(c.layers)?;
        let shown = match visible {
            None => Visible::causal(time),
            Some(_) if with_prompt || prefixes.iter().any(Option::is_some) => {
                fail!("`visible` cannot be combined with a prompt or a prefix")
            }
            Some(visible) => shown(visible, batch, time, c.heads)?,
        };
        for (l, block) in self.blocks.iter().enumerate() {
            let x = norm(&h, &block.attention_norm)?;
            let qkv = block.qkv.forward(&x)?;
            let mixed = attend(&qkv, batch, time, c.heads, &shown, prefixes[l].as_ref())?;
            let added = block.output.forward(&mixed)?;
            h = (h + self.adapters.insert(Part::Attention, l, &x, added)?)?;
            let x = norm(&h, &block.feed_forward_norm)?;
            let added = block.down.forward(&block.up.forward(&x)?.silu()?)?;
            h = (h + self.adapters.insert(Part::FeedForward, l, &x, added)?)?;
        }
        let h = norm(&h, self.weight("norm.weight")?)?.reshape((batch, time, c.dim))?;
        self.adapters.cut(&h)
    }

    /// Writes the weights as safetensors.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        weights::save(&self.weights, path.as_ref())
    }

    /// Reads what [`Self::save`] wrote, as a model with variables.
    ///
    /// # Errors
    /// If the file cannot be read, or a weight is missing, or of another shape or type, or is no
    /// weight of this model.
    pub fn load(config: &Config, path: impl AsRef<Path>) -> Result<Self> {
        let weights = weights::load(config, path.as_ref())?;
        Self::build(config, weights, true)
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        weight(&self.weights, name)
    }
}

fn blocks(
    config: &Config,
    weights: &BTreeMap<String, Tensor>,
    mut linear: impl FnMut(&str, Tensor) -> Result<Projection>,
) -> Result<Vec<Block>> {
    (0..config.layers)
        .map(|l| {
            let get = |name: &str| -> Result<Tensor> {
                Ok(weight(weights, &format!("layers.{l}.{name}.weight"))?.clone())
            };
            let mut projection = |name: &str| linear(&format!("layers.{l}.{name}"), get(name)?);
            Ok(Block {
                attention_norm: get("attention_norm")?,
                qkv: projection("attention.qkv")?,
                output: projection("attention.output")?,
                feed_forward_norm: get("feed_forward_norm")?,
                up: projection("feed_forward.up")?,
                down: projection("feed_forward.down")?,
            })
        })
        .collect()
}

/// w · x / √(mean x² + ε) over the last axis.
fn norm(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    Ok(x.broadcast_div(&scale)?.broadcast_mul(weight)?)
}
