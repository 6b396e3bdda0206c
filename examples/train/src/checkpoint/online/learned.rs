//! From rewards to what the loss covers.

use super::super::super::error::Result;
use super::super::settings::{Learned, Settings};
use super::redraw::informative;
use super::rewards::Scored;
use super::rollout::Answer;
use super::settings::Aggregation;
use candle_align::RaftConfig;
use candle_align::online::group_advantages::{
    GdpoConfig, GrpoAdvantageConfig, gdpo_advantages, grpo_advantages, rloo_advantages,
};
use candle_align::online::raft::{best_of_k, kl_adjusted_rewards};
use candle_core::{Device, Tensor};

/// What an answer is to the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// It weighs so much.
    Advantage(f64),
    Chosen,
    Rejected,
    /// It is not learned from.
    None,
}

/// The answers of a round that are learned from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Units {
    /// What is one row of the loss: an answer, or the better and the worse of two.
    pub units: Vec<Vec<usize>>,
    /// What each answer is.
    pub parts: Vec<Part>,
    /// Prompts whose answers all have one reward.
    pub equal: usize,
}

/// `[prompts, answers]`, 0 where there is none.
pub(super) fn grid(numbers: impl Iterator<Item = Option<f64>>, answers: usize) -> Result<Tensor> {
    let numbers: Vec<f64> = numbers.map(Option::unwrap_or_default).collect();
    let shape = (numbers.len() / answers, answers);
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// `rewards` and `answers` are those of whole groups in sequence. `reference` has the log-probabilities of each answer's
/// tokens under the model at the start, where RLOO pays for leaving it.
pub fn units(
    settings: &Settings,
    answers: &[Answer],
    rewards: &[Scored],
    reference: Option<&[Vec<f64>]>,
) -> Result<Units> {
    let (online, objective) = (&settings.online, settings.objective);
    let generations = online.generations(objective);
    let sums = grid(rewards.iter().map(|scored| scored.sum), generations)?;
    let cut = |answer: &Answer| online.mask_truncated_completions && !answer.ended;
    let shape = sums.shape().clone();
    let mask = |counts: &dyn Fn(usize) -> bool| -> Result<Tensor> {
        let bits: Vec<u8> = (0..answers.len()).map(|at| u8::from(counts(at))).collect();
        Ok(Tensor::from_vec(bits, &shape, &Device::Cpu)?)
    };
    let scored = mask(&|at| rewards[at].sum.is_some())?;
    let groups = rewards.chunks(generations);
    let equal = groups.filter(|group| {
        let given: Vec<f64> = group.iter().filter_map(|scored| scored.sum).collect();
        given.iter().all(|reward| *reward == given[0])
    });
    let mut found = Units {
        equal: equal.count(),
        parts: vec![Part::None; answers.len()],
        units: Vec::new(),
    };
    let advantages = match objective {
        Learned::Raft => {
            let can = mask(&|at| rewards[at].sum.is_some() && !cut(&answers[at]))?;
            for best in best_of_k(&sums, Some(&can))? {
                found.parts[best] = Part::Chosen;
                found.units.push(vec![best]);
            }
            return Ok(found);
        }
        Learned::OnlineDpo => {
            let can = mask(&|at| rewards[at].sum.is_some() && !cut(&answers[at]))?;
            let best = best_of_k(&sums, Some(&can))?;
            let worst = best_of_k(&sums.neg()?, Some(&can))?;
            for (best, worst) in best.into_iter().zip(worst) {
                if rewards[best].sum > rewards[worst].sum {
                    (found.parts[best], found.parts[worst]) = (Part::Chosen, Part::Rejected);
                    found.units.push(vec![best, worst]);
                }
            }
            return Ok(found);
        }
        Learned::Ppo => {
            let can =
                (0..answers.len()).filter(|at| rewards[*at].sum.is_some() && !cut(&answers[*at]));
            found.units = can.map(|at| vec![at]).collect();
            return Ok(found);
        }
        Learned::Rloo => {
            let mut paid = sums.clone();
            if let Some(reference) = reference {
                // what is not learned from pays nothing
                let total =
                    |at: usize, all: &[f64]| (!cut(&answers[at])).then(|| all.iter().sum::<f64>());
                let policy = answers.iter().enumerate();
                let policy = policy.map(|(at, answer)| total(at, &answer.old));
                let policy = grid(policy, generations)?;
                let reference = reference.iter().enumerate();
                let reference = grid(reference.map(|(at, all)| total(at, all)), generations)?;
                let beta = online.beta(objective);
                paid = kl_adjusted_rewards(&sums, &policy, &reference, &RaftConfig { beta })?;
            }
            let advantages = rloo_advantages(&paid, Some(&scored))?;
            match online.normalize_advantages {
                true => {
                    let one = (1, answers.len());
                    let config = GrpoAdvantageConfig::default();
                    // an answer without a scored sibling has no advantage, not one of 0
                    let judged = |at: usize| {
                        let group = at / generations * generations;
                        let group = rewards[group..group + generations].iter();
                        rewards[at].sum.is_some()
                            && group.filter(|one| one.sum.is_some()).count() > 1
                    };
                    grpo_advantages(
                        &advantages.reshape(one)?,
                        Some(&mask(&judged)?.reshape(one)?),
                        &config,
                    )?
                }
                false => advantages,
            }
        }
        _ if online.multi_objective_aggregation == Aggregation::NormalizeThenSum => {
            let each = (0..online.rewards.len())
                .map(|k| grid(rewards.iter().map(|scored| scored.each[k]), generations));
            let each: Vec<Tensor> = each.collect::<Result<_>>()?;
            let config = GdpoConfig {
                weights: online.weights(),
                ..GdpoConfig::default()
            };
            let judged =
                (0..online.rewards.len()).map(|k| mask(&|at| rewards[at].each[k].is_some()));
            let judged = Tensor::stack(&judged.collect::<Result<Vec<_>>>()?, 0)?;
            gdpo_advantages(&each.iter().collect::<Vec<_>>(), Some(&judged), &config)?
        }
        _ => {
            let config = GrpoAdvantageConfig {
                deviation: online.scale_rewards,
                ..GrpoAdvantageConfig::default()
            };
            grpo_advantages(&sums, Some(&scored), &config)?
        }
    };
    let advantages = advantages.flatten_all()?.to_vec1::<f64>()?;
    found.parts = advantages.into_iter().map(Part::Advantage).collect();
    let keep = match online.max_num_gen_batches {
        1 => vec![true; rewards.len() / generations],
        _ => informative(rewards, generations)?,
    };
    let rows = (0..answers.len()).filter(|at| keep[at / generations]);
    found.units = rows.map(|at| vec![at]).collect();
    Ok(found)
}
