//! The results of a run on a checkpoint.

use super::super::progress::Progress;
use super::super::world::counted::Shared;
use super::evaluate::Scores;
use super::online;
use super::rows::Report;
use super::settings::Learned;
use candle_align::decoder::Decoder;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    Done(Box<Summary>),
    /// On the model's own answers.
    Online(Box<online::Summary>),
    /// After a step, with a checkpoint.
    Stopped {
        step: usize,
        of: usize,
        out: PathBuf,
    },
}

/// What a reader of the results must know: each is said when it is found, and is in the report and in `summary.json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Notices(Vec<String>);

impl Notices {
    /// Says it, and keeps it.
    pub fn add(&mut self, progress: &dyn Progress, notice: String) {
        progress.say(&notice);
        self.0.push(notice);
    }
}

impl fmt::Display for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|notice| writeln!(f, "  notice    {notice}"))
    }
}

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
    pub train_rows: usize,
    pub held_out_rows: usize,
    pub held_out_prompts: usize,
    pub shared_prompts: usize,
    /// Rows with more than `fit.max_tokens` tokens.
    pub long_rows: usize,
    pub notices: Notices,
    pub trained_parameters: usize,
    pub model_parameters: usize,
    /// The step from which this program went on; 0: the start.
    pub resumed_at: usize,
    pub steps: usize,
    pub learning_rate: Option<f64>,
    pub before: Option<Scores>,
    pub after: Option<Scores>,
    /// Of the steps of this program.
    pub tokens: usize,
    pub step_seconds: f64,
    /// Where several ranks ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
    pub seconds: f64,
    pub peak_memory_mib: Option<f64>,
    pub adapted: bool,
    pub out: PathBuf,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(summary) => summary.fmt(f),
            Self::Online(summary) => summary.fmt(f),
            Self::Stopped { step, of, out } => write!(
                f,
                "stopped after step {step} of {of}; the same command with --resume goes on from {}",
                out.join("checkpoints").display()
            ),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}", self.objective, self.data.display())?;
        writeln!(f, "  model     {}", self.model.display())?;
        data(f, &self.rows, self.held_out_report.as_ref())?;
        writeln!(
            f,
            "  split     {} to train on, {} held out ({} prompts)",
            self.train_rows, self.held_out_rows, self.held_out_prompts
        )?;
        writeln!(
            f,
            "  trained   {} parameters; the model has {}",
            self.trained_parameters, self.model_parameters
        )?;
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            let arrow = |name: &str,
                         numbers: [Option<f64>; 3],
                         unit: f64,
                         digits: usize,
                         f: &mut fmt::Formatter| {
                let [Some(before), Some(after), error] = numbers else {
                    return Ok(());
                };
                let error = error.map_or(String::new(), |error| {
                    format!(" ± {:.digits$}", error * unit)
                });
                writeln!(
                    f,
                    "  {name:<9} {:.digits$} → {:.digits$}{error}, held out",
                    before * unit,
                    after * unit
                )
            };
            arrow(
                "loss",
                [Some(before.loss), Some(after.loss), None],
                1.0,
                4,
                f,
            )?;
            arrow(
                "accuracy",
                [before.accuracy, after.accuracy, after.accuracy_error],
                100.0,
                1,
                f,
            )?;
            arrow(
                "margin",
                [before.margin, after.margin, after.margin_error],
                1.0,
                4,
                f,
            )?;
        }
        let steps = (self.steps - self.resumed_at).max(1) as f64;
        writeln!(
            f,
            "  steps     {}{}, {:.2} s each, {:.0} tokens/s",
            self.steps,
            match self.resumed_at {
                0 => String::new(),
                at => format!(" (from {at})"),
            },
            self.step_seconds / steps,
            self.tokens as f64 / self.step_seconds.max(1e-9)
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

/// What was read, and what the loss covers of it.
pub fn data(f: &mut fmt::Formatter<'_>, rows: &Report, held_out: Option<&Report>) -> fmt::Result {
    writeln!(f, "  rows      {rows}")?;
    if let Some(rows) = held_out {
        writeln!(f, "  held out  {rows}")?;
    }
    match rows.covers {
        Some(covers) => writeln!(f, "  loss of   {covers}"),
        None => Ok(()),
    }
}

/// The numbers of a model's weights and adapters.
pub fn parameters(decoder: &Decoder) -> usize {
    let all = decoder.state_dict();
    all.values().map(|tensor| tensor.elem_count()).sum()
}

/// The last lines of a report: how long it took, how much memory, and where the result is.
pub fn ending(
    f: &mut fmt::Formatter<'_>,
    seconds: f64,
    peak_memory_mib: Option<f64>,
    out: &Path,
    adapted: bool,
) -> fmt::Result {
    write!(f, "  took      {seconds:.0} s")?;
    if let Some(mib) = peak_memory_mib {
        write!(f, ", at most {mib:.0} MiB")?;
    }
    let what = match adapted {
        true => "adapter",
        false => "model",
    };
    write!(f, "\n  written   {}", out.join(what).display())
}
