//! The answers of all ranks, on every rank: each draws and scores those to its own prompts.

use super::super::super::error::Result;
use super::super::super::world::World;
use super::super::super::world::parts::gather;
use super::rewards::Scored;
use super::rollout::{Answer, Sampler};

/// Answers, their rewards, and the log-probabilities of their tokens under the reference if there is one.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub answers: Vec<Answer>,
    pub scored: Vec<Scored>,
    pub reference: Option<Vec<Vec<f64>>>,
}

impl Found {
    /// Those of all ranks, in the order of ranks. What follows is over the world's batch: the advantages of groups,
    /// whitening, and what the loss is divided by.
    pub fn of_all(self, world: &dyn World, sampler: &Sampler) -> Result<Self> {
        if world.size() == 1 {
            return Ok(self);
        }
        let mut all = Self {
            reference: self.reference.is_some().then(Vec::new),
            ..Self::default()
        };
        for own in gather(world, self.numbers())? {
            all.read(&own, sampler)?;
        }
        Ok(all)
    }

    /// Each answer as numbers: its prompt, how many tokens, how many rewards, the tokens, their log-probabilities, those
    /// of the reference, the rewards and their sum. A reward that there is not is NaN; one that there is is finite.
    fn numbers(&self) -> Vec<f64> {
        let mut all = Vec::new();
        for (at, (answer, scored)) in self.answers.iter().zip(&self.scored).enumerate() {
            let counts = [answer.prompt, answer.ids.len(), scored.each.len()];
            all.extend(counts.map(|count| count as f64));
            all.extend(answer.ids.iter().map(|id| f64::from(*id)));
            all.extend(&answer.old);
            all.extend(self.reference.iter().flat_map(|of| &of[at]));
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
        while let [prompt, tokens, rewards] = take(3) {
            let (tokens, rewards) = (*tokens as usize, *rewards as usize);
            let ids = take(tokens).iter().map(|id| *id as u32).collect();
            let old = take(tokens).to_vec();
            let answer = sampler.answer(*prompt as usize, ids, old)?;
            self.answers.push(answer);
            if let Some(reference) = &mut self.reference {
                reference.push(take(tokens).to_vec());
            }
            let of = |reward: &f64| (!reward.is_nan()).then_some(*reward);
            let mut each: Vec<Option<f64>> = take(rewards + 1).iter().map(of).collect();
            let sum = each.pop().flatten();
            self.scored.push(Scored { each, sum });
        }
        Ok(())
    }
}
