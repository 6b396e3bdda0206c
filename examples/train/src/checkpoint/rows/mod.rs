//! Rows to token ids, as TRL's trainers do it.
//!
//! | | fields | ids | what the loss covers |
//! |---|---|---|---|
//! | [`sft()`] | `prompt`, `completion` | both together | the completion |
//! | | `messages` or `conversations` | the conversation | all of it, the marked turns or the last one |
//! | | `text` | the text | all of it |
//! | | `input_ids` with `labels`, or with `completion_mask`, or alone | as given | as given |
//! | [`dpo()`] | `chosen`, `rejected`, and `prompt` or its text at the beginning of both | prompt and answer together, twice | both answers |
//! | [`triples()`] | the same and `reference`, a gold answer | prompt and answer together, three times | all three |
//! | [`scored()`] | a pair with `score_chosen` and `score_rejected` | as for [`dpo()`] | both answers |
//! | [`unpaired()`] | `prompt`, `completion`, `label` | both together | the completion |
//! | | a pair, as above | two such rows | the answer |
//! | [`reward()`] | `chosen`, `rejected`, and perhaps `prompt` and `margin` | as above | – |
//! | | `chosen_ids`, `rejected_ids`, and perhaps `margin` | as given | – |
//!
//! [`kind`] tells by the first row how a file is read. [`items`] and [`words`] write prompts with rated answers from
//! any other file, [`Prompts`] those of an evaluation, and [`asked`] reads prompts that the model answers itself.
//!
//! - Every value is a text, or a list of messages; then the chat template writes the text. The first row
//!   decides which; other rows must have the same fields of the same kind.
//! - A plain row ends with the text of `eos_token`, which is added if it is missing. A conversation ends as
//!   the template ends it.
//! - A prompt and an answer are one text. The answer begins at the first token at which the prompt alone
//!   and the whole differ.
//! - A row without `prompt` for [`dpo()`] has one anyway: the longest common beginning of both answers, in
//!   characters or messages.
//! - A conversation may have `tools`, a list or its JSON, and `chat_template_kwargs`.
//!
//! Nothing is dropped silently: an unknown field is an error, as is a field of a message that the template
//! does not read, and [`Report`] counts what was cut.

pub mod asked;
pub mod edits;
mod encode;
pub mod items;
pub mod kind;
mod lists;
mod pairs;
mod prompts;
mod record;
mod report;
mod sft;
mod source;
mod unpaired;
pub mod words;

pub use lists::{scored, triples};
pub use pairs::{dpo, reward};
pub use prompts::Prompts;
pub use report::{Covers, Report};
pub use sft::sft;
pub use source::Source;
pub use unpaired::unpaired;

use super::super::error::{Error, Result};
use super::template::Templates;
use super::tokenizer::Tokenizer;
use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;

/// The text side of a checkpoint: a tokenizer and its chat templates.
#[derive(Debug)]
pub struct Folder {
    pub tokenizer: Tokenizer,
    pub templates: Templates,
}

impl Folder {
    /// Reads both from a folder; `now` is the local time that templates see.
    pub fn open(folder: &Path, now: NaiveDateTime) -> Result<Self> {
        let tokenizer = Tokenizer::open(folder)?;
        let templates = Templates::open(folder, &tokenizer, now)?;
        Ok(Self {
            tokenizer,
            templates,
        })
    }
}

/// Which end of a long row stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    #[default]
    KeepStart,
    KeepEnd,
}

/// What the loss of [`sft()`] covers in a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// Every token, system and user turns included; of prompt and completion, the completion.
    #[default]
    All,
    /// What the template marks by `{% generation %}`; TRL's `assistant_only_loss`.
    Marked,
    /// Of `messages`, the last turn, which must be the assistant's: as if it were the completion.
    Last,
}

/// How rows become ids. The defaults are TRL's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The most tokens of a row; `None`: rows stay as they are.
    pub max_length: Option<usize>,
    /// Which end of a longer row stays. [`reward()`] never cuts.
    pub truncation: Truncation,
    /// Whether the loss covers only the completion; `None`: yes if rows have one.
    pub completion_only: Option<bool>,
    /// What the loss covers in a conversation.
    pub turns: Turns,
    /// The field of plain text.
    pub text_field: String,
    /// The number of tokens of the model; an id beyond it is an error.
    pub vocabulary: Option<usize>,
    /// Fields to ignore, by name and at any depth.
    pub ignored_fields: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_length: Some(1024),
            truncation: Truncation::KeepStart,
            completion_only: None,
            turns: Turns::All,
            text_field: "text".to_string(),
            vocabulary: None,
            ignored_fields: Vec::new(),
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        match self.max_length {
            Some(0) => Err(Error::Usage(
                "`max_length` must be at least 1, got 0".into(),
            )),
            _ => Ok(()),
        }
    }

    /// What stays of so many tokens.
    pub fn kept(&self, tokens: usize) -> Range<usize> {
        match (self.max_length, self.truncation) {
            (Some(most), Truncation::KeepStart) => 0..tokens.min(most),
            (Some(most), Truncation::KeepEnd) => tokens.saturating_sub(most)..tokens,
            (None, _) => 0..tokens,
        }
    }
}

/// A row for supervised training.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SftRow {
    /// Its line in the file.
    pub line: usize,
    pub ids: Vec<u32>,
    /// For each id, whether the loss covers it. The first id is never predicted.
    pub learned: Vec<bool>,
}

impl SftRow {
    /// The labels as Transformers has them: −100 where the loss covers nothing.
    pub fn labels(&self) -> Vec<i64> {
        let ids = self.ids.iter().zip(&self.learned);
        ids.map(|(id, learned)| if *learned { i64::from(*id) } else { -100 })
            .collect()
    }
}

/// A prompt with an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Those of the prompt, then those of the answer.
    pub ids: Vec<u32>,
    /// The number of ids that belong to the prompt.
    pub prompt: usize,
}

/// A pair of answers to one prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Its line in the file.
    pub line: usize,
    pub chosen: Side,
    pub rejected: Side,
}

impl Pair {
    /// The number of ids of the prompt if both sides have the same: not if longer sides lost their
    /// beginning.
    pub fn shared_prompt(&self) -> Option<usize> {
        let of = |side: &Side| side.ids[..side.prompt].to_vec();
        (of(&self.chosen) == of(&self.rejected)).then_some(self.chosen.prompt)
    }
}

/// Answers to one prompt with a reward each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListRow {
    /// Its line in the file.
    pub line: usize,
    pub sides: Vec<Side>,
    pub rewards: Vec<f64>,
}

/// An answer with a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnpairedRow {
    /// Its line in the file.
    pub line: usize,
    /// All of it.
    pub whole: Side,
    /// What stays of it.
    pub kept: Side,
    pub desirable: bool,
}

/// A pair of whole rows for a reward model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewardRow {
    /// Its line in the file.
    pub line: usize,
    pub chosen: Vec<u32>,
    pub rejected: Vec<u32>,
    /// How much better the first is.
    pub margin: Option<f64>,
}

/// Rows, and the count of what was cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared<T> {
    pub rows: Vec<T>,
    pub report: Report,
}
