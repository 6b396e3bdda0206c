//! The results of a run on the model's own answers.

use super::super::super::world::counted::Shared;
use super::super::log::Seen;
use super::super::rows::Report;
use super::super::settings::Learned;
use super::super::summary::{Notices, data, ending};
use super::evaluate::Answered;
use super::files::Times;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub objective: Learned,
    pub model: PathBuf,
    pub data: PathBuf,
    pub rows: Report,
    /// Of the file of held-out rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_report: Option<Report>,
    pub train_prompts: usize,
    pub held_out_prompts: usize,
    pub shared_prompts: usize,
    pub notices: Notices,
    pub trained_parameters: usize,
    pub model_parameters: usize,
    /// The step from which this program went on; 0: the start.
    pub resumed_at: usize,
    pub steps: usize,
    pub answers_per_step: usize,
    pub learning_rate: Option<f64>,
    /// The mean reward of the drawn answers in the first and in the last quarter of the steps.
    pub drawn: Option<[f64; 2]>,
    pub before: Option<Answered>,
    pub after: Option<Answered>,
    /// Drawn in the steps of this program.
    pub tokens: usize,
    /// Of the steps of this program, all together.
    pub times: Times,
    /// Where several ranks ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
    pub seconds: f64,
    pub peak_memory_mib: Option<f64>,
    pub adapted: bool,
    pub out: PathBuf,
}

/// The mean reward of the drawn answers in the first and in the last quarter of the steps.
pub fn quarters(seen: &[Seen]) -> Option<[f64; 2]> {
    let train = seen.iter().filter(|seen| seen.split == "train");
    let drawn: Vec<f64> = train.filter_map(|seen| seen.reward).collect();
    let quarter = drawn.len().div_ceil(4);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let both = || {
        [
            mean(&drawn[..quarter]),
            mean(&drawn[drawn.len() - quarter..]),
        ]
    };
    (!drawn.is_empty()).then(both)
}

/// A sentence about steps of whose answers no reward judged one.
pub fn unjudged(seen: &[Seen]) -> Option<String> {
    let of = |split: &str| {
        let own = seen.iter().filter(|seen| seen.split == split);
        let none = own.clone().filter(|seen| seen.reward.is_none());
        (none.count(), own.count())
    };
    match (of("train"), of("held_out")) {
        ((0, _), (0, _)) => None,
        ((0, _), (none, all)) => Some(format!(
            "no reward judged an answer in {none} of {all} evaluations"
        )),
        ((none, all), _) if none == all => Some(format!(
            "no reward judged an answer in any of the {all} steps: nothing was learned"
        )),
        ((none, all), _) => Some(format!(
            "no reward judged an answer in {none} of {all} steps, from which nothing was learned"
        )),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}", self.objective, self.data.display())?;
        writeln!(f, "  model     {}", self.model.display())?;
        data(f, &self.rows, self.held_out_report.as_ref())?;
        writeln!(
            f,
            "  split     {} prompts to train on, {} held out",
            self.train_prompts, self.held_out_prompts
        )?;
        writeln!(
            f,
            "  trained   {} parameters; the model has {}",
            self.trained_parameters, self.model_parameters
        )?;
        if let Some([first, last]) = self.drawn {
            writeln!(
                f,
                "  reward    {first:.3} → {last:.3}, drawn answers, first and last quarter of the steps"
            )?;
        }
        let both = self.before.as_ref().zip(self.after.as_ref());
        if let Some((before, after)) = both {
            let of = |one: &Answered| {
                let error = one
                    .reward_error
                    .map_or(String::new(), |e| format!(" ± {e:.3}"));
                one.reward
                    .map_or("–".to_string(), |reward| format!("{reward:.3}{error}"))
            };
            writeln!(f, "  reward    {} → {}, held out", of(before), of(after))?;
            writeln!(
                f,
                "  length    {:.1} → {:.1} tokens, held out; cut off {:.0} → {:.0} %",
                before.length,
                after.length,
                100.0 * before.truncated,
                100.0 * after.truncated
            )?;
        }
        let steps = (self.steps - self.resumed_at).max(1) as f64;
        let [generation, scoring, update] =
            [self.times.generation, self.times.scoring, self.times.update].map(|t| t / steps);
        writeln!(
            f,
            "  steps     {}{} of {} answers; each {generation:.2} s to draw, {scoring:.2} s to score, {update:.2} s to \
             learn; {:.0} tokens/s drawn",
            self.steps,
            match self.resumed_at {
                0 => String::new(),
                at => format!(" (from {at})"),
            },
            self.answers_per_step,
            self.tokens as f64 / self.times.generation.max(1e-9)
        )?;
        if let Some(shared) = &self.shared {
            shared.line(f, steps)?;
        }
        self.notices.fmt(f)?;
        ending(
            f,
            self.seconds,
            self.peak_memory_mib,
            &self.out,
            self.adapted,
        )
    }
}
