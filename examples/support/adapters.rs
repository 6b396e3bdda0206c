//! The decoder under any parameter-efficient method, chosen by a setting.
//!
//! ```text
//! prompt        before the first block:          h ← [P; h]
//! prefix        inside the attention:            attend to [P_k; k], [P_v; v]
//! adapter       around attention, feed-forward:  a ← a + s · W_up f(W_down ·)
//! LoRA, biases  in place of a linear map:        Wx + s · BAx, Wx + b
//! ```
//!
//! A new layer that replaces a linear map is one arm of `Maker::linear` and one variant of
//! [`AdapterSettings`], in `adapter_config.rs`.
//!
//! **Positions.** Virtual positions have no position embedding: a prompt learns its own offset, and a
//! prefix comes after the embedding. So the tokens keep the positions that the model was trained with,
//! and `max_len` counts only them. PEFT's models count a prefix and a prompt, so their tokens start at
//! `virtual_positions()`; this decoder differs from them here.

pub use super::adapter_config::AdapterSettings;
use super::linear_adapters::{Maker, Switched};
use super::transformer::Transformer;
use candle_align::{
    AdaLoraLinear, AnyAdapter, BottleneckAdapter, BottleneckConfig, FrozenLinear, LayerPlan,
    LayerSize, Placement, PrefixConfig, PrefixEncoder, PrefixLayer, PrefixShape, PromptEmbedding,
    Reparametrisation, Result, Targets, VeraProjections,
};
use candle_core::{Tensor, Var};
use candle_nn::Linear;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The two parts of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Attention,
    FeedForward,
}

/// The adapters of a model beside its linear maps; none by default.
#[derive(Default)]
pub struct Adapters {
    prompt: Option<PromptEmbedding>,
    /// Each with the layers that it is for, in their order.
    prefixes: Vec<(PrefixEncoder, Vec<usize>)>,
    parts: Vec<(Part, usize, BottleneckAdapter)>,
    mode: Arc<Mode>,
}

/// The state that all adapters of a model share.
#[derive(Default)]
pub(super) struct Mode {
    pub(super) on: AtomicBool,
    /// Of dropout; none while nothing is dropped.
    pub(super) rng: Mutex<Option<StdRng>>,
}

impl Adapters {
    /// A prompt alone, switched on.
    pub fn of_prompt(prompt: PromptEmbedding) -> Self {
        let adapters = Self {
            prompt: Some(prompt),
            ..Self::default()
        };
        adapters.set_enabled(true);
        adapters
    }

    /// A prefix of all layers alone, switched on.
    pub fn of_prefix(prefix: PrefixEncoder) -> Self {
        let layers = (0..prefix.shape().layers).collect();
        let adapters = Self {
            prefixes: vec![(prefix, layers)],
            ..Self::default()
        };
        adapters.set_enabled(true);
        adapters
    }

    fn is_on(&self) -> bool {
        self.mode.on.load(Ordering::Relaxed)
    }

    /// Switches everything on or off, including the linear maps' adapters. Off, the model equals its base
    /// model bit for bit.
    pub fn set_enabled(&self, on: bool) {
        self.mode.on.store(on, Ordering::Relaxed);
    }

    /// The vectors before the input.
    pub fn prompt(&self) -> Option<&PromptEmbedding> {
        self.prompt.as_ref()
    }

    /// The encoder that makes the prefix of all layers, if there is one.
    pub fn prefix(&self) -> Option<&PrefixEncoder> {
        match self.prefixes.as_slice() {
            [(encoder, _)] => Some(encoder),
            _ => None,
        }
    }

    /// Whether there are virtual positions.
    pub fn is_virtual(&self) -> bool {
        self.prompt.is_some() || !self.prefixes.is_empty()
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

    /// `h`, the output of a part for the input `x`, after its adapters.
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

    /// Drops the networks behind prefixes and keeps their outputs.
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
    layers: BTreeMap<String, AnyAdapter>,
    projections: Option<VeraProjections>,
    triplets: Vec<(String, AdaLoraLinear)>,
}

impl Adapted {
    /// The trained variables, sorted by name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.linear_vars.clone();
        vars.extend(self.model.adapters().vars());
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// The layers that replace linear maps, by name and without biases: the content of a PEFT file.
    pub fn layers(&self) -> &BTreeMap<String, AnyAdapter> {
        &self.layers
    }

    /// VeRA's A and B.
    pub fn projections(&self) -> Option<&VeraProjections> {
        self.projections.as_ref()
    }

    /// AdaLoRA's layers by name, for its penalty and its allocator; none under other methods.
    pub fn triplets(&self) -> &[(String, AdaLoraLinear)] {
        &self.triplets
    }

    /// The number of trained parameters.
    pub fn parameters(&self) -> usize {
        self.vars().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Switches every adapter on or off.
    pub fn set_enabled(&self, on: bool) {
        self.model.adapters().set_enabled(on);
    }

    /// Turns dropout on with `rng` and the layers' settings; without an `rng` it is off, as at the start.
    pub fn set_dropout(&self, rng: Option<StdRng>) {
        let mode = &self.model.adapters().mode;
        // a panic elsewhere leaves the generator intact: nothing is half-written
        *mode.rng.lock().unwrap_or_else(|e| e.into_inner()) = rng;
    }

    /// Training is over: networks behind prefixes are dropped, and [`Self::vars`] changes with it.
    pub fn finish(&mut self) -> Result<()> {
        self.model.adapters_mut().finish()
    }
}

/// `base`, frozen, under the method of `config`; `rng` draws the start.
///
/// # Errors
/// As [`adapt_at`].
pub fn adapt(base: &Transformer, config: &AdapterSettings, rng: &mut StdRng) -> Result<Adapted> {
    adapt_at(base, config, &Targets::default(), rng)
}

/// As [`adapt`], with a choice of linear maps for the methods whose settings hold none, AdaLoRA and
/// VeRA; the default chooses all.
///
/// # Errors
/// Those of the method's settings; a setting that this decoder does not act on, and a choice of maps
/// that chooses nothing.
pub fn adapt_at(
    base: &Transformer,
    config: &AdapterSettings,
    targets: &Targets,
    rng: &mut StdRng,
) -> Result<Adapted> {
    answered(config, targets)?;
    let mode = Arc::new(Mode::default());
    mode.on.store(true, Ordering::Relaxed);
    let plans = match config {
        AdapterSettings::DesignSpace { space, per_layer } => {
            space.plan(base.config().layers, *per_layer, &layer_size(base))?
        }
        _ => Vec::new(),
    };
    let mut maker = Maker::new(base, config, targets, plans, rng)?;
    let model = base.map_linears(|name, weight| {
        let plain = Box::new(FrozenLinear::new(weight.clone(), None)?);
        match maker.linear(config, name, &Linear::new(weight, None), rng)? {
            None => Ok(plain),
            Some((layer, under)) => Ok(Box::new(Switched {
                layer,
                plain: under.unwrap_or(plain),
                mode: mode.clone(),
            })),
        }
    })?;
    let Maker {
        vars: linear_vars,
        layers,
        shared: projections,
        plans,
        ..
    } = maker;
    let triplets = layers.iter().filter_map(|(name, layer)| match layer {
        AnyAdapter::AdaLora(layer) => Some((name.clone(), layer.clone())),
        _ => None,
    });
    let triplets = triplets.collect();
    let mut beside = beside(base, config, &plans, rng)?;
    beside.mode = mode;
    Ok(Adapted {
        model: model.with_adapters(beside),
        linear_vars,
        layers,
        projections,
        triplets,
    })
}

/// Refuses settings that would have no effect here.
fn answered(config: &AdapterSettings, targets: &Targets) -> Result<()> {
    let targets = match config {
        AdapterSettings::Lora(c) | AdapterSettings::Qlora(c) | AdapterSettings::Dora(c) => {
            &c.targets
        }
        AdapterSettings::Ia3(c) => &c.targets,
        _ => targets,
    };
    match targets.modules_to_save.is_empty() {
        true => Ok(()),
        false => Err(candle_align::Error::Argument {
            function: "adapt",
            argument: "modules_to_save".to_string(),
            problem: "must be empty: the decoder trains no module whole".to_string(),
        }),
    }
}

/// The adapters beside the linear maps.
fn beside(
    base: &Transformer,
    config: &AdapterSettings,
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
        AdapterSettings::Lora(_)
        | AdapterSettings::Qlora(_)
        | AdapterSettings::Dora(_)
        | AdapterSettings::AdaLora(_)
        | AdapterSettings::Ia3(_)
        | AdapterSettings::Vera(_)
        | AdapterSettings::BitFit {} => {}
        AdapterSettings::Prompt(config) => {
            adapters.prompt = Some(PromptEmbedding::new(table, config, rng)?);
        }
        AdapterSettings::Prefix(config) => {
            adapters.prefixes = vec![prefix(config, (0..c.layers).collect(), rng)?];
        }
        AdapterSettings::Adapter {
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
        AdapterSettings::Mam(config) => {
            adapters.prefixes = vec![prefix(&config.prefix, (0..c.layers).collect(), rng)?];
            for l in 0..c.layers {
                let adapter = adapter(&config.adapter, rng)?;
                adapters.parts.push((Part::FeedForward, l, adapter));
            }
        }
        AdapterSettings::DesignSpace { .. } => {
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

/// The cost of one unit of each strategy in a block.
pub fn layer_size(model: &Transformer) -> LayerSize {
    let c = model.config();
    LayerSize {
        dim: c.dim,
        kv_dim: c.dim,
        lora: c.dim + 3 * c.dim,
        biases: 3 * c.dim + c.dim + c.feed_forward + c.dim,
    }
}
