//! All settings of a run: `config.json` stores them, `--config` reads them.

use super::adapter::Adapter;
use super::comparisons::Most;
use super::error::{Error, Result, cut};
use super::input;
use super::objectives::words::{CRlft, Classes, Hindsight};
use super::objectives::{Forms, Objective, RewardForm, SlicForm};
use candle_align::language::edits::EditCosts;
use candle_align::language::revision::{DebugFormat, RevisionTemplate};
use candle_align::{
    BrioConfig, DpoConfig, ExpectedRiskConfig, PairwiseRewardConfig, ProConfig, RankedRewardConfig,
    RrhfConfig, SftConfig, SlicConfig, StableAlignmentConfig,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The settings of a run. Those of the objectives are the library's own, with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The objective.
    pub objective: Objective,
    /// A `.jsonl` or `.jsonl.gz` file; none: the built-in rows.
    pub data: Option<PathBuf>,
    /// The folder for the results; none: `target/train/<objective>`, with `_<method>` for an adapter.
    pub out: Option<PathBuf>,
    /// Weights to start from, from an earlier run with the same sizes; none: random ones.
    pub base: Option<PathBuf>,
    /// The adapter that is trained on the frozen base; none: the whole model is trained.
    pub adapter: Option<Adapter>,
    /// The seed of the weights, the split and the order of rows. The same seed gives the same metrics.
    pub seed: u64,

    /// Steps of the objective.
    pub steps: usize,
    /// Supervised steps of the whole model on the best answers, before the objective. `sft` itself uses
    /// this only under an adapter.
    pub sft_steps: usize,
    /// Examples per step: answers for `sft`, pairs, lists, or written texts.
    pub batch: usize,
    /// Examples per forward pass. The gradient is always that of the whole batch.
    pub micro_batch: usize,
    /// The peak learning rate of an objective that compares answers.
    pub learning_rate: f64,
    /// The peak learning rate of supervised steps, `sft` itself included.
    pub sft_learning_rate: f64,
    /// The peak learning rate of an objective that writes words around answers.
    pub language_learning_rate: f64,
    /// The share of the steps during which the learning rate rises; a cosine decay follows.
    pub warmup: f64,
    /// The learning rate at the last step, as a share of the peak.
    pub floor: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// The largest gradient norm of a step; larger gradients are clipped.
    pub clip: f64,

    /// The model's width.
    pub width: usize,
    /// The model's number of blocks.
    pub layers: usize,
    /// The model's number of attention heads.
    pub heads: usize,
    /// The most tokens (bytes) of a prompt and an answer together.
    pub max_len: usize,

    /// The share of prompts that is held out; the prompts of one tree, instruction or conversation
    /// count as one.
    pub held_out: f64,
    /// The largest number of held-out prompts, counted in the same way.
    pub max_held_out: usize,
    /// Steps between two evaluations; 0: a quarter of the run.
    pub eval_every: usize,
    /// The largest number of rows that are read.
    pub max_rows: Option<usize>,
    /// Count unreadable rows instead of stopping at the first one.
    pub skip_bad_rows: bool,
    /// Fields of rows to ignore, by name and at any depth. Other unknown fields are errors.
    pub ignored_fields: Vec<String>,
    /// The largest number of pairs from the answers to one prompt; if there are more, some are drawn.
    pub max_pairs: usize,
    /// The largest number of answers in a list; if there are more, the best, the worst and drawn ones
    /// are kept.
    pub max_answers: usize,

    /// Settings of `sft`, of the supervised steps before other objectives, and of every other call of
    /// `sft_loss`: on the reference of `brio` and `expected_risk`, and on the texts of
    /// `conditional_sft`, `second_thoughts`, `selfee` and `self_debug`.
    pub sft: SftConfig,
    /// Settings of `reward` on pairs.
    pub reward: PairwiseRewardConfig,
    /// Settings of `reward` on lists.
    pub ranked_reward: RankedRewardConfig,
    /// The loss of `reward`.
    pub reward_form: RewardForm,
    /// Settings of `dpo`.
    pub dpo: DpoConfig,
    /// Settings of `pro`.
    pub pro: ProConfig,
    /// Settings of `slic`.
    pub slic: SlicConfig,
    /// The loss of `slic`.
    pub slic_form: SlicForm,
    /// λ, the weight of cross-entropy on the best answer in SLiC. Default 0.5.
    pub slic_sft_weight: f64,
    /// λ of SLiC's other regularizer: the weight of the KL to the model after the supervised steps,
    /// summed over the tokens of the best answer. Default 0.
    pub slic_kl_weight: f64,
    /// Settings of `rrhf`.
    pub rrhf: RrhfConfig,
    /// Settings of `brio`.
    pub brio: BrioConfig,
    /// Settings of `expected_risk`.
    pub expected_risk: ExpectedRiskConfig,
    /// Settings of `stable_alignment`.
    pub stable_alignment: StableAlignmentConfig,
    /// The words of `conditional_sft` and `c_rlft`.
    pub classes: Classes,
    /// Settings of `c_rlft`.
    pub c_rlft: CRlft,
    /// Settings of `chain_of_hindsight`.
    pub chain_of_hindsight: Hindsight,
    /// Settings of `second_thoughts`: the cost of each edit.
    pub second_thoughts: EditCosts,
    /// Settings of `selfee`: its headings.
    pub selfee: RevisionTemplate,
    /// Settings of `self_debug`: its verdicts, and what the loss covers.
    pub self_debug: DebugFormat,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            objective: Objective::Dpo,
            data: None,
            out: None,
            base: None,
            adapter: None,
            seed: 0,
            steps: 150,
            sft_steps: 100,
            batch: 16,
            micro_batch: 8,
            learning_rate: 5e-4,
            sft_learning_rate: 6e-3,
            language_learning_rate: 3e-3,
            warmup: 0.1,
            floor: 0.1,
            weight_decay: 0.01,
            clip: 1.0,
            width: 64,
            layers: 2,
            heads: 4,
            max_len: 384,
            held_out: 0.2,
            max_held_out: 200,
            eval_every: 0,
            max_rows: None,
            skip_bad_rows: false,
            ignored_fields: Vec::new(),
            max_pairs: 64,
            max_answers: 64,
            sft: SftConfig::default(),
            reward: PairwiseRewardConfig::default(),
            ranked_reward: RankedRewardConfig::default(),
            reward_form: RewardForm::default(),
            dpo: DpoConfig::default(),
            pro: ProConfig::default(),
            slic: SlicConfig::default(),
            slic_form: SlicForm::default(),
            slic_sft_weight: 0.5,
            slic_kl_weight: 0.0,
            rrhf: RrhfConfig::default(),
            brio: BrioConfig::default(),
            expected_risk: ExpectedRiskConfig::default(),
            stable_alignment: StableAlignmentConfig::default(),
            classes: Classes::default(),
            c_rlft: CRlft::default(),
            chain_of_hindsight: Hindsight::default(),
            second_thoughts: EditCosts::default(),
            selfee: RevisionTemplate::default(),
            self_debug: DebugFormat::default(),
        }
    }
}

impl Settings {
    /// From a JSON file. Missing settings keep their defaults; unknown ones are errors.
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::json(path)?;
        serde_json::from_str(&text).map_err(|error| Error::json(path, &text, &error))
    }

    /// Changes one setting: `steps=100`, `dpo.beta=0.5`, `data=rows.jsonl`. The value is JSON, or else
    /// plain text.
    pub fn with(self, assignment: &str) -> Result<Self> {
        assign(self, assignment)
    }

    /// The limits per item.
    pub fn most(&self) -> Most {
        Most {
            pairs: self.max_pairs,
            answers: self.max_answers,
            seed: self.seed,
        }
    }

    /// The losses of the objectives that have several.
    pub fn forms(&self) -> Forms {
        Forms {
            reward: self.reward_form,
            slic: self.slic_form,
        }
    }

    /// The folder for the results.
    pub fn out(&self) -> PathBuf {
        let name = match &self.adapter {
            None => self.objective.to_string(),
            Some(adapter) => format!("{}_{}", self.objective, adapter.method.name()),
        };
        let default = || PathBuf::from("target/train").join(name);
        self.out.clone().unwrap_or_else(default)
    }

    /// Checks the settings that the library does not check.
    pub fn check(&self) -> Result<()> {
        if self.objective.is_since() {
            let name = self.objective;
            return Err(Error::Usage(format!(
                "`{name}` trains a checkpoint: name its folder by --model DIR"
            )));
        }
        let positive = |name: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "`{name}` must be finite and > 0, got {value}"
            ))),
        };
        let share = |name: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "`{name}` must be in [0, 1), got {value}"
            ))),
        };
        positive("batch", self.batch as f64)?;
        positive("micro_batch", self.micro_batch as f64)?;
        positive("learning_rate", self.learning_rate)?;
        positive("sft_learning_rate", self.sft_learning_rate)?;
        positive("language_learning_rate", self.language_learning_rate)?;
        positive("max_held_out", self.max_held_out as f64)?;
        positive("max_pairs", self.max_pairs as f64)?;
        if self.max_answers < 2 {
            let found = self.max_answers;
            return Err(Error::Usage(format!(
                "`max_answers` must be at least 2, got {found}"
            )));
        }
        positive("held_out", self.held_out)?;
        share("held_out", self.held_out)?;
        share("warmup", self.warmup)?;
        for (name, weight) in [
            ("slic_sft_weight", self.slic_sft_weight),
            ("slic_kl_weight", self.slic_kl_weight),
        ] {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Error::Usage(format!(
                    "`{name}` must be finite and >= 0, got {weight}"
                )));
            }
        }
        self.chain_of_hindsight.check()?;
        for (name, reward) in [
            ("good_reward", self.c_rlft.good_reward),
            ("bad_reward", self.c_rlft.bad_reward),
        ] {
            if !(reward as f32).is_finite() {
                return Err(Error::Usage(format!(
                    "`c_rlft.{name}` must be finite, got {reward}"
                )));
            }
        }
        if self.max_len < 32 {
            let found = self.max_len;
            return Err(Error::Usage(format!(
                "`max_len` must be at least 32, got {found}"
            )));
        }
        Ok(())
    }
}

/// Changes one of some settings, which is named by its path.
pub fn assign<T: Serialize + DeserializeOwned>(all: T, assignment: &str) -> Result<T> {
    let usage = |problem: String| {
        let (assignment, problem) = (cut(assignment, 80), cut(&problem, 1_000));
        Error::Usage(format!("--set {assignment}: {problem}"))
    };
    let (key, value) = assignment
        .split_once('=')
        .ok_or_else(|| usage("must be KEY=VALUE".to_string()))?;
    let value: Value =
        serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_string()));
    let mut all = serde_json::to_value(all).map_err(|error| usage(error.to_string()))?;
    let mut place = &mut all;
    for name in key.split('.') {
        place = place
            .get_mut(name)
            .ok_or_else(|| usage(format!("there is no setting `{name}`")))?;
    }
    *place = value;
    serde_json::from_value(all).map_err(|error| usage(error.to_string()))
}
