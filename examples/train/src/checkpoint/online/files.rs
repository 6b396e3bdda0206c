//! `samples.jsonl`, what the model said, and `times.jsonl`, how long each part of a step took.

use super::super::super::error::Result;
use super::super::log::{Lines, read};
use super::learned::Part;
use super::prompts::Prompt;
use super::rewards::Scored;
use super::rollout::Answer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The seconds of a step. The answers of a round are drawn and scored in its first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    pub step: usize,
    pub generation: f64,
    /// With the passes of the reference.
    pub scoring: f64,
    pub update: f64,
}

impl Times {
    pub fn add(&mut self, other: &Self) {
        self.generation += other.generation;
        self.scoring += other.scoring;
        self.update += other.update;
    }
}

/// One answer, for a person to read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said<'a> {
    /// `train` or `held_out`.
    pub split: &'static str,
    /// The step that learns from it, or after which it was drawn.
    pub step: usize,
    /// The line of its prompt in the file.
    pub line: usize,
    pub prompt: &'a str,
    pub completion: &'a str,
    pub reward: Option<f64>,
    pub rewards: BTreeMap<&'a str, Option<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advantage: Option<f64>,
    /// `chosen` or `rejected`, where the loss takes single answers or pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    pub truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'a str>,
}

impl<'a> Said<'a> {
    /// `part` is none for a held-out prompt.
    pub fn of(
        step: usize,
        prompt: &'a Prompt,
        answer: &'a Answer,
        names: &'a [String],
        scored: &Scored,
        part: Option<Part>,
    ) -> Self {
        let names = names.iter().map(String::as_str);
        Self {
            split: if part.is_some() { "train" } else { "held_out" },
            step,
            line: prompt.line,
            prompt: &prompt.text,
            completion: &answer.text,
            reward: scored.sum,
            rewards: names.zip(scored.each.iter().copied()).collect(),
            advantage: match part {
                Some(Part::Advantage(advantage)) => Some(advantage),
                _ => None,
            },
            role: match part {
                Some(Part::Chosen) => Some("chosen"),
                Some(Part::Rejected) => Some("rejected"),
                _ => None,
            },
            truncated: !answer.ended,
            reference: prompt.reference.as_deref(),
        }
    }
}

/// What is read of a line.
#[derive(Deserialize)]
struct Seen {
    step: usize,
}

/// An empty file, or its lines up to the step from which a run goes on. It is for people: if it is gone, a new one begins.
pub fn lines(path: &Path, step: Option<usize>) -> Result<Lines> {
    let mut kept = String::new();
    if let Some(step) = step.filter(|_| path.exists()) {
        for (text, seen) in read::<Seen>(path)? {
            if seen.step <= step {
                kept.push_str(&text);
                kept.push('\n');
            }
        }
    }
    Lines::open(path, &kept)
}
