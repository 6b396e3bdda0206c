//! The decoder under any parameter-efficient method, chosen by a setting.
//!
//! ```text
//! prompt        before the first block:          h ← [P; h]
//! prefix        inside the attention:            attend to [P_k; k], [P_v; v]
//! adapter       around attention, feed-forward:  a ← a + s · W_up f(W_down ·)
//! LoRA, biases  in place of a linear map:        Wx + s · BAx, Wx + b
//! ```
//!
//! A new layer that stands in place of a linear map is one arm of [`Maker::linear`] and one variant of
//! [`AdapterConfig`].
//!
//! **Positions.** Virtual positions have none: what a position embedding would add to them, a prompt
//! learns, and a prefix is behind the embedding. So the tokens keep the positions that the model was
//! trained with, and `max_len` holds for them alone.

use super::transformer::{Projection, Transformer};
use candle_align::{
    AdaLoraConfig, AdaLoraLinear, BiasLinear, BlockScale, BottleneckAdapter, BottleneckConfig,
    DesignSpaceConfig, DoraLinear, FrozenLinear, Ia3Config, Ia3Linear, LayerPlan, LayerSize,
    LoraBias, LoraConfig, LoraLinear, MamConfig, Placement, PrefixConfig, PrefixEncoder,
    PrefixLayer, PrefixShape, PromptConfig, PromptEmbedding, QloraLinear, Reparametrisation,
    Result, TargetModules, Targets, VeraConfig, VeraLinear, VeraProjections,
};
use candle_core::{Module, Tensor, Var};
use candle_nn::Linear;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which method, with its settings: `{"lora": {"rank": 4}}` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AdapterConfig {
    /// LoRA on the linear maps of the blocks: those that the settings choose, or all.
    Lora(LoraConfig),
    /// LoRA over the linear maps in four bits; they are chosen in the same way.
    Qlora(LoraConfig),
    /// LoRA with a length for each row; chosen in the same way.
    Dora(LoraConfig),
    /// AdaLoRA on every linear map of the blocks; see [`Adapted::triplets`].
    AdaLora(AdaLoraConfig),
    /// Factors of the linear maps that the settings choose.
    Ia3(Ia3Config),
    /// VeRA on every linear map of the blocks.
    Vera(VeraConfig),
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
    triplets: Vec<(String, AdaLoraLinear)>,
}

impl Adapted {
    /// What is trained, sorted by name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.linear_vars.clone();
        vars.extend(self.model.adapters().vars());
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// AdaLoRA's layers by name, for its penalty and its allocator; none under other methods.
    pub fn triplets(&self) -> &[(String, AdaLoraLinear)] {
        &self.triplets
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
/// Those of the method's settings; a setting that this decoder does not act on, and a choice of maps
/// that chooses nothing.
pub fn adapt(base: &Transformer, config: &AdapterConfig, rng: &mut StdRng) -> Result<Adapted> {
    answered(base, config)?;
    let on = Arc::new(AtomicBool::new(true));
    let plans = match config {
        AdapterConfig::DesignSpace { space, per_layer } => {
            space.plan(base.config().layers, *per_layer, &layer_size(base))?
        }
        _ => Vec::new(),
    };
    let mut maker = Maker::new(base, config, plans, rng)?;
    let model = base.map_linears(|name, weight| {
        let plain = Box::new(FrozenLinear::new(weight.clone(), None)?);
        match maker.linear(config, name, &Linear::new(weight, None), rng)? {
            None => Ok(plain),
            Some((layer, under)) => Ok(Box::new(Switched {
                layer,
                plain: under.unwrap_or(plain),
                on: on.clone(),
            })),
        }
    })?;
    let Maker {
        vars: linear_vars,
        triplets,
        plans,
        ..
    } = maker;
    let mut beside = beside(base, config, &plans, rng)?;
    beside.on = on;
    Ok(Adapted {
        model: model.with_adapters(beside),
        linear_vars,
        triplets,
    })
}

/// Refuses what would do nothing here.
fn answered(base: &Transformer, config: &AdapterConfig) -> Result<()> {
    let none = Targets::default();
    let (targets, dropout) = match config {
        AdapterConfig::Lora(c) | AdapterConfig::Qlora(c) | AdapterConfig::Dora(c) => {
            (&c.targets, c.dropout)
        }
        AdapterConfig::AdaLora(c) => (&none, c.dropout),
        AdapterConfig::Vera(c) => (&none, c.dropout),
        AdapterConfig::Ia3(c) => {
            c.targets.choose(&linear_names(base))?;
            (&c.targets, 0.0)
        }
        _ => (&none, 0.0),
    };
    // the layers' own errors are for what is no probability
    let refused = [
        (
            dropout > 0.0 && dropout < 1.0,
            "dropout",
            "must be 0: the decoder runs its layers without dropout",
        ),
        (
            !targets.modules_to_save.is_empty(),
            "modules_to_save",
            "must be empty: the decoder trains no module whole",
        ),
    ];
    match refused.into_iter().find(|(found, ..)| *found) {
        Some((_, argument, problem)) => Err(candle_align::Error::Argument {
            function: "adapt",
            argument: argument.to_string(),
            problem: problem.to_string(),
        }),
        None => Ok(()),
    }
}

/// The names of a model's linear maps, in the order of their layers.
fn linear_names(base: &Transformer) -> Vec<String> {
    let of = |l: usize| {
        [
            "attention.qkv",
            "attention.output",
            "feed_forward.up",
            "feed_forward.down",
        ]
        .map(|name| format!("layers.{l}.{name}"))
    };
    (0..base.config().layers).flat_map(of).collect()
}

/// A layer in place of a linear map, and what the map is when that is switched off, if it is not the
/// map itself.
type Replacement = Option<(Projection, Option<Projection>)>;

/// Makes the layers that stand in place of linear maps, and keeps what is trained of them.
struct Maker {
    /// The settings of each chosen linear map, under LoRA and its kin.
    chosen: BTreeMap<String, LoraConfig>,
    shared: Option<VeraProjections>,
    plans: Vec<LayerPlan>,
    vars: Vec<(String, Var)>,
    triplets: Vec<(String, AdaLoraLinear)>,
}

impl Maker {
    fn new(
        base: &Transformer,
        config: &AdapterConfig,
        plans: Vec<LayerPlan>,
        rng: &mut StdRng,
    ) -> Result<Self> {
        let chosen = match config {
            AdapterConfig::Lora(config)
            | AdapterConfig::Qlora(config)
            | AdapterConfig::Dora(config) => {
                let mut config = config.clone();
                if config.targets == Targets::default() {
                    config.targets.target_modules = TargetModules::AllLinear;
                }
                let chosen = config.for_modules(&linear_names(base))?;
                chosen.into_iter().collect()
            }
            _ => BTreeMap::new(),
        };
        let c = base.config();
        let (inputs, outputs) = (c.dim.max(c.feed_forward), (3 * c.dim).max(c.feed_forward));
        let table = &base.weights()["embedding.weight"];
        let shared = match config {
            AdapterConfig::Vera(config) => Some(VeraProjections::new(
                config,
                inputs,
                outputs,
                table.dtype(),
                table.device(),
                rng,
            )?),
            _ => None,
        };
        Ok(Self {
            chosen,
            shared,
            plans,
            vars: Vec::new(),
            triplets: Vec::new(),
        })
    }

    /// What stands in place of a linear map; `None` leaves it frozen.
    fn linear(
        &mut self,
        config: &AdapterConfig,
        name: &str,
        base: &Linear,
        rng: &mut StdRng,
    ) -> Result<Replacement> {
        match config {
            AdapterConfig::Lora(_) => match self.chosen.get(name) {
                Some(config) => {
                    let layer = LoraLinear::new(base, config, rng)?;
                    self.put(layer.trainable(name), layer)
                }
                None => Ok(None),
            },
            AdapterConfig::Qlora(_) => match self.chosen.get(name) {
                Some(config) => {
                    let layer = QloraLinear::new(base, BlockScale::Double, config, rng)?;
                    self.vars.extend(layer.trainable(name));
                    // switched off it is what it stands on, the map in four bits
                    let under: Projection = Box::new(layer.base().clone());
                    Ok(Some((Box::new(layer), Some(under))))
                }
                None => Ok(None),
            },
            AdapterConfig::Dora(_) => match self.chosen.get(name) {
                Some(config) => {
                    let layer = DoraLinear::new(base, config, rng)?;
                    self.put(layer.trainable(name), layer)
                }
                None => Ok(None),
            },
            AdapterConfig::AdaLora(config) => {
                let layer = AdaLoraLinear::new(base, config, rng)?;
                self.triplets.push((name.to_string(), layer.clone()));
                self.put(layer.trainable(name), layer)
            }
            AdapterConfig::Ia3(config) => match config.for_module(name)? {
                Some(place) => {
                    let layer = Ia3Linear::new(base, place)?;
                    self.put(layer.trainable(name), layer)
                }
                None => Ok(None),
            },
            AdapterConfig::Vera(config) => match &self.shared {
                Some(shared) => {
                    let layer = VeraLinear::new(base, shared, config)?;
                    self.put(layer.trainable(name), layer)
                }
                None => Ok(None),
            },
            AdapterConfig::BitFit => {
                let layer = BiasLinear::new(base)?;
                self.put(layer.trainable(name), layer)
            }
            AdapterConfig::DesignSpace { .. } => self.planned(name, base, rng),
            AdapterConfig::Prompt(_)
            | AdapterConfig::Prefix(_)
            | AdapterConfig::Adapter { .. }
            | AdapterConfig::Mam(_) => Ok(None),
        }
    }

    fn put(
        &mut self,
        vars: Vec<(String, Var)>,
        layer: impl Module + Send + Sync + 'static,
    ) -> Result<Replacement> {
        self.vars.extend(vars);
        Ok(Some((Box::new(layer), None)))
    }

    /// LoRA, trained biases, both or neither, as the layer's plan says.
    fn planned(&mut self, name: &str, base: &Linear, rng: &mut StdRng) -> Result<Replacement> {
        let number = name.split('.').nth(1).and_then(|l| l.parse::<usize>().ok());
        let Some(plan) = number.and_then(|l| self.plans.get(l)).cloned() else {
            return Ok(None);
        };
        if plan.rank == 0 || !name.ends_with("attention.qkv") {
            if !plan.biases {
                return Ok(None);
            }
            let layer = BiasLinear::new(base)?;
            return self.put(layer.trainable(name), layer);
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
        self.put(layer.trainable(name), layer)
    }
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
        AdapterConfig::Lora(_)
        | AdapterConfig::Qlora(_)
        | AdapterConfig::Dora(_)
        | AdapterConfig::AdaLora(_)
        | AdapterConfig::Ia3(_)
        | AdapterConfig::Vera(_)
        | AdapterConfig::BitFit => {}
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
    plain: Projection,
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
