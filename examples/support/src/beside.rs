//! The adapters beside the linear maps: before the input, inside the attention, around the parts of a
//! block.

use super::adapter_config::AdapterSettings;
use super::transformer::Transformer;
use candle_align::Result;
use candle_align::parameter_efficient::{
    BottleneckAdapter, BottleneckConfig, LayerPlan, Placement, PrefixConfig, PrefixEncoder,
    PrefixLayer, PrefixShape, PromptEmbedding, Reparametrization,
};
use candle_core::{Tensor, Var};
use rand::rngs::StdRng;
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
    pub(super) mode: Arc<Mode>,
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

    pub(super) fn vars(&self) -> Vec<(String, Var)> {
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

/// The adapters beside the linear maps.
pub(super) fn beside(
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
                        reparametrization: Reparametrization::Direct,
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
