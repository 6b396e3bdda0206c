//! Writing a decoder as a folder that Transformers loads.

use super::config::FILE;
use super::family::Family;
use super::folder::ONE;
use super::model::Decoder;
use crate::atomic::{Failure, Staged};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

const FUNCTION: &str = "Decoder::save";

/// What makes a folder complete beside the model, as Transformers names it.
const BESIDE: [&str; 11] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// How [`Decoder::save`] writes.
#[derive(Clone, Debug, Default)]
pub struct Save {
    /// The type in the file: f32, f64, bf16 or f16. Default that in memory.
    pub dtype: Option<DType>,
    /// A folder whose tokenizer, chat template and generation settings are copied, as far as it has them:
    /// usually the one that was loaded. Default none.
    pub beside: Option<PathBuf>,
    /// The padding token to write. Transformers scores a batch of texts only if a classifier has one. Default
    /// that of [`Decoder::set_pad_token`], or of the `config.json` that was read.
    pub pad_token_id: Option<u32>,
}

impl Decoder {
    /// Writes the model as a new folder, which `AutoModelForCausalLM` loads, or
    /// `AutoModelForSequenceClassification` for a classifier: `config.json` as it was read, but for what has
    /// changed, and `model.safetensors`.
    ///
    /// The folder appears with all its files in one step, so an interrupted save leaves no folder. The
    /// weights are the model's own, without adapters: see [`Decoder::save_adapter`] and
    /// [`Decoder::merge_adapter`]. A tied output layer is written once, as the embedding.
    ///
    /// # Errors
    /// [`Error::Argument`] with the path if the folder is there and not empty, or cannot be written or
    /// copied from; for a type that cannot be written, for weights in four bits, and for a padding token outside
    /// of the vocabulary.
    #[doc(alias = "save_pretrained")]
    pub fn save(&self, folder: impl AsRef<Path>, save: &Save) -> Result<()> {
        let path = folder.as_ref();
        if self.is_quantized() {
            let text = "holds weights in four bits, which a folder for Transformers does not: merge an adapter first, \
                        which dequantizes them, or save the adapter alone";
            return Err(Error::argument(FUNCTION, "self", text));
        }
        let dtype = save.dtype.unwrap_or(self.embedding.tensor().dtype());
        let config = self.written_config(dtype, save)?;
        let failed = |failure: Failure| {
            let text = format!("cannot be written: {}", failure.cause);
            Error::argument(FUNCTION, failure.path, text)
        };
        if let Some(above) = path.parent().filter(|above| *above != Path::new("")) {
            fs::create_dir_all(above).map_err(|error| failed(Failure::new(above, error)))?;
        }
        let copied = save
            .beside
            .as_deref()
            .map(beside)
            .transpose()?
            .unwrap_or_default();
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (name, weight) in self.weights() {
            // a head that was drawn here is wider than half types
            tensors.insert(name, weight.tensor().detach().to_dtype(dtype)?);
        }
        let write = |part: &Path| -> Result<(), String> {
            let text = |error: &dyn std::fmt::Display| error.to_string();
            for (from, name) in &copied {
                let copy = fs::copy(from, part.join(name));
                copy.map_err(|error| format!("{} cannot be copied: {error}", from.display()))?;
            }
            fs::write(part.join(FILE), &config).map_err(|e| text(&e))?;
            let words = HashMap::from([("format".to_string(), "pt".to_string())]);
            let written = safetensors::serialize_to_file(&tensors, Some(words), &part.join(ONE));
            written.map_err(|e| text(&e))
        };
        Staged::folder(path, write)
            .and_then(Staged::put)
            .map_err(failed)
    }

    /// The text of `config.json`.
    fn written_config(&self, dtype: DType, save: &Save) -> Result<String> {
        let mut json = self.config.json.clone();
        let name = match dtype {
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            other => {
                let text = format!(
                    "is {}, and weights are f32, f64, bf16 or f16",
                    other.as_str()
                );
                return Err(Error::argument(FUNCTION, "save.dtype", text));
            }
        };
        // the old name and the new one, under which it was read
        match json.get_mut("torch_dtype") {
            Some(old) => *old = name.into(),
            None => drop(json.insert("dtype".to_string(), name.into())),
        }
        if let Some(new) = json.get_mut("dtype") {
            *new = name.into();
        }
        if self.head.is_some() && self.config.tie_word_embeddings {
            json.insert("tie_word_embeddings".to_string(), false.into());
        }
        if let Some(pad) = save.pad_token_id {
            self.check_pad(FUNCTION, "save.pad_token_id", pad)?;
        }
        let set = self
            .padding
            .filter(|pad| Some(*pad) != self.config.pad_token_id);
        if let Some(pad) = save.pad_token_id.or(set) {
            json.insert("pad_token_id".to_string(), pad.into());
        }
        // names Python files, which are not beside it
        json.remove("auto_map");
        let classifies = self.score.is_some();
        let class = class(self.config.family, classifies);
        json.insert("architectures".to_string(), vec![class].into());
        if let Some(score) = &self.score {
            labels(&mut json, score.tensor().dim(0)?);
        }
        let problem = |e: serde_json::Error| Error::argument(FUNCTION, FILE, e.to_string());
        Ok(serde_json::to_string_pretty(&json).map_err(problem)? + "\n")
    }
}

/// Transformers' class of a model.
fn class(family: Family, classifies: bool) -> String {
    let family = match family {
        Family::Llama => "Llama",
        Family::Mistral => "Mistral",
        Family::Qwen2 => "Qwen2",
        Family::Qwen3 => "Qwen3",
        Family::Gemma2 => "Gemma2",
        Family::Gemma3 if classifies => "Gemma3Text",
        Family::Gemma3 => "Gemma3",
        Family::Phi3 => "Phi3",
    };
    match classifies {
        true => format!("{family}ForSequenceClassification"),
        false => format!("{family}ForCausalLM"),
    }
}

/// Names for the scores of a classifier, unless the file has as many. Their number is that of the scores.
fn labels(json: &mut Map<String, Value>, count: usize) {
    json.remove("num_labels");
    let named = json.get("id2label").and_then(Value::as_object);
    if named.is_some_and(|named| named.len() == count) {
        return;
    }
    let label = |at: usize| format!("LABEL_{at}");
    let names: Map<String, Value> = (0..count)
        .map(|at| (at.to_string(), label(at).into()))
        .collect();
    let numbers: Map<String, Value> = (0..count).map(|at| (label(at), at.into())).collect();
    json.insert("id2label".to_string(), names.into());
    json.insert("label2id".to_string(), numbers.into());
}

/// The files to copy, with their names.
fn beside(folder: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    if !folder.is_dir() {
        let text = format!("is {}, which is no folder", folder.display());
        return Err(Error::argument(FUNCTION, "save.beside", text));
    }
    let files = BESIDE.into_iter().map(|name| (folder.join(name), name));
    Ok(files.filter(|(path, _)| path.is_file()).collect())
}
