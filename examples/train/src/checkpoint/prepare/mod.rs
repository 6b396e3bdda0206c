//! A file of rows to the rows of an objective, some of them held out by prompt.
//!
//! | file | does |
//! |---|---|
//! | `trl` | rows as TRL's trainers read them: `sft`, pairs for `dpo` and its successors, three answers for `tpo`, pairs with scores, answers with a label, and `reward` on pairs |
//! | `items` | any other file or objective: prompts with rated answers, as the small model reads them; `build` makes their rows |
//! | `content` | what is checked and counted of each row |

mod build;
mod content;
mod items;
mod trl;

use super::super::error::{Error, Result};
use super::context::Context;
use super::evaluate::Probe;
use super::hash::Hash;
use super::objective::Objective;
use super::rows::{Folder, Report};
use super::settings::Settings;
use super::split::{Row, split};
use candle_align::decoder::Decoder;
use chrono::NaiveDateTime;
use content::Content;
use std::collections::HashSet;
use std::path::Path;

/// The rows of a run.
pub struct Prepared {
    pub train: Objective,
    pub held_out: Option<HeldOut>,
    /// Of the file of training rows.
    pub report: Report,
    /// Of the file of held-out rows.
    pub held_out_report: Option<Report>,
    /// How many prompts of a held-out file are also trained on.
    pub shared_prompts: usize,
    /// A hash of all ids and their order.
    pub fingerprint: String,
}

/// The rows that are not trained on.
pub struct HeldOut {
    pub rows: Objective,
    /// The prompt of each row, as a number.
    pub groups: Vec<u64>,
    /// What orders the answers, if the loss compares none.
    pub probes: Vec<Probe>,
}

impl HeldOut {
    pub fn prompts(&self) -> usize {
        self.groups.iter().collect::<HashSet<_>>().len()
    }
}

/// Reads the rows of a run.
pub fn prepare(settings: &Settings, decoder: &Decoder, now: NaiveDateTime) -> Result<Prepared> {
    let folder = Folder::open(&settings.model, now)?;
    let config = decoder.config();
    let of = settings.rows(config.vocab_size);
    let context = Context::of(decoder);
    match trl::reads(settings)? {
        true => trl::prepare(settings, &folder, &of, context),
        false => items::prepare(settings, &folder, &of, context),
    }
}

/// Both halves of the rows, and what happened to them.
pub(super) struct Halves<T> {
    pub(super) train: Vec<Row<T>>,
    pub(super) held_out: Vec<Row<T>>,
    pub(super) report: Report,
    pub(super) held_out_report: Option<Report>,
    pub(super) shared_prompts: usize,
}

/// Reads both halves.
pub(super) fn halves<T>(
    settings: &Settings,
    read: impl Fn(&Path) -> Result<(Vec<Row<T>>, Report)>,
) -> Result<Halves<T>> {
    let (rows, report) = read(&settings.data)?;
    let mut halves = Halves {
        train: Vec::new(),
        held_out: Vec::new(),
        report,
        held_out_report: None,
        shared_prompts: 0,
    };
    match &settings.held_out_file {
        Some(path) => {
            let (held, report) = read(path)?;
            halves.held_out_report = Some(report);
            let known: HashSet<u64> = rows.iter().map(|row| row.group).collect();
            let asked: HashSet<u64> = held.iter().map(|row| row.group).collect();
            halves.shared_prompts = asked.intersection(&known).count();
            (halves.train, halves.held_out) = (rows, held);
        }
        None if settings.held_out == 0.0 => halves.train = rows,
        None => [halves.train, halves.held_out] = split(settings, rows)?,
    }
    Ok(halves)
}

/// An error for a row that the model cannot take.
fn within<T: Content>(path: &Path, rows: &[Row<T>], context: Context) -> Result<()> {
    for row in rows {
        fits(&row.content, context).map_err(|problem| Error::Row {
            file: path.display().to_string(),
            line: row.line,
            problem,
        })?;
    }
    Ok(())
}

fn fits(content: &impl Content, context: Context) -> Result<(), String> {
    match content.longest() {
        long if long > context.most() => Err(format!(
            "has {long} tokens, and the model was made for {context}; set `max_length` to {} or less",
            context.most()
        )),
        _ => Ok(()),
    }
}

/// Numbers the rows, and makes the objective of each half.
fn finish<T: Content>(
    halves: Halves<T>,
    probes: Vec<Probe>,
    objective: impl Fn(Vec<T>) -> Objective,
) -> Result<Prepared> {
    let mut number = Hash::default();
    for row in halves.train.iter().chain(&halves.held_out) {
        row.content.hash(&mut number);
    }
    number.ids(&[halves.train.len() as u32, halves.held_out.len() as u32]);
    let groups: Vec<u64> = halves.held_out.iter().map(|row| row.group).collect();
    let contents = |rows: Vec<Row<T>>| objective(rows.into_iter().map(|row| row.content).collect());
    Ok(Prepared {
        train: contents(halves.train),
        held_out: (!groups.is_empty()).then(|| HeldOut {
            rows: contents(halves.held_out),
            groups,
            probes,
        }),
        report: halves.report,
        held_out_report: halves.held_out_report,
        shared_prompts: halves.shared_prompts,
        fingerprint: number.hex(),
    })
}
