//! The numbers of a trained policy: its place, its regret, its accuracy.

use super::Lab;
use crate::Result;
use crate::methods::{BETA, Title};
use crate::report::{CurvePoint, Entry};
use crate::world::{Answer, PROMPTS, PerAnswer, Policy, expectation, kl};
use serde::Serialize;
use std::time::Instant;
use support::transformer::Transformer;

/// The place of a policy: E r, and KL to the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub reward: f64,
    pub kl: f64,
}

/// The results of a run besides its policy.
pub struct Ran {
    pub title: Title,
    pub settings: serde_json::Value,
    pub curve: Vec<CurvePoint>,
    /// The start of the run.
    pub start: Instant,
}

impl Ran {
    pub fn new(
        title: Title,
        settings: &impl Serialize,
        curve: Vec<CurvePoint>,
        start: Instant,
    ) -> Result<Self> {
        Ok(Self {
            title,
            settings: serde_json::to_value(settings)?,
            curve,
            start,
        })
    }
}

/// The score by which a method ranks answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// log π − log π_ref.
    LogRatio,
    /// log π.
    Sum,
    /// log π per token.
    Mean,
}

impl Lab {
    /// The share of held-out labels that a score agrees with.
    pub fn accuracy(&self, score: &PerAnswer) -> f64 {
        let of = |a: Answer| score[a.prompt][a.outcome];
        let right = self.held_out.iter().map(|c| {
            let margin = of(c.chosen) - of(c.rejected);
            if margin > 0.0 {
                1.0
            } else if margin == 0.0 {
                0.5
            } else {
                0.0
            }
        });
        right.sum::<f64>() / self.held_out.len() as f64
    }

    /// E r and KL(π‖π_ref) of a model, exactly.
    pub fn place(&self, model: &Transformer) -> Result<Option<Place>> {
        self.place_of(&self.world.tabulate(model)?)
    }

    /// Like [`Self::place`], for a table.
    pub fn place_of(&self, policy: &Policy) -> Result<Option<Place>> {
        let log_p = self.world.log_probs(policy);
        Ok(Some(Place {
            reward: expectation(&log_p, &self.world.rewards),
            kl: kl(&log_p, &self.reference_log_probs),
        }))
    }

    /// All numbers about one policy.
    pub fn entry(&self, ran: Ran, log_p: &PerAnswer, score: &PerAnswer) -> Entry {
        let frontier = self.frontier();
        let reward = expectation(log_p, &self.world.rewards);
        let moved = kl(log_p, &self.reference_log_probs);
        let best = frontier.at_kl(moved);
        // regret = b · KL(π‖π_b), with b the β of the frontier at the same KL
        let identity = match best.eta > 0.0 {
            true => kl(log_p, &frontier.policy(best.eta)) / best.eta,
            false => 0.0,
        };
        let total: f64 = log_p.iter().flatten().map(|l| l.exp()).sum();
        Entry {
            reward: Some(reward),
            kl: Some(moved),
            regret: Some(best.reward - reward),
            identity: Some(identity),
            win_rate: Some(self.world.win_rate(log_p, &self.reference_log_probs)),
            total: Some(total / log_p.len() as f64),
            accuracy: Some(self.accuracy(score)),
            ..Entry::of(ran)
        }
    }

    /// The largest E r − β·KL that any policy has, less this one's: β·KL(π‖π_β).
    pub fn shortfall(&self, log_p: &PerAnswer) -> f64 {
        BETA * kl(log_p, &self.frontier().policy(1.0 / BETA))
    }

    /// The entry of a policy that a method trained from the reference.
    pub fn policy_entry(&self, ran: Ran, model: &Transformer, score: Score) -> Result<Entry> {
        let log_p = self.world.log_probs(&self.world.tabulate(model)?);
        let scores = self.score(&log_p, score);
        Ok(self.entry(ran, &log_p, &scores))
    }

    pub fn score(&self, log_p: &PerAnswer, score: Score) -> PerAnswer {
        let of = |prompt: usize, outcome: usize| {
            let l = log_p[prompt][outcome];
            match score {
                Score::LogRatio => l - self.reference_log_probs[prompt][outcome],
                Score::Sum => l,
                Score::Mean => l / self.world.length(outcome) as f64,
            }
        };
        (0..PROMPTS)
            .map(|prompt| (0..self.world.outcomes()).map(|o| of(prompt, o)).collect())
            .collect()
    }
}
