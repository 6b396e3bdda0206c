//! The rewards of the model's answers to held-out prompts.

use super::super::super::error::Result;
use super::super::super::world::World;
use super::super::super::world::parts::part;
use super::super::evaluate::mean_and_error;
use super::prompts::Prompt;
use super::rewards::{Rewards, Scored};
use super::rollout::{Answer, Purpose, Sampler};
use super::shared::Found;
use candle_align::decoder::Decoder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Means over the answers to all held-out prompts. The error is a standard error over prompts: answers to one prompt are
/// not independent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Steps done.
    pub step: usize,
    /// None if no answer was scored.
    pub reward: Option<f64>,
    pub reward_error: Option<f64>,
    /// The mean of each reward.
    pub rewards: BTreeMap<String, f64>,
    /// The mean number of tokens.
    pub length: f64,
    /// The share of answers that were cut off.
    pub truncated: f64,
}

/// Answers to all prompts: `sampled` drawn ones to each with the same random numbers in each evaluation, or the likeliest
/// token each time. Each rank draws those to some prompts.
pub fn evaluate(
    decoder: &Decoder,
    sampler: &Sampler,
    prompts: &[Prompt],
    rewards: &Rewards,
    sampled: Option<usize>,
    step: usize,
    world: &dyn World,
) -> Result<(Answered, Vec<Answer>, Vec<Scored>)> {
    let own = part(&vec![1; prompts.len()], world.rank(), world.size());
    let own: Vec<usize> = own.collect();
    let answers = match sampled {
        None => sampler
            .greedy()
            .draw(decoder, prompts, &own, 1, Purpose::HeldOut)?,
        Some(answers) => sampler.draw(decoder, prompts, &own, answers, Purpose::HeldOut)?,
    };
    let scored = rewards.score(prompts, &answers)?;
    let Found { answers, scored } = Found { answers, scored }.of_all(world, sampler)?;
    let with = |value: &dyn Fn(&Scored) -> Option<f64>| {
        let rows = answers.iter().zip(&scored);
        let rows =
            rows.filter_map(|(answer, one)| Some((value(one)?, prompts[answer.prompt].group)));
        let (values, groups): (Vec<f64>, Vec<u64>) = rows.unzip();
        mean_and_error(&values, &groups)
    };
    let (reward, reward_error) = with(&|one| one.sum);
    let each = rewards.names().iter().enumerate();
    let each = each.filter_map(|(k, name)| Some((name.clone(), with(&|one| one.each[k]).0?)));
    let n = answers.len() as f64;
    let tokens: usize = answers.iter().map(|answer| answer.ids.len()).sum();
    let answered = Answered {
        step,
        reward,
        reward_error,
        rewards: each.collect(),
        length: tokens as f64 / n,
        truncated: answers.iter().filter(|answer| !answer.ended).count() as f64 / n,
    };
    Ok((answered, answers, scored))
}
