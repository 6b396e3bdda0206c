//! Adapters on a decoder: those of a folder, several by name, and which of them is active.

use super::before::Before;
use super::model::{Attached, Decoder, SCORE};
use super::projection::{Base, Projection, wide};
use crate::error::{Error, Result};
use crate::parameter_efficient::Adapter;
use crate::peft::{
    AdapterFile, AdapterMethod, AnyAdapter, BaseModel, ModelAdapters, PeftConfig, Strictness,
    TaskType,
};
use candle_core::{Tensor, Var};
use std::collections::BTreeMap;
use std::path::Path;

impl Decoder {
    /// Reads an adapter that Python's PEFT or this crate wrote, and makes it active. Returns what a lenient
    /// reader left out.
    ///
    /// # Errors
    /// As [`AdapterFile::read`] and [`AdapterFile::layers`], and as [`Decoder::add_adapter`].
    pub fn load_adapter(
        &mut self,
        name: &str,
        folder: impl AsRef<Path>,
        strictness: Strictness,
    ) -> Result<Vec<String>> {
        let function = "Decoder::load_adapter";
        let file = AdapterFile::read(folder, strictness)?;
        let mut config = file.config().clone();
        if let Some(before) = self.loaded_before(function, &file)? {
            self.attach_before(function, name, config, before)?;
            return Ok(file.left_out().to_vec());
        }
        // PEFT trains a classifier's head whole without saying so in its settings
        if self.score.is_some()
            && config.task == Some(TaskType::SequenceClassification)
            && let Some(targets) = config.method.targets_mut()
        {
            for head in ["classifier", "score"] {
                if !targets.modules_to_save.iter().any(|name| name == head) {
                    targets.modules_to_save.push(head.to_string());
                }
            }
        }
        let mut state = self.state_dict();
        for map in self.layers.iter().flat_map(|layer| layer.projections()) {
            if let Some(quantized) = map.nf4() {
                state.extend(quantized.to_state_dict(&map.path)?);
            }
        }
        let base =
            match self.config.tie_word_embeddings && self.head.is_none() && self.score.is_none() {
                true => BaseModel::tied(&state, "model.embed_tokens", "lm_head"),
                false => BaseModel::untied(&state),
            };
        let adapters = file.layers(base, strictness)?;
        let mut notes = file.left_out().to_vec();
        notes.extend(adapters.left_out.iter().cloned());
        self.attach(function, name, config, adapters)?;
        Ok(notes)
    }

    /// Writes an adapter as a folder that Python's PEFT loads.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no adapter of this name; as [`AdapterFile::write`].
    pub fn save_adapter(&self, name: &str, folder: impl AsRef<Path>) -> Result<()> {
        let attached = self.attached("Decoder::save_adapter", name)?;
        if let Some(before) = &attached.before {
            return before.file(attached.config.clone())?.write(folder);
        }
        let mut layers = BTreeMap::new();
        for layer in &self.layers {
            for map in layer.projections() {
                if let Some(adapter) = map.adapters.get(name) {
                    layers.insert(map.path.clone(), adapter.clone());
                }
            }
        }
        let score = attached.score.as_ref();
        let adapters = ModelAdapters {
            layers,
            weights: score
                .map(|score| (SCORE.to_string(), score.as_tensor().clone()))
                .into_iter()
                .collect(),
            projections: attached.projections.clone(),
            ..ModelAdapters::default()
        };
        AdapterFile::from_layers(attached.config.clone(), &adapters)?.write(folder)
    }

    /// Makes an adapter active; `None` switches all of them off, which gives exactly the base model.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no adapter of this name.
    pub fn set_adapter(&mut self, name: Option<&str>) -> Result<()> {
        if let Some(name) = name {
            self.attached("Decoder::set_adapter", name)?;
        }
        self.adapter = name.map(str::to_string);
        Ok(())
    }

    /// The active adapter.
    pub fn adapter(&self) -> Option<&str> {
        self.adapter.as_deref()
    }

    /// The names of all adapters.
    pub fn adapters(&self) -> Vec<&str> {
        self.attached.keys().map(String::as_str).collect()
    }

    /// The layers of an adapter, by the path of their module: for AdaLoRA's allocator and its penalty.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no adapter of this name.
    pub fn adapter_layers(&self, name: &str) -> Result<BTreeMap<String, AnyAdapter>> {
        self.attached("Decoder::adapter_layers", name)?;
        let maps = self.layers.iter().flat_map(|layer| layer.projections());
        let of = maps.filter_map(|map| Some((map.path.clone(), map.adapters.get(name)?.clone())));
        Ok(of.collect())
    }

    /// The settings of an adapter.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no adapter of this name.
    pub fn adapter_config(&self, name: &str) -> Result<&PeftConfig> {
        Ok(&self.attached("Decoder::adapter_config", name)?.config)
    }

    /// Says which triplets of an AdaLoRA adapter its allocator keeps, by the path of their module.
    /// [`Decoder::save_adapter`] then writes these alone, with PEFT's `rank_pattern`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no adapter of this name, or if it is of another method.
    pub fn set_kept_triplets(
        &mut self,
        name: &str,
        kept: BTreeMap<String, Vec<bool>>,
    ) -> Result<()> {
        let function = "Decoder::set_kept_triplets";
        self.attached(function, name)?;
        let attached = self.attached.get_mut(name);
        match attached.map(|attached| &mut attached.config.method) {
            Some(AdapterMethod::AdaLora(file)) => {
                file.kept = kept;
                Ok(())
            }
            _ => {
                let text = format!("is `{name}`, which is not of AdaLoRA");
                Err(Error::argument(function, "name", text))
            }
        }
    }

    /// The adapter of a name.
    pub(super) fn attached(&self, function: &'static str, name: &str) -> Result<&Attached> {
        self.attached.get(name).ok_or_else(|| {
            let known = self.adapters().join(", ");
            let text = match known.as_str() {
                "" => format!("is `{name}`, and there is no adapter"),
                known => format!("is `{name}`, and the adapters are {known}"),
            };
            Error::argument(function, "name", text)
        })
    }

    /// The linear maps that an adapter can go over, by path.
    pub(super) fn bases(&self) -> Vec<(String, Base)> {
        let maps = self.layers.iter().flat_map(|layer| layer.projections());
        let base = |map: &Projection| (map.path.clone(), map.base());
        maps.map(base).collect()
    }

    /// An error if the name is taken, or if the weights are trained.
    fn check_free(&self, function: &'static str, name: &str) -> Result<()> {
        if self.attached.contains_key(name) {
            let text = format!("is `{name}`, which is taken");
            return Err(Error::argument(function, "name", text));
        }
        let mut maps = self.layers.iter().flat_map(|layer| layer.projections());
        if maps.any(Projection::is_trained) {
            let text = "are trained, and an adapter goes on frozen ones: load the model with `trained` = false";
            return Err(Error::argument(function, "weights", text));
        }
        Ok(())
    }

    /// Puts a prompt or a prefix before the rows, under a name.
    pub(super) fn attach_before(
        &mut self,
        function: &'static str,
        name: &str,
        config: PeftConfig,
        before: Before,
    ) -> Result<()> {
        self.check_free(function, name)?;
        if self.score.is_some() || config.task == Some(TaskType::SequenceClassification) {
            let text = "is a prompt or a prefix for a classifier, whose head it does not train: choose an adapter of \
                        linear maps";
            return Err(Error::argument(function, "config", text));
        }
        let attached = Attached {
            config,
            projections: None,
            score: None,
            before: Some(before),
        };
        self.attached.insert(name.to_string(), attached);
        self.adapter = Some(name.to_string());
        Ok(())
    }

    /// Puts the layers of an adapter into the model, under a name.
    pub(super) fn attach(
        &mut self,
        function: &'static str,
        name: &str,
        config: PeftConfig,
        adapters: ModelAdapters,
    ) -> Result<()> {
        self.check_free(function, name)?;
        let mut layers = adapters.layers;
        let mut weights = adapters.weights;
        // nothing is changed before everything is checked
        let mut places: Vec<&mut Projection> = self
            .layers
            .iter_mut()
            .flat_map(|layer| layer.projections_mut())
            .collect();
        let known = |path: &String| places.iter().any(|map| map.path == *path);
        if let Some(path) = layers.keys().find(|path| !known(path)) {
            let text = format!(
                "changes `{path}`, which the decoder cannot adapt: only linear maps of layers"
            );
            return Err(Error::argument(function, "adapter", text));
        }
        let score = weights.remove(SCORE);
        if let Some(other) = weights.keys().next() {
            let text = format!("replaces `{other}`, which the decoder cannot: only `{SCORE}`");
            return Err(Error::argument(function, "adapter", text));
        }
        if score.is_some() && self.score.is_none() {
            let text = format!("holds `{SCORE}`, and the model is no classifier");
            return Err(Error::argument(function, "adapter", text));
        }
        let score = match score {
            Some(score) => Some(Var::from_tensor(&wide(&score)?.copy()?)?),
            None => None,
        };
        for map in &mut places {
            if let Some(adapter) = layers.remove(&map.path) {
                // one base in memory, not a copy from the state dict
                let adapter = match (adapter, map.nf4()) {
                    (AnyAdapter::Qlora(layer), Some(base)) => {
                        AnyAdapter::Qlora(layer.over_same(base.clone()))
                    }
                    (adapter, _) => adapter,
                };
                map.adapters.insert(name.to_string(), adapter);
            }
        }
        let attached = Attached {
            config,
            projections: adapters.projections,
            score,
            before: None,
        };
        self.attached.insert(name.to_string(), attached);
        self.adapter = Some(name.to_string());
        Ok(())
    }

    /// The trained variables of the active adapter in one layer.
    pub(super) fn adapter_vars(&self, layer: &super::layer::Layer) -> Vec<(String, Var)> {
        let Some(name) = &self.adapter else {
            return Vec::new();
        };
        let adapted = |map: &Projection| {
            let adapter = map.adapters.get(name)?;
            Some(adapter.trainable(&map.path))
        };
        layer
            .projections()
            .into_iter()
            .filter_map(adapted)
            .flatten()
            .collect()
    }

    /// The matrix that scores texts, under the active adapter, in the type of hidden states.
    pub(super) fn score_matrix(&self) -> Result<Option<Tensor>> {
        let attached = self
            .adapter
            .as_ref()
            .and_then(|name| self.attached.get(name));
        let trained = attached.and_then(|attached| attached.score.as_ref());
        match (trained, &self.score) {
            (Some(score), _) => Ok(Some(score.as_tensor().clone())),
            (None, Some(score)) => score.wide().map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The head that is trained with the active adapter.
    pub(super) fn adapter_score(&self) -> Option<(String, Var)> {
        let attached = self.attached.get(self.adapter.as_ref()?)?;
        Some((SCORE.to_string(), attached.score.clone()?))
    }
}
