//! From a batch to a loss: the library call of each objective.
//!
//! | objective | input | calls | its score of an answer |
//! |---|---|---|---|
//! | `sft` | the best answer | `sft_loss` | mean log-probability |
//! | `reward` | pairs, or lists where a prompt has more than two answers | `pairwise_reward_loss`, `ranked_reward_loss` | the reward model's |
//! | … `reward_form` | lists (`choose_best`, `plackett_luce`) | `choose_best_loss`, `plackett_luce_reward_loss` | the same |
//! | `dpo` | pairs | `dpo_loss` | β · (log π − log π_ref) |
//! | `pro` | lists (a pair is a list of two) | `pro_loss` | mean log-probability |
//! | `slic` | pairs (`rank`, `margin`) or lists (`list`, `expected_reward`) | `slic_*_loss` + λ · cross-entropy of the best + λ · `slic_kl_regularizer` on it | sum of log-probabilities |
//! | `rrhf` | lists | `rrhf_loss` | mean log-probability |
//! | `brio` | lists | `brio_loss`, the best answer as its reference | sum over length^α |
//! | `expected_risk` | lists | `expected_risk_loss`, the same | sum over length^a |
//! | `stable_alignment` | lists | `stable_alignment_loss` | mean log-probability |
//! | `conditional_sft` | each answer, after the words of its class | `ClassPrompt`, `sft_loss` | log P(y│good) − log P(y│bad) |
//! | `c_rlft` | the same | `ClassPrompt`, `c_rlft_loss` | the same |
//! | `chain_of_hindsight` | pairs, in one row | `hindsight_sequence`, `forgetful_mask`, `chain_of_hindsight_loss` | the same, under words of feedback |
//! | `second_thoughts` | each worse answer with the nearest best one; each best one alone | `edit_script`, `second_thoughts_sequence`, `sft_loss` | log P(no edit) |
//! | `selfee` | each worse answer with each best one; each best one alone | `RevisionTemplate`, `sft_loss` | log P(no revision needed) − log P(revision needed) |
//! | `self_debug` | each wrong answer with each right one | `debug_sequence`, `sft_loss` | mean log-probability as the repair of the wrong answer |
//!
//! The objectives that came after the survey are in `checkpoint/objective/since.rs`, `lists_since.rs` and
//! `unpaired.rs`: only a checkpoint is trained with them.
//!
//! The score is the one by which the objective itself orders answers; accuracy is the share of pairs
//! that it orders correctly. For `self_debug` a pair is ordered correctly if, after the wrong answer,
//! the right answer is likelier than the wrong one again.
//!
//! If the files lack data for a part of an objective, the part is left out, not made up. RAFT's update
//! is `sft` on a list: its best answer, with the file's answers instead of the model's own. The classes
//! are "the best answers to a prompt" and "the others", because no file says which model wrote an
//! answer. The feedback of SelFee and self-debug is only the verdict, because no file has written
//! feedback. Chain of Hindsight's pretraining term is left out, because no file has plain text. BRIO
//! and expected risk use the best answer as the reference. If several answers are best, `choose_best`
//! treats the first in the file as the chosen one.

pub mod language;
pub mod lessons;
mod names;
pub mod order;
mod ranking;
mod rows;
pub mod words;

pub use names::{Objective, Reads};

use super::batch::{Batch, VOCABULARY};
use super::comparisons::Shape;
use super::data::Item;
use super::error::Result;
use super::model::Model;
use super::settings::Settings;
use candle_align::{Reduction, sft_loss};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The losses of a reward model. On two answers they are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardForm {
    /// The mean over the pairs of a list.
    #[default]
    Pairs,
    /// On lists, the best against all others.
    ChooseBest,
    /// On lists, the best of all, then the best of the rest, and so on.
    PlackettLuce,
}

/// Which of SLiC's calibration losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlicForm {
    /// On pairs, with a fixed margin.
    #[default]
    Rank,
    /// On pairs, with a margin that grows with the difference in words. Similarity is the F score
    /// against the better answer, whose own similarity is 1.
    Margin,
    /// On lists, with a margin that grows with the difference of ranks.
    List,
    /// On lists, the expected reward under the policy's shares.
    ExpectedReward,
}

/// The losses of the objectives that have several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    pub reward: RewardForm,
    pub slic: SlicForm,
}

impl Objective {
    /// How it compares the answers of these items: in its loss, or, if the loss takes rows one by one,
    /// in the held-out evaluation.
    pub fn shape(self, settings: &Settings, items: &[Item]) -> Shape {
        let longest = items.iter().map(|item| item.answers.len()).max();
        self.shape_of(settings.forms(), longest.unwrap_or(0))
    }

    /// The same, where no prompt has more than `longest` answers.
    pub fn shape_of(self, forms: Forms, longest: usize) -> Shape {
        match self {
            Self::Sft | Self::Gkd => Shape::Best,
            Self::Dpo | Self::SelfDebug | Self::Rebel => Shape::Pairs,
            _ if self.is_pairs_since() => Shape::Pairs,
            Self::Slic => match forms.slic {
                SlicForm::Rank | SlicForm::Margin => Shape::Pairs,
                SlicForm::List | SlicForm::ExpectedReward => Shape::Lists,
            },
            Self::Reward if forms.reward == RewardForm::Pairs && longest <= 2 => Shape::Pairs,
            _ => Shape::Lists,
        }
    }

    /// Whether it writes words around answers and learns from one row at a time.
    pub fn is_language(self) -> bool {
        matches!(
            self,
            Self::ConditionalSft
                | Self::CRlft
                | Self::ChainOfHindsight
                | Self::SecondThoughts
                | Self::Selfee
                | Self::SelfDebug
        )
    }

    /// Whether its loss uses a copy of the model from before the first step.
    pub fn has_reference(self, settings: &Settings) -> bool {
        self == Self::Dpo || self == Self::Slic && settings.slic_kl_weight > 0.0
    }

    /// Token losses are averaged over the tokens of a batch, others over its examples.
    pub fn reduction(self) -> Reduction {
        match self == Self::Sft || self.is_language() {
            true => Reduction::TokenMean,
            false => Reduction::SequenceMean,
        }
    }

    /// The peak of its learning rate.
    pub fn peak(self, settings: &Settings) -> f64 {
        match self {
            Self::Sft => settings.sft_learning_rate,
            _ if self.is_language() => settings.language_learning_rate,
            _ => settings.learning_rate,
        }
    }

    /// The vocabulary size of its model.
    pub fn vocabulary(self) -> usize {
        match self {
            Self::SecondThoughts => VOCABULARY + words::EDIT_TOKENS,
            _ => VOCABULARY,
        }
    }

    /// The score that orders answers, in words.
    pub fn score(self) -> &'static str {
        match self {
            Self::Reward => "the reward model's number",
            _ if self.is_since() => "that of its loss",
            Self::Dpo => "beta (log P - log P of the reference)",
            Self::Slic => "log P(answer)",
            Self::Sft | Self::Pro | Self::Rrhf | Self::StableAlignment => "log P(answer) per token",
            Self::Brio | Self::ExpectedRisk => "log P(answer) / length^length_power",
            Self::ConditionalSft | Self::CRlft | Self::ChainOfHindsight => {
                "log P(answer | good words) - log P(answer | bad words)"
            }
            Self::SecondThoughts => "log P(no edit | answer)",
            Self::Selfee => "log P(no revision needed | answer) - log P(revision needed | answer)",
            _ => "log P(answer | the wrong one, \"wrong\") per token",
        }
    }
}

/// The output of an objective for a batch.
pub struct Outcome {
    /// Per token `[rows, time]` or per example `[size]`.
    pub loss: Tensor,
    /// The mask of the loss, in the same shape.
    pub mask: Tensor,
    /// The objective's score of each answer `[size, k]`, detached.
    pub scores: Tensor,
    /// Sum of log-probabilities of each best answer `[size]`, detached; none for a reward model, and
    /// none if a row has other words too.
    pub best: Option<Tensor>,
}

/// An objective, the form in which it compares answers, and its settings.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    pub objective: Objective,
    pub shape: Shape,
    pub settings: &'a Settings,
}

impl Task<'_> {
    /// The name of its examples, in the plural.
    pub fn examples(&self) -> &'static str {
        match self.shape {
            _ if self.objective.is_language() => "texts",
            Shape::Best => "answers",
            Shape::Pairs => "pairs",
            Shape::Lists => "lists",
        }
    }
}

/// What the loss of a batch adds to the divisor of a window: its tokens, their weights, or its
/// examples.
pub fn counted(task: &Task, batch: &Batch) -> Result<f64> {
    match task.objective {
        Objective::CRlft => language::counted_weights(task.settings, batch),
        objective => Ok(objective.reduction().count(&loss_mask(task, batch)?)?),
    }
}

/// The mask of a batch's loss.
fn loss_mask(task: &Task, batch: &Batch) -> Result<Tensor> {
    match task.objective.reduction() {
        Reduction::TokenMean => best_rows(batch, &after_first(&batch.learned)?),
        _ => batch.each(),
    }
}

/// The loss and the scores of a batch. Without a `reference` a model under an adapter is compared
/// with its base.
pub fn forward(
    task: &Task,
    model: &Model,
    reference: Option<&Model>,
    batch: &Batch,
) -> Result<Outcome> {
    let settings = task.settings;
    let lists = (batch.size, batch.k);
    let mask = loss_mask(task, batch)?;

    // a reward model reads the last real token
    if let Some(head) = &model.head {
        let hidden = model.body.hidden(&batch.tokens)?;
        let scores = head.forward(&hidden, &batch.real)?.reshape(lists)?;
        let loss = ranking::reward_loss(task, batch, &scores)?;
        return Ok(Outcome {
            loss,
            mask,
            scores: scores.detach(),
            best: None,
        });
    }

    // a language model gives a log-probability for every token that the loss covers
    let log_probs = model.log_probs(batch, settings)?;
    let (loss, scores) = match task.objective {
        Objective::Sft => {
            let all = sft_loss(&log_probs, None, &settings.sft)?;
            let means = log_probs.mean()?.reshape(lists)?;
            (best_rows(batch, &all.loss)?, means)
        }
        objective if objective.is_language() => {
            let loss = language::loss(task, batch, &log_probs)?;
            // a lesson is a single row, without a comparison
            (loss, batch.rewards.zeros_like()?)
        }
        _ => ranking::loss(task, model, reference, batch, &log_probs)?,
    };
    let best = match task.objective.is_language() {
        true => None,
        false => Some(log_probs.sum()?.reshape(lists)?.narrow(1, 0, 1)?),
    };
    Ok(Outcome {
        loss,
        mask,
        scores: scores.detach(),
        best: best.map(|best| best.detach().squeeze(1)).transpose()?,
    })
}

fn after_first(mask: &Tensor) -> Result<Tensor> {
    Ok(mask.narrow(1, 1, mask.dim(1)? - 1)?)
}

/// The rows of the best answers, of all rows.
fn best_rows(batch: &Batch, rows: &Tensor) -> Result<Tensor> {
    let time = rows.dim(1)?;
    let lists = rows.contiguous()?.reshape((batch.size, batch.k, time))?;
    Ok(lists.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
}
