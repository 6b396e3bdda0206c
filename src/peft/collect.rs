//! From the layers of a model to a file.

use super::agree::{agrees, table, whole};
use super::config::{AdaLoraFile, AdapterMethod, PeftConfig, PrefixFile, PromptFile};
use super::keys::sorted;
use super::settings::Rules;
use super::{AdapterFile, AnyAdapter, ModelAdapters, PREFIX, PROMPT};
use super::{finite, tokens};
use crate::error::{Error, Result};
use crate::parameter_efficient::adalora::AdaLoraLinear;
use crate::parameter_efficient::adapter::Adapter;
use crate::parameter_efficient::prefix::PrefixEncoder;
use crate::parameter_efficient::prompt::PromptEmbedding;
use crate::parameter_efficient::targets::TargetModules;
use crate::parameter_efficient::vera::VeraProjections;
use candle_core::Tensor;
use std::collections::BTreeMap;

const FUNCTION: &str = "AdapterFile::from_layers";

impl AdapterFile {
    /// The file for these layers. It shares the layers' tensors and does not copy them: write it before
    /// training continues.
    ///
    /// "all-linear" is replaced by the paths of the layers, as in PEFT. For an AdaLoRA layer that still has
    /// all triplets, those in `kept` are written. A layer that was cut and is not in `kept` is padded with
    /// triplets of λ = 0, since without `kept` PEFT expects all of them.
    ///
    /// # Errors
    /// [`Error::Argument`] for a layer of another method, and for a layer that the settings do not choose or
    /// to which they give another rank, scale or place; for a module to save without weights; for a number
    /// that is not finite; and for VeRA without projections, or with others than those of its layers.
    /// [`Error::Parameter`] for settings that a file cannot hold.
    pub fn from_layers(mut config: PeftConfig, layers: &ModelAdapters) -> Result<Self> {
        settle(&mut config.method, layers.layers.keys());
        super::write::text(FUNCTION, &config)?;
        let rules = Rules::new(FUNCTION, &config.method)?;
        let mut tensors = BTreeMap::new();
        for (path, layer) in &layers.layers {
            let problem = |text: &str| Error::argument(FUNCTION, path.as_str(), text);
            let settings = rules.of(path)?;
            let settings = settings.ok_or_else(|| problem("is not chosen by the settings"))?;
            agrees(&settings, layer).map_err(|text| problem(&text))?;
            let written = match (layer, &config.method) {
                (AnyAdapter::AdaLora(layer), AdapterMethod::AdaLora(file)) => {
                    file.model.config.check(FUNCTION)?; // before zeros fill it up to its rank
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
        whole(FUNCTION, &config, layers)?;
        for (name, tensor) in &layers.weights {
            let adapted = name.strip_suffix(".weight");
            if let Some((path, token)) = table(&config, layers, name) {
                let rows = tokens::indices(FUNCTION, token.0, token.1, tensor)?;
                let rows = tensor.detach().index_select(&rows, 0)?;
                tensors.insert(tokens::delta(path), rows);
                continue;
            }
            let name = match adapted.filter(|path| layers.layers.contains_key(*path)) {
                Some(path) => format!("{PREFIX}{path}.base_layer.weight"),
                None => format!("{PREFIX}{name}"),
            };
            tensors.insert(name, tensor.detach());
        }
        if let AdapterMethod::Vera(_) = config.method {
            let problem = || Error::argument(FUNCTION, "layers", "holds no projections of VeRA");
            let shared = layers.projections.as_ref().ok_or_else(problem)?;
            let (a, b) = projections(shared, layers)?;
            tensors.insert("base_model.vera_A".to_string(), a);
            tensors.insert("base_model.vera_B".to_string(), b);
        }
        finite::require(FUNCTION, "layers", &tensors)?;
        Ok(Self {
            config,
            tensors,
            left_out: Vec::new(),
        })
    }

    /// The file of a prompt, for a base model that need not be described further. Set its `task` before
    /// Python wraps a model with it.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `config` is for a prompt of this length and width and its numbers are
    /// finite.
    pub fn from_prompt(config: PeftConfig, prompt: &PromptEmbedding) -> Result<Self> {
        let (length, dim) = prompt.values().dims2()?;
        let expected = match &config.method {
            AdapterMethod::Prompt(PromptFile { length, dim, .. }) => Some((*length, *dim)),
            _ => None,
        };
        if expected != Some((length, dim)) {
            let text = format!("is not of a prompt of {length} vectors of {dim} numbers");
            return Err(Error::argument("AdapterFile::from_prompt", "config", text));
        }
        let values = prompt.values().as_detached_tensor();
        Self::of_vectors("AdapterFile::from_prompt", config, "prompt", values)
    }

    /// The file of a prefix: its current keys and values, without the network that made them.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `config` is for a prefix of this length and shape and its numbers are
    /// finite.
    pub fn from_prefix(config: PeftConfig, prefix: &PrefixEncoder) -> Result<Self> {
        let (length, shape) = (prefix.length(), prefix.shape());
        if config.method != AdapterMethod::Prefix(PrefixFile { length, shape }) {
            let text = format!("is not of a prefix of length {length} and {shape:?}");
            return Err(Error::argument("AdapterFile::from_prefix", "config", text));
        }
        let values = prefix.values()?.detach();
        Self::of_vectors("AdapterFile::from_prefix", config, "prefix", values)
    }

    fn of_vectors(
        function: &'static str,
        config: PeftConfig,
        argument: &str,
        values: Tensor,
    ) -> Result<Self> {
        let tensors = BTreeMap::from([(PROMPT.to_string(), values)]);
        finite::require(function, argument, &tensors)?;
        Ok(Self {
            config,
            tensors,
            left_out: Vec::new(),
        })
    }
}

/// VeRA's A and B, as large as the largest layer: PEFT accepts no others.
fn projections(shared: &VeraProjections, layers: &ModelAdapters) -> Result<(Tensor, Tensor)> {
    let (mut outputs, mut inputs) = (0, 0);
    for (path, layer) in &layers.layers {
        let AnyAdapter::Vera(layer) = layer else {
            continue; // was an error above
        };
        if !layer.uses(shared)? {
            let text = "has other projections than `layers`";
            return Err(Error::argument(FUNCTION, path.as_str(), text));
        }
        let (out, inner) = layer.base().weight().dims2()?;
        (outputs, inputs) = (outputs.max(out), inputs.max(inner));
    }
    let a = shared.a().narrow(1, 0, inputs)?.contiguous()?;
    let b = shared.b().narrow(0, 0, outputs)?.contiguous()?;
    Ok((a, b))
}

/// The settings in the form of a file: names sorted, "all-linear" replaced by names.
fn settle<'a>(method: &mut AdapterMethod, paths: impl Iterator<Item = &'a String> + Clone) {
    if let AdapterMethod::Ia3(file) = method {
        let model = &mut file.model;
        if let (TargetModules::AllLinear, TargetModules::Names(names)) = (
            &model.targets.target_modules,
            &mut model.feedforward_modules,
        ) {
            // by name too: PEFT accepts only names that are among those of the targets
            let ends = |path: &&String| names.iter().any(|name| path.ends_with(name.as_str()));
            *names = paths.clone().filter(ends).cloned().collect();
        }
        model.feedforward_modules = sorted(std::mem::take(&mut model.feedforward_modules));
    }
    let Some(targets) = method.targets_mut() else {
        return;
    };
    if targets.target_modules == TargetModules::AllLinear {
        targets.target_modules = TargetModules::Names(paths.cloned().collect());
    }
    targets.target_modules = sorted(std::mem::take(&mut targets.target_modules));
    targets.exclude_modules = sorted(std::mem::take(&mut targets.exclude_modules));
}

/// The triplets of an AdaLoRA layer that go into its file.
fn triplets(
    layer: &AdaLoraLinear,
    file: &AdaLoraFile,
    path: &str,
) -> Result<Vec<(String, Tensor)>> {
    let (rank, start) = (layer.rank(), file.model.config.rank);
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
