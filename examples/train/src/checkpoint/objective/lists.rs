//! Objectives over lists of answers with rewards. Two answers are a list too.

use super::super::super::error::{Error, Result};
use super::super::super::objectives::{Objective, SlicForm};
use super::super::settings::since::Since;
use super::grid::Grid;
use super::lists_since::Answered;
use super::measured::Measured;
use super::text::{Pass, Text};
use candle_align::{
    BrioConfig, Candidates, ExpectedRiskConfig, Pair, ProConfig, RrhfConfig, SftConfig, SlicConfig,
    StableAlignmentConfig, TokenLogProbs, TokenLoss, brio_loss, expected_risk_loss, pro_loss,
    rrhf_loss, sft_loss, slic_expected_reward_loss, slic_kl_regularizer, slic_list_loss,
    slic_margin_loss, slic_rank_loss, stable_alignment_loss,
};
use candle_core::{DType, Device, Tensor};

/// Answers to one prompt, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    pub answers: Vec<Text>,
    pub rewards: Vec<f32>,
    /// How similar each answer is to the first.
    pub similarity: Vec<f32>,
}

/// Lists, and their loss.
#[derive(Clone, Debug)]
pub struct Lists {
    pub rows: Vec<List>,
    pub loss: ListLoss,
}

/// The loss of a list. The best answer is the reference of `Brio` and `ExpectedRisk`.
#[derive(Clone, Debug)]
pub enum ListLoss {
    Pro(ProConfig),
    Rrhf(RrhfConfig),
    Brio(BrioConfig, SftConfig),
    ExpectedRisk(ExpectedRiskConfig, SftConfig),
    StableAlignment(StableAlignmentConfig),
    Slic {
        form: SlicForm,
        config: SlicConfig,
        /// The weight of the cross-entropy of the best answer, and that of its KL to the reference.
        weights: [f64; 2],
    },
    /// One that came after the survey.
    Since {
        objective: Objective,
        settings: Box<Since>,
    },
}

impl Lists {
    /// The mean over all lists of a step, whatever the micro-batches; `tpo` counts them as TRL does.
    pub fn measure(&self, pass: &Pass, rows: &[usize], window: &[Vec<usize>]) -> Result<Measured> {
        let lists: Vec<&List> = rows.iter().map(|row| &self.rows[*row]).collect();
        let lengths: Vec<usize> = lists.iter().map(|list| list.answers.len()).collect();
        let grid = Grid::new(&lengths)?;
        let answers: Vec<&[Text]> = lists.iter().map(|list| list.answers.as_slice()).collect();
        let texts = grid.flat(&answers);
        let log_probs = pass.smoothed(&texts, self.label_smoothing())?;
        let table = Table::new(&lists, &grid, &log_probs)?;
        if let ListLoss::Since {
            objective,
            settings,
        } = &self.loss
        {
            let answered = Answered {
                pass,
                rows,
                window,
                grid: &grid,
                texts: &texts,
                candidates: &table.candidates,
                log_probs: &log_probs,
            };
            return self.since(*objective, settings, &answered);
        }
        let (mut loss, scores) = self.loss(&table, &log_probs)?;
        if let ListLoss::Slic { weights, .. } = &self.loss
            && weights[1] > 0.0
        {
            // Σ over the tokens of a best answer, and the mean over lists
            let best: Vec<&Text> = lists.iter().map(|list| &list.answers[0]).collect();
            let [policy, reference] = pass.both_logits(&best)?;
            let covers = Tensor::ones((1, policy.dim(1)?), DType::U8, &Device::Cpu)?;
            let kl = slic_kl_regularizer(&policy, &reference, &covers)?
                .loss
                .sum_all()?;
            let of_each = (kl * (weights[1] / lists.len() as f64))?;
            loss = loss.broadcast_add(&of_each)?;
        }
        let all: usize = window.iter().map(Vec::len).sum();
        let loss = (loss.sum_all()? / all as f64)?;
        let rewards = lists.iter().map(|list| list.rewards.as_slice());
        Measured::of_lists(loss, rows, &scores.detach(), rewards)
    }

    fn label_smoothing(&self) -> f64 {
        match &self.loss {
            ListLoss::Brio(_, sft) | ListLoss::ExpectedRisk(_, sft) => sft.label_smoothing,
            _ => 0.0,
        }
    }

    /// The loss of each list `[size]`, and what it orders the answers by `[size, k]`.
    fn loss(&self, table: &Table, log_probs: &TokenLogProbs) -> Result<(Tensor, Tensor)> {
        let candidates = &table.candidates;
        let sums = candidates.sums().clone();
        let means = || candidates.means();
        Ok(match &self.loss {
            ListLoss::Pro(config) => (pro_loss(candidates, config)?.loss, means()?),
            ListLoss::Rrhf(config) => (rrhf_loss(candidates, config)?.loss, means()?),
            ListLoss::StableAlignment(config) => {
                (stable_alignment_loss(candidates, config)?.loss, means()?)
            }
            ListLoss::Brio(config, sft) => {
                let best = table.best(log_probs, sft)?;
                let out = brio_loss(candidates, Some(&best), config)?;
                (out.loss, table.normalized(config.length_power)?)
            }
            ListLoss::ExpectedRisk(config, sft) => {
                let best = table.best(log_probs, sft)?;
                let out = expected_risk_loss(candidates, Some(&best), config)?;
                (out.loss, table.normalized(config.length_power)?)
            }
            ListLoss::Slic {
                form,
                config,
                weights: [cross_entropy, _],
            } => {
                let calibration = match form {
                    SlicForm::Rank => slic_rank_loss(&pair(&sums)?, config)?.loss,
                    SlicForm::Margin => {
                        let similarity = pair(&table.similarity)?;
                        slic_margin_loss(&pair(&sums)?, &similarity, config)?.loss
                    }
                    SlicForm::List => slic_list_loss(candidates, config)?,
                    SlicForm::ExpectedReward => slic_expected_reward_loss(candidates)?,
                };
                // λ · −log P(best)
                let best = (sums.narrow(1, 0, 1)?.squeeze(1)? * -*cross_entropy)?;
                ((calibration + best)?, sums)
            }
            ListLoss::Since { objective, .. } => {
                let problem = format!("`{objective}` needs more than the answers' own numbers");
                return Err(Error::Usage(problem));
            }
        })
    }
}

/// The answers of some lists as tensors.
struct Table {
    candidates: Candidates,
    similarity: Tensor,
}

impl Table {
    fn new(lists: &[&List], grid: &Grid, log_probs: &TokenLogProbs) -> Result<Self> {
        let sums = grid.of(&log_probs.sum()?)?;
        let lengths = grid.of(&log_probs.lengths()?)?;
        let numbers = |of: fn(&List) -> &[f32]| {
            let all: Vec<&[f32]> = lists.iter().map(|list| of(list)).collect();
            grid.numbers(&all, sums.dtype())
        };
        let rewards = numbers(|list| &list.rewards)?;
        Ok(Self {
            similarity: numbers(|list| &list.similarity)?,
            candidates: Candidates::new(&sums, &lengths, &rewards, Some(&grid.exists))?,
        })
    }

    /// The cross-entropy of each list's best answer: the first texts are those.
    fn best(&self, log_probs: &TokenLogProbs, config: &SftConfig) -> Result<TokenLoss> {
        let all = sft_loss(log_probs, None, config)?;
        let lists = self.candidates.sums().dim(0)?;
        Ok(TokenLoss {
            loss: all.loss.narrow(0, 0, lists)?,
            mask: all.mask.narrow(0, 0, lists)?,
        })
    }

    /// log P / length^power.
    fn normalized(&self, power: f64) -> Result<Tensor> {
        let lengths = self.candidates.lengths().maximum(1.0)?.powf(power)?;
        Ok((self.candidates.sums() / lengths)?)
    }
}

/// `[size, 2]` as the better and the worse.
pub(super) fn pair(scores: &Tensor) -> Result<Pair<Tensor>> {
    Ok(Pair {
        chosen: scores.narrow(1, 0, 1)?.squeeze(1)?,
        rejected: scores.narrow(1, 1, 1)?.squeeze(1)?,
    })
}
