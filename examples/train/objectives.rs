//! From a batch to a loss: which call of the library each objective is.
//!
//! | objective | eats | calls | its score of an answer |
//! |---|---|---|---|
//! | `sft` | the best answer | `sft_loss` | mean log-probability |
//! | `reward` | pairs, or lists where a prompt has more than two answers | `pairwise_reward_loss`, `ranked_reward_loss` | the reward model's |
//! | `dpo` | pairs | `dpo_loss` | β · (log π − log π_ref) |
//! | `pro` | lists (a pair is a list of two) | `pro_loss` | mean log-probability |
//! | `slic` | pairs (`rank`) or lists (`list`, `expected_reward`) | `slic_*_loss` + λ · cross-entropy of the best | sum of log-probabilities |
//! | `rrhf` | lists | `rrhf_loss` | mean log-probability |
//!
//! The score is what the objective itself orders answers by; accuracy is the share of pairs that it
//! orders right. SLiC's margin loss is not here: it needs a similarity to a reference answer.

use super::batch::{Batch, Shape};
use super::data::Item;
use super::error::Result;
use super::settings::Settings;
use super::support::transformer::Transformer;
use candle_align::{
    Candidates, Pair, Reduction, RewardHead, Statistics, TokenLogProbs, dpo_loss,
    pairwise_reward_loss, pro_loss, ranked_reward_loss, rrhf_loss, sft_loss,
    slic_expected_reward_loss, slic_list_loss, slic_rank_loss,
};
use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

/// What to train by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Supervised fine-tuning on the best answer.
    Sft,
    /// A reward model.
    Reward,
    /// Direct preference optimisation.
    Dpo,
    /// Preference ranking optimisation.
    Pro,
    /// Sequence likelihood calibration.
    Slic,
    /// Rank responses to align with human feedback.
    Rrhf,
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sft => "sft",
            Self::Reward => "reward",
            Self::Dpo => "dpo",
            Self::Pro => "pro",
            Self::Slic => "slic",
            Self::Rrhf => "rrhf",
        })
    }
}

/// Which of SLiC's calibration losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlicForm {
    /// On pairs, with a fixed lead.
    #[default]
    Rank,
    /// On lists, with a lead that grows with the difference of ranks.
    List,
    /// On lists, the expected reward under the policy's shares.
    ExpectedReward,
}

impl Objective {
    /// How it takes the answers of these items.
    pub fn shape(self, settings: &Settings, items: &[Item]) -> Shape {
        let more_than_two = || items.iter().any(|item| item.answers.len() > 2);
        match self {
            Self::Sft => Shape::Best,
            Self::Dpo => Shape::Pairs,
            Self::Pro | Self::Rrhf => Shape::Lists,
            Self::Slic if settings.slic_form == SlicForm::Rank => Shape::Pairs,
            Self::Slic => Shape::Lists,
            Self::Reward if more_than_two() => Shape::Lists,
            Self::Reward => Shape::Pairs,
        }
    }

    /// Token losses are averaged over the tokens of a batch, others over its examples.
    pub fn reduction(self) -> Reduction {
        match self {
            Self::Sft => Reduction::TokenMean,
            _ => Reduction::SequenceMean,
        }
    }
}

/// What is trained: a language model, with a scalar head in front if it is a reward model.
pub struct Model {
    pub body: Transformer,
    pub head: Option<RewardHead>,
}

impl Model {
    /// The variables that the objective reaches, by name. A reward model has no use for the
    /// language model's output layer.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.body.vars();
        if let Some(head) = &self.head {
            vars.retain(|(name, _)| name != "head.weight");
            vars.extend(head.trainable());
        }
        vars
    }
}

/// What an objective says about a batch.
pub struct Outcome {
    /// Per token `[rows, time]` or per example `[size]`.
    pub loss: Tensor,
    /// What of it counts, in the same shape.
    pub mask: Tensor,
    /// The objective's score of each answer `[size, k]`, detached.
    pub scores: Tensor,
    /// Sum of log-probabilities of each best answer `[size]`, detached; none for a reward model.
    pub best: Option<Tensor>,
}

/// An objective, the form in which it takes answers, and its settings.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    pub objective: Objective,
    pub shape: Shape,
    pub settings: &'a Settings,
}

/// The mask that the loss of a batch will have: what the divisor of a window is counted from.
pub fn loss_mask(task: &Task, batch: &Batch) -> Result<Tensor> {
    match task.objective {
        Objective::Sft => best_rows(batch, &after_first(&batch.answer)?),
        _ => batch.each(),
    }
}

/// The loss and the scores of a batch.
pub fn forward(
    task: &Task,
    model: &Model,
    reference: Option<&Transformer>,
    batch: &Batch,
) -> Result<Outcome> {
    let settings = task.settings;
    let lists = (batch.size, batch.k);
    let mask = loss_mask(task, batch)?;

    // a reward model reads the last real token
    if let Some(head) = &model.head {
        let hidden = model.body.hidden(&batch.tokens)?;
        let scores = head.forward(&hidden, &batch.real)?.reshape(lists)?;
        let loss = match task.shape {
            Shape::Pairs => pairwise_reward_loss(&pair(&scores)?, None, &settings.reward)?,
            _ => {
                let exists = Some(&batch.exists);
                ranked_reward_loss(&scores, &batch.rewards, exists, &settings.ranked_reward)?
            }
        };
        return Ok(Outcome {
            loss,
            mask,
            scores: scores.detach(),
            best: None,
        });
    }

    // a language model gives every token of every answer a log-probability
    let log_probs = log_probs(&model.body, batch, settings)?;
    let sums = log_probs.sum()?.reshape(lists)?;
    let means = log_probs.mean()?.reshape(lists)?;
    let candidates = || {
        let exists = Some(&batch.exists);
        Candidates::from_token_log_probs(&log_probs, &batch.rewards, exists)
    };
    let (loss, scores) = match task.objective {
        Objective::Sft | Objective::Reward => {
            let all = sft_loss(&log_probs, None, &settings.sft)?;
            (best_rows(batch, &all.loss)?, means)
        }
        Objective::Dpo => {
            let reference = match reference {
                Some(model) => {
                    let log_probs = self::log_probs(model, batch, settings)?;
                    Some(pair(&log_probs.sum()?.reshape(lists)?)?)
                }
                None => None,
            };
            let out = dpo_loss(&pair(&sums)?, reference.as_ref(), &settings.dpo)?;
            let rewards = [&out.rewards.chosen, &out.rewards.rejected];
            (out.loss, Tensor::stack(&rewards, 1)?)
        }
        Objective::Pro => (pro_loss(&candidates()?, &settings.pro)?.loss, means),
        Objective::Rrhf => (rrhf_loss(&candidates()?, &settings.rrhf)?.loss, means),
        Objective::Slic => {
            let calibration = match settings.slic_form {
                SlicForm::Rank => slic_rank_loss(&pair(&sums)?, &settings.slic)?,
                SlicForm::List => slic_list_loss(&candidates()?, &settings.slic)?,
                SlicForm::ExpectedReward => slic_expected_reward_loss(&candidates()?)?,
            };
            // λ · −log P(best)
            let cross_entropy = (sums.narrow(1, 0, 1)?.squeeze(1)? * -settings.slic_sft_weight)?;
            ((calibration + cross_entropy)?, sums.clone())
        }
    };
    Ok(Outcome {
        loss,
        mask,
        scores: scores.detach(),
        best: Some(sums.narrow(1, 0, 1)?.squeeze(1)?.detach()),
    })
}

fn log_probs(model: &Transformer, batch: &Batch, settings: &Settings) -> Result<TokenLogProbs> {
    let logits = model.forward(&batch.tokens)?.logits;
    let (tokens, answer) = (&batch.tokens, &batch.answer);
    let statistics = Statistics {
        vocabulary_mean: settings.sft.label_smoothing > 0.0,
        ..Default::default()
    };
    Ok(TokenLogProbs::next_token_with(
        &logits, tokens, answer, statistics,
    )?)
}

/// `[size, 2]` as the better and the worse.
fn pair(scores: &Tensor) -> Result<Pair<Tensor>> {
    Ok(Pair {
        chosen: scores.narrow(1, 0, 1)?.squeeze(1)?,
        rejected: scores.narrow(1, 1, 1)?.squeeze(1)?,
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

/// Pairs of which one answer is better: how many there are, and how many the scores order right
/// (a tie counts ½).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ordered {
    pub right: f64,
    pub pairs: usize,
}

impl Ordered {
    /// Adds all pairs of a batch.
    pub fn add(&mut self, scores: &Tensor, batch: &Batch) -> Result<()> {
        let scores = scores.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let rewards = batch.rewards.to_vec2::<f32>()?;
        let exists = batch.exists.to_vec2::<u8>()?;
        for ((scores, rewards), exists) in scores.iter().zip(&rewards).zip(&exists) {
            let own = (0..batch.k).filter(|&i| exists[i] != 0);
            let own: Vec<_> = own.map(|i| (scores[i], f64::from(rewards[i]))).collect();
            self.add_list(&own);
        }
        Ok(())
    }

    /// Adds all pairs of (score, reward) in one list.
    pub fn add_list(&mut self, list: &[(f64, f64)]) {
        for (i, a) in list.iter().enumerate() {
            for b in &list[i + 1..] {
                let (better, worse) = if a.1 > b.1 { (a, b) } else { (b, a) };
                if better.1 > worse.1 {
                    self.pairs += 1;
                    self.right += match better.0.partial_cmp(&worse.0) {
                        Some(std::cmp::Ordering::Greater) => 1.0,
                        Some(std::cmp::Ordering::Equal) => 0.5,
                        _ => 0.0,
                    };
                }
            }
        }
    }

    /// The share ordered right, if there is any pair.
    pub fn accuracy(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.right / self.pairs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Ordered;

    #[test]
    fn a_tie_of_scores_counts_half_and_a_tie_of_rewards_is_no_pair() {
        let mut ordered = Ordered::default();
        assert_eq!(ordered.accuracy(), None);
        // (score, reward): one right, one wrong, one tied score, one tied reward
        ordered.add_list(&[(0.3, 1.0), (0.1, 0.0)]);
        ordered.add_list(&[(0.3, 0.0), (0.1, 1.0)]);
        ordered.add_list(&[(0.3, 0.0), (0.3, 1.0)]);
        ordered.add_list(&[(0.3, 1.0), (0.1, 1.0)]);
        assert_eq!(
            ordered,
            Ordered {
                right: 1.5,
                pairs: 3
            }
        );
        assert_eq!(ordered.accuracy(), Some(0.5));
    }
}
