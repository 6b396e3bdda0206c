//! The decoder under any parameter-efficient method, chosen by a setting.
//!
//! ```text
//! prompt        before the first block:          h ← [P; h]
//! prefix        inside the attention:            attend to [P_k; k], [P_v; v]
//! adapter       around attention, feed-forward:  a ← a + s · W_up f(W_down ·)
//! LoRA, biases  in place of a linear map:        Wx + s · BAx, Wx + b
//! ```
//!
//! A new layer that stands in place of a linear map is one arm of [`linear`] and one variant of
//! [`AdapterConfig`].
//!
//! **Positions.** Virtual positions have none: what a position embedding would add to them, a prompt
//! learns, and a prefix is behind the embedding. So the tokens keep the positions that the model was
//! trained with, and `max_len` holds for them alone.

use super::transformer::{Projection, Transformer};
use candle_align::{
    BiasLinear, BottleneckAdapter, BottleneckConfig, DesignSpaceConfig, FrozenLinear, LayerPlan,
    LayerSize, LoraBias, LoraConfig, LoraLinear, MamConfig, Placement, PrefixConfig, PrefixEncoder,
    PrefixLayer, PrefixShape, PromptConfig, PromptEmbedding, Reparametrisation, Result,
};
use candle_core::{Module, Tensor, Var};
use candle_nn::Linear;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which method, with its settings: `{"lora": {"rank": 4}}` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AdapterConfig {
    /// LoRA on every linear map of the blocks.
    Lora(LoraConfig),
    /// A trained bias on every linear map of the blocks.
    BitFit,
    /// Vectors before the input.
    Prompt(PromptConfig),
    /// Keys and values in every layer.
    Prefix(PrefixConfig),
    /// Small networks around the parts of every block.
    Adapter {
        placement: Placement,
        adapter: BottleneckConfig,
    },
    /// A prefix, and adapters at the feed-forward parts.
    Mam(MamConfig),
    /// Different methods for different layers, each training about `per_layer` numbers. LoRA is on
    /// `attention.qkv`; adapters are sequential ones without biases at the feed-forward part.
    DesignSpace {
        space: DesignSpaceConfig,
        per_layer: usize,
    },
}

/// The two parts of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Attention,
    FeedForward,
}

/// What stands in a model beside its linear maps; by default nothing.
#[derive(Default)]
pub struct Adapters {
    prompt: Option<PromptEmbedding>,
    /// Each with the layers that it is for, in their order.
    prefixes: Vec<(PrefixEncoder, Vec<usize>)>,
    parts: Vec<(Part, usize, BottleneckAdapter)>,
    on: Arc<AtomicBool>,
}

impl Adapters {
    fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Switches everything on or off, the linear maps' adapters included. Off, the model is its base
    /// model to the bit.
    pub fn set_enabled(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// `[batch, time, dim]`, with the prompt before each row.
    pub fn prepend(&self, h: &Tensor) -> Result<Tensor> {
        match &self.prompt {
            Some(prompt) if self.is_on() => prompt.prepend(h),
            _ => Ok(h.clone()),
        }
    }

    /// `[batch, time, dim]` without the prompt's positions.
    pub fn cut(&self, h: &Tensor) -> Result<Tensor> {
        match &self.prompt {
            Some(prompt) if self.is_on() => prompt.cut(h),
            _ => Ok(h.clone()),
        }
    }

    /// The prefix of every layer.
    pub fn prefixes(&self, layers: usize) -> Result<Vec<Option<PrefixLayer>>> {
        let mut all = vec![None; layers];
        if self.is_on() {
            for (encoder, places) in &self.prefixes {
                for (place, layer) in places.iter().zip(encoder.layers()?) {
                    all[*place] = layer;
                }
            }
        }
        Ok(all)
    }

    /// `h`, what a part says that read `x`, after its adapters.
    pub fn insert(&self, part: Part, layer: usize, x: &Tensor, h: Tensor) -> Result<Tensor> {
        if !self.is_on() {
            return Ok(h);
        }
        let here = |(p, l, _): &&(Part, usize, BottleneckAdapter)| *p == part && *l == layer;
        self.parts
            .iter()
            .filter(here)
            .try_fold(h, |h, (_, _, adapter)| adapter.insert(x, &h))
    }

    /// Drops the networks behind prefixes and keeps what they say.
    pub fn finish(&mut self) -> Result<()> {
        for (encoder, _) in &mut self.prefixes {
            *encoder = encoder.finish()?;
        }
        Ok(())
    }

    fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = Vec::new();
        if let Some(prompt) = &self.prompt {
            vars.extend(prompt.trainable("prompt"));
        }
        for (encoder, places) in &self.prefixes {
            vars.extend(match places.as_slice() {
                [place] => encoder.trainable(&format!("layers.{place}.prefix")),
                _ => encoder.trainable("prefix"),
            });
        }
        for (part, layer, adapter) in &self.parts {
            let part = match part {
                Part::Attention => "attention",
                Part::FeedForward => "feed_forward",
            };
            vars.extend(adapter.trainable(&format!("layers.{layer}.{part}.adapter")));
        }
        vars
    }
}

/// A frozen model and what is trained on it.
pub struct Adapted {
    pub model: Transformer,
    linear_vars: Vec<(String, Var)>,
}

impl Adapted {
    /// What is trained, sorted by name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.linear_vars.clone();
        vars.extend(self.model.adapters().vars());
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// How many numbers are trained.
    pub fn parameters(&self) -> usize {
        self.vars().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Switches every adapter on or off.
    pub fn set_enabled(&self, on: bool) {
        self.model.adapters().set_enabled(on);
    }

    /// Training is over: networks behind prefixes are dropped, and [`Self::vars`] changes with it.
    pub fn finish(&mut self) -> Result<()> {
        self.model.adapters_mut().finish()
    }
}

/// `base`, frozen, under the method of `config`; `rng` draws the start.
///
/// # Errors
/// Those of the method's settings.
pub fn adapt(base: &Transformer, config: &AdapterConfig, rng: &mut StdRng) -> Result<Adapted> {
    let on = Arc::new(AtomicBool::new(true));
    let plans = match config {
        AdapterConfig::DesignSpace { space, per_layer } => {
            space.plan(base.config().layers, *per_layer, &layer_size(base))?
        }
        _ => Vec::new(),
    };
    let mut linear_vars = Vec::new();
    let model = base.map_linears(|name, weight| {
        let plain = FrozenLinear::new(weight.clone(), None)?;
        match linear(config, &plans, name, &Linear::new(weight, None), rng)? {
            None => Ok(Box::new(plain)),
            Some((layer, vars)) => {
                linear_vars.extend(vars);
                let on = on.clone();
                Ok(Box::new(Switched { layer, plain, on }))
            }
        }
    })?;
    let mut beside = beside(base, config, &plans, rng)?;
    beside.on = on;
    Ok(Adapted {
        model: model.with_adapters(beside),
        linear_vars,
    })
}

/// What stands in place of a linear map, with what is trained of it; `None` leaves it frozen.
fn linear(
    config: &AdapterConfig,
    plans: &[LayerPlan],
    name: &str,
    base: &Linear,
    rng: &mut StdRng,
) -> Result<Option<(Projection, Vec<(String, Var)>)>> {
    Ok(match config {
        AdapterConfig::Lora(config) => {
            let layer = LoraLinear::new(base, config, rng)?;
            Some((layer.trainable(name), layer)).map(boxed)
        }
        AdapterConfig::BitFit => {
            let layer = BiasLinear::new(base)?;
            Some((layer.trainable(name), layer)).map(boxed)
        }
        AdapterConfig::DesignSpace { .. } => {
            let layer: usize = name
                .split('.')
                .nth(1)
                .and_then(|l| l.parse().ok())
                .unwrap_or(0);
            planned(&plans[layer], name, base, rng)?
        }
        AdapterConfig::Prompt(_)
        | AdapterConfig::Prefix(_)
        | AdapterConfig::Adapter { .. }
        | AdapterConfig::Mam(_) => None,
    })
}

fn boxed<L: Module + Send + Sync + 'static>(
    (vars, layer): (Vec<(String, Var)>, L),
) -> (Projection, Vec<(String, Var)>) {
    (Box::new(layer), vars)
}

/// LoRA, trained biases, both or neither.
fn planned(
    plan: &LayerPlan,
    name: &str,
    base: &Linear,
    rng: &mut StdRng,
) -> Result<Option<(Projection, Vec<(String, Var)>)>> {
    if plan.rank == 0 || !name.ends_with("attention.qkv") {
        if !plan.biases {
            return Ok(None);
        }
        let layer = BiasLinear::new(base)?;
        return Ok(Some((layer.trainable(name), layer)).map(boxed));
    }
    let config = LoraConfig {
        rank: plan.rank,
        alpha: plan.rank as f64,
        bias: match plan.biases {
            true => LoraBias::Base,
            false => LoraBias::Frozen,
        },
        ..Default::default()
    };
    // A bias of 0, where one is to be trained.
    let bias = match plan.biases {
        true => Some(base.weight().narrow(1, 0, 1)?.squeeze(1)?.zeros_like()?),
        false => None,
    };
    let layer = LoraLinear::new(&Linear::new(base.weight().clone(), bias), &config, rng)?;
    Ok(Some((layer.trainable(name), layer)).map(boxed))
}

/// What stands beside the linear maps.
fn beside(
    base: &Transformer,
    config: &AdapterConfig,
    plans: &[LayerPlan],
    rng: &mut StdRng,
) -> Result<Adapters> {
    let c = base.config();
    let table = &base.weights()["embedding.weight"];
    let (dtype, device) = (table.dtype(), table.device());
    let mut adapters = Adapters::default();
    let prefix = |config: &PrefixConfig, places: Vec<usize>, rng: &mut StdRng| {
        let shape = PrefixShape {
            layers: places.len(),
            heads: c.heads,
            head_dim: c.dim / c.heads,
        };
        let encoder = PrefixEncoder::new(shape, config, dtype, device, rng)?;
        Ok::<_, candle_align::Error>((encoder, places))
    };
    let adapter = |config: &BottleneckConfig, rng: &mut StdRng| {
        BottleneckAdapter::new(c.dim, c.dim, config, dtype, device, rng)
    };
    match config {
        AdapterConfig::Lora(_) | AdapterConfig::BitFit => {}
        AdapterConfig::Prompt(config) => {
            adapters.prompt = Some(PromptEmbedding::new(table, config, rng)?);
        }
        AdapterConfig::Prefix(config) => {
            adapters.prefixes = vec![prefix(config, (0..c.layers).collect(), rng)?];
        }
        AdapterConfig::Adapter {
            placement,
            adapter: config,
        } => {
            for l in 0..c.layers {
                if *placement == Placement::AttentionAndFeedForward {
                    adapters
                        .parts
                        .push((Part::Attention, l, adapter(config, rng)?));
                }
                adapters
                    .parts
                    .push((Part::FeedForward, l, adapter(config, rng)?));
            }
        }
        AdapterConfig::Mam(config) => {
            adapters.prefixes = vec![prefix(&config.prefix, (0..c.layers).collect(), rng)?];
            for l in 0..c.layers {
                let adapter = adapter(&config.adapter, rng)?;
                adapters.parts.push((Part::FeedForward, l, adapter));
            }
        }
        AdapterConfig::DesignSpace { .. } => {
            for (l, plan) in plans.iter().enumerate() {
                if plan.prefix > 0 {
                    let config = PrefixConfig {
                        length: plan.prefix,
                        reparametrisation: Reparametrisation::Direct,
                    };
                    adapters.prefixes.push(prefix(&config, vec![l], rng)?);
                }
                if plan.adapter > 0 {
                    let config = BottleneckConfig {
                        width: plan.adapter,
                        bias: false,
                        ..Default::default()
                    };
                    adapters
                        .parts
                        .push((Part::FeedForward, l, adapter(&config, rng)?));
                }
            }
        }
    }
    Ok(adapters)
}

/// What one unit of each strategy costs in a block.
pub fn layer_size(model: &Transformer) -> LayerSize {
    let c = model.config();
    LayerSize {
        dim: c.dim,
        kv_dim: c.dim,
        lora: c.dim + 3 * c.dim,
        biases: 3 * c.dim + c.dim + c.feed_forward + c.dim,
    }
}

/// A linear map's adapter, or the map itself while switched off.
struct Switched {
    layer: Projection,
    plain: FrozenLinear,
    on: Arc<AtomicBool>,
}

impl Module for Switched {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.on.load(Ordering::Relaxed) {
            true => self.layer.forward(x),
            false => self.plain.forward(x),
        }
    }
}
