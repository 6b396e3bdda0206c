//! The results of an evaluation.

use super::super::checkpoint::rows;
use super::super::checkpoint::summary::Notices;
use super::people::Level;
use super::settings::Settings;
use super::{choices, judges};
use candle_align::evaluation::meta::Grouping;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// The results: `evaluation.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Everything that the numbers depend on.
    pub settings: Settings,
    /// The file of the chat template that prompts went through; null: plain text.
    pub chat_template: Option<String>,
    pub rows: rows::Report,
    pub notices: Notices,
    #[serde(flatten)]
    pub figures: Figures,
    pub seconds: f64,
    /// The folder of the files.
    #[serde(skip)]
    pub out: PathBuf,
}

/// The numbers of one method.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figures {
    MultipleChoice(choices::Figures),
    Judged(judges::Figures),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        writeln!(f, "{} on {}", settings.evaluate, settings.data.display())?;
        write!(f, "  model      {}", settings.model.display())?;
        if let Some(adapter) = &settings.adapter_dir {
            write!(f, " with the adapter {}", adapter.display())?;
        }
        let template = self.chat_template.as_deref();
        writeln!(f, "\n  prompts    {}", template.unwrap_or("plain text"))?;
        writeln!(f, "  rows       {}", self.rows)?;
        match &self.figures {
            Figures::MultipleChoice(figures) => choosing(figures, f)?,
            Figures::Judged(figures) => judging(figures, f)?,
        }
        self.notices.fmt(f)?;
        write!(f, "  took       {:.0} s\n  written   ", self.seconds)?;
        write!(f, " {}", self.out.join("evaluation.json").display())?;
        write!(f, ", {}", self.out.join("rows.jsonl").display())
    }
}

fn choosing(figures: &choices::Figures, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "  {:<16} {:>15}  bytes of what is chosen",
        "score", "accuracy"
    )?;
    for (name, score) in figures.scores.all() {
        let accuracy = percent(score.accuracy, score.error);
        writeln!(f, "  {name:<16} {accuracy:>15}  {:.1}", score.chosen_bytes)?;
    }
    let chance = percent(figures.chance, None);
    writeln!(
        f,
        "  {:<16} {chance:>15}  {:.1}",
        "a blind guess", figures.bytes
    )?;
    let right = percent(1.0, None);
    writeln!(
        f,
        "  {:<16} {right:>15}  {:.1}",
        "the right choice", figures.right_bytes
    )
}

fn judging(figures: &judges::Figures, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let error = figures.error.map(|error| format!(" ± {error:.4}"));
    let error = error.unwrap_or_default();
    writeln!(f, "  aspect     {}", figures.aspect)?;
    writeln!(f, "  score      {:.4}{error} on average", figures.mean)?;
    if let Some(mass) = figures.mass {
        let (mean, lowest) = (percent(mass.mean, None), percent(mass.lowest, None));
        let line = mass.line;
        writeln!(
            f,
            "  mass       {mean} of the next token's probability is on scores; at least {lowest} (line {line})"
        )?;
    }
    if !figures.people.is_empty() {
        writeln!(
            f,
            "  {:<30} {:>8} {:>8} {:>8}",
            "with people", "Pearson", "Spearman", "τ_b"
        )?;
    }
    for level in &figures.people {
        let number = |value: Option<f64>| value.map_or("–".to_string(), |v| format!("{v:.3}"));
        let (pearson, spearman) = (number(level.pearson), number(level.spearman));
        let kendall = number(level.kendall);
        let over = over(level);
        write!(f, "  {over:<30} {pearson:>8} {spearman:>8} {kendall:>8}")?;
        match &level.problem {
            Some(problem) => writeln!(f, "  {problem}")?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

fn over(level: &Level) -> String {
    match (level.level, level.inputs) {
        (Grouping::Sample, Some(inputs)) => format!("within each of {inputs} inputs"),
        _ => format!("over all {} texts", level.texts),
    }
}

/// A share in percent, with its error.
fn percent(share: f64, error: Option<f64>) -> String {
    let error = error.map_or(String::new(), |error| format!(" ± {:.1}", 100.0 * error));
    format!("{:.1}{error} %", 100.0 * share)
}
