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
//! | [`LoraLinear`](crate::parameter_efficient::LoraLinear), [`QloraLinear`](crate::parameter_efficient::QloraLinear) | `.lora_A.weight`, `.lora_B.weight` | `[rank, in]`, `[out, rank]` |
//! | … with [`LoraBias::Update`](crate::parameter_efficient::LoraBias::Update) | `.lora_B.bias` | `[out]` |
//! | … with [`LoraBias::Base`](crate::parameter_efficient::LoraBias::Base) | `.base_layer.bias` | `[out]` |
//! | [`LoraEmbedding`](crate::parameter_efficient::LoraEmbedding) | `.lora_embedding_A`, `.lora_embedding_B` | `[rank, vocabulary]`, `[dim, rank]` |
//! | [`DoraLinear`](crate::parameter_efficient::DoraLinear) | those of `LoraLinear` and `.lora_magnitude_vector` | `[out]` |
//! | [`AdaLoraLinear`](crate::parameter_efficient::AdaLoraLinear) | `.lora_A`, `.lora_B`, `.lora_E`: Q, P, Λ | `[rank, in]`, `[out, rank]`, `[rank, 1]` |
//! | [`Ia3Linear`](crate::parameter_efficient::Ia3Linear) | `.ia3_l` | `[out, 1]` or `[1, in]` |
//! | [`VeraLinear`](crate::parameter_efficient::VeraLinear) | `.vera_lambda_b`, `.vera_lambda_d` | `[out]`, `[rank]` |
//! | [`VeraProjections`](crate::parameter_efficient::VeraProjections) | full name: `base_model.vera_A`, `base_model.vera_B` | `[rank, most inputs]`, `[most outputs, rank]` |
//! | [`PromptEmbedding`](crate::parameter_efficient::PromptEmbedding) | full name: `prompt_embeddings` | `[length, dim]` |
//! | [`PrefixEncoder`](crate::parameter_efficient::PrefixEncoder); the tokens' positions start at its [length](crate::parameter_efficient::PrefixEncoder::virtual_positions) | full name: `prompt_embeddings` | `[length, 2 · layers · heads · head_dim]` |
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
//! | an expression that would take gigabytes or minutes; a size such as `r` above 2²⁰ | see [`Targets`](crate::parameter_efficient::Targets) and [the sizes](super#sizes) |
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
//! Import from here: `use candle_align::peft::{AdapterFile, Strictness};`.
//!
//! Read next: [`lora`](crate::parameter_efficient::lora), [`targets`](crate::parameter_efficient::targets).

mod absent;
mod agree;
mod baked;
mod base_model;
mod build;
mod collect;
mod config;
mod file;
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
mod token_rows;
mod tokens;
mod vectors;
mod weights;
mod write;

pub use base_model::BaseModel;
pub use config::{
    AdaLoraFile, AdapterMethod, Ia3File, LoraFile, PeftConfig, PrefixFile, PromptFile, TaskType,
    VeraFile,
};
pub use file::AdapterFile;
pub use layer::{AnyAdapter, ModelAdapters};
pub use merged::MergedModel;

use crate::error::{Error, Result};
use crate::files;
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
