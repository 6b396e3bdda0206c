//! The answers of all ranks, on every rank: each draws and scores those to its own prompts.

use super::super::super::error::Result;
use super::super::super::world::World;
use super::super::super::world::parts::{cut, gather, part};
use super::super::objective::Text;
use super::prompts::Prompt;
use super::rewards::Scored;
use super::rollout::{self, Answer, Sampler};
use candle_core::Tensor;

/// Answers and their rewards.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub answers: Vec<Answer>,
    pub scored: Vec<Scored>,
}

impl Found {
    /// Those of all ranks, in the order of ranks. What follows is over the world's batch: the advantages of groups,
    /// whitening, and what the loss is divided by.
    pub fn of_all(self, world: &dyn World, sampler: &Sampler) -> Result<Self> {
        if world.size() == 1 {
            return Ok(self);
        }
        let mut all = Self::default();
        for own in gather(world, self.numbers())? {
            all.read(&own, sampler)?;
        }
        Ok(all)
    }

    /// Each answer as numbers: its prompt, how many tokens, how many rewards, whether it says what it was drawn from, the
    /// tokens, their log-probabilities, those of what it was drawn from, the rewards and their sum. A reward that there is
    /// not is NaN; one that there is is finite.
    fn numbers(&self) -> Vec<f64> {
        let mut all = Vec::new();
        for (answer, scored) in self.answers.iter().zip(&self.scored) {
            let says = usize::from(answer.sampler.is_some());
            let counts = [answer.prompt, answer.ids.len(), scored.each.len(), says];
            all.extend(counts.map(|count| count as f64));
            all.extend(answer.ids.iter().map(|id| f64::from(*id)));
            all.extend(&answer.old);
            all.extend(answer.sampler.iter().flatten());
            let rewards = scored.each.iter().chain([&scored.sum]);
            all.extend(rewards.map(|reward| reward.unwrap_or(f64::NAN)));
        }
        all
    }

    fn read(&mut self, mut rest: &[f64], sampler: &Sampler) -> Result<()> {
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at(count.min(rest.len()));
            rest = after;
            taken
        };
        while let [prompt, tokens, rewards, says] = take(4) {
            let (tokens, rewards) = (*tokens as usize, *rewards as usize);
            let ids = take(tokens).iter().map(|id| *id as u32).collect();
            let old = take(tokens).to_vec();
            let mut answer = sampler.answer(*prompt as usize, ids, old)?;
            answer.sampler = (*says > 0.0).then(|| take(tokens).to_vec());
            self.answers.push(answer);
            let of = |reward: &f64| (!reward.is_nan()).then_some(*reward);
            let mut each: Vec<Option<f64>> = take(rewards + 1).iter().map(of).collect();
            let sum = each.pop().flatten();
            self.scored.push(Scored { each, sum });
        }
        Ok(())
    }
}

/// [`rollout::of_tokens`] of answers that all ranks have: each computes a part, and all get the whole.
pub fn of_tokens(
    world: &dyn World,
    compute: &dyn Fn(&[&Text]) -> Result<Tensor>,
    prompts: &[Prompt],
    answers: &[Answer],
    max_tokens: Option<usize>,
) -> Result<Vec<Vec<f64>>> {
    if world.size() == 1 {
        return rollout::of_tokens(compute, prompts, answers, max_tokens);
    }
    let lengths: Vec<usize> = answers.iter().map(|answer| answer.ids.len()).collect();
    let own = part(&lengths, world.rank(), world.size());
    let own = rollout::of_tokens(compute, prompts, &answers[own], max_tokens)?;
    let all = gather(world, own.concat())?.concat();
    Ok(cut(&all, &lengths))
}
