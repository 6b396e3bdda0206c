//! Whether layers match their settings.

use super::config::{AdapterMethod, PeftConfig};
use super::saved::Saved;
use super::settings::Settings;
use super::{AnyAdapter, ModelAdapters};
use crate::error::{Error, Result};
use crate::parameter_efficient::adapter::{Adapter, FrozenBase};

/// Whether the layer is the one that the settings of its module describe.
pub(super) fn agrees(settings: &Settings, layer: &AnyAdapter) -> Result<(), String> {
    let differs = |what: &str, has: f64, says: f64| match has == says {
        true => Ok(()),
        false => Err(format!("has {what} {has}, and the settings say {says}")),
    };
    match (settings, layer) {
        (Settings::Lora(config, dora), layer) => {
            let (rank, scale) = match (layer, dora) {
                (AnyAdapter::Lora(layer), false) => (layer.a().dims()[0], layer.scale()),
                (AnyAdapter::Qlora(layer), false) => (layer.a().dims()[0], layer.scale()),
                (AnyAdapter::LoraEmbedding(layer), false) => (layer.a().dims()[0], layer.scale()),
                (AnyAdapter::Dora(layer), true) => (layer.a().dims()[0], layer.scale()),
                _ => return Err("is a layer of another method".to_string()),
            };
            differs("rank", rank as f64, config.rank as f64)?;
            differs("scale", scale, config.scale())?;
            biases(config.bias, layer)
        }
        (Settings::AdaLora(file), AnyAdapter::AdaLora(layer)) => {
            differs("scale", layer.scale(), file.model.config.scale())
        }
        (Settings::Ia3(place), AnyAdapter::Ia3(layer)) if layer.place() == *place => Ok(()),
        (Settings::Ia3(place), AnyAdapter::Ia3(layer)) => Err(format!(
            "has its factors at the {:?}, and the settings say {place:?}",
            layer.place()
        )),
        (Settings::Vera(config), AnyAdapter::Vera(layer)) => {
            let rank = layer.lambda_d().dims()[0];
            differs("rank", rank as f64, config.rank as f64)
        }
        _ => Err("is a layer of another method".to_string()),
    }
}

/// Whether the layer trains the biases that the settings name.
fn biases(
    bias: crate::parameter_efficient::lora::config::LoraBias,
    layer: &AnyAdapter,
) -> Result<(), String> {
    use crate::parameter_efficient::LoraBias::Base;
    use crate::parameter_efficient::LoraBias::Frozen;
    use crate::parameter_efficient::LoraBias::Update;
    let base = match layer.frozen() {
        FrozenBase::Linear(base) => base.bias(),
        FrozenBase::Nf4(base) => base.bias(),
        FrozenBase::Embedding(_) => return Ok(()),
    };
    let vars = layer.vars();
    let found = match vars.iter().find(|(name, _)| name.ends_with("bias")) {
        None => Frozen,
        Some((name, _)) if *name == "base_layer.bias" => Base,
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

/// Whether everything that the settings name is there: modules to save, and modules that were cut.
pub(super) fn whole(
    function: &'static str,
    config: &PeftConfig,
    layers: &ModelAdapters,
) -> Result<()> {
    let problem = |text: String| Err(Error::argument(function, "layers", text));
    if let Some(targets) = config.method.targets() {
        let saved = Saved::new(config, &targets.modules_to_save);
        if let Some(name) = saved.missing(layers.weights.keys()).first() {
            return problem(format!("holds no weight of `modules_to_save` = `{name}`"));
        }
        if saved.needs_head(layers.weights.keys()) {
            let text = "holds no weight of `classifier` or `score`, one of which the task trains";
            return problem(text.to_string());
        }
    }
    if let AdapterMethod::Lora(file) = &config.method {
        let tables = layers.weights.keys();
        let found: Vec<&String> = tables
            .filter_map(|name| Some(table(config, layers, name)?.1.0))
            .collect();
        // a tied output layer uses the embedding's rows
        let shared = |name: &str| {
            let mut tied = layers
                .tied
                .keys()
                .filter_map(|weight| weight.strip_suffix(".weight"));
            !name.is_empty() && tied.any(|path| path.ends_with(name))
        };
        for name in file.tokens.keys() {
            match found.iter().filter(|other| **other == name).count() {
                0 if shared(name) => {}
                0 => return problem(format!("holds no table of `tokens` = `{name}`")),
                2.. if name.is_empty() => {
                    return problem(
                        "holds more than one table: name those of `tokens`".to_string(),
                    );
                }
                _ => {}
            }
        }
    }
    if let AdapterMethod::AdaLora(file) = &config.method {
        let mut kept = file.kept.keys();
        if let Some(path) = kept.find(|path| !layers.layers.contains_key(*path)) {
            return problem(format!("holds no `{path}`, which `kept` names"));
        }
    }
    Ok(())
}

/// The path of a table of which only some rows were trained, its name in the settings, and the rows.
pub(super) fn table<'a>(
    config: &'a PeftConfig,
    layers: &ModelAdapters,
    weight: &'a str,
) -> Option<(&'a str, (&'a String, &'a Vec<usize>))> {
    let AdapterMethod::Lora(file) = &config.method else {
        return None;
    };
    let path = weight.strip_suffix(".weight")?;
    let saved = Saved::new(config, &file.model.targets.modules_to_save);
    let whole = saved.holds(weight) || layers.layers.contains_key(path);
    if whole || layers.weights[weight].rank() != 2 {
        return None;
    }
    let mut tokens = file.tokens.iter();
    let token = tokens.find(|(name, _)| path.ends_with(name.as_str()))?;
    Some((path, token))
}
