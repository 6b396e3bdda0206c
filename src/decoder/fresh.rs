//! Fresh adapters.

use super::model::{Decoder, SCORE};
use super::projection::Base;
use crate::error::{Error, Result};
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::parameter_efficient::{
    AdaLoraLinear, DoraLinear, Ia3Linear, LoraLinear, QloraLinear, VeraLinear, VeraProjections,
};
use crate::peft::{AdapterMethod, AnyAdapter, ModelAdapters, PeftConfig, TaskType};
use rand::Rng;
use std::collections::BTreeMap;

impl Decoder {
    /// Puts a fresh adapter on the modules that its settings choose, by PEFT's rules, and makes it active.
    /// "all-linear" means all linear maps of the layers, not the output layer.
    ///
    /// A fresh prompt is drawn from the rows of the embedding, a fresh prefix from N(0, 1), as in PEFT. Over
    /// weights in four bits only LoRA can be put, which is then QLoRA.
    ///
    /// On a classifier under the task `SEQ_CLS`, its `score` is trained with the adapter, as in PEFT.
    ///
    /// # Errors
    /// [`Error::Argument`] if the name is taken, if the weights are trained, for a module that the decoder
    /// cannot adapt or train whole, for a prompt or a prefix of other sizes than the model's, or on a classifier;
    /// the errors of the method's settings.
    #[doc(alias = "get_peft_model")]
    pub fn add_adapter(
        &mut self,
        name: &str,
        config: &PeftConfig,
        rng: &mut impl Rng,
    ) -> Result<()> {
        let function = "Decoder::add_adapter";
        self.check_whole(function, config)?;
        if let Some(before) = self.fresh_before(function, &config.method, rng)? {
            return self.attach_before(function, name, config.clone(), before);
        }
        let maps = self.bases();
        let paths: Vec<&str> = maps.iter().map(|(path, _)| path.as_str()).collect();
        let any_base = |path: &str| -> Result<&Base> {
            let found = maps.iter().find(|(of, _)| of == path);
            found.map(|(_, map)| map).ok_or_else(|| {
                Error::argument(
                    function,
                    "config",
                    format!("chooses `{path}`, which is no linear map"),
                )
            })
        };
        let base = |path: &str| match any_base(path)? {
            Base::Linear(base) => Ok(base),
            Base::Nf4(_) => {
                let text =
                    format!("chooses `{path}`, which is in four bits: only LoRA goes over it");
                Err(Error::argument(function, "config", text))
            }
        };
        let mut layers = BTreeMap::new();
        let mut projections = None;
        match &config.method {
            AdapterMethod::Lora(file) => {
                if file.all_biases || !file.tokens.is_empty() {
                    let text = "trains all biases or rows of the embedding, which the decoder cannot: only \
                                the chosen linear maps";
                    return Err(Error::argument(function, "config", text));
                }
                for (path, settings) in file.model.for_modules(&paths)? {
                    let layer = match (any_base(&path)?, file.dora) {
                        (_, true) => {
                            AnyAdapter::Dora(DoraLinear::new(base(&path)?, &settings, rng)?)
                        }
                        (Base::Linear(base), false) => {
                            AnyAdapter::Lora(LoraLinear::new(base, &settings, rng)?)
                        }
                        (Base::Nf4(base), false) => {
                            AnyAdapter::Qlora(QloraLinear::over(base.clone(), &settings, rng)?)
                        }
                    };
                    layers.insert(path, layer);
                }
            }
            AdapterMethod::AdaLora(file) => {
                for (path, settings) in file.model.for_modules(&paths)? {
                    let layer = AdaLoraLinear::new(base(&path)?, &settings, rng)?;
                    layers.insert(path, AnyAdapter::AdaLora(layer));
                }
            }
            AdapterMethod::Ia3(file) => {
                for (path, place) in file.model.for_modules(&paths)? {
                    let layer = Ia3Linear::new(base(&path)?, place)?;
                    layers.insert(path, AnyAdapter::Ia3(layer));
                }
            }
            AdapterMethod::Vera(file) => {
                let chosen = file.model.for_modules(&paths)?;
                let (mut inputs, mut outputs) = (0, 0);
                for (path, _) in &chosen {
                    let (output, input) = base(path)?.weight().dims2()?;
                    (inputs, outputs) = (inputs.max(input), outputs.max(output));
                }
                let table = self.embedding.tensor();
                let dtype = compute_type(table.dtype());
                let settings = &file.model.config;
                let shared =
                    VeraProjections::new(settings, inputs, outputs, dtype, table.device(), rng)?;
                for (path, settings) in chosen {
                    let layer = VeraLinear::new(base(&path)?, &shared, &settings)?;
                    layers.insert(path, AnyAdapter::Vera(layer));
                }
                projections = Some(shared);
            }
            // put before the rows above
            AdapterMethod::Prompt(_) | AdapterMethod::Prefix(_) => {}
        }
        let mut weights = BTreeMap::new();
        if let Some(score) = self.score.as_ref().filter(|_| trains_score(config)) {
            weights.insert(SCORE.to_string(), score.tensor().clone());
        }
        let adapters = ModelAdapters {
            layers,
            weights,
            projections,
            ..ModelAdapters::default()
        };
        self.attach(function, name, config.clone(), adapters)
    }
    /// What is trained whole can only be the head of a classifier.
    fn check_whole(&self, function: &'static str, config: &PeftConfig) -> Result<()> {
        if let Some(targets) = config.method.targets() {
            let other = |name: &&String| !HEADS.contains(&name.as_str());
            if let Some(other) = targets.modules_to_save.iter().find(other) {
                let text =
                    format!("trains `{other}` whole, which the decoder cannot: only `score`");
                return Err(Error::argument(function, "modules_to_save", text));
            }
        }
        if self.score.is_none() && trains_score(config) {
            let text = "trains `score`, and the model has none: see `Decoder::into_classifier`";
            return Err(Error::argument(function, "config", text));
        }
        Ok(())
    }
}

/// PEFT's names for the head of a classifier.
const HEADS: [&str; 2] = ["score", "classifier"];

/// Whether the head of a classifier is trained with the adapter.
fn trains_score(config: &PeftConfig) -> bool {
    let whole = config
        .method
        .targets()
        .is_some_and(|targets| !targets.modules_to_save.is_empty());
    whole || config.task == Some(TaskType::SequenceClassification)
}
