//! From a file to the layers of a model.

use super::base_model::{BaseModel, Tie};
use super::config::{AdapterMethod, PeftConfig};
use super::layer::ModelAdapters;
use super::saved::Saved;
use super::settings::Rules;
use super::{AdapterFile, FUNCTION, PREFIX, Strictness, finite};
use crate::error::{Error, Result};
use crate::parameter_efficient::targets::TargetModules;
use candle_core::Tensor;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

impl AdapterFile {
    /// Applies the adapter to a base model, given as its state dict, or as a [`BaseModel`] where the output
    /// layer is the embedding. The base weights are shared, not copied; the adapter is copied, into f64 over
    /// an f64 base and into f32 over any other. Over a weight in bitsandbytes' NF4
    /// ([`Nf4Linear`](crate::parameter_efficient::Nf4Linear)) LoRA becomes a [`QloraLinear`](crate::parameter_efficient::QloraLinear).
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor that is missing, has another shape, belongs to no module that the
    /// settings choose, is not finite, or exceeds the range of the type in which it is used, unless
    /// `strictness` is lenient; for a base without a module that they choose, or whose chosen modules are
    /// neither linear layers nor embeddings; for an adapter of which nothing is left, lenient or not; where
    /// the base does not determine what the adapter means (see the page on tied weights and on
    /// `fan_in_fan_out`); and for invalid settings, as the layers report them.
    pub fn layers<'a>(
        &self,
        base: impl Into<BaseModel<'a>>,
        strictness: Strictness,
    ) -> Result<ModelAdapters> {
        Ok(self.load(base.into(), strictness)?.found)
    }

    pub(super) fn load<'a>(
        &self,
        base: BaseModel<'a>,
        strictness: Strictness,
    ) -> Result<Loader<'a>> {
        let mut loader = Loader {
            left: self.tensors.clone(),
            file: self.tensors.keys().cloned().collect(),
            base: base.whole()?,
            given: base.tensors,
            tie: base.tie,
            strictness,
            chosen: BTreeSet::new(),
            turned: BTreeSet::new(),
            found: ModelAdapters::default(),
        };
        loader.read(&self.config)?;
        Ok(loader)
    }
}

/// The most notes that an error repeats.
const SHOWN: usize = 4;

/// A file while it is loaded into a model.
pub(super) struct Loader<'a> {
    /// The tensors that have not been used yet.
    pub(super) left: BTreeMap<String, Tensor>,
    /// The names of all tensors.
    pub(super) file: BTreeSet<String>,
    /// The base, with a tied table under both of its names.
    pub(super) base: Cow<'a, HashMap<String, Tensor>>,
    /// The base as it was given.
    pub(super) given: &'a HashMap<String, Tensor>,
    pub(super) tie: Tie<'a>,
    strictness: Strictness,
    /// The paths of the modules that the settings choose.
    chosen: BTreeSet<String>,
    /// The chosen modules whose weight the base stores as `[in, out]`.
    pub(super) turned: BTreeSet<String>,
    pub(super) found: ModelAdapters,
}

impl Loader<'_> {
    fn read(&mut self, config: &PeftConfig) -> Result<()> {
        let method = &config.method;
        let Some(targets) = method.targets() else {
            let text = "is of a prompt or a prefix, which has no layers";
            return Err(Error::argument(FUNCTION, "self", text));
        };
        if targets.target_modules == TargetModules::AllLinear {
            let text = "chooses \"all-linear\", which needs the model itself: name the modules";
            return Err(Error::argument(FUNCTION, "target_modules", text));
        }
        for text in finite::problems(&self.left)? {
            self.problem(text)?;
        }
        let rules = Rules::new(FUNCTION, method)?;
        let mut paths: Vec<String> = self.parameters(|name| name.ends_with(".weight"));
        paths
            .iter_mut()
            .for_each(|name| name.truncate(name.len() - ".weight".len()));
        let mut chosen = Vec::new();
        for path in paths {
            if let Some(settings) = rules.of(&path)? {
                chosen.push((path, settings));
            }
        }
        if chosen.is_empty() {
            return Err(self.none_chosen());
        }
        self.chosen = chosen.iter().map(|(path, _)| path.clone()).collect();
        if self.strictness == Strictness::Lenient {
            self.rename();
        }
        let saved = Saved::new(config, &targets.modules_to_save);
        self.share(config, &saved)?;
        if let AdapterMethod::AdaLora(file) = method {
            let known = self.chosen.clone();
            for path in file.kept.keys().filter(|path| !known.contains(*path)) {
                self.problem(format!(
                    "has a `rank_pattern` for `{path}`, which the settings do not choose"
                ))?;
            }
        }
        for (path, _) in &chosen {
            if self.is_turned(path, method.fan_in_fan_out())? {
                self.turned.insert(path.clone());
            }
        }
        let mut fitting = Vec::new();
        for (path, settings) in chosen {
            if self.check_layout(&path, &settings)? {
                fitting.push((path, settings));
            }
        }
        if let AdapterMethod::Vera(file) = method {
            self.projections(file.model.config.rank, &fitting)?;
        }
        for (path, settings) in &fitting {
            if let Some(layer) = self.layer(path, settings, method.fan_in_fan_out())? {
                self.found.layers.insert(path.to_string(), layer);
            }
        }
        if let AdapterMethod::Lora(file) = method {
            self.tokens(config, &file.tokens)?;
        }
        self.saved(&saved)?;
        if matches!(method, AdapterMethod::Lora(file) if file.all_biases) {
            self.biases()?;
        }
        self.rest()?;
        if self.found.layers.is_empty() && self.found.weights.is_empty() {
            let notes = &self.found.left_out;
            let more = notes.len().saturating_sub(SHOWN);
            let mut why = notes[..notes.len() - more].join("; ");
            if more > 0 {
                why.push_str(&format!("; and {more} problems more"));
            }
            let text = format!("holds nothing that could be applied: it {why}");
            return Err(Error::argument(FUNCTION, super::TENSORS, text));
        }
        self.untie(config);
        self.doubts(config, &saved)
    }

    /// Whether the settings choose the module at this path and the base has it.
    pub(super) fn chosen(&self, path: &str) -> bool {
        self.chosen.contains(path)
    }

    /// The names of the base for which `holds` is true, sorted.
    pub(super) fn parameters(&self, holds: impl Fn(&str) -> bool) -> Vec<String> {
        let names = self.base.keys().filter(|name| holds(name));
        let mut names: Vec<String> = names.cloned().collect();
        names.sort();
        names
    }

    /// The names in the file show which module was meant.
    fn none_chosen(&self) -> Error {
        let text = "holds no module that the settings choose";
        let paths = self
            .file
            .iter()
            .filter_map(|name| adapted(name.strip_prefix(PREFIX)?));
        let text = match { paths }.next() {
            Some(path) => {
                let weight = format!("{path}.weight");
                let instead = self.instead_in_base(&weight);
                let advice = self.advice(path);
                format!("{text}: no `{weight}`, of which the file has an adapter{instead}{advice}")
            }
            None => text.to_string(),
        };
        Error::argument(FUNCTION, "base", text)
    }

    /// What the file and the base leave undecided: an error, or a note if the reader is lenient.
    pub(super) fn question(&mut self, argument: &str, text: String) -> Result<()> {
        match self.strictness {
            Strictness::Strict => Err(Error::argument(FUNCTION, argument, text)),
            Strictness::Lenient => {
                self.found.left_out.push(format!("`{argument}` {text}"));
                Ok(())
            }
        }
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
            None => format!(
                "holds no `{name}`, of shape {shape:?}{}",
                self.instead(name)
            ),
            Some(tensor) if tensor.dims() != shape => format!(
                "holds `{name}` of shape {:?}, expected {shape:?}",
                tensor.dims()
            ),
            Some(_) => return Ok(true),
        };
        self.problem(text)?;
        Ok(false)
    }

    /// Takes the tensor of this name and shape; one of another shape is removed.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        let fits = self.fits(name, shape)?;
        let tensor = self.left.remove(name);
        Ok(tensor.filter(|_| fits))
    }
}

/// The path of the module that a tensor adapts.
pub(super) fn adapted(parameter: &str) -> Option<&str> {
    let kinds = [".lora_", ".ia3_", ".vera_", ".token_adapter."];
    let at = kinds.iter().find_map(|kind| parameter.find(kind))?;
    Some(&parameter[..at])
}

impl Loader<'_> {
    /// A tensor of the file in the type and on the device of `like`. One that the type cannot hold is a
    /// problem and gives `None`.
    pub(super) fn cast(
        &mut self,
        name: &str,
        tensor: &Tensor,
        like: &Tensor,
    ) -> Result<Option<Tensor>> {
        let cast = tensor.to_dtype(like.dtype())?.to_device(like.device())?;
        if tensor.dtype() == like.dtype() || finite::first(tensor)?.is_some() {
            return Ok(Some(cast));
        }
        let Some((at, _)) = finite::first(&cast)? else {
            return Ok(Some(cast));
        };
        let kind = like.dtype().as_str();
        self.problem(format!(
            "holds `{name}`, whose number at flat position {at} is beyond the range of {kind}, the \
             type in which it is used"
        ))?;
        Ok(None)
    }
}
