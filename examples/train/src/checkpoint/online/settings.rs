//! The settings of the objectives that draw answers. Where TRL has a setting, this has its name and its default. TRL's
//! online DPO draws at a temperature of 0.9 and at most 64 tokens; here the defaults are 1 and 512 for every objective.

use super::super::settings::Learned;
use super::ppo::Ppo;
use super::rewards::Reward;
use super::sampler_weights::Correction;
use candle_align::online::group_advantages::Deviation;
use candle_align::online::ratio::RatioLevel;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// TRL's `loss_type` of GRPO: what a token's term is, and what the sum over tokens is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// The clipped ratio; each answer's mean over its tokens, then the mean over answers.
    Grpo,
    /// The same term; a mean over the tokens of each micro-batch.
    Bnpo,
    /// The same term; over the answers times `max_completion_length`.
    DrGrpo,
    /// The same term; a mean over all tokens of the step.
    #[default]
    Dapo,
    /// The same term; each answer's sum, then the mean over answers.
    Luspo,
    /// The ratio as a weight that stays, at most `epsilon_high`; reduced as `dapo`.
    Cispo,
    /// A soft gate in place of the clip; reduced as `grpo`.
    Sapo,
    /// A weight for each whole answer that fades on both sides; reduced as `dapo`.
    Vespo,
}

/// What the ratio to the policy that drew the answers is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    #[default]
    Token,
    /// The geometric mean over an answer: GSPO.
    Sequence,
}

impl From<Level> for RatioLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Token => Self::Token,
            Level::Sequence => Self::SequenceMean,
        }
    }
}

/// How several rewards become one advantage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    #[default]
    SumThenNormalize,
    /// GDPO.
    NormalizeThenSum,
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Online {
    /// Where rewards come from.
    pub rewards: Vec<Reward>,
    /// The weight of each; null: 1.
    pub reward_weights: Option<Vec<f64>>,
    /// The answers drawn to each prompt; null: 8, 2 for `rloo` and `online_dpo`, and 1 for `ppo`, as in TRL.
    pub num_generations: Option<usize>,
    /// The most tokens of an answer.
    pub max_completion_length: usize,
    pub temperature: f64,
    pub top_p: f64,
    /// 0: all tokens.
    pub top_k: usize,
    /// The most answers that are drawn at a time; null: all of a step. It changes no answer, as far as rounding does
    /// not decide.
    pub sample_batch: Option<usize>,
    /// A file of answers to take in place of drawn ones, a line for each prompt in the order in which steps take them:
    /// `{"completions": […]}`, each a text or a list of ids.
    pub completions_file: Option<PathBuf>,
    /// The steps of the optimizer on the same answers.
    pub num_iterations: usize,
    /// Whether answers without an end have no part in the loss.
    pub mask_truncated_completions: bool,

    /// The price of the KL to the model at the start; null: 0 for `grpo`, 0.05 for `rloo` and `ppo`, 0.1 for
    /// `online_dpo`.
    pub beta: Option<f64>,
    /// ε, how far the ratio may be from 1.
    pub epsilon: f64,
    /// Upwards; null: `epsilon`, and 5 for `cispo`, where it is the largest weight itself.
    pub epsilon_high: Option<f64>,
    /// The bound of the ratio where an answer is a bad one; null: none.
    pub delta: Option<f64>,
    pub loss_type: LossType,
    /// What rewards are divided by in GRPO: their deviation in the group, in the batch, or nothing.
    pub scale_rewards: Deviation,
    pub importance_sampling_level: Level,
    pub multi_objective_aggregation: Aggregation,
    /// Whether the KL's gradient counts where answers come from.
    pub use_bias_correction_kl: bool,
    /// Whether RLOO's advantages are brought to mean 0 and deviation 1 over the batch.
    pub normalize_advantages: bool,

    pub ppo: Ppo,

    /// The share of a step's tokens, those of the highest entropy, whose term the loss keeps. The KL is of all.
    pub top_entropy_quantile: f64,
    /// The weight of the mean entropy of a step's tokens, which the loss is lower by.
    pub entropy_coef: f64,
    /// Bad answers that became less likely by more nats a token since they were drawn are left out; null: none.
    pub off_policy_mask_threshold: Option<f64>,
    /// The weights for what the program that drew an answer thinks of it and this one does not: TRL's
    /// `vllm_importance_sampling_mode`; null: none.
    pub importance_sampling_mode: Option<Correction>,
    /// The upper bound of these weights; null: none.
    pub importance_sampling_clip_max: Option<f64>,
    /// The lower bound; null: none.
    pub importance_sampling_clip_min: Option<f64>,
    /// How often a step may draw. Above 1, prompts whose answers all have one reward make room for others: verl's
    /// `filter_groups`.
    pub max_num_gen_batches: usize,

    /// Answers drawn to each held-out prompt; null: a single one, the likeliest token each time.
    pub num_generations_eval: Option<usize>,
}

impl Default for Online {
    fn default() -> Self {
        Self {
            rewards: Vec::new(),
            reward_weights: None,
            num_generations: None,
            max_completion_length: 512,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            sample_batch: None,
            completions_file: None,
            num_iterations: 1,
            mask_truncated_completions: false,
            beta: None,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            loss_type: LossType::default(),
            scale_rewards: Deviation::default(),
            importance_sampling_level: Level::default(),
            multi_objective_aggregation: Aggregation::default(),
            use_bias_correction_kl: true,
            normalize_advantages: false,
            ppo: Ppo::default(),
            top_entropy_quantile: 1.0,
            entropy_coef: 0.0,
            off_policy_mask_threshold: None,
            importance_sampling_mode: None,
            importance_sampling_clip_max: Some(3.0),
            importance_sampling_clip_min: None,
            max_num_gen_batches: 1,
            num_generations_eval: None,
        }
    }
}

impl Online {
    /// The answers to each prompt.
    pub fn generations(&self, objective: Learned) -> usize {
        let default = match objective {
            Learned::Rloo | Learned::OnlineDpo => 2,
            Learned::Ppo => 1,
            _ => 8,
        };
        self.num_generations.unwrap_or(default)
    }

    /// The price of the KL.
    pub fn beta(&self, objective: Learned) -> f64 {
        let default = match objective {
            Learned::Rloo | Learned::Ppo => 0.05,
            Learned::OnlineDpo => 0.1,
            _ => 0.0,
        };
        self.beta.unwrap_or(default)
    }

    pub fn has_reference(&self, objective: Learned) -> bool {
        match objective {
            Learned::Raft => false,
            objective => self.beta(objective) > 0.0,
        }
    }

    /// Whether the KL to the reference is a part of the reward. Else it is a part of the loss.
    pub fn pays_in_reward(objective: Learned) -> bool {
        matches!(objective, Learned::Rloo | Learned::Ppo)
    }

    /// The weight of each reward.
    pub fn weights(&self) -> Vec<f64> {
        let ones = || vec![1.0; self.rewards.len()];
        self.reward_weights.clone().unwrap_or_else(ones)
    }
}
