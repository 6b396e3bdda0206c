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
use super::beside::{Mode, beside};
use super::linear_adapters::{Maker, Switched};
use super::transformer::Transformer;
use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraLinear, FrozenLinear, LayerSize, Targets, VeraProjections,
};
use candle_align::peft::AnyAdapter;
use candle_core::Var;
use candle_nn::Linear;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
