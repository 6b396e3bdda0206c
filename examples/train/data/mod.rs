//! From a preference file to prompts with rated answers, and what was left out on the way.
//!
//! | file | does |
//! |---|---|
//! | [`reader`] | lines of `.jsonl`, plain or gzip'd |
//! | [`json`] | one line to one object |
//! | [`formats`] | one object to prompts and answers: the table of formats is there |
//! | here | limits, counts, the held-out split |
//!
//! Nothing is dropped silently. A row that cannot be read is an error with its file and line, or is
//! counted with its message where the user asked to skip such rows; a row that can be read and not
//! used is counted by its [`Reason`].

pub mod formats;
pub mod json;
pub mod reader;

pub use formats::OPENING;

use super::error::{Error, Result};
use formats::Found;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Rows of our own, for a run without a file.
const OWN: &str = include_str!("own.jsonl");
const OWN_NAME: &str = "own.jsonl";

/// A prompt, and what was answered to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// A dialogue that ends in `\n\nAssistant: `.
    pub prompt: String,
    /// What must not be in both halves of a split: the prompt, or the root of a tree.
    pub group: String,
    /// At least one.
    pub answers: Vec<Answer>,
    /// Whether a reward of 1 says that an answer is right and 0 that it is wrong; otherwise rewards
    /// only compare.
    pub judged: bool,
}

impl Item {
    pub fn new(prompt: String, answers: Vec<Answer>) -> Self {
        Self {
            group: prompt.clone(),
            prompt,
            answers,
            judged: false,
        }
    }

    /// The highest reward.
    pub fn best(&self) -> f64 {
        let rewards = self.answers.iter().map(|answer| answer.reward);
        rewards.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// One answer; a higher reward is better, and only the order within an item means anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Without blanks around it.
    pub text: String,
    pub reward: f64,
}

impl Answer {
    pub fn new(text: &str, reward: f64) -> Self {
        Self {
            text: text.trim().to_string(),
            reward,
        }
    }
}

/// Why something that could be read was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The two sides of a pair answer different prompts.
    PromptsDiffer,
    /// An answer of blanks alone.
    EmptyAnswer,
    /// Two answers with the same text: there is nothing to prefer.
    EqualAnswers,
    /// An answer that leaves no room for a prompt within the length limit.
    AnswerTooLong,
    /// A reply without a rank among several.
    NoRank,
    /// A reply marked as deleted, with all below it.
    Deleted,
    /// Several answers, none better than another.
    NoPreference,
    /// One answer where two are needed.
    SingleAnswer,
    /// Answers of which nobody says whether they are right, where that is needed.
    NoVerdict,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PromptsDiffer => "the prompts differ",
            Self::EmptyAnswer => "an empty answer",
            Self::EqualAnswers => "equal answers",
            Self::AnswerTooLong => "an answer too long",
            Self::NoRank => "a reply without rank",
            Self::Deleted => "a deleted reply",
            Self::NoPreference => "no answer better than another",
            Self::SingleAnswer => "a single answer",
            Self::NoVerdict => "answers not marked right or wrong",
        })
    }
}

/// What was read, and what was not used, by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Rows of the file that hold something.
    pub rows: usize,
    /// Rows by format.
    pub formats: BTreeMap<&'static str, usize>,
    /// Prompts left out, by reason.
    pub left_out: BTreeMap<Reason, usize>,
    /// Answers left out of lists of which at least two answers remained, by reason.
    pub answers_left_out: BTreeMap<Reason, usize>,
    /// Prompts whose beginning was cut off to fit the length limit.
    pub prompts_cut: usize,
    /// What objectives that write words around answers had to leave out, because it would have
    /// taken more than the length limit.
    pub texts_too_long: usize,
    /// Rows that could not be read, where that was allowed.
    pub bad_rows: usize,
    /// The messages of the first of them.
    pub bad_row_messages: Vec<String>,
}

/// The most messages of bad rows that are kept.
const MESSAGES: usize = 5;

/// How to read a file.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The most tokens of a prompt and an answer together, with the marks at start and end.
    pub max_len: usize,
    /// Count rows that cannot be read instead of stopping at the first.
    pub skip_bad_rows: bool,
    /// Stop after so many rows.
    pub max_rows: Option<usize>,
}

impl Reading {
    fn longest_answer(&self) -> usize {
        longest_answer(self.max_len)
    }
}

/// An answer is never cut: one that takes more than three quarters of the limit is left out.
pub fn longest_answer(max_len: usize) -> usize {
    max_len * 3 / 4 - MARKS
}

/// The tokens that stand beside prompt and answer: start and end.
pub const MARKS: usize = 2;

/// A file's content.
#[derive(Clone, Debug)]
pub struct Data {
    /// Where it came from, for messages.
    pub name: String,
    pub items: Vec<Item>,
    pub tally: Tally,
}

/// Reads a file, or the example's own rows.
pub fn load(path: Option<&Path>, reading: &Reading) -> Result<Data> {
    match path {
        Some(path) => collect(reader::Lines::open(path)?, path, reading),
        None => from_text(OWN, OWN_NAME, reading),
    }
}

/// Reads rows from a text; `name` stands for the file in messages.
pub fn from_text(text: &str, name: &str, reading: &Reading) -> Result<Data> {
    let (path, bytes) = (PathBuf::from(name), Cursor::new(text.as_bytes().to_vec()));
    collect(reader::Lines::from_reader(bytes, &path)?, &path, reading)
}

/// Reads all lines.
pub fn collect(lines: reader::Lines, path: &Path, reading: &Reading) -> Result<Data> {
    let name = path.display().to_string();
    let mut tally = Tally::default();
    let mut items = Vec::new();
    for line in lines {
        if reading.max_rows.is_some_and(|most| tally.rows >= most) {
            break;
        }
        let (number, bytes) = line?;
        tally.rows += 1;
        let found = match parse(&bytes) {
            Ok((format, found)) => {
                *tally.formats.entry(format).or_default() += 1;
                found
            }
            Err(problem) => {
                let error = Error::Row {
                    file: name.clone(),
                    line: number,
                    problem,
                };
                if !reading.skip_bad_rows {
                    return Err(error);
                }
                tally.bad_rows += 1;
                if tally.bad_row_messages.len() < MESSAGES {
                    tally.bad_row_messages.push(error.to_string());
                }
                continue;
            }
        };
        for found in found {
            match found {
                Found::Item(item) => items.extend(admit(item, reading, &mut tally)),
                Found::LeftOut(reason) => *tally.left_out.entry(reason).or_default() += 1,
            }
        }
    }
    if tally.rows == 0 {
        return Err(Error::file(path, "holds no rows"));
    }
    Ok(Data { name, items, tally })
}

/// One line to what it gives.
fn parse(bytes: &[u8]) -> Result<formats::Parsed, String> {
    let line = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to() + 1;
        format!("is not valid UTF-8 at byte {at} of the line")
    })?;
    formats::row(&json::object(line)?)
}

/// The item without the answers that cannot be used, its prompt cut to what room they leave; or
/// nothing. All answers of an item keep the same prompt.
///
/// Of a list the answers go one by one. An item that had at least two and is left with fewer is
/// counted as left out, by the reason of the last answer that went.
fn admit(mut item: Item, reading: &Reading, tally: &mut Tally) -> Option<Item> {
    let before = item.answers.len();
    let mut seen = HashSet::new();
    let mut gone = Vec::new();
    item.answers.retain(|answer| {
        let reason = if answer.text.is_empty() {
            Some(Reason::EmptyAnswer)
        } else if answer.text.len() > reading.longest_answer() {
            Some(Reason::AnswerTooLong)
        } else if !seen.insert(answer.text.clone()) {
            Some(Reason::EqualAnswers)
        } else {
            None
        };
        gone.extend(reason);
        reason.is_none()
    });
    if before == 0 {
        *tally.left_out.entry(Reason::SingleAnswer).or_default() += 1;
        return None;
    }
    if item.answers.len() < before.min(2) {
        let reason = gone.last().copied().unwrap_or(Reason::SingleAnswer);
        *tally.left_out.entry(reason).or_default() += 1;
        return None;
    }
    for reason in gone {
        *tally.answers_left_out.entry(reason).or_default() += 1;
    }
    let longest = item.answers.iter().map(|answer| answer.text.len()).max();
    let room = reading.max_len - MARKS - longest.unwrap_or(0);
    if item.prompt.len() > room {
        item.prompt = last_bytes(&item.prompt, room).to_string();
        tally.prompts_cut += 1;
    }
    Some(item)
}

/// The end of a text, at most so many bytes: what was said last matters most.
pub fn last_bytes(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    let boundary = (from..=text.len()).find(|&at| text.is_char_boundary(at));
    &text[boundary.unwrap_or(text.len())..]
}

/// Training and held-out items, with no group in both.
///
/// A share of the *groups* is held out, but at most `most`, at least one and not all.
pub fn split(
    items: Vec<Item>,
    held_out: f64,
    most: usize,
    rng: &mut StdRng,
) -> Result<(Vec<Item>, Vec<Item>)> {
    let mut seen = HashSet::new();
    let mut groups: Vec<String> = items
        .iter()
        .filter(|item| seen.insert(item.group.as_str()))
        .map(|item| item.group.clone())
        .collect();
    if groups.len() < 2 {
        return Err(Error::Usage(format!(
            "a held-out split needs at least two different prompts, found {}",
            groups.len()
        )));
    }
    groups.shuffle(rng);
    let count = (groups.len() as f64 * held_out).round() as usize;
    groups.truncate(count.min(most).clamp(1, groups.len() - 1));
    let held: HashSet<String> = groups.into_iter().collect();
    let (held, train) = items
        .into_iter()
        .partition(|item| held.contains(&item.group));
    Ok((train, held))
}

#[cfg(test)]
mod tests;
