//! The model of a run: frozen under an adapter or trained as a whole, with a reward head where one is asked
//! for, and DPO's reference.

use super::super::error::{Error, Result};
use super::context::Context;
use super::fresh_adapter::{FreshAdapter, peft_text};
use super::objective::Reference;
use super::settings::{Learned, Settings};
use super::tokenizer::Tokenizer;
use candle_align::decoder::{Decoder, Load};
use candle_align::peft::{AdapterMethod, PeftConfig, Strictness, TaskType};
use candle_core::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// The adapter that is trained.
pub const TRAINED: &str = "default";
/// A frozen copy of the adapter that the run goes on from.
const REFERENCE: &str = "ref";
const SCORE: &str = "score.weight";

/// The model at the start, and DPO's reference. If that is asked only before the first step, it is the trained
/// model itself and no copy.
pub fn start(settings: &Settings) -> Result<(Decoder, Reference)> {
    // one generator per purpose
    let rng =
        |purpose: u64| StdRng::seed_from_u64(settings.seed.wrapping_mul(8).wrapping_add(purpose));
    let load = Load {
        dtype: settings.dtype.dtype(),
        nf4: settings.dtype.nf4(),
        trained: !settings.is_adapted(),
        device: Device::Cpu,
    };
    let mut decoder = Decoder::load(&settings.model, &load)?;
    if settings.objective == Learned::Reward {
        if !decoder.state_dict().contains_key(SCORE) {
            decoder = decoder.into_classifier(1, &mut rng(1))?;
        }
        if let Some(labels) = decoder.config().num_labels.filter(|labels| *labels != 1) {
            let problem = format!("gives a text {labels} scores, and a reward model gives one");
            return Err(Error::file(&settings.model, problem));
        }
        pads(&mut decoder, &settings.model)?;
    }
    // of a model without an adapter, the model itself
    let mut reference = Reference::AdapterOff;
    let copies = !settings.precompute_ref_log_probs;
    if let Some(adapter) = &settings.adapter {
        decoder.add_adapter(TRAINED, &fresh(adapter, settings)?, &mut rng(2))?;
    }
    if let Some(folder) = &settings.adapter_dir {
        if settings.has_reference() {
            let name = if copies { REFERENCE } else { TRAINED };
            reference = Reference::Adapter(name.to_string());
            if copies {
                decoder.load_adapter(REFERENCE, folder, Strictness::Strict)?;
            }
        }
        decoder.load_adapter(TRAINED, folder, Strictness::Strict)?;
    }
    if settings.is_adapted() && settings.objective == Learned::Reward {
        let trains_score = decoder.vars().iter().any(|(name, _)| name == SCORE);
        if !trains_score {
            let problem =
                "the adapter does not train the reward head: its `task_type` must be SEQ_CLS";
            return Err(Error::Usage(problem.to_string()));
        }
    }
    if !settings.is_adapted() && settings.has_reference() && copies {
        let frozen = Load {
            trained: false,
            ..load.clone()
        };
        reference = Reference::Frozen(Box::new(Decoder::load(&settings.model, &frozen)?));
    }
    if let Some(folder) = &settings.teacher {
        let teacher = Decoder::load(
            folder,
            &Load {
                trained: false,
                ..load
            },
        )?;
        let [own, others] = [&decoder, &teacher].map(|model| model.config().vocab_size);
        if own != others {
            let problem = format!(
                "has {others} tokens and the model {own}: the teacher of `gkd` must have the same vocabulary"
            );
            return Err(Error::file(folder, problem));
        }
        let [own, others] = [&decoder, &teacher].map(|model| Context::of(model).most());
        let longest = settings.max_length.map_or(own, |most| most.min(own));
        if others < longest {
            let problem = format!(
                "was made for {others} tokens, and rows may have {longest}: set `max_length` to {others} or less"
            );
            return Err(Error::file(folder, problem));
        }
        reference = Reference::Frozen(Box::new(teacher));
    }
    decoder.set_recompute(settings.recompute);
    Ok((decoder, reference))
}

/// Texts are scored before the padding token of the tokenizer in a folder, as in TRL, whatever `config.json` names.
pub fn pads(decoder: &mut Decoder, folder: &Path) -> Result<()> {
    match Tokenizer::open(folder)?.pad() {
        Some(pad) => Ok(decoder.set_pad_token(pad.id)?),
        None => Ok(()),
    }
}

/// The settings of a fresh adapter, with what the run knows.
fn fresh(adapter: &FreshAdapter, settings: &Settings) -> Result<PeftConfig> {
    let (mut config, _) = match adapter {
        FreshAdapter::File(path) => PeftConfig::read(path, Strictness::Strict)?,
        FreshAdapter::Keys(keys) => of_keys(keys, settings.fit.steps())?,
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
    if config.base_model.is_none() {
        config.base_model = Some(settings.model.display().to_string());
    }
    Ok(config)
}

/// Through a file, because a file is what PEFT's settings are.
fn of_keys(keys: &Map<String, Value>, steps: Result<usize>) -> Result<(PeftConfig, Vec<String>)> {
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
        keys.insert("total_step".to_string(), steps?.into());
    }
    let folder = tempfile::tempdir();
    let folder = folder.map_err(|error| Error::Usage(format!("no temporary folder: {error}")))?;
    let path = folder.path().join("adapter_config.json");
    fs::write(&path, peft_text(&keys))
        .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
    PeftConfig::read(&path, Strictness::Strict).map_err(|error| {
        let text = error.to_string();
        Error::Usage(text.replace(&path.display().to_string(), "adapter"))
    })
}
