//! The settings of a fresh adapter, with what the run knows. A file and keys are read alike.
//!
//! | key | if missing |
//! |---|---|
//! | `peft_type` | LORA |
//! | `target_modules` | "all-linear", for methods that choose modules |
//! | `total_step` of ADALORA | the steps of the run |
//! | `task_type` | SEQ_CLS for `reward`, else CAUSAL_LM |
//! | `base_model_name_or_path` | the folder of the model |

use super::super::error::{Error, Result};
use super::super::input;
use super::fresh_adapter::{FreshAdapter, peft_text};
use super::other_base::is_same;
use super::settings::fit::Fit;
use super::settings::{Learned, Settings};
use candle_align::peft::{AdapterMethod, PeftConfig, Strictness, TaskType};
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// The methods of the small model, whose file has another form.
const SMALL: [&str; 13] = [
    "method",
    "lora",
    "qlora",
    "dora",
    "ada_lora",
    "ia3",
    "vera",
    "bit_fit",
    "prompt",
    "prefix",
    "adapter",
    "mam",
    "design_space",
];

/// The settings of a fresh adapter.
pub fn fresh(adapter: &FreshAdapter, settings: &Settings) -> Result<PeftConfig> {
    let mut config = match adapter {
        FreshAdapter::File(path) => of_file(path, &settings.fit)?,
        FreshAdapter::Keys(keys) => of_keys(keys, &settings.fit, None)?,
    };
    if let AdapterMethod::AdaLora(file) = &config.method
        && !file.kept.is_empty()
    {
        let problem =
            "`adapter.rank_pattern` of AdaLoRA says what a run has left: a fresh adapter has all";
        return Err(Error::Usage(problem.to_string()));
    }
    let task = match settings.objective {
        Learned::Reward => TaskType::SequenceClassification,
        _ => TaskType::CausalLanguageModel,
    };
    match config.task {
        None => config.task = Some(task),
        Some(given) if given == task => {}
        Some(_) => {
            let name = match task {
                TaskType::SequenceClassification => "SEQ_CLS",
                _ => "CAUSAL_LM",
            };
            let objective = settings.objective;
            let problem =
                format!("the adapter's `task_type` must be {name} for `{objective}`, or missing");
            return Err(Error::Usage(problem));
        }
    }
    // what is written must name the model that it was trained on, as in PEFT
    let own = |named: &String| is_same(named, &settings.model);
    if !config.base_model.as_ref().is_some_and(own) {
        config.base_model = Some(settings.model.display().to_string());
        config.revision = None;
    }
    Ok(config)
}

/// Where the settings of a fresh adapter are.
pub fn place(adapter: &FreshAdapter) -> &Path {
    match adapter {
        FreshAdapter::File(path) => path,
        FreshAdapter::Keys(_) => Path::new("adapter"),
    }
}

/// The model that the settings of a fresh adapter name.
pub fn base_model(adapter: &FreshAdapter) -> Option<String> {
    let read;
    let keys = match adapter {
        FreshAdapter::Keys(keys) => keys,
        FreshAdapter::File(path) => {
            read = keys_of(path).ok()?;
            &read
        }
    };
    Some(keys.get("base_model_name_or_path")?.as_str()?.to_string())
}

/// The keys of a file. A pattern keeps its order.
fn keys_of(path: &Path) -> Result<Map<String, Value>> {
    let text = input::json(path)?;
    let found = serde_json::from_str(&text).map_err(|error| Error::json(path, &text, &error))?;
    match found {
        FreshAdapter::Keys(keys) => Ok(keys),
        FreshAdapter::File(word) => Err(small(Some(path), &word.display().to_string())),
    }
}

fn of_file(path: &Path, fit: &Fit) -> Result<PeftConfig> {
    let keys = keys_of(path)?;
    let whole = with_defaults(&keys, fit)?;
    match whole.len() == keys.len() {
        // messages then name the file
        true => Ok(PeftConfig::read(path, Strictness::Strict)?.0),
        false => of_keys(&keys, fit, Some(path)),
    }
}

/// The keys with those that a run knows.
fn with_defaults(keys: &Map<String, Value>, fit: &Fit) -> Result<Map<String, Value>> {
    let mut keys = keys.clone();
    keys.entry("peft_type").or_insert("LORA".into());
    // prompts and prefixes choose no modules
    let has_targets = !matches!(
        keys["peft_type"].as_str(),
        Some("PROMPT_TUNING" | "PREFIX_TUNING")
    );
    if has_targets {
        keys.entry("target_modules").or_insert("all-linear".into());
    }
    if keys["peft_type"] == "ADALORA" && !keys.contains_key("total_step") {
        keys.insert("total_step".to_string(), fit.steps()?.into());
    }
    Ok(keys)
}

/// Through a file, because a file is what PEFT's settings are. `of` is the file that they come from.
fn of_keys(keys: &Map<String, Value>, fit: &Fit, of: Option<&Path>) -> Result<PeftConfig> {
    let is_small = |name: &&&str| keys.contains_key(**name);
    if let (Some(name), false) = (SMALL.iter().find(is_small), keys.contains_key("peft_type")) {
        return Err(small(of, name));
    }
    let folder = tempfile::tempdir();
    let folder = folder.map_err(|error| Error::Usage(format!("no temporary folder: {error}")))?;
    let path = folder.path().join("adapter_config.json");
    fs::write(&path, peft_text(&with_defaults(keys, fit)?))
        .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
    let shown = of.map_or("adapter".to_string(), |of| of.display().to_string());
    match PeftConfig::read(&path, Strictness::Strict) {
        Ok((config, _)) => Ok(config),
        Err(error) => {
            let text = error.to_string();
            Err(Error::Usage(
                text.replace(&path.display().to_string(), &shown),
            ))
        }
    }
}

/// The error about an adapter of the small model.
fn small(of: Option<&Path>, name: &str) -> Error {
    let problem = format!(
        "holds `{name}`, the form of the small model; with --model these are the keys of PEFT's `adapter_config.json`, \
         such as {{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16}}"
    );
    match of {
        Some(path) => Error::file(path, problem),
        None => Error::Usage(format!("adapter: {problem}")),
    }
}
