//! A trained model as a folder.

use super::super::data::json::Object;
use super::super::error::{Error, Result};
use super::optional_object;
use candle_align::decoder::Decoder;
use std::fs;
use std::path::Path;

/// The files of a checkpoint that a trained model has too.
const COPIED: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Writes the weights, and what else the folder of the model has.
// To be replaced: the weights and `config.json` are the library's to write, once a decoder saves itself.
pub fn model(decoder: &Decoder, from: &Path, to: &Path) -> Result<()> {
    let written =
        |path: &Path, error: String| Error::file(path, format!("cannot be written: {error}"));
    let state = decoder.state_dict();
    let classifies = state.contains_key("score.weight");
    let path = to.join("model.safetensors");
    candle_core::safetensors::save(&state, &path)
        .map_err(|error| written(&path, error.to_string()))?;
    let mut config: Object = optional_object(&from.join("config.json"))?.unwrap_or_default();
    if classifies {
        let names = config
            .get("architectures")
            .and_then(|names| names[0].as_str());
        if let Some(name) =
            names.map(|name| name.replace("ForCausalLM", "ForSequenceClassification"))
        {
            config.insert("architectures".to_string(), serde_json::json!([name]));
        }
        config.insert("id2label".to_string(), serde_json::json!({"0": "LABEL_0"}));
        config.insert("label2id".to_string(), serde_json::json!({"LABEL_0": 0}));
    }
    config.insert("dtype".to_string(), "float32".into());
    config.remove("torch_dtype");
    let path = to.join("config.json");
    let text =
        serde_json::to_string_pretty(&config).map_err(|error| written(&path, error.to_string()))?;
    fs::write(&path, text + "\n").map_err(|error| written(&path, error.to_string()))?;
    for name in COPIED {
        let path = to.join(name);
        if from.join(name).is_file() {
            fs::copy(from.join(name), &path).map_err(|error| written(&path, error.to_string()))?;
        }
    }
    Ok(())
}
