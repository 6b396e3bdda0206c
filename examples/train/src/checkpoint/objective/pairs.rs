//! Objectives over pairs of answers, with or without a reference.

use super::super::super::error::Result;
use super::measured::Measured;
use super::text::{Pass, Text, halves};
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
    /// The mean over the pairs; every micro-batch of a step counts as much as another, as in TRL.
    pub fn measure(
        &self,
        pass: &mut Pass,
        rows: &[usize],
        window: &[Vec<usize>],
    ) -> Result<Measured> {
        let pairs: Vec<&Pair> = rows.iter().map(|row| &self.rows[*row]).collect();
        let chosen = pairs.iter().map(|pair| &pair.chosen);
        let texts: Vec<&Text> = chosen
            .chain(pairs.iter().map(|pair| &pair.rejected))
            .collect();
        let share = 1.0 / window.len() as f64;
        match &self.loss {
            PairLoss::Dpo {
                config,
                weights: [sigmoid, sft],
            } => {
                let reference = halves(&pass.reference_log_probs(&texts)?.sum()?)?;
                let policy = halves(&pass.log_probs(&texts)?.sum()?)?;
                let out = dpo_loss(&policy, Some(&reference), config)?;
                let mut loss = (out.loss.mean_all()? * *sigmoid)?;
                if *sft != 0.0 {
                    let covered = pairs.iter().map(|pair| pair.chosen.covered());
                    let tokens = covered.sum::<usize>().max(1);
                    let sum = policy.chosen.sum_all()?;
                    loss = (loss - (sum * (sft / tokens as f64))?)?;
                }
                Measured::of_pairs((loss * share)?, rows, &out.rewards)
            }
        }
    }
}
