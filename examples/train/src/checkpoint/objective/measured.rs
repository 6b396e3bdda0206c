//! What a micro-batch gave.

use super::super::super::error::Result;
use candle_align::Pair;
use candle_core::{DType, Tensor};
use serde::Serialize;

/// What one micro-batch gave: its loss to be differentiated, and numbers to show.
pub struct Measured {
    pub loss: Tensor,
    pub rewards: Option<Rewards>,
    /// Every two answers of which one is better.
    pub pairs: Vec<Scored>,
    /// Every answer with a label.
    pub judged: Vec<Judged>,
}

/// The reward of an answer with a label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    pub row: usize,
    pub reward: f64,
    pub desirable: bool,
}

/// Means over the answers with a label of a micro-batch; none where it has no such answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Labels {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// KTO's baseline, or BCO's shift.
    pub baseline: f64,
}

/// What the objective orders two answers by: the score of the better one, then that of the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The row that both belong to.
    pub row: usize,
    pub scores: [f64; 2],
}

/// Means over the pairs of a micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rewards {
    pub chosen: f64,
    pub rejected: f64,
    pub accuracy: f64,
    pub margin: f64,
}

impl Measured {
    /// A loss that orders nothing.
    pub fn alone(loss: Tensor) -> Self {
        Self {
            loss,
            rewards: None,
            pairs: Vec::new(),
            judged: Vec::new(),
        }
    }

    /// One pair for each row.
    pub fn of_pairs(loss: Tensor, rows: &[usize], rewards: &Pair<Tensor>) -> Result<Self> {
        let numbers = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
        let both = numbers(&rewards.chosen)?
            .into_iter()
            .zip(numbers(&rewards.rejected)?);
        let scored = |(row, (a, b)): (&usize, (f64, f64))| Scored {
            row: *row,
            scores: [a, b],
        };
        Ok(Self::with(
            loss,
            rows.iter().zip(both).map(scored).collect(),
        ))
    }

    /// All pairs of each row's list that have a better answer, from scores and rewards.
    pub fn of_lists<'a>(
        loss: Tensor,
        rows: &[usize],
        scores: &Tensor,
        rewards: impl Iterator<Item = &'a [f32]>,
    ) -> Result<Self> {
        let scores = scores.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let lists = rows.iter().zip(&scores).zip(rewards);
        let all = lists.flat_map(|((row, scores), rewards)| ordered(*row, scores, rewards));
        Ok(Self::with(loss, all.collect()))
    }

    fn with(loss: Tensor, pairs: Vec<Scored>) -> Self {
        Self {
            loss,
            rewards: Rewards::of(&pairs),
            pairs,
            judged: Vec::new(),
        }
    }
}

/// All pairs of a list that have a better answer.
pub fn ordered(row: usize, scores: &[f64], rewards: &[f32]) -> Vec<Scored> {
    let mut pairs = Vec::new();
    for (i, a) in rewards.iter().enumerate() {
        for (j, b) in rewards.iter().enumerate() {
            if a > b {
                let scores = [scores[i], scores[j]];
                pairs.push(Scored { row, scores });
            }
        }
    }
    pairs
}

impl Labels {
    /// Of one micro-batch and its baseline.
    pub fn of(judged: &[Judged], baseline: f64) -> Option<Self> {
        let mean = |desirable: bool| {
            let own = judged.iter().filter(|one| one.desirable == desirable);
            let n = own.clone().count() as f64;
            (n > 0.0).then(|| own.map(|one| one.reward).sum::<f64>() / n)
        };
        let (chosen, rejected) = (mean(true), mean(false));
        (!judged.is_empty()).then(|| Self {
            chosen,
            rejected,
            margin: chosen
                .zip(rejected)
                .map(|(chosen, rejected)| chosen - rejected),
            baseline,
        })
    }

    /// The mean over the micro-batches that have each, as TRL logs it.
    pub fn mean(all: &[Self]) -> Option<Self> {
        let of = |part: fn(&Self) -> Option<f64>| {
            let own: Vec<f64> = all.iter().filter_map(part).collect();
            (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
        };
        of(|labels| Some(labels.baseline)).map(|baseline| Self {
            chosen: of(|labels| labels.chosen),
            rejected: of(|labels| labels.rejected),
            margin: of(|labels| labels.margin),
            baseline,
        })
    }
}

impl Rewards {
    pub fn of(pairs: &[Scored]) -> Option<Self> {
        let n = pairs.len() as f64;
        let mean = |side: usize| pairs.iter().map(|pair| pair.scores[side]).sum::<f64>() / n;
        let right = pairs.iter().filter(|pair| pair.scores[0] > pair.scores[1]);
        let accuracy = right.count() as f64 / n;
        (!pairs.is_empty()).then(|| Self {
            accuracy,
            chosen: mean(0),
            rejected: mean(1),
            margin: mean(0) - mean(1),
        })
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
