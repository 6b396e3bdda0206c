//! Dynamic sampling: prompts whose answers all have one reward make room for others.

use super::super::super::error::Result;
use super::super::super::world::parts::part;
use super::files::Times;
use super::fit::Learner;
use super::learned::grid;
use super::rewards::Scored;
use super::rollout::{Answer, Purpose, mix};
use super::shared::Found;
use candle_align::decoder::Decoder;
use candle_align::online::shaping::informative_groups;
use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::time::Instant;

/// Which groups have rewards that differ.
pub fn informative(scored: &[Scored], generations: usize) -> Result<Vec<bool>> {
    let sums = grid(scored.iter().map(|one| one.sum), generations)?;
    let counts = scored.iter().map(|one| one.sum.map(|_| 1.0));
    let counts: Tensor = grid(counts, generations)?.to_dtype(DType::U8)?;
    let keep = informative_groups(&sums, Some(&counts))?;
    Ok(keep
        .to_vec1::<u8>()?
        .into_iter()
        .map(|keep| keep != 0)
        .collect())
}

impl Learner<'_> {
    /// Draws answers to other prompts for those that teach nothing, of all ranks, up to `max_num_gen_batches` times in all. How many
    /// prompts were replaced. The others are drawn from all training prompts, each at most once in a round; they depend on
    /// the seed and the round, so that a stopped run goes on as it would have.
    pub(super) fn redraw(
        &self,
        decoder: &Decoder,
        answers: &mut [Answer],
        scored: &mut [Scored],
        round: usize,
        times: &mut Times,
    ) -> Result<Option<usize>> {
        let most = self.settings.online.max_num_gen_batches;
        if most == 1 {
            return Ok(None);
        }
        let generations = self.settings.online.generations(self.settings.objective);
        let asked: Vec<usize> = answers.iter().map(|answer| answer.prompt).collect();
        let mut others: Vec<usize> = (0..self.prompts.len()).collect();
        others.retain(|prompt| !asked.contains(prompt));
        others.shuffle(&mut StdRng::seed_from_u64(mix(
            mix(self.settings.seed, 3),
            round as u64,
        )));
        let mut replaced = 0;
        for _ in 1..most {
            let keep = informative(scored, generations)?;
            let mut free = (0..keep.len()).filter(|group| !keep[*group]);
            let count = keep.iter().filter(|keep| !**keep).count().min(others.len());
            if count == 0 {
                break;
            }
            let next: Vec<usize> = others.drain(..count).collect();
            let begun = Instant::now();
            let purpose = Purpose::Round(round);
            let own = &next[part(&vec![1; count], self.world.rank(), self.world.size())];
            let own = self
                .sampler
                .draw(decoder, self.prompts, own, generations, purpose)?;
            times.generation += begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            let drawn = Found {
                scored: self.rewards.score(self.prompts, &own)?,
                answers: own,
            };
            let drawn = drawn.of_all(self.world, self.sampler)?;
            times.scoring += begun.elapsed().as_secs_f64();
            for (group, keep) in informative(&drawn.scored, generations)?
                .into_iter()
                .enumerate()
            {
                if let Some(to) = keep.then(|| free.next()).flatten() {
                    let of = |group: usize| group * generations..(group + 1) * generations;
                    answers[of(to)].clone_from_slice(&drawn.answers[of(group)]);
                    scored[of(to)].clone_from_slice(&drawn.scored[of(group)]);
                    replaced += 1;
                }
            }
        }
        Ok(Some(replaced))
    }
}
