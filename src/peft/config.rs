//! The content of `adapter_config.json`, in this crate's terms.

use crate::parameter_efficient::adalora::AdaLoraConfig;
use crate::parameter_efficient::adalora::schedule::RankAllocatorConfig;
use crate::parameter_efficient::ia3::Ia3ForModel;
use crate::parameter_efficient::lora::for_model::LoraForModel;
use crate::parameter_efficient::prefix::PrefixShape;
use crate::parameter_efficient::targets::{ForModel, Targets};
use crate::parameter_efficient::vera::VeraConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The release of PEFT whose files these are.
pub(super) const PEFT: &str = "0.21.2";

/// The settings of an adapter: an `adapter_config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftConfig {
    /// The method and its settings: `peft_type` and most keys.
    pub method: AdapterMethod,
    /// `base_model_name_or_path`.
    pub base_model: Option<String>,
    /// `revision` of the base model.
    pub revision: Option<String>,
    /// `task_type`. Python chooses its wrapper by it; a prompt or a prefix requires one there.
    pub task: Option<TaskType>,
    /// `auto_mapping`: the Python class of the base model, if there is no task. Has no effect here.
    pub auto_mapping: Option<serde_json::Map<String, serde_json::Value>>,
}

impl From<AdapterMethod> for PeftConfig {
    /// Without information on the base model.
    fn from(method: AdapterMethod) -> Self {
        Self {
            method,
            base_model: None,
            revision: None,
            task: None,
            auto_mapping: None,
        }
    }
}

/// `task_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it
pub enum TaskType {
    #[serde(rename = "SEQ_CLS")]
    SequenceClassification,
    #[serde(rename = "SEQ_2_SEQ_LM")]
    SequenceToSequence,
    #[serde(rename = "CAUSAL_LM")]
    CausalLanguageModel,
    #[serde(rename = "TOKEN_CLS")]
    TokenClassification,
    #[serde(rename = "QUESTION_ANS")]
    QuestionAnswering,
    #[serde(rename = "FEATURE_EXTRACTION")]
    FeatureExtraction,
}

/// A method and its settings.
///
/// How a fresh adapter starts (`init_lora_weights`, `init_ia3_weights`, `init_weights`,
/// `prompt_tuning_init*`) has no effect on an adapter that is read from a file, and is written as the
/// default.
#[derive(Clone, Debug, PartialEq)]
pub enum AdapterMethod {
    /// `LORA`, DoRA included.
    Lora(LoraFile),
    /// `ADALORA`.
    AdaLora(AdaLoraFile),
    /// `IA3`.
    Ia3(Ia3File),
    /// `VERA`.
    Vera(VeraFile),
    /// `PROMPT_TUNING`.
    Prompt(PromptFile),
    /// `PREFIX_TUNING`.
    Prefix(PrefixFile),
}

impl AdapterMethod {
    /// Which modules get the adapter; `None` for prompts and prefixes.
    pub fn targets(&self) -> Option<&Targets> {
        match self {
            Self::Lora(file) => Some(&file.model.targets),
            Self::AdaLora(file) => Some(&file.model.targets),
            Self::Ia3(file) => Some(&file.model.targets),
            Self::Vera(file) => Some(&file.model.targets),
            Self::Prompt(_) | Self::Prefix(_) => None,
        }
    }

    /// As [`AdapterMethod::targets`], to change them.
    pub fn targets_mut(&mut self) -> Option<&mut Targets> {
        match self {
            Self::Lora(file) => Some(&mut file.model.targets),
            Self::AdaLora(file) => Some(&mut file.model.targets),
            Self::Ia3(file) => Some(&mut file.model.targets),
            Self::Vera(file) => Some(&mut file.model.targets),
            Self::Prompt(_) | Self::Prefix(_) => None,
        }
    }

    /// Whether the base stores the weights of its linear layers as `[in, out]`: `fan_in_fan_out`, true
    /// for GPT-2.
    pub fn fan_in_fan_out(&self) -> bool {
        match self {
            Self::Lora(file) => file.fan_in_fan_out,
            Self::AdaLora(file) => file.fan_in_fan_out,
            Self::Ia3(file) => file.fan_in_fan_out,
            Self::Vera(file) => file.fan_in_fan_out,
            Self::Prompt(_) | Self::Prefix(_) => false,
        }
    }
}

/// The settings of a LoRA or DoRA file. The default is LoRA's and names no module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraFile {
    /// Rank, α, patterns, targets, and what is trained beside A and B.
    pub model: LoraForModel,
    /// `use_dora`: the layers are [`DoraLinear`](crate::parameter_efficient::DoraLinear). Only for linear layers, and without a
    /// bias of B.
    pub dora: bool,
    /// `bias = "all"`: the biases of all other modules were trained too, beside those of the chosen modules,
    /// for which it needs [`LoraBias::Base`](crate::parameter_efficient::LoraBias::Base).
    pub all_biases: bool,
    /// `trainable_token_indices`: which rows of which tables were trained, by the end of a module's
    /// path. The empty name stands for the tables for which the file has rows. The tables with these rows
    /// are among the weights ([`ModelAdapters::weights`](crate::peft::ModelAdapters::weights)); only the rows are
    /// written.
    pub tokens: BTreeMap<String, Vec<usize>>,
    /// `fan_in_fan_out`.
    pub fan_in_fan_out: bool,
}

/// The settings of an AdaLoRA file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdaLoraFile {
    /// The initial rank (`init_r`), α, the dropout, and which modules get triplets. The scaling must be
    /// PEFT's, which is the default.
    pub model: ForModel<AdaLoraConfig>,
    /// The budget. Its `total_steps` must not be 0, since Python refuses such a file.
    pub allocator: RankAllocatorConfig,
    /// `orth_reg_weight` ≥ 0, the weight of the orthogonality penalty.
    pub orthogonality: f64,
    /// `rank_pattern`: by module path, which of the initial triplets remain. Empty: all.
    pub kept: BTreeMap<String, Vec<bool>>,
    /// `fan_in_fan_out`.
    pub fan_in_fan_out: bool,
}

/// The settings of an (IA)³ file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ia3File {
    /// Which modules get factors, and where.
    pub model: Ia3ForModel,
    /// `fan_in_fan_out`.
    pub fan_in_fan_out: bool,
}

/// The settings of a VeRA file with its projections (`save_projection`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VeraFile {
    /// Rank, the initial λ_d, dropout, and which modules get factors. `exclude_modules` must be empty:
    /// PEFT has no such key for VeRA.
    pub model: ForModel<VeraConfig>,
    /// `projection_prng_key`: the seed in Python. The projections themselves are in the file.
    pub seed: u64,
    /// `fan_in_fan_out`.
    pub fan_in_fan_out: bool,
}

/// The settings of a prompt-tuning file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptFile {
    /// `num_virtual_tokens`.
    pub length: usize,
    /// `token_dim`, the width of an embedding.
    pub dim: usize,
    /// `num_layers` of the base model. Python fills it in.
    pub layers: Option<usize>,
    /// `num_attention_heads` of the base model. Python fills it in.
    pub heads: Option<usize>,
}

/// The settings of a prefix-tuning file. The file holds keys and values, whichever network made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixFile {
    /// `num_virtual_tokens`.
    pub length: usize,
    /// `num_layers`, `num_attention_heads` (the heads with their own keys), and the width of one head,
    /// which is `token_dim` divided by their number.
    pub shape: PrefixShape,
}
