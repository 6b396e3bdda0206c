//! Objectives over pairs of answers, with or without a reference.

use super::super::super::error::Result;
use super::measured::Measured;
use super::text::{Pass, Text, halves};
use super::{micro_batch, share};
use candle_align::{DpoConfig, dpo_loss};

/// Two answers to one prompt. Their prompts differ only if longer rows lost their beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub chosen: Text,
    pub rejected: Text,
}

/// Pairs, and their loss.
#[derive(Clone, Debug)]
pub struct Pairs {
    pub rows: Vec<Pair>,
    pub loss: PairLoss,
}

/// The loss of a pair.
#[derive(Clone, Debug)]
pub enum PairLoss {
    Dpo {
        config: DpoConfig,
        /// The weight of the sigmoid loss, and that of the cross-entropy of the chosen answers.
        weights: [f64; 2],
    },
}

impl Pairs {
    /// The answers to some rows, the chosen ones first.
    pub fn texts(&self, rows: &[usize]) -> Vec<&Text> {
        let chosen = rows.iter().map(|row| &self.rows[*row].chosen);
        let rejected = rows.iter().map(|row| &self.rows[*row].rejected);
        chosen.chain(rejected).collect()
    }

    /// The mean over the pairs; every micro-batch of a step counts as much as another, as in TRL.
    pub fn measure(&self, pass: &Pass, rows: &[usize], window: &[Vec<usize>]) -> Result<Measured> {
        let texts = self.texts(rows);
        match &self.loss {
            PairLoss::Dpo {
                config,
                weights: [sigmoid, sft],
            } => {
                let reference = pass.reference.sums(pass.decoder, rows, &texts)?;
                let policy = halves(&pass.log_probs(&texts)?.sum()?)?;
                let out = dpo_loss(&policy, Some(&reference), config)?;
                let mut loss = (out.loss.mean_all()? * *sigmoid)?;
                if *sft != 0.0 {
                    // one mean over the tokens of the micro-batch
                    let batch = micro_batch(rows, window);
                    let covered = batch.iter().map(|row| self.rows[*row].chosen.covered());
                    let tokens = covered.sum::<usize>().max(1) as f64;
                    let part = rows.len() as f64 / batch.len() as f64;
                    let sum = policy.chosen.sum_all()?;
                    loss = (loss - (sum * (sft / tokens / part))?)?;
                }
                Measured::of_pairs((loss * share(rows, window))?, rows, &out.rewards)
            }
        }
    }
}
