//! Prompts that the model answers itself.

use super::super::super::data::Item;
use super::super::super::data::json;
use super::encode::{Encoder, within_vocabulary};
use super::items::{Writer, message};
use super::kind::{has_any, is_rated};
use super::record::{Part, Record};
use super::{Folder, Prepared, Report, Settings, Source};
use serde_json::Value;

/// A prompt, and the right answer to it if the row has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptRow {
    /// Its line in the file.
    pub line: usize,
    pub ids: Vec<u32>,
    /// What the ids stand for.
    pub text: String,
    pub reference: Option<String>,
}

/// What ends an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The token that the model draws last.
    pub end: u32,
    /// What the chat template writes after it.
    pub tail: Vec<u32>,
}

/// The fields of a prompt's right answer: one of them.
pub const REFERENCES: [&str; 4] = ["reference", "answer", "solution", "ground_truth"];

/// Rows with `prompt`, and perhaps with the right answer. A text stays as it is, unless `said`, the user's setting, makes
/// it the turn of a user; messages go through the chat template. `chat` is whether the rows are messages.
pub fn prompts(
    source: Source,
    folder: &Folder,
    settings: &Settings,
    chat: bool,
    said: Option<bool>,
) -> crate::error::Result<Prepared<PromptRow>> {
    source.rows(settings, |record, report| {
        let part = match record.part("prompt")? {
            Part::Text(text) if said == Some(true) => {
                Part::Messages(vec![message("user", &text)])
            }
            part => part,
        };
        if part.is_chat() != chat {
            let problem = match (chat, said) {
                (true, _) => {
                    "`prompt` is a text, and in the first row it is a list of messages; `chat` = true makes a text the \
                     turn of a user"
                }
                (false, Some(_)) => "`prompt` is a list of messages, and `chat` is false",
                (false, None) => "`prompt` is a list of messages, and in the first row it is a text",
            };
            return Err(problem.to_string());
        }
        let fields: Vec<&str> = ["prompt"].into_iter().chain(REFERENCES).collect();
        record.check("a prompt", &fields, chat)?;
        let reference = reference(&record)?;
        let encoder = Encoder::new(folder, &record, chat, report)?;
        let row = PromptRow {
            line: record.line,
            ids: encoder.prompt(&part)?,
            text: encoder.text(&part)?,
            reference,
        };
        kept(row, folder, settings, report)
    })
}

/// Whether rows of this kind are prompts alone: by the fields of one of them.
pub fn is_prompt(row: &json::Object) -> bool {
    let answers = ["chosen", "rejected", "completion", "messages"];
    has_any(row, &["prompt"]) && !is_rated(row) && !has_any(row, &answers)
}

/// Whether the prompt of a row is a list of messages.
pub fn is_chat(row: &json::Object) -> bool {
    matches!(json::field(row, "prompt"), Some(Value::Array(_)))
}

fn reference(record: &Record) -> Result<Option<String>, String> {
    let given: Vec<&str> = REFERENCES
        .into_iter()
        .filter(|name| record.has(name))
        .collect();
    let name = match given.as_slice() {
        [] => return Ok(None),
        [name] => *name,
        [first, second, ..] => {
            return Err(format!(
                "`{first}` and `{second}` are both given: which is the right answer?"
            ));
        }
    };
    match json::required(&record.object, "", name)? {
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(format!(
            "`{name}` must be a text or a number, found {}",
            json::kind(other)
        )),
    }
}

/// The row, unless it is too long.
fn kept(
    row: PromptRow,
    folder: &Folder,
    settings: &Settings,
    report: &mut Report,
) -> Result<Option<PromptRow>, String> {
    if row.ids.is_empty() {
        return Err("`prompt` has no token, and an answer needs one before it".to_string());
    }
    within_vocabulary(&row.ids, folder, settings.vocabulary)?;
    let long = settings.max_length.is_some_and(|most| row.ids.len() > most);
    report.long_prompts += usize::from(long);
    Ok((!long).then_some(row))
}

impl Writer<'_> {
    /// The prompt of an item, with its best answer as the right one; nothing if it is too long.
    pub fn prompt_row(
        &self,
        item: &Item,
        settings: &Settings,
        report: &mut Report,
    ) -> Result<Option<PromptRow>, String> {
        let part = self.prompt(item);
        let mut good = item.answers.iter().filter(|answer| item.is_good(answer));
        let row = PromptRow {
            line: item.row,
            ids: self.encoder.prompt(&part)?,
            text: self.encoder.text(&part)?,
            reference: good.next().map(|answer| answer.text.clone()),
        };
        kept(row, self.folder, settings, report)
    }

    /// What ends an answer.
    pub fn ending(&self) -> Result<Ending, String> {
        let mut tail = Vec::new();
        if self.chat {
            let turns = vec![message("user", "a"), message("assistant", "b")];
            let whole = self.encoder.whole(&Part::Messages(turns), false)?.ids;
            if let Some(at) = whole.iter().rposition(|id| *id == self.end) {
                tail = whole[at + 1..].to_vec();
            }
        }
        Ok(Ending {
            end: self.end,
            tail,
        })
    }
}
