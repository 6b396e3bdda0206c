//! From the layers of a model to a file.

use super::config::{AdaLoraFile, AdapterConfig, AdapterMethod, PrefixFile, PromptFile, sorted};
use super::settings::Settings;
use super::{AdapterFile, AdapterLayer, AdapterLayers, PREFIX, PROMPT};
use crate::{AdaLoraLinear, Error, PrefixEncoder, PromptEmbedding, Result, TargetModules};
use candle_core::Tensor;
use std::collections::BTreeMap;

const FUNCTION: &str = "AdapterFile::from_layers";

impl AdapterFile {
    /// The file of these layers. The tensors are those of the layers, not copies: write it before
    /// training goes on.
    ///
    /// "all-linear" is replaced by the paths of the layers, as in PEFT. The keys of a `rank_pattern`
    /// or `alpha_pattern` are sorted, as PEFT does, and must mean the same afterwards. Of an AdaLoRA
    /// layer that still has all triplets those that `kept` leaves are written; one that was cut and
    /// is not in `kept` is filled up with triplets of λ = 0, since without `kept` PEFT expects all.
    ///
    /// # Errors
    /// [`Error::Argument`] for a layer of another method, a layer that the settings do not choose or
    /// to which they give another rank, scale or place, and for VeRA without projections;
    /// [`Error::Parameter`] for settings that a file cannot hold.
    pub fn from_layers(mut config: AdapterConfig, layers: &AdapterLayers) -> Result<Self> {
        settle(&mut config.method, layers.layers.keys());
        super::write::text(FUNCTION, &config)?;
        let mut tensors = BTreeMap::new();
        for (path, layer) in &layers.layers {
            let problem = |text: &str| Error::argument(FUNCTION, path.as_str(), text);
            let settings = Settings::of(&config.method, path)?
                .ok_or_else(|| problem("is not chosen by the settings"))?;
            agrees(&settings, layer).map_err(|text| problem(&text))?;
            let written = match (layer, &config.method) {
                (AdapterLayer::AdaLora(layer), AdapterMethod::AdaLora(file)) => {
                    triplets(layer, file, path)?
                }
                _ => {
                    let vars = layer.trainable(path).into_iter();
                    vars.map(|(name, var)| (name, var.as_detached_tensor()))
                        .collect()
                }
            };
            for (name, tensor) in written {
                tensors.insert(format!("{PREFIX}{name}"), tensor);
            }
        }
        if tensors.is_empty() {
            return Err(Error::argument(FUNCTION, "layers", "holds no layer"));
        }
        for (name, tensor) in &layers.weights {
            let adapted = name.strip_suffix(".weight");
            let name = match adapted.filter(|path| layers.layers.contains_key(*path)) {
                Some(path) => format!("{PREFIX}{path}.base_layer.weight"),
                None => format!("{PREFIX}{name}"),
            };
            tensors.insert(name, tensor.detach());
        }
        if let AdapterMethod::Vera(_) = config.method {
            let problem = || Error::argument(FUNCTION, "layers", "holds no projections of VeRA");
            let shared = layers.projections.as_ref().ok_or_else(problem)?;
            tensors.insert("base_model.vera_A".to_string(), shared.a().clone());
            tensors.insert("base_model.vera_B".to_string(), shared.b().clone());
        }
        Ok(Self {
            config,
            tensors,
            left_out: Vec::new(),
        })
    }

    /// The file of a prompt, for a base model of which nothing else need be known. Its `task` must be
    /// set before Python can wrap a model with it.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `config` is of a prompt of this length and width.
    pub fn from_prompt(config: AdapterConfig, prompt: &PromptEmbedding) -> Result<Self> {
        let (length, dim) = prompt.values().dims2()?;
        let expected = match &config.method {
            AdapterMethod::Prompt(PromptFile { length, dim, .. }) => Some((*length, *dim)),
            _ => None,
        };
        if expected != Some((length, dim)) {
            let text = format!("is not of a prompt of {length} vectors of {dim} numbers");
            return Err(Error::argument("AdapterFile::from_prompt", "config", text));
        }
        Ok(Self::of_vectors(
            config,
            prompt.values().as_detached_tensor(),
        ))
    }

    /// The file of a prefix: its keys and values of now, without the network that made them.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `config` is of a prefix of this length and shape.
    pub fn from_prefix(config: AdapterConfig, prefix: &PrefixEncoder) -> Result<Self> {
        let (length, shape) = (prefix.length(), prefix.shape());
        if config.method != AdapterMethod::Prefix(PrefixFile { length, shape }) {
            let text = format!("is not of a prefix of length {length} and {shape:?}");
            return Err(Error::argument("AdapterFile::from_prefix", "config", text));
        }
        Ok(Self::of_vectors(config, prefix.values()?.detach()))
    }

    fn of_vectors(config: AdapterConfig, values: Tensor) -> Self {
        Self {
            config,
            tensors: BTreeMap::from([(PROMPT.to_string(), values)]),
            left_out: Vec::new(),
        }
    }
}

/// The settings as a file states them: names and patterns sorted, "all-linear" by name.
fn settle<'a>(method: &mut AdapterMethod, paths: impl Iterator<Item = &'a String>) {
    let targets = match method {
        AdapterMethod::Lora(file) => {
            file.config.rank_pattern.sort_by(|a, b| a.0.cmp(&b.0));
            file.config.alpha_pattern.sort_by(|a, b| a.0.cmp(&b.0));
            &mut file.config.targets
        }
        AdapterMethod::AdaLora(file) => &mut file.targets,
        AdapterMethod::Ia3(file) => {
            let inner = std::mem::take(&mut file.config.feedforward_modules);
            file.config.feedforward_modules = sorted(inner);
            &mut file.config.targets
        }
        AdapterMethod::Vera(file) => &mut file.targets,
        AdapterMethod::Prompt(_) | AdapterMethod::Prefix(_) => return,
    };
    if targets.target_modules == TargetModules::AllLinear {
        targets.target_modules = TargetModules::Names(paths.cloned().collect());
    }
    targets.target_modules = sorted(std::mem::take(&mut targets.target_modules));
    targets.exclude_modules = sorted(std::mem::take(&mut targets.exclude_modules));
}

/// Whether the layer is what the settings of its module make.
fn agrees(settings: &Settings, layer: &AdapterLayer) -> Result<(), String> {
    let differs = |what: &str, has: f64, says: f64| match has == says {
        true => Ok(()),
        false => Err(format!("has {what} {has}, and the settings say {says}")),
    };
    match (settings, layer) {
        (Settings::Lora(config, dora), layer) => {
            let (rank, scale) = match (layer, dora) {
                (AdapterLayer::Lora(layer), false) => (layer.a().dims()[0], layer.scale()),
                (AdapterLayer::Qlora(layer), false) => (layer.a().dims()[0], layer.scale()),
                (AdapterLayer::LoraEmbedding(layer), false) => (layer.a().dims()[0], layer.scale()),
                (AdapterLayer::Dora(layer), true) => (layer.a().dims()[0], layer.scale()),
                _ => return Err("is a layer of another method".to_string()),
            };
            differs("rank", rank as f64, config.rank as f64)?;
            differs("scale", scale, config.scale())?;
            biases(config.bias, layer)
        }
        (Settings::AdaLora(file), AdapterLayer::AdaLora(layer)) => {
            differs("scale", layer.scale(), file.config.scale())
        }
        (Settings::Ia3(place), AdapterLayer::Ia3(layer)) if layer.place() == *place => Ok(()),
        (Settings::Ia3(place), AdapterLayer::Ia3(layer)) => Err(format!(
            "has its factors at the {:?}, and the settings say {place:?}",
            layer.place()
        )),
        (Settings::Vera(config), AdapterLayer::Vera(layer)) => {
            let rank = layer.lambda_d().dims()[0];
            differs("rank", rank as f64, config.rank as f64)
        }
        _ => Err("is a layer of another method".to_string()),
    }
}

/// Whether the layer trains the biases that the settings say.
fn biases(bias: crate::LoraBias, layer: &AdapterLayer) -> Result<(), String> {
    use crate::LoraBias::{Base, Frozen, Update};
    let (names, base) = match layer {
        AdapterLayer::Lora(layer) => (layer.trainable(""), layer.base().bias()),
        AdapterLayer::Qlora(layer) => (layer.trainable(""), layer.base().bias()),
        _ => return Ok(()),
    };
    let found = match names.iter().find(|(name, _)| name.ends_with("bias")) {
        None => Frozen,
        Some((name, _)) if name == "base_layer.bias" => Base,
        Some(_) => Update,
    };
    // a layer without a bias has none to train
    let none = bias == Base && found == Frozen && base.is_none();
    match found == bias || none {
        true => Ok(()),
        false => Err(format!(
            "trains the bias {found:?}, and the settings say {bias:?}"
        )),
    }
}

/// The triplets of an AdaLoRA layer that its file holds.
fn triplets(
    layer: &AdaLoraLinear,
    file: &AdaLoraFile,
    path: &str,
) -> Result<Vec<(String, Tensor)>> {
    let (rank, start) = (layer.rank(), file.config.rank);
    let problem = |text: String| Error::argument(FUNCTION, path, text);
    let vars = |layer: &AdaLoraLinear| -> Vec<(String, Tensor)> {
        let vars = layer.trainable(path).into_iter();
        vars.map(|(name, var)| (name, var.as_detached_tensor()))
            .collect()
    };
    if let Some(kept) = file.kept.get(path) {
        let left = kept.iter().filter(|kept| **kept).count();
        if kept.len() != start {
            let text = format!(
                "has {} entries in `kept`, for a rank of {start}",
                kept.len()
            );
            return Err(problem(text));
        }
        return match rank {
            _ if rank == left => Ok(vars(layer)),
            _ if rank == start => Ok(vars(&layer.cut(kept)?)),
            _ => Err(problem(format!(
                "has {rank} triplets, and `kept` leaves {left}"
            ))),
        };
    }
    if rank > start {
        return Err(problem(format!(
            "has {rank} triplets, and the settings say {start}"
        )));
    }
    let mut filled = Vec::new();
    for (name, tensor) in vars(layer) {
        let axis = if name.ends_with("lora_B") { 1 } else { 0 };
        filled.push((name, tensor.pad_with_zeros(axis, 0, start - rank)?));
    }
    Ok(filled)
}
