//! `metrics.jsonl`, one line at a time, and its picture.

use super::super::error::{Error, Result};
use super::super::plot::{BLUE, Curve, GRAY, ORANGE, panel, smooth};
use super::evaluate::Scores;
use super::fit::Logged;
use super::online;
use plotters::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One line. Nothing in it depends on the machine's speed.
#[derive(Serialize)]
#[serde(tag = "split", rename_all = "snake_case")]
pub enum Line<'a> {
    /// A step, with the numbers of its rows before it, as TRL logs them.
    Train(&'a Logged),
    /// A step on the model's own answers.
    #[serde(rename = "train")]
    Online(&'a online::Logged),
    /// The model's own answers to held-out prompts.
    #[serde(rename = "held_out")]
    Answers(&'a online::Answered),
    HeldOut {
        /// Steps done.
        step: usize,
        #[serde(flatten)]
        scores: &'a Scores,
    },
}

/// What the picture and the summary read of a line.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub split: String,
    pub step: usize,
    /// None if it was not finite.
    pub loss: Option<f64>,
    pub accuracy: Option<f64>,
    pub accuracy_error: Option<f64>,
    pub margin: Option<f64>,
    pub margin_error: Option<f64>,
    /// The mean reward of the model's own answers.
    pub reward: Option<f64>,
}

impl Seen {
    pub fn scores(&self) -> Scores {
        Scores {
            loss: self.loss.unwrap_or(f64::NAN),
            accuracy: self.accuracy,
            accuracy_error: self.accuracy_error,
            margin: self.margin,
            margin_error: self.margin_error,
        }
    }
}

/// A file of lines, each with its step, that only grows; none on ranks that write nothing.
pub struct Lines {
    path: PathBuf,
    file: Option<File>,
}

impl Lines {
    /// No file.
    pub fn none() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
        }
    }

    /// An empty file, or one with these lines.
    pub fn open(path: &Path, kept: &str) -> Result<Self> {
        let failed = |error: io::Error| Error::file(path, format!("cannot be written: {error}"));
        let staged = crate::atomic::Staged::new(path, |part| fs::write(part, kept));
        staged
            .and_then(crate::atomic::Staged::put)
            .map_err(|failure| {
                Error::file(path, format!("cannot be written: {}", failure.cause))
            })?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Some(OpenOptions::new().append(true).open(path).map_err(failed)?),
        })
    }

    pub fn line(&mut self, line: &impl Serialize) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let failed =
            |error: io::Error| Error::file(&self.path, format!("cannot be written: {error}"));
        let text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        file.write_all((text + "\n").as_bytes()).map_err(failed)
    }

    /// Flushes to disk, before a checkpoint that counts on the lines.
    pub fn sync(&self) -> Result<()> {
        let failed = |error| Error::file(&self.path, format!("cannot be written: {error}"));
        self.file
            .as_ref()
            .map_or(Ok(()), |file| file.sync_all().map_err(failed))
    }
}

/// The file of a run.
pub struct Log(Lines);

impl Log {
    /// No file, on ranks that write nothing.
    pub fn none() -> Self {
        Self(Lines::none())
    }

    /// An empty file, or the lines up to the step from which a run goes on.
    pub fn open(path: &Path, step: Option<usize>) -> Result<Self> {
        let mut kept = String::new();
        if let Some(step) = step {
            let mut steps = 0;
            for (text, seen) in read::<Seen>(path)? {
                if seen.step <= step {
                    kept.push_str(&text);
                    kept.push('\n');
                    steps += usize::from(seen.split == "train");
                }
            }
            if steps != step {
                let problem = format!("has {steps} of the {step} steps before the checkpoint");
                return Err(Error::file(path, problem));
            }
        }
        Ok(Self(Lines::open(path, &kept)?))
    }

    pub fn line(&mut self, line: &Line) -> Result<()> {
        self.0.line(line)
    }

    /// Flushes to disk, before a checkpoint that counts on the lines.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// All lines.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        if self.0.file.is_none() {
            return Ok(Vec::new());
        }
        Ok(read(&self.0.path)?
            .into_iter()
            .map(|(_, seen)| seen)
            .collect())
    }
}

/// The lines of a file with what they say; the last one may be half-written.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<(String, T)>> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| Error::file(path, format!("cannot be read: {error}")))?;
    let whole = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    let read = |(at, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(seen) => Ok((line.to_string(), seen)),
        Err(error) => Err(Error::Row {
            file: path.display().to_string(),
            line: at + 1,
            problem: format!("is no line of this file: {error}"),
        }),
    };
    whole.enumerate().map(read).collect()
}

/// The picture of a run. `no_opinion` is the loss of a model that prefers no answer.
pub fn picture(seen: &[Seen], no_opinion: Option<f64>, title: &str) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, seen, no_opinion, title)
        .map_err(|error| Error::Usage(format!("curves.svg cannot be drawn: {error}")))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    seen: &[Seen],
    no_opinion: Option<f64>,
    title: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let of = |split: &str, value: fn(&Seen) -> Option<f64>| -> Vec<(f64, f64)> {
        let own = seen.iter().filter(|seen| seen.split == split);
        own.filter_map(|seen| Some((seen.step as f64, value(seen)?)))
            .collect()
    };
    let two = |value: fn(&Seen) -> Option<f64>| {
        let curve = |name: &str, points, color, marked| Curve {
            name: name.to_string(),
            points,
            color,
            marked,
        };
        vec![
            curve(
                "training, moving mean",
                smooth(&of("train", value)),
                BLUE,
                false,
            ),
            curve("held out", of("held_out", value), ORANGE, true),
        ]
    };
    let last = seen.iter().map(|seen| seen.step).max().unwrap_or(1) as f64;
    let level = |name: &str, y: f64| Curve {
        name: name.to_string(),
        points: vec![(0.0, y), (last, y)],
        color: GRAY,
        marked: false,
    };
    let mut losses = two(|seen| seen.loss);
    let root = SVGBackend::with_string(svg, (960, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 20))?;
    if let Some(loss) = no_opinion {
        losses.push(level("no opinion: ln 2", loss));
    }
    let mut shares = two(|seen| seen.accuracy);
    let rewards = two(|seen| seen.reward);
    if rewards.iter().any(|curve| !curve.points.is_empty()) {
        losses.truncate(1);
        let (left, right) = root.split_horizontally(480);
        panel(&left, "mean reward", rewards, None)?;
        panel(&right, "loss", losses, None)?;
    } else if shares.iter().all(|curve| curve.points.is_empty()) {
        panel(&root, "loss", losses, None)?;
    } else {
        shares.push(level("coin 50 %", 0.5));
        let (left, right) = root.split_horizontally(480);
        panel(&left, "loss", losses, None)?;
        panel(&right, "pairs ordered right", shares, Some((0.0, 1.0)))?;
    }
    root.present()?;
    Ok(())
}
