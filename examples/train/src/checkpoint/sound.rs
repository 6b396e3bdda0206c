//! Whether a model can be trained: it is what the objective takes, and its weights are numbers.

use super::super::error::{Error, Result};
use candle_align::decoder::{Decoder, Load};
use candle_align::peft::{PeftConfig, Strictness, TaskType};
use candle_core::{DType, Tensor};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The weight of a classifier's head.
pub const SCORE: &str = "score.weight";
const ONE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Reads a model; every weight must be finite.
pub fn load(folder: &Path, load: &Load) -> Result<Decoder> {
    match Decoder::load(folder, load) {
        Ok(decoder) => {
            finite(folder, &decoder)?;
            Ok(decoder)
        }
        // four bits have no place for NaN, and their refusal does not say where it is
        Err(error) if load.nf4.is_some() => {
            let plain = Load {
                nf4: None,
                ..load.clone()
            };
            if let Ok(decoder) = Decoder::load(folder, &plain) {
                finite(folder, &decoder)?;
            }
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// An error that names the first tensor with a number that is not finite.
fn finite(folder: &Path, decoder: &Decoder) -> Result<()> {
    let mut weights: Vec<(String, Tensor)> = decoder.state_dict().into_iter().collect();
    weights.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, tensor) in weights {
        let tensor = tensor.detach();
        let sum = tensor.sum_all()?.to_dtype(DType::F64)?;
        // the sum of finite numbers may overflow
        if sum.to_scalar::<f64>()?.is_finite() {
            continue;
        }
        let all = tensor
            .flatten_all()?
            .to_dtype(DType::F64)?
            .to_vec1::<f64>()?;
        if let Some(at) = all.iter().position(|number| !number.is_finite()) {
            let problem = format!(
                "holds `{name}`, with {} at flat position {at}: no step can learn from such weights",
                all[at]
            );
            return Err(Error::file(&file_of(folder, &name), problem));
        }
    }
    Ok(())
}

/// The file of a tensor.
fn file_of(folder: &Path, name: &str) -> PathBuf {
    let one = folder.join(ONE);
    if one.exists() {
        return one;
    }
    let index = fs::read_to_string(folder.join(INDEX)).unwrap_or_default();
    let index: Value = serde_json::from_str(&index).unwrap_or_default();
    match index["weight_map"][name].as_str() {
        Some(file) => folder.join(file),
        None => one,
    }
}

/// An error for a reward model where a language model is needed. `for_what` needs it.
pub fn language_model(decoder: &Decoder, folder: &Path, for_what: &str) -> Result<()> {
    if !decoder.state_dict().contains_key(SCORE) {
        return Ok(());
    }
    let problem = format!(
        "is a reward model, with the head `{SCORE}`, and {for_what} needs a language model: give the folder of the model \
         that it was made from. A reward model is for --objective reward, or for --reward reward_model=DIR of the \
         objectives that draw answers"
    );
    Err(Error::file(folder, problem))
}

/// The same for the adapter of a reward model.
pub fn language_adapter(folder: &Path, for_what: &str) -> Result<()> {
    let read = PeftConfig::read(folder.join("adapter_config.json"), Strictness::Lenient);
    match read {
        Ok((config, _)) if config.task == Some(TaskType::SequenceClassification) => {
            let problem = format!(
                "is the adapter of a reward model, `task_type` SEQ_CLS, and {for_what} needs one of a language model. \
                 It is for --objective reward, or for --reward reward_model=DIR of the objectives that draw answers"
            );
            Err(Error::file(folder, problem))
        }
        // what is wrong with the file is said where it is loaded
        _ => Ok(()),
    }
}
