//! A file of rows to prompts, some of them held out.
//!
//! Rows with `prompt` alone, or beside a right answer, are read as TRL reads them: a text stays as it is, messages go
//! through the chat template. Every other format that the trainer reads gives its prompts, written as for offline
//! objectives; the best answer of a row is its right one.

use super::super::super::data::{self, Reading, Reason, group};
use super::super::super::error::{Error, Result};
use super::super::context::Context;
use super::super::hash::Hash;
use super::super::prepare::{Halves, halves};
use super::super::rows::asked::{Ending, PromptRow, is_chat, is_prompt, prompts};
use super::super::rows::items::Writer;
use super::super::rows::kind::first;
use super::super::rows::{self, Folder, Report, Source};
use super::super::settings::Settings;
use super::super::split::Row;
use super::rollout::Answer;
use candle_align::decoder::Decoder;
use chrono::NaiveDateTime;
use std::path::Path;

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// What the ids stand for.
    pub text: String,
    /// The right answer.
    pub reference: Option<String>,
    /// Its line in the file.
    pub line: usize,
    /// Prompts that ask the same have one number.
    pub group: u64,
}

/// The prompts of a run.
pub struct Prompts {
    pub train: Vec<Prompt>,
    pub held_out: Vec<Prompt>,
    pub report: Report,
    pub held_out_report: Option<Report>,
    pub shared_prompts: usize,
    /// A hash of all of them, their order, and how answers end.
    pub fingerprint: String,
    pub voice: Voice,
    pub folder: Folder,
}

/// How answers end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voice {
    pub ending: Ending,
    /// Every token that ends an answer.
    pub ends: Vec<u32>,
}

impl Voice {
    /// A prompt and its answer, ended as a row of training data is.
    pub fn whole(&self, prompt: &Prompt, answer: &Answer) -> Vec<u32> {
        let said = answer.ids.len() - usize::from(answer.ended);
        let answer = &answer.ids[..said];
        [&prompt.ids, answer, &[self.ending.end], &self.ending.tail].concat()
    }
}

/// Reads the prompts of a run.
pub fn prepare(settings: &Settings, decoder: &Decoder, now: NaiveDateTime) -> Result<Prompts> {
    let folder = Folder::open(&settings.model, now)?;
    let config = decoder.config();
    let of = settings.rows(config.vocab_size);
    let alone = Some(first(&settings.data, &settings.ignored_fields)?).filter(is_prompt);
    let chat = match &alone {
        Some(row) => Some(settings.chat.unwrap_or(is_chat(row))),
        None => settings.chat,
    };
    let mut report = Report::default();
    let usage = |problem: String| Error::file(&settings.data, problem);
    let writer = Writer::new(&folder, chat, &of, &mut report).map_err(usage)?;
    let ending = writer.ending().map_err(usage)?;
    let mut halves = halves(settings, |path| match &alone {
        Some(_) => {
            let found = prompts(
                Source::open(path)?,
                &folder,
                &of,
                writer.chat,
                settings.chat,
            )?;
            let rows = found.rows.into_iter().map(row).collect();
            Ok((rows, found.report))
        }
        None => of_items(settings, path, &writer, &of),
    })?;
    halves.report.reads_the_clock |= report.reads_the_clock;
    let context = Context::of(decoder);
    let held_out_file = settings.held_out_file.as_ref().unwrap_or(&settings.data);
    within(settings, &settings.data, &halves.train, context)?;
    within(settings, held_out_file, &halves.held_out, context)?;
    let mut ends = folder.tokenizer.ends().to_vec();
    // a token that the model lacks is never drawn
    ends.retain(|end| (*end as usize) < config.vocab_size);
    if !ends.contains(&ending.end) {
        ends.push(ending.end);
    }
    let voice = Voice { ending, ends };
    drop(writer);
    Ok(Prompts {
        fingerprint: fingerprint(&halves, &voice),
        train: contents(halves.train),
        held_out: contents(halves.held_out),
        report: halves.report,
        held_out_report: halves.held_out_report,
        shared_prompts: halves.shared_prompts,
        voice,
        folder,
    })
}

/// The prompts of rows of any other format.
fn of_items(
    settings: &Settings,
    path: &Path,
    writer: &Writer,
    of: &rows::Settings,
) -> Result<(Vec<Row<PromptRow>>, Report)> {
    let reading = Reading {
        // the limit is in tokens, later
        max_len: usize::MAX / 8,
        skip_bad_rows: false,
        max_rows: None,
        ignored_fields: settings.ignored_fields.clone(),
    };
    let data = data::load(Some(path), &reading)?;
    let mut report = Report {
        rows: data.tally.rows,
        items: Some(data.tally),
        ..Report::default()
    };
    let mut all = Vec::new();
    for item in &data.items {
        if writer.chat && item.begun {
            if let Some(tally) = &mut report.items {
                *tally.left_out.entry(Reason::Begun).or_default() += 1;
            }
            continue;
        }
        let found = writer.prompt_row(item, of, &mut report);
        let found = found.map_err(|problem| Error::Row {
            file: path.display().to_string(),
            line: item.row,
            problem,
        })?;
        all.extend(found.map(|found| Row {
            line: item.row,
            group: item.group,
            content: found,
        }));
    }
    report.kept = all.len();
    match all.is_empty() {
        false => Ok((all, report)),
        true => Err(Error::file(path, format!("no prompt is left: {report}"))),
    }
}

fn row(content: PromptRow) -> Row<PromptRow> {
    Row {
        line: content.line,
        group: group(&content.text),
        content,
    }
}

fn contents(rows: Vec<Row<PromptRow>>) -> Vec<Prompt> {
    let prompt = |row: Row<PromptRow>| Prompt {
        ids: row.content.ids,
        text: row.content.text,
        reference: row.content.reference,
        line: row.line,
        group: row.group,
    };
    rows.into_iter().map(prompt).collect()
}

/// An error for a prompt that leaves no room for an answer.
fn within(
    settings: &Settings,
    path: &Path,
    rows: &[Row<PromptRow>],
    context: Context,
) -> Result<()> {
    let answer = settings.online.max_completion_length;
    let long = rows
        .iter()
        .find(|row| row.content.ids.len().saturating_add(answer) > context.most());
    long.map_or(Ok(()), |row| {
        Err(Error::Row {
            file: path.display().to_string(),
            line: row.line,
            problem: format!(
                "has a prompt of {} tokens; with `online.max_completion_length` {answer} it has no room in the \
                 model, which was made for {context}: lower one of `online.max_completion_length` and `max_length`",
                row.content.ids.len()
            ),
        })
    })
}

fn fingerprint(halves: &Halves<PromptRow>, voice: &Voice) -> String {
    let mut hash = Hash::default();
    hash.ids(&voice.ends);
    hash.ids(&[voice.ending.end]);
    hash.ids(&voice.ending.tail);
    for half in [&halves.train, &halves.held_out] {
        hash.text(&half.len().to_string());
        for row in half {
            hash.ids(&row.content.ids);
            // rules and commands read it
            hash.text(&row.content.text);
            hash.text(&format!("{:?}", row.content.reference));
        }
    }
    hash.hex()
}
