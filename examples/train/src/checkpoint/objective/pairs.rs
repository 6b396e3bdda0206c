//! Objectives over pairs of answers, with or without a reference.

use super::super::super::error::Result;
use super::super::super::objectives::{Objective, Reads};
use super::super::settings::since::{Covers, Likelihood, Since};
use super::measured::Measured;
use super::since::{Answers, since_loss};
use super::text::{Pass, Text, halves};
use super::{micro_batch, share};
use candle_align::decoder::{Decoder, Mode};
use candle_align::ranking::sequential_kl;
use candle_align::{DpoConfig, Pair as Two, Statistics, TokenLogProbs, dpo_loss};
use candle_core::{DType, Device, Tensor};

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
    /// One that came after the survey.
    Since {
        objective: Objective,
        settings: Box<Since>,
    },
}

impl Pairs {
    /// The answers to some rows, the chosen ones first.
    pub fn texts(&self, rows: &[usize]) -> Vec<&Text> {
        let chosen = rows.iter().map(|row| &self.rows[*row].chosen);
        let rejected = rows.iter().map(|row| &self.rows[*row].rejected);
        chosen.chain(rejected).collect()
    }

    /// Whether the loss of a pair depends on the others of its micro-batch: AOT sorts them, and a likelihood may be one
    /// mean over their tokens.
    pub fn compares_rows(&self) -> bool {
        match &self.loss {
            PairLoss::Dpo { weights, .. } => weights[1] != 0.0,
            PairLoss::Since {
                objective,
                settings,
            } => match objective {
                Objective::Rpo => settings.rpo.likelihood == Likelihood::MicroBatch,
                Objective::Cpo => settings.cpo.likelihood == Likelihood::MicroBatch,
                Objective::Orpo => settings.orpo.likelihood == Likelihood::MicroBatch,
                Objective::Simpo => settings.simpo.cpo_alpha > 0.0,
                _ => self.sorts_rows(),
            },
        }
    }

    /// Whether they are sorted.
    pub fn sorts_rows(&self) -> bool {
        let sorted = [Objective::Aot, Objective::AotUnpaired];
        matches!(&self.loss, PairLoss::Since { objective, .. } if sorted.contains(objective))
    }

    /// The mean over the pairs; every micro-batch of a step counts as much as another, as in TRL.
    pub fn measure(&self, pass: &Pass, rows: &[usize], window: &[Vec<usize>]) -> Result<Measured> {
        let texts = self.texts(rows);
        let (loss, rewards) = match &self.loss {
            PairLoss::Dpo {
                config,
                weights: [sigmoid, sft],
            } => {
                let reference = pass.reference.sums(pass.decoder, rows, &texts)?;
                let policy = halves(&pass.log_probs(&texts)?.sum()?)?;
                let out = dpo_loss(&policy, Some(&reference), config)?;
                let mut loss = (out.loss.mean_all()? * *sigmoid)?;
                if *sft != 0.0 {
                    let nll = policy.chosen.sum_all()?.neg()?;
                    loss = (loss + self.of_tokens(&nll, *sft, rows, window, Covers::Answer)?)?;
                }
                (loss, out.rewards)
            }
            PairLoss::Since {
                objective,
                settings,
            } => {
                let answers = answers(*objective, settings, pass, rows, &texts)?;
                let found = since_loss(*objective, settings, &answers)?;
                let mut loss = found.out.loss.mean_all()?;
                if let Some((weight, nll, covers)) = found.likelihood {
                    let nll = nll.loss.sum_all()?;
                    loss = (loss + self.of_tokens(&nll, weight, rows, window, covers)?)?;
                }
                (loss, found.out.rewards)
            }
        };
        Measured::of_pairs((loss * share(rows, window))?, rows, &rewards)
    }

    /// The part that some rows have in one mean over the tokens of their micro-batch's chosen answers, with its
    /// weight. `nll` is the sum over the tokens of these rows.
    fn of_tokens(
        &self,
        nll: &Tensor,
        weight: f64,
        rows: &[usize],
        window: &[Vec<usize>],
        covers: Covers,
    ) -> Result<Tensor> {
        let batch = micro_batch(rows, window);
        let covered = batch.iter().map(|row| match covers {
            Covers::Answer => self.rows[*row].chosen.covered(),
            Covers::PromptAndAnswer => self.rows[*row].chosen.ids.len().saturating_sub(1),
        });
        let tokens = covered.sum::<usize>().max(1) as f64;
        let part = rows.len() as f64 / batch.len() as f64;
        Ok((nll * (weight / tokens / part))?)
    }
}

/// What a loss since the survey reads of some pairs.
fn answers(
    objective: Objective,
    settings: &Since,
    pass: &Pass,
    rows: &[usize],
    texts: &[&Text],
) -> Result<Answers> {
    let whole = objective == Objective::Orpo && settings.orpo.covers == Covers::PromptAndAnswer;
    let statistics = Statistics {
        log_collision: objective == Objective::Wpo,
        ..Statistics::default()
    };
    let (policy, chosen_rows) = pass.sides(texts, statistics, whole)?;
    let reads = objective.reads();
    let reference = match reads {
        Reads::Sums | Reads::Distributions => {
            Some(pass.reference.sums(pass.decoder, rows, texts)?)
        }
        Reads::Nothing | Reads::Tokens => None,
    };
    let reference_tokens = match reads {
        Reads::Tokens => {
            let sides = |decoder: &Decoder, mode: Mode| {
                let reference = pass.reference;
                let quiet = Pass {
                    decoder,
                    reference,
                    mode,
                };
                Ok(quiet.sides(texts, Statistics::default(), false)?.0)
            };
            Some(pass.reference.compute(pass.decoder, &sides)?)
        }
        _ => None,
    };
    let divergences = match reads {
        Reads::Distributions => Some(divergences(pass, texts)?),
        _ => None,
    };
    let length = |text: &&Text| text.learned.iter().filter(|learned| **learned).count() as f64;
    let lengths = Tensor::from_iter(texts.iter().map(length), &Device::Cpu)?;
    let lengths = halves(&lengths.to_dtype(policy.chosen.values().dtype())?)?;
    Ok(Answers {
        policy,
        lengths,
        chosen_rows,
        reference,
        reference_tokens: reference_tokens.map(|both: Two<TokenLogProbs>| Two {
            chosen: both.chosen.detach(),
            rejected: both.rejected.detach(),
        }),
        divergences,
    })
}

/// The sequential KL of each answer, by another pass through both models.
fn divergences(pass: &Pass, texts: &[&Text]) -> Result<Two<Tensor>> {
    let [policy, reference] = pass.both_logits(texts)?;
    let (mut at, mut all) = (0, Vec::new());
    for text in texts {
        let count = text.covered();
        if count == 0 {
            all.push(Tensor::zeros(1, policy.dtype(), &Device::Cpu)?);
            continue;
        }
        let own = |logits: &Tensor| logits.narrow(1, at, count);
        let mask = Tensor::ones((1, count), DType::U8, &Device::Cpu)?;
        all.push(sequential_kl(&own(&policy)?, &own(&reference)?, &mask)?);
        at += count;
    }
    halves(&Tensor::cat(&all, 0)?)
}
