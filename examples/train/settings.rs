//! Everything a run depends on: what `config.json` holds and `--config` reads.

use super::adapter::Adapter;
use super::comparisons::Most;
use super::error::{Error, Result, cut};
use super::input;
use super::objectives::words::{CRlft, Classes, Hindsight};
use super::objectives::{Objective, RewardForm, SlicForm};
use candle_align::{
    BrioConfig, DebugFormat, DpoConfig, EditCosts, ExpectedRiskConfig, PairwiseRewardConfig,
    ProConfig, RankedRewardConfig, RevisionTemplate, RrhfConfig, SftConfig, SlicConfig,
    StableAlignmentConfig,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The settings of a run. Those of the objectives are the library's own, with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What to train by.
    pub objective: Objective,
    /// A `.jsonl` or `.jsonl.gz` file; none: the example's own rows.
    pub data: Option<PathBuf>,
    /// Where the results go; none: `target/train/<objective>`, and `_<method>` under an adapter.
    pub out: Option<PathBuf>,
    /// Weights to start from, of an earlier run with the same sizes; none: random ones.
    pub base: Option<PathBuf>,
    /// What is trained on the frozen base; none: the whole model.
    pub adapter: Option<Adapter>,
    /// Of weights, split and order. The same seed gives the same metrics.
    pub seed: u64,

    /// Steps of the objective.
    pub steps: usize,
    /// Steps of supervised training of the whole model on the best answers before it; for `sft`
    /// itself not read, but under an adapter.
    pub sft_steps: usize,
    /// Examples per step: answers for `sft`, pairs, lists, or written texts.
    pub batch: usize,
    /// Examples per forward pass. The gradient is that of the whole batch whatever this is.
    pub micro_batch: usize,
    /// The peak in the steps of an objective that compares answers.
    pub learning_rate: f64,
    /// The peak in supervised steps, `sft` itself included.
    pub sft_learning_rate: f64,
    /// The peak in the steps of an objective that writes words around answers.
    pub language_learning_rate: f64,
    /// The share of the steps in which the learning rate rises; a cosine follows.
    pub warmup: f64,
    /// The share of the peak that is left at the last step.
    pub floor: f64,
    /// AdamW's decay of weights.
    pub weight_decay: f64,
    /// The largest norm of a step's gradient.
    pub clip: f64,

    /// Width of the model.
    pub width: usize,
    /// Its blocks.
    pub layers: usize,
    /// Its attention heads.
    pub heads: usize,
    /// The most tokens (bytes) of a prompt and an answer together.
    pub max_len: usize,

    /// The share of prompts that is held out; those of one tree, instruction or conversation count as
    /// one.
    pub held_out: f64,
    /// The most prompts that are held out, counted in the same way.
    pub max_held_out: usize,
    /// Steps between two evaluations; 0: a quarter of the run.
    pub eval_every: usize,
    /// Read only so many rows of the file.
    pub max_rows: Option<usize>,
    /// Count rows that cannot be read, instead of stopping at the first.
    pub skip_bad_rows: bool,
    /// Fields of rows, by name and at any depth, that are read as if they were not there. A field that
    /// is not known is an error otherwise.
    pub ignored_fields: Vec<String>,
    /// The most pairs that are made of the answers to one prompt; what is kept of more is drawn.
    pub max_pairs: usize,
    /// The most answers to one prompt that are looked at as a list; of more, the best, the worst and
    /// drawn ones.
    pub max_answers: usize,

    /// Of `sft`, of the supervised steps before the others, and wherever else an objective calls
    /// `sft_loss`: on the reference of `brio` and `expected_risk`, and on the texts of
    /// `conditional_sft`, `second_thoughts`, `selfee` and `self_debug`.
    pub sft: SftConfig,
    /// Of `reward` on pairs.
    pub reward: PairwiseRewardConfig,
    /// Of `reward` on lists.
    pub ranked_reward: RankedRewardConfig,
    /// Which of the losses of `reward`.
    pub reward_form: RewardForm,
    /// Of `dpo`.
    pub dpo: DpoConfig,
    /// Of `pro`.
    pub pro: ProConfig,
    /// Of `slic`.
    pub slic: SlicConfig,
    /// Which of SLiC's losses.
    pub slic_form: SlicForm,
    /// λ: how much cross-entropy on the best answer goes with it. Default 0.5.
    pub slic_sft_weight: f64,
    /// λ of its other regulariser: how much KL to the model after the supervised steps goes with it,
    /// summed over the tokens of the best answer. Default 0.
    pub slic_kl_weight: f64,
    /// Of `rrhf`.
    pub rrhf: RrhfConfig,
    /// Of `brio`.
    pub brio: BrioConfig,
    /// Of `expected_risk`.
    pub expected_risk: ExpectedRiskConfig,
    /// Of `stable_alignment`.
    pub stable_alignment: StableAlignmentConfig,
    /// The words of `conditional_sft` and `c_rlft`.
    pub classes: Classes,
    /// Of `c_rlft`.
    pub c_rlft: CRlft,
    /// Of `chain_of_hindsight`.
    pub chain_of_hindsight: Hindsight,
    /// Of `second_thoughts`: what each edit costs.
    pub second_thoughts: EditCosts,
    /// Of `selfee`: its headings.
    pub selfee: RevisionTemplate,
    /// Of `self_debug`: its verdicts, and what is learned.
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
    /// From a JSON file; what it does not name keeps its default, what it should not name is an error.
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::json(path)?;
        serde_json::from_str(&text).map_err(|error| Error::json(path, &text, &error))
    }

    /// With one setting changed: `steps=100`, `dpo.beta=0.5`, `data=rows.jsonl`. The value is JSON,
    /// or else a text.
    pub fn with(self, assignment: &str) -> Result<Self> {
        let usage = |problem: String| {
            let (assignment, problem) = (cut(assignment, 80), cut(&problem, 1_000));
            Error::Usage(format!("--set {assignment}: {problem}"))
        };
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| usage("must be KEY=VALUE".to_string()))?;
        let value: Value =
            serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_string()));
        let mut all = serde_json::to_value(self).map_err(|error| usage(error.to_string()))?;
        let mut place = &mut all;
        for name in key.split('.') {
            place = place
                .get_mut(name)
                .ok_or_else(|| usage(format!("there is no setting `{name}`")))?;
        }
        *place = value;
        serde_json::from_value(all).map_err(|error| usage(error.to_string()))
    }

    /// The most that is made of one item.
    pub fn most(&self) -> Most {
        Most {
            pairs: self.max_pairs,
            answers: self.max_answers,
            seed: self.seed,
        }
    }

    /// Where the results go.
    pub fn out(&self) -> PathBuf {
        let name = match &self.adapter {
            None => self.objective.to_string(),
            Some(adapter) => format!("{}_{}", self.objective, adapter.method.name()),
        };
        let default = || PathBuf::from("target/train").join(name);
        self.out.clone().unwrap_or_else(default)
    }

    /// The settings that the library does not check.
    pub fn check(&self) -> Result<()> {
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
