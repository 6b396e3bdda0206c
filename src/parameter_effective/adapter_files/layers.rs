//! From a file to the layers of a model.

use super::config::{AdaLoraFile, AdapterMethod, LoraFile};
use super::{AdapterFile, PREFIX, Strictness};
use crate::parameter_effective::frozen_linear::compute_type;
use crate::{
    AdaLoraLinear, DoraLinear, Error, Ia3Linear, LoraBias, LoraConfig, LoraEmbedding, LoraLinear,
    Result, VeraLinear, VeraProjections,
};
use candle_core::{Tensor, Var};
use candle_nn::{Embedding, Linear, Module};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, HashMap};

/// One layer under an adapter.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the types say it
pub enum AdapterLayer {
    Lora(LoraLinear),
    LoraEmbedding(LoraEmbedding),
    Dora(DoraLinear),
    AdaLora(AdaLoraLinear),
    Ia3(Ia3Linear),
    Vera(VeraLinear),
}

/// The same expression for every kind of layer.
macro_rules! each {
    ($layer:expr, $found:ident => $what:expr) => {
        match $layer {
            AdapterLayer::Lora($found) => $what,
            AdapterLayer::LoraEmbedding($found) => $what,
            AdapterLayer::Dora($found) => $what,
            AdapterLayer::AdaLora($found) => $what,
            AdapterLayer::Ia3($found) => $what,
            AdapterLayer::Vera($found) => $what,
        }
    };
}

impl AdapterLayer {
    /// What is trained, under the names of the file without `base_model.model.`; `prefix` is the path
    /// of the module.
    pub fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        each!(self, layer => layer.trainable(prefix))
    }

    /// Switches the adapter off, to the base layer exactly, or on again.
    pub fn set_enabled(&mut self, enabled: bool) {
        each!(self, layer => layer.set_enabled(enabled))
    }

    /// Puts the change into the weight.
    ///
    /// # Errors
    /// As the layer's own `merge`.
    pub fn merge(&mut self) -> Result<()> {
        each!(self, layer => layer.merge())
    }

    /// Back to the base weight and the adapter beside it.
    pub fn unmerge(&mut self) {
        each!(self, layer => layer.unmerge())
    }

    /// The merged weight, as the layer keeps it, and the merged bias.
    ///
    /// # Errors
    /// As the layer's own `merge`.
    pub fn merged(&self) -> Result<(Tensor, Option<Tensor>)> {
        let linear = match self {
            Self::LoraEmbedding(layer) => {
                return Ok((layer.merged_embedding()?.embeddings().clone(), None));
            }
            Self::Lora(layer) => layer.merged_linear()?,
            Self::Dora(layer) => layer.merged_linear()?,
            Self::AdaLora(layer) => layer.merged_linear()?,
            Self::Ia3(layer) => layer.merged_linear()?,
            Self::Vera(layer) => layer.merged_linear()?,
        };
        Ok((linear.weight().clone(), linear.bias().cloned()))
    }
}

impl Module for AdapterLayer {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        each!(self, layer => layer.forward(x))
    }
}

/// What a file makes of a base model, or what a file is made of.
#[derive(Clone, Debug, Default)]
pub struct AdapterLayers {
    /// The layers under an adapter, by the path of their module.
    pub layers: BTreeMap<String, AdapterLayer>,
    /// Weights that take the place of the base model's, under its own names: the modules that were
    /// trained whole, biases of other modules, a vocabulary that was saved with the adapter.
    pub weights: BTreeMap<String, Tensor>,
    /// VeRA's A and B.
    pub projections: Option<VeraProjections>,
    /// What a lenient reader left out, in words.
    pub left_out: Vec<String>,
}

impl AdapterFile {
    /// The adapter on a base model, given as its state dict: names as in Python, such as
    /// `model.layers.0.self_attn.q_proj.weight`. The base weights are shared, not copied; the
    /// adapter is copied, into f64 over an f64 base and into f32 over any other.
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
        loader.read(&self.config.method)?;
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
            merged.insert(format!("{path}.weight"), weight);
            if let Some(bias) = bias {
                merged.insert(format!("{path}.bias"), bias);
            }
        }
        Ok(merged)
    }
}

const FUNCTION: &str = "AdapterFile::layers";

struct Loader<'a> {
    left: BTreeMap<String, Tensor>,
    base: &'a HashMap<String, Tensor>,
    strictness: Strictness,
    found: AdapterLayers,
}

impl Loader<'_> {
    fn read(&mut self, method: &AdapterMethod) -> Result<()> {
        let Some(targets) = method.targets() else {
            let text = "is of a prompt or a prefix, which has no layers";
            return Err(Error::argument(FUNCTION, "self", text));
        };
        if targets.target_modules == crate::TargetModules::AllLinear {
            let text = "chooses \"all-linear\", which needs the model itself: name the modules";
            return Err(Error::argument(FUNCTION, "target_modules", text));
        }
        let base = self.base;
        let mut paths: Vec<&str> = base
            .keys()
            .filter_map(|k| k.strip_suffix(".weight"))
            .collect();
        paths.sort();
        let mut chosen = Vec::new();
        for path in paths {
            if let Some(settings) = Settings::of(method, path)? {
                chosen.push((path, settings));
            }
        }
        if chosen.is_empty() {
            let text = "holds no module that the settings choose";
            return Err(Error::argument(FUNCTION, "base", text));
        }
        if let AdapterMethod::Vera(file) = method {
            self.projections(file.config.rank, &chosen, method.fan_in_fan_out())?;
        }
        for (path, settings) in &chosen {
            if let Some(layer) = self.layer(path, settings, method.fan_in_fan_out())? {
                self.found.layers.insert(path.to_string(), layer);
            }
        }
        self.saved(&targets.modules_to_save)?;
        if matches!(method, AdapterMethod::Lora(file) if file.all_biases) {
            self.biases()?;
        }
        self.rest()
    }

    /// An error, or a note if the reader is lenient.
    fn problem(&mut self, text: String) -> Result<()> {
        match self.strictness {
            Strictness::Strict => Err(Error::argument(FUNCTION, super::TENSORS, text)),
            Strictness::Lenient => {
                self.found.left_out.push(text);
                Ok(())
            }
        }
    }

    /// Whether there is a tensor of this name and shape.
    fn fits(&mut self, name: &str, shape: &[usize]) -> Result<bool> {
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
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        let fits = self.fits(name, shape)?;
        let tensor = self.left.remove(name);
        Ok(tensor.filter(|_| fits))
    }

    /// The module of the base at `path`: a weight `[out, in]` and its bias. A weight that was saved
    /// with the adapter goes before the base's.
    fn module(&mut self, path: &str, transposed: bool) -> Result<Linear> {
        let name = format!("{path}.weight");
        let mut weight = self.base[&name].clone();
        if weight.rank() != 2 {
            let text = format!(
                "holds `{name}` with {} axes; the settings choose `{path}`, and only linear layers \
                 and embeddings have an adapter",
                weight.rank()
            );
            return Err(Error::argument(FUNCTION, "base", text));
        }
        let saved = format!("{PREFIX}{path}.base_layer.weight");
        if self.left.contains_key(&saved)
            && let Some(saved) = self.take(&saved, weight.dims())?
        {
            weight = saved.to_dtype(weight.dtype())?.to_device(weight.device())?;
            self.found.weights.insert(name, weight.clone());
        }
        if transposed {
            weight = weight.t()?.contiguous()?;
        }
        Ok(Linear::new(
            weight,
            self.base.get(&format!("{path}.bias")).cloned(),
        ))
    }

    /// A fresh layer of the right shape, and then the file's numbers in it.
    fn layer(
        &mut self,
        path: &str,
        settings: &Settings,
        fan_in_fan_out: bool,
    ) -> Result<Option<AdapterLayer>> {
        let embedding = ["A", "B"].iter().any(|factor| {
            let name = format!("{PREFIX}{path}.lora_embedding_{factor}");
            self.left.contains_key(&name)
        });
        let base = self.module(path, fan_in_fan_out && !embedding)?;
        // before a rank that only the settings know asks for memory
        if let Settings::Lora(config, _) = settings {
            let (inputs, name) = match embedding {
                true => (base.weight().dim(0)?, "lora_embedding_A"),
                false => (base.weight().dim(1)?, "lora_A.weight"),
            };
            let name = format!("{PREFIX}{path}.{name}");
            if !self.fits(&name, &[config.rank, inputs])? {
                return Ok(None);
            }
        }
        // what is drawn is overwritten
        let rng = &mut StdRng::seed_from_u64(0);
        let layer = match settings {
            Settings::Lora(_, true) if embedding => {
                let text =
                    format!("holds `{path}` as an embedding under DoRA, which is not supported");
                return Err(Error::argument(FUNCTION, super::TENSORS, text));
            }
            Settings::Lora(config, _) if embedding => {
                let config = LoraConfig {
                    dropout: 0.0,
                    bias: match config.bias {
                        LoraBias::Base => LoraBias::Frozen,
                        other => other,
                    },
                    ..config.clone()
                };
                let dim = base.weight().dim(1)?;
                let table = Embedding::new(base.weight().clone(), dim);
                AdapterLayer::LoraEmbedding(LoraEmbedding::new(&table, &config, rng)?)
            }
            Settings::Lora(config, true) => {
                AdapterLayer::Dora(DoraLinear::new(&base, config, rng)?)
            }
            Settings::Lora(config, false) => {
                let bias = match (config.bias, base.bias()) {
                    (LoraBias::Base, None) => LoraBias::Frozen,
                    (bias, _) => bias,
                };
                let config = LoraConfig {
                    bias,
                    ..config.clone()
                };
                AdapterLayer::Lora(LoraLinear::new(&base, &config, rng)?)
            }
            Settings::AdaLora(file) => return self.triplets(path, &base, file),
            Settings::Ia3(place) => AdapterLayer::Ia3(Ia3Linear::new(&base, *place)?),
            Settings::Vera(config) => {
                let Some(shared) = &self.found.projections else {
                    return Ok(None);
                };
                let dtype = compute_type(base.weight().dtype());
                let device = base.weight().device();
                let wide = |t: &Tensor| t.to_dtype(dtype)?.to_device(device);
                let shared = VeraProjections::from_tensors(wide(shared.a())?, wide(shared.b())?)?;
                AdapterLayer::Vera(VeraLinear::new(&base, &shared, config)?)
            }
        };
        let mut whole = true;
        for (name, var) in layer.trainable(path) {
            match self.take(&format!("{PREFIX}{name}"), var.dims())? {
                Some(found) => var.set(&found.to_dtype(var.dtype())?.to_device(var.device())?)?,
                None => whole = false,
            }
        }
        Ok(whole.then_some(layer))
    }

    fn triplets(
        &mut self,
        path: &str,
        base: &Linear,
        file: &AdaLoraFile,
    ) -> Result<Option<AdapterLayer>> {
        let (outputs, inputs) = base.weight().dims2()?;
        let rank = match file.kept.get(path) {
            None => file.config.rank,
            Some(kept) if kept.len() == file.config.rank => kept.iter().filter(|k| **k).count(),
            Some(kept) => {
                let (found, rank) = (kept.len(), file.config.rank);
                let text = format!("has {found} entries for `{path}`, and the rank is {rank}");
                return Err(Error::argument(FUNCTION, "rank_pattern", text));
            }
        };
        let q = self.take(&format!("{PREFIX}{path}.lora_A"), &[rank, inputs])?;
        let p = self.take(&format!("{PREFIX}{path}.lora_B"), &[outputs, rank])?;
        let lambda = self.take(&format!("{PREFIX}{path}.lora_E"), &[rank, 1])?;
        let (Some(q), Some(p), Some(lambda)) = (q, p, lambda) else {
            return Ok(None);
        };
        let (dtype, device) = (compute_type(base.weight().dtype()), base.weight().device());
        let wide = |t: Tensor| t.to_dtype(dtype)?.to_device(device);
        let (p, lambda, q) = (wide(p)?, wide(lambda)?, wide(q)?);
        let layer = AdaLoraLinear::from_factors(base, &file.config, &p, &lambda, &q)?;
        Ok(Some(AdapterLayer::AdaLora(layer)))
    }

    /// VeRA's A and B, as large as the largest chosen module.
    fn projections(
        &mut self,
        rank: usize,
        chosen: &[(&str, Settings)],
        transposed: bool,
    ) -> Result<()> {
        let (mut most_outputs, mut most_inputs) = (0, 0);
        for (path, _) in chosen {
            let shape = self.base[&format!("{path}.weight")].dims();
            let (outputs, inputs) = match (shape, transposed) {
                ([a, b], false) | ([b, a], true) => (*a, *b),
                _ => continue, // an error below, with the module's name
            };
            most_outputs = most_outputs.max(outputs);
            most_inputs = most_inputs.max(inputs);
        }
        let a = self.take("base_model.vera_A", &[rank, most_inputs])?;
        let b = self.take("base_model.vera_B", &[most_outputs, rank])?;
        if let (Some(a), Some(b)) = (a, b) {
            let wide = |t: Tensor| t.to_dtype(compute_type(t.dtype()));
            let shared = VeraProjections::from_tensors(wide(a)?, wide(b)?)?;
            self.found.projections = Some(shared);
        }
        Ok(())
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

    /// All parameters of the modules that were trained whole: those whose path ends in a name.
    fn saved(&mut self, names: &[String]) -> Result<()> {
        let below = |parameter: &str, name: &String| {
            let dots = parameter.match_indices('.');
            dots.map(|(at, _)| &parameter[..at])
                .any(|path| path.ends_with(name.as_str()))
        };
        let base = self.base;
        for name in names {
            let mut found: Vec<&String> = base.keys().filter(|p| below(p, name)).collect();
            found.sort();
            if found.is_empty() {
                self.problem(format!(
                    "was made with `modules_to_save` = `{name}`, which is not in `base`"
                ))?;
            }
            for parameter in found {
                if !self.found.weights.contains_key(parameter) {
                    self.weight(parameter)?;
                }
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
                _ => self.problem(format!("holds `{name}`, which the settings give no place"))?,
            }
        }
        Ok(())
    }
}

/// The settings of one module.
pub(super) enum Settings<'a> {
    /// And whether it is DoRA.
    Lora(LoraConfig, bool),
    AdaLora(&'a AdaLoraFile),
    Ia3(crate::Ia3Place),
    Vera(&'a crate::VeraConfig),
}

impl<'a> Settings<'a> {
    /// Of the module at `path`, if it gets an adapter.
    pub(super) fn of(method: &'a AdapterMethod, path: &str) -> Result<Option<Self>> {
        Ok(match method {
            AdapterMethod::Lora(LoraFile { config, dora, .. }) => config
                .for_module(path)?
                .map(|config| Self::Lora(config, *dora)),
            AdapterMethod::AdaLora(file) => {
                file.targets.matches(path)?.then_some(Self::AdaLora(file))
            }
            AdapterMethod::Ia3(file) => file.config.for_module(path)?.map(Self::Ia3),
            AdapterMethod::Vera(file) => {
                let found = file.targets.matches(path)?;
                found.then_some(Self::Vera(&file.config))
            }
            AdapterMethod::Prompt(_) | AdapterMethod::Prefix(_) => None,
        })
    }
}
