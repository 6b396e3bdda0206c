//! Adapters on disk, as Python's PEFT writes and reads them (beside the survey's §3.3).
//!
//! In one sentence: two files in a folder, one with the settings and one with the tensors, which mean
//! the same numbers here and in PEFT 0.21.
//!
//! | file | what is in it |
//! |---|---|
//! | `adapter_config.json` | [`PeftConfig`]: JSON, keys sorted, every key of PEFT 0.21.2 |
//! | `adapter_model.safetensors` | the tensors below, with the metadata `{"format": "pt"}` and a copy of the settings |
//!
//! An adapter with a name other than `default` is in a folder with that name: read that folder.
//!
//! **Which two files belong together**: those that were written together. The settings end their
//! `peft_version` with a mark computed from all of them (`0.21.2@candle-align.…`, in the place
//! where PEFT puts its commit); the tensors hold the settings, including the mark.
//!
//! | `adapter_config.json` | beside tensors | result |
//! |---|---|---|
//! | with the tensors' mark, edited since or not | that hold settings | read |
//! | with another mark | that hold settings | refused, after [several attempts](AdapterFile::read) |
//! | without a mark: Python's, or written by hand | of any kind | read |
//! | of any kind | that hold no settings: Python's, or saved again by another program | read |
//! | missing | that hold settings | the tensors' own settings are read |
//!
//! So a save that is interrupted at any point leaves the old adapter or the new one, and two programs
//! that save into one folder leave the adapter of one of them.
//!
//! | what | name: `base_model.model.`, the module's path, and | shape |
//! |---|---|---|
//! | [`LoraLinear`](crate::LoraLinear), [`QloraLinear`](crate::QloraLinear) | `.lora_A.weight`, `.lora_B.weight` | `[rank, in]`, `[out, rank]` |
//! | … with [`LoraBias::Update`](crate::LoraBias::Update) | `.lora_B.bias` | `[out]` |
//! | … with [`LoraBias::Base`](crate::LoraBias::Base) | `.base_layer.bias` | `[out]` |
//! | [`LoraEmbedding`](crate::LoraEmbedding) | `.lora_embedding_A`, `.lora_embedding_B` | `[rank, vocabulary]`, `[dim, rank]` |
//! | [`DoraLinear`](crate::DoraLinear) | those of `LoraLinear` and `.lora_magnitude_vector` | `[out]` |
//! | [`AdaLoraLinear`](crate::AdaLoraLinear) | `.lora_A`, `.lora_B`, `.lora_E`: Q, P, Λ | `[rank, in]`, `[out, rank]`, `[rank, 1]` |
//! | [`Ia3Linear`](crate::Ia3Linear) | `.ia3_l` | `[out, 1]` or `[1, in]` |
//! | [`VeraLinear`](crate::VeraLinear) | `.vera_lambda_b`, `.vera_lambda_d` | `[out]`, `[rank]` |
//! | [`VeraProjections`](crate::VeraProjections) | full name: `base_model.vera_A`, `base_model.vera_B` | `[rank, most inputs]`, `[most outputs, rank]` |
//! | [`PromptEmbedding`] | full name: `prompt_embeddings` | `[length, dim]` |
//! | [`PrefixEncoder`]; the tokens' positions start at its [length](PrefixEncoder::virtual_positions) | full name: `prompt_embeddings` | `[length, 2 · layers · heads · head_dim]` |
//! | a module of `modules_to_save` | its own parameters | theirs |
//! | the trained rows of a table, under `trainable_token_indices` | `.token_adapter.trainable_tokens_delta` | `[rows, dim]` |
//! | any other parameter of the base, which PEFT loads whatever the settings say | its own name | its own |
//! | the bias of a module without an adapter, under `bias = "all"` | `.bias` | `[out]` |
//! | the weight of a chosen embedding or output layer, where it was saved too | `.base_layer.weight` | the base's |
//!
//! **What is refused**, with an error that names the setting or the tensor; nothing is ignored:
//!
//! | what | why |
//! |---|---|
//! | `init_lora_weights` of PiSSA, OLoRA, CorDA, LoRA-GA | a part of the base's weights was moved into A and B, so the file means nothing on the original base; saved in PEFT with `path_initial_model_for_weight_conversion` it is plain LoRA, and is read |
//! | `init_lora_weights` of LoftQ | the base's weights were quantized: save that base too, and set the key to true |
//! | `alora_invocation_tokens`, `arrow_config`, `kasa_config`, `monteclora_config`, `use_bdlora`, `use_qalora`, `velora_config` | other layers under the name `LORA` |
//! | `layer_replication`, `megatron_config` | another model |
//! | `target_parameters`, `ensure_weight_tying` | adapters of bare parameters, and copies of one adapter in two places |
//! | LoRA on a convolution, DoRA on an embedding | this crate has no such layer |
//! | "all-linear", a null `target_modules` or `feedforward_modules` | the first needs the model: names and shapes do not tell a linear layer from an embedding or an output layer; the others need a table of known models. PEFT writes the modules that it found instead, so none of its own files holds them |
//! | an expression that would take gigabytes or minutes; a size such as `r` above 2²⁰ | see [`Targets`](crate::Targets) and [the sizes](super#sizes) |
//! | AdaLoRA with `alpha_pattern`, biases or `use_rslora`; VeRA with biases or without its projections | this crate has no such layer; the random numbers come from one Python library |
//! | a prompt or a prefix with `modules_to_save`, or for an encoder and a decoder | only the vectors are read |
//! | every other `peft_type` | not implemented |
//!
//! How an adapter started has no effect on an existing one. A start by EVA, MiCA or "orthogonal", which
//! leave the base unchanged, is read and written as the default.
//!
//! **Tied weights**: a model whose output layer is its embedding has one table T under two names, and
//! its state dict holds it under one or both. The state dict does not tell that the model is tied: say so
//! with [`BaseModel::tied`]. The meaning of an adapter then follows PEFT's rule, whichever names the base
//! holds:
//!
//! | the adapter | the embedding | the output layer | PEFT's merge |
//! |---|---|---|---|
//! | LoRA on the embedding | T + ΔT | T | T + ΔT in both |
//! | LoRA, DoRA, AdaLoRA, (IA)³ or VeRA on the output layer | T | T + ΔT | T + ΔT in both |
//! | LoRA on both | T + ΔT₁ | T + ΔT₂ | T + ΔT₁ + ΔT₂ in both |
//! | `modules_to_save` of the embedding | the saved one | T | the same |
//! | … of the output layer | T | the saved one | the same |
//! | … of both | its own | its own | the same |
//! | LoRA on the one and `modules_to_save` of the other | its own | its own | the same |
//! | `trainable_token_indices` without a name, of the embedding, or of both with the same rows | T with the rows | T with the rows | the same |
//! | … of the output layer | T | T with the rows | the rows in both |
//! | … of both with different rows | T with its rows | T with its rows | all rows in both |
//! | … of the embedding, and LoRA on the output layer | T with the rows | T with the rows, + ΔT | a different model |
//! | … of the output layer, and LoRA on the embedding | T + ΔT | T with the rows | both in both |
//! | … of the output layer, and `modules_to_save` of the embedding | the saved one | T with the rows | the same |
//! | … of the embedding, and `modules_to_save` of the output layer | refused by both | | |
//! | a table in the file that is none of these: `….weight`, or `….base_layer.weight` beside LoRA | the file's instead of T | the file's instead of T | the same, except for ΔT |
//!
//! The last column is the result of PEFT's `merge_and_unload`. Where it is not the trained model, PEFT
//! warns and recommends untying the model first. [`AdapterFile::merged`] always returns the trained
//! model. Its result has both names if they no longer hold one table; set `tie_word_embeddings = false`
//! in the model then. [`ModelAdapters::tied`] holds the tensor under a name that the adapter itself does
//! not change. A state dict without this information is read as that of an untied model. Where a tied
//! model would mean something else, it is refused with a question: for an embedding under an adapter or
//! trained as a whole while there is no output layer of its shape, and for rows of a table that occurs
//! twice in the base.
//!
//! **`fan_in_fan_out`** is one setting for all modules, and PEFT writes the value that the last of them
//! needed. So the base takes precedence where it can. In the blocks of GPT-2, `h.N.attn` and `h.N.mlp`,
//! the biases distinguish `Conv1D`, which stores `[in, out]`, from the linear layers with the same names
//! in other models; beside `Conv1D` all other layers are linear. Elsewhere the setting applies. A tensor
//! that fits only in the other layout is refused by name, and so is a square weight whose layout nothing
//! shows.
//!
//! **Other names**: if a tensor is not found under its name, the message shows what the file holds
//! instead and the prefix that would fit. A lenient reader accepts `module.`, `_orig_mod.` and other
//! wrappers, and a doubled or missing `base_model.model.`, if the base has that place and no other tensor
//! takes it. The names of kohya's scripts, of diffusers and of MLX are refused, since their numbers are
//! arranged differently too.
//!
//! **What Python does and this crate does not**: Python accepts a file with missing tensors and leaves
//! their layers at their random start, and it ignores tensors that it does not know. Here both are
//! errors, or notes for a [`Strictness::Lenient`] reader.
//!
//! Read next: [`lora`](crate::parameter_efficient::lora), [`targets`](crate::parameter_efficient::targets).

mod absent;
mod agree;
mod baked;
mod base_model;
mod build;
mod collect;
mod config;
mod finite;
mod idle;
mod keys;
mod layer;
mod layout;
mod load;
mod merged;
mod pair;
mod prefixes;
mod read;
mod saved;
mod settings;
mod sizes;
mod starts;
mod tensors;
mod tied;
mod tokens;
mod unique;
mod vectors;
mod weights;
mod write;

pub use base_model::BaseModel;
pub use config::{
    AdaLoraFile, AdapterMethod, Ia3File, LoraFile, PeftConfig, PrefixFile, PromptFile, TaskType,
    VeraFile,
};
pub use layer::{AnyAdapter, ModelAdapters};
pub use merged::MergedModel;

use crate::error::{Error, Result};
use crate::files;
use crate::parameter_efficient::prefix::PrefixEncoder;
use crate::parameter_efficient::prompt::PromptEmbedding;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The call that applies a file to a base, for its errors.
const FUNCTION: &str = "AdapterFile::layers";
/// The names of the two files.
const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// The prefix of a module's path.
const PREFIX: &str = "base_model.model.";
/// The only tensor of a prompt or a prefix.
const PROMPT: &str = "prompt_embeddings";
/// PEFT's name for an adapter without another name.
const DEFAULT: &str = "default";

/// How a reader treats what it does not expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// An error that names it.
    #[default]
    Strict,
    /// It is left out, and the reader's notes say so: unknown keys, missing tensors together with their
    /// whole layer, tensors of another shape or without a place. Names that still contain the adapter's own
    /// name, as in `lora_A.default.weight`, or that of a wrapper, are accepted. Tensors that are not finite
    /// are read, with a note. A setting that is known but not supported is still an error, and so is an
    /// adapter of which nothing is left.
    Lenient,
}

/// An adapter: settings and tensors, as in a folder.
///
/// # Equation
/// None: a file holds numbers. The page of each method says what they mean.
/// # Shapes
/// Those of the table above, in f32, f64, bf16 or f16, and finite.
/// # Errors
/// All are [`Error::Argument`]: with its path for a file that cannot be read or does not match its name;
/// with key and value for a setting; with its name for a tensor.
/// # Properties
/// * What was written is read back bit for bit. So are the settings, except how a fresh adapter starts.
/// * A model adapted or merged here gives PEFT's logits to 10⁻⁵ from PEFT's files; PEFT gives this
///   crate's from files written here.
/// * No file makes the reader panic or allocate more than a small multiple of its own size. The claims of
///   a header are checked before anything is allocated for them.
/// * After an interrupted [`AdapterFile::write`] this reader finds the old adapter or the new one in the
///   folder, never settings of one beside tensors of the other. Where the settings changed, Python may
///   find no `adapter_config.json` until the next write.
/// * Only regular files are read: no named pipe, folder or device.
/// # Departures
/// PEFT's loader accepts missing and unexpected tensors; see the page above.
/// # Examples
/// ```
/// use candle_align::{PeftConfig, AdapterFile, AnyAdapter, ModelAdapters, AdapterMethod};
/// use candle_align::{LoraConfig, LoraFile, LoraLinear, Strictness, TargetModules, Targets};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use rand::{SeedableRng, rngs::StdRng};
/// use std::collections::{BTreeMap, HashMap};
///
/// // a base model, as a state dict
/// let weight = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let base = HashMap::from([("layers.0.q_proj.weight".to_string(), weight.clone())]);
///
/// // an adapter, as training leaves it
/// let config = LoraConfig { rank: 1, alpha: 3.0, ..Default::default() };
/// let layer = LoraLinear::new(&Linear::new(weight, None), &config, &mut StdRng::seed_from_u64(0))?;
/// layer.b().set(&Tensor::new(&[[7.0f32], [8.0]], &Device::Cpu)?)?;
///
/// // to a folder that Python can load
/// let targets = Targets { target_modules: TargetModules::Names(vec!["q_proj".into()]), ..Default::default() };
/// let method = AdapterMethod::Lora(LoraFile { config: LoraConfig { targets, ..config }, ..Default::default() });
/// let layers = BTreeMap::from([("layers.0.q_proj".to_string(), AnyAdapter::Lora(layer.clone()))]);
/// let layers = ModelAdapters { layers, ..Default::default() };
/// let folder = std::env::temp_dir().join("candle-align-adapter");
/// AdapterFile::from_layers(PeftConfig::from(method), &layers)?.write(&folder)?;
///
/// // and back
/// let file = AdapterFile::read(&folder, Strictness::Strict)?;
/// let read = file.layers(&base, Strictness::Strict)?;
/// let x = Tensor::new(&[[10.0f32, 100.0]], &Device::Cpu)?;
/// let h = read.layers["layers.0.q_proj"].forward(&x)?;
/// assert_eq!(h.to_vec2::<f32>()?, layer.forward(&x)?.to_vec2::<f32>()?);
/// # std::fs::remove_dir_all(&folder).ok();
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// PEFT 0.21.2, `utils/save_and_load.py`, `config.py` and each method's `config.py`: the files it
/// wrote, and what it read from files written here; the safetensors format, by its reference
/// implementation.
#[doc(alias = "adapter_config.json")]
#[doc(alias = "adapter_model.safetensors")]
#[doc(alias = "PeftModel")]
#[derive(Clone, Debug)]
pub struct AdapterFile {
    config: PeftConfig,
    tensors: BTreeMap<String, Tensor>,
    left_out: Vec<String>,
}

impl AdapterFile {
    /// Reads the two files of a folder: a pair that was written together, even while another program
    /// writes there. If the two files do not belong together, it looks again, up to 100 times.
    ///
    /// # Errors
    /// [`Error::Argument`] with the path for a file that cannot be read or parsed, with key and value for a
    /// setting, with its name for a tensor. Whether the tensors match the settings is checked on a base
    /// model, by [`AdapterFile::layers`].
    #[doc(alias = "from_pretrained")]
    pub fn read(folder: impl AsRef<Path>, strictness: Strictness) -> Result<Self> {
        let function = "AdapterFile::read";
        let pair = pair::read(function, folder.as_ref())?;
        let (source, text) = pair.settings;
        let (config, mut left_out) = read::parse(function, &source, &text, strictness)?;
        let (source, content) = pair.tensors;
        let mut tensors = tensors::parse(function, &source, &content)?;
        match strictness {
            Strictness::Strict => finite::require(function, &source, &tensors)?,
            Strictness::Lenient => {
                tensors = without_adapter_name(tensors);
                left_out.extend(finite::problems(&tensors)?);
            }
        }
        Ok(Self {
            config,
            tensors,
            left_out,
        })
    }

    /// Writes the two files into a folder, which is created if it does not exist.
    ///
    /// Both are first written beside their places, under temporary names. Over an adapter with the same
    /// settings, as when training continues, the tensors then replace the old ones in one step. Otherwise the
    /// old settings are moved aside, then the tensors are replaced, and the new settings come last: for
    /// Python, which does not know the marks, the folder holds no adapter in between.
    ///
    /// # Errors
    /// [`Error::Parameter`] for settings that a file cannot hold; [`Error::Argument`] with the path if the
    /// file system fails: the folder then still holds what it held before.
    #[doc(alias = "save_pretrained")]
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let function = "AdapterFile::write";
        finite::require(function, TENSORS, &self.tensors)?;
        let text = write::text(function, &self.config)?;
        let content = tensors::serialise(&self.tensors, &text)?;
        pair::write(folder.as_ref(), &text, &content).map_err(|failure| {
            let problem = format!("cannot be written: {}", failure.cause);
            Error::argument(function, failure.path, problem)
        })
    }

    /// The settings.
    pub fn config(&self) -> &PeftConfig {
        &self.config
    }

    /// The tensors, under their names in the file.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The keys of the settings that a lenient reader left out, and descriptions of the tensors that it read
    /// although they hold a number that is not finite.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The prompt of a prompt-tuning file.
    ///
    /// # Errors
    /// [`Error::Argument`] if the file is of another method, or holds anything but the one tensor with
    /// the shape that its settings give.
    pub fn prompt(&self) -> Result<PromptEmbedding> {
        let function = "AdapterFile::prompt";
        let AdapterMethod::Prompt(file) = &self.config.method else {
            return Err(Error::argument(function, "self", "is not of prompt tuning"));
        };
        PromptEmbedding::from_values(&self.vectors(function, [file.length, file.dim])?)
    }

    /// The prefix of a prefix-tuning file.
    ///
    /// # Errors
    /// As [`AdapterFile::prompt`].
    pub fn prefix(&self) -> Result<PrefixEncoder> {
        let function = "AdapterFile::prefix";
        let AdapterMethod::Prefix(PrefixFile { length, shape }) = &self.config.method else {
            return Err(Error::argument(function, "self", "is not of prefix tuning"));
        };
        let width = 2usize
            .checked_mul(shape.layers)
            .and_then(|n| n.checked_mul(shape.width()));
        let Some(width) = width else {
            return Err(Error::argument(
                function,
                "self",
                "names layers without end",
            ));
        };
        PrefixEncoder::from_values(*shape, &self.vectors(function, [*length, width])?)
    }

    /// The only tensor of a prompt or a prefix, in f32 unless it is f64.
    fn vectors(&self, function: &'static str, shape: [usize; 2]) -> Result<Tensor> {
        let problem = |text: String| Error::argument(function, TENSORS, text);
        if let Some(name) = self.tensors.keys().find(|name| *name != PROMPT) {
            return Err(problem(format!(
                "holds `{name}`, which the settings give no place"
            )));
        }
        let found = self.tensors.get(PROMPT);
        let found =
            found.ok_or_else(|| problem(format!("holds no `{PROMPT}`, of shape {shape:?}")))?;
        if found.dims() != shape {
            return Err(problem(format!(
                "holds `{PROMPT}` of shape {:?}, expected {shape:?}",
                found.dims()
            )));
        }
        finite::require(function, TENSORS, &self.tensors)?;
        Ok(match found.dtype() {
            DType::F64 => found.clone(),
            _ => found.to_dtype(DType::F32)?,
        })
    }
}

/// The path of a settings file, for messages, and its content.
fn bytes(function: &'static str, path: &Path) -> Result<(String, Vec<u8>)> {
    content(function, path, files::read(path))
}

fn content(
    function: &'static str,
    path: &Path,
    read: io::Result<Vec<u8>>,
) -> Result<(String, Vec<u8>)> {
    let source = path.display().to_string();
    let problem = |text: String| Error::argument(function, source.as_str(), text);
    let bytes = read.map_err(|error| problem(format!("cannot be read: {error}")))?;
    match files::not_json(&bytes) {
        Some(text) => Err(problem(text.to_string())),
        None => Ok((source, bytes)),
    }
}

/// The tensors, with the adapter's own name, `default`, removed from their names.
fn without_adapter_name(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let rename = |name: String| {
        let mut parts: Vec<&str> = name.split('.').collect();
        let of_adapter = |part: &str| {
            ["lora_", "ia3_", "vera_"]
                .iter()
                .any(|start| part.starts_with(start))
        };
        let at = (1..parts.len()).find(|&at| parts[at] == DEFAULT && of_adapter(parts[at - 1]));
        match at {
            Some(at) => {
                parts.remove(at);
                // a module in PEFT's memory, a number in its files
                if parts[at - 1] == "lora_magnitude_vector" && parts.get(at) == Some(&"weight") {
                    parts.remove(at);
                }
                parts.join(".")
            }
            None => name,
        }
    };
    let mut renamed = BTreeMap::new();
    for (name, tensor) in &tensors {
        let meant = rename(name.clone());
        // if a name without the adapter's own exists already, it stays as it is
        let taken = meant != *name && tensors.contains_key(&meant);
        let name = if taken { name.clone() } else { meant };
        renamed.insert(name, tensor.clone());
    }
    renamed
}
