//! A reward model: whole texts with a score each.

use super::super::super::error::{Error, Result};
use super::grid::Grid;
use super::measured::Measured;
use super::share;
use super::text::Pass;
use candle_align::decoder::LanguageModel;
use candle_align::ops::Segments;
use candle_align::{
    Pair, PairwiseRewardConfig, RankedRewardConfig, choose_best_loss, pairwise_reward_loss,
    plackett_luce_reward_loss, ranked_reward_loss,
};
use candle_core::{DType, Device, Tensor};

/// Whole texts that answer one prompt, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub texts: Vec<Vec<u32>>,
    pub rewards: Vec<f32>,
    /// Of a pair: how much higher the score of the first must be.
    pub margin: Option<f32>,
}

impl Compared {
    /// Two texts, the better first.
    pub fn pair(chosen: Vec<u32>, rejected: Vec<u32>, margin: Option<f32>) -> Self {
        Self {
            texts: vec![chosen, rejected],
            rewards: vec![1.0, 0.0],
            margin,
        }
    }
}

/// Texts to be scored, and the loss of their scores.
#[derive(Clone, Debug)]
pub struct Scores {
    pub rows: Vec<Compared>,
    pub loss: RewardLoss,
}

/// The loss of a reward model.
#[derive(Clone, Debug)]
pub enum RewardLoss {
    /// Of pairs alone.
    Pairwise(PairwiseRewardConfig),
    /// The mean over the pairs of a list.
    Ranked(RankedRewardConfig),
    ChooseBest,
    PlackettLuce,
}

impl Scores {
    /// The mean over rows. Of pairs, every micro-batch of a step counts as much as another, as in TRL.
    pub fn measure(&self, pass: &Pass, rows: &[usize], window: &[Vec<usize>]) -> Result<Measured> {
        let lists: Vec<&Compared> = rows.iter().map(|row| &self.rows[*row]).collect();
        let lengths: Vec<usize> = lists.iter().map(|list| list.texts.len()).collect();
        let grid = Grid::new(&lengths)?;
        let texts: Vec<&[Vec<u32>]> = lists.iter().map(|list| list.texts.as_slice()).collect();
        let (segments, tokens) = Segments::from_tokens(&grid.flat(&texts))?;
        let hidden = pass.decoder.forward(&tokens, &segments, pass.mode)?;
        let scores = pass
            .decoder
            .scores(&hidden, &tokens, &segments)?
            .squeeze(1)?;
        let scores = grid.of(&scores)?;
        let rewards: Vec<&[f32]> = lists.iter().map(|list| list.rewards.as_slice()).collect();
        let of_rewards = || grid.numbers(&rewards, scores.dtype());
        let exists = Some(&grid.exists);
        let loss = match &self.loss {
            RewardLoss::Pairwise(config) => {
                let pair = Pair {
                    chosen: scores.narrow(1, 0, 1)?.squeeze(1)?,
                    rejected: scores.narrow(1, 1, 1)?.squeeze(1)?,
                };
                let margins = margins(&lists)?;
                let out = pairwise_reward_loss(&pair, margins.as_ref(), config)?;
                let loss = (out.loss.mean_all()? * share(rows, window))?;
                return Measured::of_pairs(loss, rows, &out.rewards);
            }
            RewardLoss::Ranked(config) => {
                ranked_reward_loss(&scores, &of_rewards()?, exists, config)?
            }
            RewardLoss::ChooseBest => {
                // best first
                let best = Tensor::zeros(lists.len(), DType::U32, &Device::Cpu)?;
                choose_best_loss(&scores, &best, exists)?
            }
            RewardLoss::PlackettLuce => plackett_luce_reward_loss(&scores, &of_rewards()?, exists)?,
        };
        let all: usize = window.iter().map(Vec::len).sum();
        let loss = (loss.sum_all()? / all as f64)?;
        Measured::of_lists(loss, rows, &scores.detach(), rewards.into_iter())
    }
}

fn margins(pairs: &[&Compared]) -> Result<Option<Tensor>> {
    let given: Vec<f32> = pairs.iter().filter_map(|pair| pair.margin).collect();
    match given.len() {
        0 => Ok(None),
        n if n == pairs.len() => Ok(Some(Tensor::new(given, &Device::Cpu)?)),
        _ => Err(Error::Usage(
            "some rows have a margin and others have none".to_string(),
        )),
    }
}
