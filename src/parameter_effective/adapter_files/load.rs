//! From a file to the layers of a model.

use super::config::{AdapterConfig, AdapterMethod};
use super::layer::{AdapterLayer, AdapterLayers};
use super::saved::{Saved, base_parameter};
use super::settings::Rules;
use super::{AdapterFile, PREFIX, Strictness};
use crate::{Error, Result, TargetModules};
use candle_core::Tensor;
use std::collections::{BTreeMap, HashMap};

impl AdapterFile {
    /// The adapter on a base model, given as its state dict: names as in Python, such as
    /// `model.layers.0.self_attn.q_proj.weight`. The base weights are shared, not copied; the
    /// adapter is copied, into f64 over an f64 base and into f32 over any other. A weight in
    /// bitsandbytes' NF4 ([`Nf4Linear`](crate::Nf4Linear)) makes LoRA a [`QloraLinear`](crate::QloraLinear).
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor that is missing, of another shape, or of no module that the
    /// settings choose, unless `strictness` is lenient; for a base with no module that they choose,
    /// or whose chosen modules are neither linear layers nor embeddings; and for the settings
    /// themselves, as the layers say.
    pub fn layers(
        &self,
        base: &HashMap<String, Tensor>,
        strictness: Strictness,
    ) -> Result<AdapterLayers> {
        let mut loader = Loader {
            left: self.tensors.clone(),
            base,
            strictness,
            found: AdapterLayers::default(),
        };
        loader.read(&self.config)?;
        Ok(loader.found)
    }

    /// The base model's state dict with the adapter merged into it.
    ///
    /// # Errors
    /// As [`AdapterFile::layers`]; [`Error::Argument`] if a merged weight would not be finite.
    pub fn merged(
        &self,
        base: &HashMap<String, Tensor>,
        strictness: Strictness,
    ) -> Result<HashMap<String, Tensor>> {
        let found = self.layers(base, strictness)?;
        let mut merged = base.clone();
        merged.extend(found.weights);
        for (path, layer) in found.layers {
            let (weight, bias) = layer.merged()?;
            let embedding = matches!(layer, AdapterLayer::LoraEmbedding(_));
            let weight = match self.config.method.fan_in_fan_out() && !embedding {
                true => weight.t()?.contiguous()?,
                false => weight,
            };
            if let AdapterLayer::Qlora(_) = layer {
                let parts = format!("{path}.weight.");
                merged.retain(|name, _| !name.starts_with(&parts));
            }
            merged.insert(format!("{path}.weight"), weight);
            if let Some(bias) = bias {
                merged.insert(format!("{path}.bias"), bias);
            }
        }
        Ok(merged)
    }
}

pub(super) const FUNCTION: &str = "AdapterFile::layers";

pub(super) struct Loader<'a> {
    pub(super) left: BTreeMap<String, Tensor>,
    pub(super) base: &'a HashMap<String, Tensor>,
    strictness: Strictness,
    pub(super) found: AdapterLayers,
}

impl Loader<'_> {
    fn read(&mut self, config: &AdapterConfig) -> Result<()> {
        let method = &config.method;
        let Some(targets) = method.targets() else {
            let text = "is of a prompt or a prefix, which has no layers";
            return Err(Error::argument(FUNCTION, "self", text));
        };
        if targets.target_modules == TargetModules::AllLinear {
            let text = "chooses \"all-linear\", which needs the model itself: name the modules";
            return Err(Error::argument(FUNCTION, "target_modules", text));
        }
        let base = self.base;
        let mut paths: Vec<&str> = base
            .keys()
            .filter_map(|k| k.strip_suffix(".weight"))
            .collect();
        paths.sort();
        let rules = Rules::new(FUNCTION, method)?;
        let mut chosen = Vec::new();
        for path in paths {
            if let Some(settings) = rules.of(path)? {
                chosen.push((path, settings));
            }
        }
        if chosen.is_empty() {
            let text = "holds no module that the settings choose";
            return Err(Error::argument(FUNCTION, "base", text));
        }
        if let AdapterMethod::AdaLora(file) = method {
            let known = |path: &String| chosen.iter().any(|(found, _)| found == path);
            for path in file.kept.keys().filter(|path| !known(path)) {
                self.problem(format!(
                    "has a `rank_pattern` for `{path}`, which the settings do not choose"
                ))?;
            }
        }
        if let AdapterMethod::Vera(file) = method {
            self.projections(file.config.rank, &chosen, method.fan_in_fan_out())?;
        }
        for (path, settings) in &chosen {
            if let Some(layer) = self.layer(path, settings, method.fan_in_fan_out())? {
                self.found.layers.insert(path.to_string(), layer);
            }
        }
        if let AdapterMethod::Lora(file) = method {
            self.tokens(&file.tokens)?;
        }
        self.saved(&Saved::new(config, &targets.modules_to_save))?;
        if matches!(method, AdapterMethod::Lora(file) if file.all_biases) {
            self.biases()?;
        }
        self.rest()
    }

    /// An error, or a note if the reader is lenient.
    pub(super) fn problem(&mut self, text: String) -> Result<()> {
        match self.strictness {
            Strictness::Strict => Err(Error::argument(FUNCTION, super::TENSORS, text)),
            Strictness::Lenient => {
                self.found.left_out.push(text);
                Ok(())
            }
        }
    }

    /// Whether there is a tensor of this name and shape.
    pub(super) fn fits(&mut self, name: &str, shape: &[usize]) -> Result<bool> {
        let text = match self.left.get(name) {
            None => format!("holds no `{name}`, of shape {shape:?}"),
            Some(tensor) if tensor.dims() != shape => format!(
                "holds `{name}` of shape {:?}, expected {shape:?}",
                tensor.dims()
            ),
            Some(_) => return Ok(true),
        };
        self.problem(text)?;
        Ok(false)
    }

    /// The tensor of this name and shape; one of another shape is gone afterwards.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        let fits = self.fits(name, shape)?;
        let tensor = self.left.remove(name);
        Ok(tensor.filter(|_| fits))
    }

    /// A weight of the base, taken from the file.
    fn weight(&mut self, name: &str) -> Result<()> {
        let base = &self.base[name];
        if let Some(found) = self.take(&format!("{PREFIX}{name}"), base.dims())? {
            let found = found.to_dtype(base.dtype())?.to_device(base.device())?;
            self.found.weights.insert(name.to_string(), found);
        }
        Ok(())
    }

    /// All parameters of the modules that were trained whole.
    fn saved(&mut self, saved: &Saved) -> Result<()> {
        let base = self.base;
        for name in saved.missing(base.keys()) {
            self.problem(format!(
                "was made with `modules_to_save` = `{name}`, which is not in `base`"
            ))?;
        }
        let mut parameters: Vec<&String> = base.keys().filter(|name| saved.holds(name)).collect();
        parameters.sort();
        for parameter in parameters {
            if !self.found.weights.contains_key(parameter) {
                self.weight(parameter)?;
            }
        }
        Ok(())
    }

    /// The biases of the modules without an adapter; those of the others are in the layers.
    fn biases(&mut self) -> Result<()> {
        let base = self.base;
        let mut names: Vec<&String> = base.keys().filter(|name| name.ends_with(".bias")).collect();
        names.sort();
        for name in names {
            let path = name.trim_end_matches(".bias");
            let adapted = self.found.layers.contains_key(path);
            if !adapted && !self.found.weights.contains_key(name) {
                self.weight(name)?;
            }
        }
        // PEFT writes the biases of modules trained whole thrice, and reads them under their own name
        let found = &self.found.weights;
        self.left
            .retain(|name, _| base_parameter(name).is_none_or(|name| !found.contains_key(&name)));
        Ok(())
    }

    /// What is left: parameters of the base, which PEFT loads whatever the settings say, and what
    /// belongs nowhere.
    fn rest(&mut self) -> Result<()> {
        let left: Vec<String> = self.left.keys().cloned().collect();
        for name in left {
            let adapted = |parameter: &str| {
                let path = parameter.rsplit_once('.').map_or("", |(path, _)| path);
                self.found.layers.contains_key(path)
            };
            match name.strip_prefix(PREFIX) {
                Some(parameter) if self.base.contains_key(parameter) && !adapted(parameter) => {
                    self.weight(parameter)?
                }
                Some(parameter) => match self.absent(parameter) {
                    Some(weight) => {
                        self.problem(format!("holds `{name}`, and `base` holds no `{weight}`"))?
                    }
                    None => self.nowhere(&name)?,
                },
                None => self.nowhere(&name)?,
            }
        }
        Ok(())
    }

    fn nowhere(&mut self, name: &str) -> Result<()> {
        self.problem(format!("holds `{name}`, which the settings give no place"))
    }

    /// The weight that the base lacks, if the tensor of this name is of an adapter over it.
    fn absent(&self, name: &str) -> Option<String> {
        let kinds = [".lora_", ".ia3_", ".vera_"];
        let at = kinds.iter().find_map(|kind| name.find(kind))?;
        let weight = format!("{}.weight", &name[..at]);
        (!self.base.contains_key(&weight)).then_some(weight)
    }
}
