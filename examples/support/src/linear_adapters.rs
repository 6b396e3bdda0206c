//! The layers that replace the linear maps of the decoder.

use super::adapter_config::AdapterSettings;
use super::beside::Mode;
use super::transformer::{Projection, Transformer};
use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraLinear, Adapter, BiasLinear, BlockScale, DoraLinear, Ia3Linear, LayerPlan, LoraBias,
    LoraConfig, LoraForModel, LoraLinear, QloraLinear, TargetModules, Targets, VeraLinear,
    VeraProjections,
};
use candle_align::peft::AnyAdapter;
use candle_core::{Module, Tensor, Var};
use candle_nn::Linear;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The names of a model's linear maps, in the order of their layers.
pub fn linear_names(base: &Transformer) -> Vec<String> {
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

/// A layer that replaces a linear map, and the map when the layer is off, if it differs from the
/// original.
pub(super) type Replacement = Option<(Layer, Option<Projection>)>;

/// The replacement of a linear map.
pub(super) enum Layer {
    Adapter(AnyAdapter),
    Bias(BiasLinear),
}

/// An empty choice means all linear maps.
fn or_all(targets: &Targets) -> Targets {
    let mut targets = targets.clone();
    if targets == Targets::default() {
        targets.target_modules = TargetModules::AllLinear;
    }
    targets
}

/// Makes the layers that replace linear maps, and keeps their trained variables.
pub(super) struct Maker {
    /// The settings of each chosen linear map, under LoRA and its kin; under AdaLoRA, (IA)³ and VeRA
    /// only which are chosen.
    chosen: BTreeMap<String, LoraConfig>,
    pub(super) shared: Option<VeraProjections>,
    pub(super) plans: Vec<LayerPlan>,
    pub(super) vars: Vec<(String, Var)>,
    pub(super) layers: BTreeMap<String, AnyAdapter>,
}

impl Maker {
    pub(super) fn new(
        base: &Transformer,
        config: &AdapterSettings,
        targets: &Targets,
        plans: Vec<LayerPlan>,
        rng: &mut StdRng,
    ) -> Result<Self> {
        let names = linear_names(base);
        let plain = |targets: &Targets| -> Result<Vec<(String, LoraConfig)>> {
            let chosen = targets.choose(&names)?.into_iter();
            Ok(chosen.map(|name| (name, LoraConfig::default())).collect())
        };
        let chosen = match config {
            AdapterSettings::Lora(config)
            | AdapterSettings::Qlora(config)
            | AdapterSettings::Dora(config) => {
                let targets = or_all(&config.targets);
                let config = LoraForModel {
                    targets,
                    ..config.clone()
                };
                config.for_modules(&names)?
            }
            AdapterSettings::AdaLora(_) | AdapterSettings::Vera(_) => plain(&or_all(targets))?,
            AdapterSettings::Ia3(config) => plain(&config.targets)?,
            _ => Vec::new(),
        };
        let chosen: BTreeMap<String, LoraConfig> = chosen.into_iter().collect();
        let shared = match config {
            AdapterSettings::Vera(config) => {
                let (mut inputs, mut outputs) = (0, 0);
                for name in chosen.keys() {
                    let (output, input) = base.weights()[&format!("{name}.weight")].dims2()?;
                    (inputs, outputs) = (inputs.max(input), outputs.max(output));
                }
                let table = &base.weights()["embedding.weight"];
                let (dtype, device) = (table.dtype(), table.device());
                Some(VeraProjections::new(
                    config, inputs, outputs, dtype, device, rng,
                )?)
            }
            _ => None,
        };
        Ok(Self {
            chosen,
            shared,
            plans,
            vars: Vec::new(),
            layers: BTreeMap::new(),
        })
    }

    /// The replacement of a linear map; `None` leaves it frozen.
    pub(super) fn linear(
        &mut self,
        config: &AdapterSettings,
        name: &str,
        base: &Linear,
        rng: &mut StdRng,
    ) -> Result<Replacement> {
        let chosen = self.chosen.get(name);
        let layer = match (config, chosen) {
            (AdapterSettings::Lora(_), Some(config)) => {
                AnyAdapter::Lora(LoraLinear::new(base, config, rng)?)
            }
            (AdapterSettings::Qlora(_), Some(config)) => {
                let layer = QloraLinear::new(base, BlockScale::Double, config, rng)?;
                // off, it is its base: the map in four bits
                let under: Projection = Box::new(layer.base().clone());
                let (layer, _) = self.put(name, AnyAdapter::Qlora(layer));
                return Ok(Some((layer, Some(under))));
            }
            (AdapterSettings::Dora(_), Some(config)) => {
                AnyAdapter::Dora(DoraLinear::new(base, config, rng)?)
            }
            (AdapterSettings::AdaLora(config), Some(_)) => {
                AnyAdapter::AdaLora(AdaLoraLinear::new(base, config, rng)?)
            }
            (AdapterSettings::Vera(config), Some(_)) => match &self.shared {
                Some(shared) => AnyAdapter::Vera(VeraLinear::new(base, shared, config)?),
                None => return Ok(None),
            },
            (AdapterSettings::Ia3(config), Some(_)) => match config.for_module(name)? {
                Some(place) => AnyAdapter::Ia3(Ia3Linear::new(base, place)?),
                None => return Ok(None),
            },
            (AdapterSettings::BitFit {}, _) => return self.biases(name, base),
            (AdapterSettings::DesignSpace { .. }, _) => return self.planned(name, base, rng),
            _ => return Ok(None),
        };
        Ok(Some(self.put(name, layer)))
    }

    fn put(&mut self, name: &str, layer: AnyAdapter) -> (Layer, Option<Projection>) {
        self.vars.extend(layer.trainable(name));
        self.layers.insert(name.to_string(), layer.clone());
        (Layer::Adapter(layer), None)
    }

    fn biases(&mut self, name: &str, base: &Linear) -> Result<Replacement> {
        let layer = BiasLinear::new(base)?;
        self.vars.extend(layer.trainable(name));
        Ok(Some((Layer::Bias(layer), None)))
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
            return self.biases(name, base);
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
        Ok(Some(self.put(name, AnyAdapter::Lora(layer))))
    }
}

/// A linear map's adapter, or the map itself while the adapter is off.
pub(super) struct Switched {
    pub(super) layer: Layer,
    pub(super) plain: Projection,
    pub(super) mode: Arc<Mode>,
}

impl Module for Switched {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if !self.mode.on.load(Ordering::Relaxed) {
            return self.plain.forward(x);
        }
        match &self.layer {
            Layer::Bias(layer) => layer.forward(x),
            Layer::Adapter(layer) => {
                let mut rng = self.mode.rng.lock().unwrap_or_else(|e| e.into_inner());
                match rng.as_mut() {
                    Some(rng) => Ok(layer.forward_train(x, rng)?),
                    None => layer.forward(x),
                }
            }
        }
    }
}
