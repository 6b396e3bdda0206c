//! The settings of a run on a checkpoint: `config.json` stores them, `--config` reads them.

pub mod fit;
pub mod objectives;
pub mod since;
mod since_check;

pub use super::super::objectives::Objective as Learned;

use super::super::comparisons::Most;
use super::super::error::{Error, Result};
use super::super::input;
use super::super::objectives::words::CRlft;
use super::super::objectives::{RewardForm, SlicForm};
use super::super::settings::assign;
pub use super::fresh_adapter::FreshAdapter;
use super::online::settings::Online;
use super::order::Order;
use super::rows::{self, Truncation, Turns};
use candle_align::language::edits::EditCosts;
use candle_align::language::revision::{DebugFormat, RevisionTemplate};
use candle_align::parameter_efficient::BlockScale;
use candle_align::sft::eaft::EaftConfig;
use candle_align::{
    BrioConfig, ExpectedRiskConfig, PairwiseRewardConfig, ProConfig, RankedRewardConfig,
    RrhfConfig, SftConfig, SlicConfig, StableAlignmentConfig,
};
use candle_core::DType;
use fit::Fit;
use objectives::{Classes, Dpo, Hindsight, SftForm, learning_rate};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use since::Since;
use std::path::{Path, PathBuf};

/// The type of frozen weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    #[default]
    F32,
    /// Half the memory. Only under an adapter, which is f32 itself.
    Bf16,
    /// Linear maps in four bits, quantized from f32: QLoRA. Only under LoRA.
    Nf4,
}

impl Storage {
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Nf4 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// How the scales of four bits are stored, as bitsandbytes does it at first.
    pub fn nf4(self) -> Option<BlockScale> {
        (self == Self::Nf4).then_some(BlockScale::Single)
    }
}

/// The settings of a run. Where TRL has a setting, this has its name and its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The Hugging Face folder of the model.
    pub model: PathBuf,
    pub objective: Learned,
    /// A `.jsonl` or `.jsonl.gz` file.
    pub data: PathBuf,
    /// The folder for the results; null: `target/train/<objective>_<model>`.
    pub out: Option<PathBuf>,
    /// A fresh adapter on the frozen model. Without this and `adapter_dir`, the whole model is trained.
    pub adapter: Option<FreshAdapter>,
    /// A PEFT adapter to go on from. A reference is then a frozen copy of it, as in TRL.
    pub adapter_dir: Option<PathBuf>,
    /// The seed of the split and of fresh weights. `--seed` sets `fit.seed` and `fit.order` too.
    pub seed: u64,

    /// The most tokens of a row; null: rows stay as they are.
    pub max_length: Option<usize>,
    /// Which end of a longer row stays. `reward` drops longer rows instead.
    pub truncation: Truncation,
    /// SFT: whether the loss covers only the completion; null: yes if rows have one.
    pub completion_only: Option<bool>,
    /// SFT: what the loss covers in a conversation.
    pub turns: Turns,
    /// SFT: the field of plain text.
    pub text_field: String,
    /// Fields of rows to ignore, by name and at any depth. Other unknown fields are errors.
    pub ignored_fields: Vec<String>,
    /// Whether prompts and answers go through the chat template; null: if the folder has one, and rows that
    /// TRL reads decide it themselves. False: they are the text of a dialogue.
    pub chat: Option<bool>,
    /// The largest number of pairs from the answers to one prompt; if there are more, some are drawn.
    pub max_pairs: usize,
    /// The largest number of answers in a list; if there are more, the best, the worst and drawn ones
    /// are kept.
    pub max_answers: usize,
    /// The local time that chat templates see, as 2026-01-31T12:00:00; null: that of the start.
    pub now: Option<String>,

    /// The share of prompts that is held out; 0: none.
    pub held_out: f64,
    /// The largest number of prompts that are held out.
    pub max_held_out: usize,
    /// A file of held-out rows, in place of a share.
    pub held_out_file: Option<PathBuf>,
    /// Steps between two evaluations; 0: a quarter of the run.
    pub eval_every: usize,
    /// Steps between two checkpoints; 0: one at the end.
    pub save_every: usize,
    /// How many checkpoints are kept.
    pub keep_last: usize,

    /// The type of frozen weights in memory.
    pub dtype: Storage,
    /// Whether the backward pass computes each layer's activations again instead of keeping them.
    pub recompute: bool,
    /// Whether a reference that gives sums alone, such as DPO's, is asked once for all rows before the
    /// first step, and never again. The numbers are kept in a file, which later runs on the same model and rows read.
    pub precompute_ref_log_probs: bool,
    /// The folder of these files; null: `target/train/reference`.
    pub ref_log_probs_dir: Option<PathBuf>,
    /// The steps.
    pub fit: Fit,

    /// Settings of `sft`, and of every other cross-entropy of answers.
    pub sft: SftConfig,
    /// The loss of `sft`.
    pub sft_form: SftForm,
    /// The Hugging Face folder of the teacher of `gkd`.
    pub teacher: Option<PathBuf>,
    /// Settings of EAFT, a form of `sft`.
    pub eaft: EaftConfig,
    /// The loss of `reward`.
    pub reward_form: RewardForm,
    /// Settings of `reward` on pairs.
    pub reward: PairwiseRewardConfig,
    /// Settings of `reward` on lists.
    pub ranked_reward: RankedRewardConfig,
    pub dpo: Dpo,
    pub pro: ProConfig,
    pub slic: SlicConfig,
    /// The loss of `slic`.
    pub slic_form: SlicForm,
    /// λ, the weight of cross-entropy on the best answer in SLiC.
    pub slic_sft_weight: f64,
    /// λ of SLiC's other regularizer: the weight of the KL to the model at the start, summed over the
    /// tokens of the best answer.
    pub slic_kl_weight: f64,
    pub rrhf: RrhfConfig,
    pub brio: BrioConfig,
    pub expected_risk: ExpectedRiskConfig,
    pub stable_alignment: StableAlignmentConfig,
    /// The words of `conditional_sft` and `c_rlft`.
    pub classes: Classes,
    pub c_rlft: CRlft,
    pub chain_of_hindsight: Hindsight,
    /// Settings of `second_thoughts`: the cost of each edit.
    pub second_thoughts: EditCosts,
    /// What edits are written with: separator, insert, delete, replace, content, target, and the digits
    /// from 0 to 9, each one token; null: control characters.
    pub edit_tokens: Option<Vec<String>>,
    /// Settings of `selfee`: its headings.
    pub selfee: RevisionTemplate,
    /// Settings of `self_debug`: its verdicts, and what the loss covers.
    pub self_debug: DebugFormat,
    /// Settings of the objectives that came after the survey, by name.
    pub since: Since,
    /// Settings of the objectives that draw answers.
    pub online: Online,
}

impl Default for Settings {
    fn default() -> Self {
        let rows = rows::Settings::default();
        let small = super::super::settings::Settings::default();
        Self {
            model: PathBuf::new(),
            objective: Learned::Dpo,
            data: PathBuf::new(),
            out: None,
            adapter: None,
            adapter_dir: None,
            seed: 42,
            max_length: rows.max_length,
            truncation: rows.truncation,
            completion_only: rows.completion_only,
            turns: rows.turns,
            text_field: rows.text_field,
            ignored_fields: rows.ignored_fields,
            chat: None,
            max_pairs: small.max_pairs,
            max_answers: small.max_answers,
            now: None,
            held_out: 0.1,
            max_held_out: 500,
            held_out_file: None,
            eval_every: 0,
            save_every: 100,
            keep_last: 2,
            dtype: Storage::default(),
            recompute: false,
            precompute_ref_log_probs: false,
            ref_log_probs_dir: None,
            fit: Fit::default(),
            sft: SftConfig::default(),
            sft_form: SftForm::default(),
            teacher: None,
            eaft: EaftConfig::default(),
            reward_form: RewardForm::default(),
            reward: PairwiseRewardConfig::default(),
            ranked_reward: RankedRewardConfig::default(),
            dpo: Dpo::default(),
            pro: ProConfig::default(),
            slic: SlicConfig::default(),
            slic_form: SlicForm::default(),
            slic_sft_weight: small.slic_sft_weight,
            slic_kl_weight: small.slic_kl_weight,
            rrhf: RrhfConfig::default(),
            brio: BrioConfig::default(),
            expected_risk: ExpectedRiskConfig::default(),
            stable_alignment: StableAlignmentConfig::default(),
            classes: Classes::default(),
            c_rlft: CRlft::default(),
            chain_of_hindsight: Hindsight::default(),
            second_thoughts: EditCosts::default(),
            edit_tokens: None,
            selfee: RevisionTemplate::default(),
            self_debug: DebugFormat::default(),
            since: Since::default(),
            online: Online::default(),
        }
    }
}

impl Settings {
    /// From a JSON file. Missing settings keep their defaults; unknown ones are errors.
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::json(path)?;
        serde_json::from_str(&text).map_err(|error| Error::json(path, &text, &error))
    }

    /// Changes one setting: `fit.max_steps=100`, `adapter.r=16`. The value is JSON, or else plain text.
    pub fn with(mut self, assignment: &str) -> Result<Self> {
        // PEFT's keys are checked when the adapter is made
        if let Some((key, text)) = assignment
            .strip_prefix("adapter.")
            .and_then(|rest| rest.split_once('='))
        {
            let none = || FreshAdapter::Keys(Map::new());
            self.adapter.get_or_insert_with(none).set(key, text)?;
            return Ok(self);
        }
        if let Some(text) = assignment.strip_prefix("adapter=") {
            self.adapter = FreshAdapter::parse(text)?;
            return Ok(self);
        }
        assign(self, assignment)
    }

    /// One seed for everything.
    pub fn seed(&mut self, seed: u64) {
        self.seed = seed;
        self.fit.seed = seed;
        if let Order::Random { seed: of } = &mut self.fit.order {
            *of = seed;
        }
    }

    /// The folder for the results.
    pub fn out(&self) -> PathBuf {
        let model = self.model.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{}_{model}", self.objective);
        let default = || PathBuf::from("target/train").join(name);
        self.out.clone().unwrap_or_else(default)
    }

    /// Whether the model itself is frozen.
    pub fn is_adapted(&self) -> bool {
        self.adapter.is_some() || self.adapter_dir.is_some()
    }

    /// Whether some rows are held out.
    pub fn holds_out(&self) -> bool {
        self.held_out_file.is_some() || self.held_out > 0.0
    }

    /// How rows become ids.
    pub fn rows(&self, vocabulary: usize) -> rows::Settings {
        rows::Settings {
            max_length: self.max_length,
            truncation: self.truncation,
            completion_only: self.completion_only,
            turns: self.turns,
            text_field: self.text_field.clone(),
            vocabulary: Some(vocabulary),
            ignored_fields: self.ignored_fields.clone(),
        }
    }

    /// The limits per prompt.
    pub fn most(&self) -> Most {
        Most {
            pairs: self.max_pairs,
            answers: self.max_answers,
            seed: self.seed,
        }
    }

    /// Checks the settings that nothing else checks.
    pub fn check(&self) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        if self.data.as_os_str().is_empty() {
            return usage(
                "`data` is missing: the rows to train on, a .jsonl or .jsonl.gz file".to_string(),
            );
        }
        if self.adapter.is_some() && self.adapter_dir.is_some() {
            return usage("`adapter` is a fresh adapter and `adapter_dir` one to go on from: give one of them".to_string());
        }
        if self.ref_log_probs_dir.is_some() && !self.precompute_ref_log_probs {
            return usage(
                "`ref_log_probs_dir` needs `precompute_ref_log_probs` = true".to_string(),
            );
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return usage(format!(
                "`held_out` must be in [0, 1), got {}",
                self.held_out
            ));
        }
        for (name, value) in [
            ("max_held_out", self.max_held_out),
            ("keep_last", self.keep_last),
            ("max_pairs", self.max_pairs),
        ] {
            if value == 0 {
                return usage(format!("`{name}` must be at least 1, got 0"));
            }
        }
        self.fit.check(learning_rate(self.objective))?;
        if self.max_answers < 2 {
            let found = self.max_answers;
            return usage(format!("`max_answers` must be at least 2, got {found}"));
        }
        self.check_since()?;
        self.check_online()?;
        self.check_objectives()
    }
}
