//! The loss of one micro-batch on a decoder, with TRL's reductions.

pub use super::reference::Reference;

use super::super::error::{Error, Result};
use candle_align::decoder::{Decoder, LanguageModel, Mode};
use candle_align::ops::Segments;
use candle_align::{
    DpoConfig, Pair, PairwiseRewardConfig, SftConfig, TokenLogProbs, dpo_loss,
    pairwise_reward_loss, sft_loss,
};
use candle_core::{DType, Device, Tensor};
use serde::Serialize;

/// A text whose loss covers a part of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub ids: Vec<u32>,
    /// Which tokens the loss covers.
    pub learned: Vec<bool>,
}

impl Text {
    /// An answer after its prompt; the loss covers the answer.
    pub fn answer(prompt: &[u32], answer: &[u32]) -> Self {
        Self {
            ids: [prompt, answer].concat(),
            learned: [vec![false; prompt.len()], vec![true; answer.len()]].concat(),
        }
    }

    /// How many tokens the loss covers. The first one is never predicted.
    fn covered(&self) -> usize {
        self.learned
            .iter()
            .skip(1)
            .filter(|learned| **learned)
            .count()
    }
}

/// Two answers to one prompt. Their prompts differ only if longer rows lost their beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    pub chosen: Text,
    pub rejected: Text,
}

/// Two whole texts, the better first, for a reward model.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub chosen: Vec<u32>,
    pub rejected: Vec<u32>,
    /// How much higher the score of the first must be.
    pub margin: Option<f32>,
}

/// The rows of a run, and what is learned from them.
#[derive(Clone, Debug)]
pub enum Objective {
    Sft(Vec<Text>),
    Reward {
        rows: Vec<Compared>,
        config: PairwiseRewardConfig,
    },
    Dpo {
        rows: Vec<Answers>,
        config: DpoConfig,
        /// The weight of the sigmoid loss, and that of the cross-entropy of the chosen answers.
        weights: [f64; 2],
    },
}

/// What one micro-batch gave: its loss to be differentiated, and numbers to show.
pub struct Measured {
    pub loss: Tensor,
    pub rewards: Option<Rewards>,
    /// The rewards of each pair, the chosen answer's first.
    pub each: Vec<[f64; 2]>,
}

/// Means over the pairs of a micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rewards {
    pub chosen: f64,
    pub rejected: f64,
    pub accuracy: f64,
    pub margin: f64,
}

impl Objective {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Sft(rows) => rows.len(),
            Self::Reward { rows, .. } => rows.len(),
            Self::Dpo { rows, .. } => rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a row.
    pub fn tokens(&self, row: usize) -> usize {
        match self {
            Self::Sft(rows) => rows[row].ids.len(),
            Self::Reward { rows, .. } => rows[row].chosen.len() + rows[row].rejected.len(),
            Self::Dpo { rows, .. } => rows[row].chosen.ids.len() + rows[row].rejected.ids.len(),
        }
    }

    /// How many rows have more tokens.
    pub fn longer_than(&self, most: Option<usize>) -> usize {
        let longer = |row: &usize| most.is_some_and(|most| self.tokens(*row) > most);
        (0..self.len()).filter(longer).count()
    }

    /// How much a row counts in the mean over all rows: SFT's mean is over tokens.
    pub fn weight(&self, row: usize) -> f64 {
        match self {
            Self::Sft(rows) => rows[row].covered() as f64,
            Self::Reward { .. } | Self::Dpo { .. } => 1.0,
        }
    }

    /// The learning rate that TRL's trainer has if none is given.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sft(_) => 2e-5,
            Self::Reward { .. } => 1e-4,
            Self::Dpo { .. } => 1e-6,
        }
    }

    /// Whether TRL's trainer turns dropout off if nothing is said.
    pub fn disables_dropout(&self) -> bool {
        !matches!(self, Self::Sft(_))
    }

    /// The summed log-probabilities of some rows' answers under the reference.
    pub fn reference_sums(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        rows: &[usize],
    ) -> Result<Pair<Tensor>> {
        match self {
            Self::Dpo { rows: all, .. } => reference.sums(decoder, rows, &both(all, rows)),
            Self::Sft(_) | Self::Reward { .. } => {
                Err(Error::Usage("the objective has no reference".to_string()))
            }
        }
    }

    /// The loss of some rows of a step, which are a micro-batch or a part of one: the sum over all parts is the
    /// loss of the step. `window` holds all rows of the step by micro-batch. Dropout is
    /// drawn from `seed`; without one there is none.
    pub fn loss(
        &self,
        decoder: &Decoder,
        reference: &Reference,
        rows: &[usize],
        window: &[Vec<usize>],
        seed: Option<u64>,
    ) -> Result<Measured> {
        // the micro-batch of which these rows are all or a part, and how much they count in the step
        let batch = micro_batch(rows, window);
        let share = rows.len() as f64 / batch.len() as f64 / window.len() as f64;
        let mode = seed.map_or(Mode::Evaluation, |seed| Mode::Train { seed });
        match self {
            Self::Sft(texts) => {
                // one mean over all tokens of the step, whatever the micro-batches
                let count: usize = window
                    .iter()
                    .flatten()
                    .map(|row| texts[*row].covered())
                    .sum();
                let texts: Vec<&Text> = rows.iter().map(|row| &texts[*row]).collect();
                let log_probs = of_texts(decoder, &texts, mode)?;
                let loss = sft_loss(&log_probs, None, &SftConfig::default())?
                    .loss
                    .sum_all()?;
                Ok(Measured {
                    loss: (loss / count.max(1) as f64)?,
                    rewards: None,
                    each: Vec::new(),
                })
            }
            Self::Reward {
                rows: pairs,
                config,
            } => {
                let pairs: Vec<&Compared> = rows.iter().map(|row| &pairs[*row]).collect();
                let texts: Vec<&[u32]> = pairs
                    .iter()
                    .map(|pair| pair.chosen.as_slice())
                    .chain(pairs.iter().map(|pair| pair.rejected.as_slice()))
                    .collect();
                let (segments, tokens) = Segments::from_tokens(&texts)?;
                let hidden = decoder.forward(&tokens, &segments, mode)?;
                let scores = decoder.scores(&hidden, &tokens, &segments)?.squeeze(1)?;
                let scores = halves(&scores)?;
                let margin = margins(&pairs)?;
                let out = pairwise_reward_loss(&scores, margin.as_ref(), config)?;
                Measured::of_pairs((out.loss.mean_all()? * share)?, &out.rewards)
            }
            Self::Dpo {
                rows: all,
                config,
                weights: [sigmoid, sft],
            } => {
                let texts = both(all, rows);
                let of_reference = reference.sums(decoder, rows, &texts)?;
                let log_probs = of_texts(decoder, &texts, mode)?;
                let policy = halves(&log_probs.sum()?)?;
                let out = dpo_loss(&policy, Some(&of_reference), config)?;
                let mut loss = (out.loss.mean_all()? * *sigmoid)?;
                if *sft != 0.0 {
                    // one mean over the tokens of the micro-batch
                    let covered = batch.iter().map(|row| all[*row].chosen.covered());
                    let tokens = covered.sum::<usize>().max(1) as f64;
                    let part = rows.len() as f64 / batch.len() as f64;
                    let sum = policy.chosen.sum_all()?;
                    loss = (loss - (sum * (sft / tokens / part))?)?;
                }
                Measured::of_pairs((loss * share)?, &out.rewards)
            }
        }
    }
}

/// The micro-batch of a step that holds these rows. A step has each row once.
fn micro_batch<'a>(rows: &'a [usize], window: &'a [Vec<usize>]) -> &'a [usize] {
    let holds = |batch: &&Vec<usize>| rows.first().is_some_and(|row| batch.contains(row));
    window.iter().find(holds).map_or(rows, Vec::as_slice)
}

/// The answers to some rows, the chosen ones first.
fn both<'a>(all: &'a [Answers], rows: &[usize]) -> Vec<&'a Text> {
    let chosen = rows.iter().map(|row| &all[*row].chosen);
    let rejected = rows.iter().map(|row| &all[*row].rejected);
    chosen.chain(rejected).collect()
}

/// The log-probabilities of the learned tokens. What texts have in common at their start is computed once.
pub(super) fn of_texts(decoder: &Decoder, texts: &[&Text], mode: Mode) -> Result<TokenLogProbs> {
    let rows: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
    let (segments, tokens) = Segments::from_tokens(&rows)?;
    let time = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut learned = Vec::with_capacity(texts.len() * time);
    for (row, text) in (1..).zip(texts) {
        learned.extend(text.learned.iter().map(|learned| u8::from(*learned)));
        learned.resize(row * time, 0);
    }
    let learned = Tensor::from_vec(learned, (texts.len(), time), &Device::Cpu)?;
    Ok(decoder.log_probs(&tokens, &segments, &learned, mode)?)
}

/// The first half of the rows, and the second.
pub(super) fn halves(rows: &Tensor) -> Result<Pair<Tensor>> {
    let half = rows.dim(0)? / 2;
    Ok(Pair {
        chosen: rows.narrow(0, 0, half)?,
        rejected: rows.narrow(0, half, half)?,
    })
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

impl Measured {
    fn of_pairs(loss: Tensor, rewards: &Pair<Tensor>) -> Result<Self> {
        let numbers = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
        let (chosen, rejected) = (numbers(&rewards.chosen)?, numbers(&rewards.rejected)?);
        let each: Vec<[f64; 2]> = chosen
            .into_iter()
            .zip(rejected)
            .map(|(a, b)| [a, b])
            .collect();
        Ok(Self {
            loss,
            rewards: Some(Rewards::of(&each)),
            each,
        })
    }
}

impl Rewards {
    pub(super) fn of(each: &[[f64; 2]]) -> Self {
        let n = each.len().max(1) as f64;
        let mean = |side: usize| each.iter().map(|pair| pair[side]).sum::<f64>() / n;
        let right = each.iter().filter(|[chosen, rejected]| chosen > rejected);
        Self {
            accuracy: right.count() as f64 / n,
            chosen: mean(0),
            rejected: mean(1),
            margin: mean(0) - mean(1),
        }
    }

    /// The mean over micro-batches, each as much as another, as TRL logs it.
    pub fn mean(all: &[Self]) -> Option<Self> {
        let n = all.len() as f64;
        let of = |part: fn(&Self) -> f64| all.iter().map(part).sum::<f64>() / n;
        (!all.is_empty()).then(|| Self {
            chosen: of(|r| r.chosen),
            rejected: of(|r| r.rejected),
            accuracy: of(|r| r.accuracy),
            margin: of(|r| r.margin),
        })
    }
}
