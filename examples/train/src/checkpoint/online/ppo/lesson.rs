//! What a round of answers teaches, and which of them a step takes.

use super::super::super::super::error::Result;
use super::super::super::settings::Settings;
use super::super::rewards::Scored;
use super::super::rollout::{Answer, mix, padded, unpadded};
use candle_align::{Rollout, TokenLogProbs};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// By answer and token; 0 for answers that are not learned from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lesson {
    pub advantages: Vec<Vec<f64>>,
    pub returns: Vec<Vec<f64>>,
    /// The values before the first step on the round.
    pub values: Vec<Vec<f64>>,
}

impl Lesson {
    /// `units` are the answers that are learned from. Without a reference nothing is paid for leaving it.
    pub fn new(
        settings: &Settings,
        answers: &[Answer],
        scored: &[Scored],
        units: &[Vec<usize>],
        reference: Option<&[Vec<f64>]>,
        values: Vec<Vec<f64>>,
    ) -> Result<Self> {
        let old: Vec<Vec<f64>> = answers.iter().map(|answer| answer.old.clone()).collect();
        let mut counts: Vec<Vec<f64>> = old.iter().map(|of| vec![0.0; of.len()]).collect();
        for unit in units.iter().flatten() {
            counts[*unit].fill(1.0);
        }
        let mask = padded(&counts)?.to_dtype(DType::U8)?;
        let ended = answers.iter().map(|answer| u8::from(answer.ended));
        let scores = scored.iter().map(|one| one.sum.unwrap_or_default());
        let rollout = Rollout {
            old: TokenLogProbs::new(&padded(&old)?, &mask)?,
            reference: padded(reference.unwrap_or(&old))?,
            values: padded(&values)?,
            scores: Tensor::new(scores.collect::<Vec<_>>(), &Device::Cpu)?,
            ended: Some(Tensor::new(ended.collect::<Vec<_>>(), &Device::Cpu)?),
        };
        let online = &settings.online;
        let config = online.ppo.experience(online.beta(settings.objective));
        let experience = rollout.experience(&config)?;
        let of = |t: &Tensor| -> Result<Vec<Vec<f64>>> { Ok(unpadded(t.to_vec2::<f64>()?, &old)) };
        Ok(Self {
            advantages: of(&experience.advantages)?,
            returns: of(&experience.returns)?,
            values,
        })
    }

    /// The mean over the tokens of an answer.
    pub fn mean_advantage(&self, answer: usize) -> f64 {
        let all = &self.advantages[answer];
        all.iter().sum::<f64>() / all.len().max(1) as f64
    }
}

/// The answers of a step, counted from 0. Every epoch takes all of its round once, in an order of its own that depends on
/// the seed, the round and the epoch alone.
pub fn mini_batch(settings: &Settings, units: &[Vec<usize>], step: usize) -> Vec<Vec<usize>> {
    let parts = settings.online.ppo.num_mini_batches;
    let (round, step) = (
        step / settings.steps_per_round(),
        step % settings.steps_per_round(),
    );
    let (epoch, part) = (step / parts, step % parts);
    let seed = mix(mix(settings.fit.seed, round as u64), epoch as u64);
    let mut order = units.to_vec();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    let size = order.len().div_ceil(parts).max(1);
    order
        .chunks(size)
        .nth(part)
        .map(<[_]>::to_vec)
        .unwrap_or_default()
}
