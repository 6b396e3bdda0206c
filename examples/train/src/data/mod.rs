//! From a preference file to prompts with rated answers, and the counts of what was left out.
//!
//! | file | does |
//! |---|---|
//! | [`reader`] | lines of `.jsonl`, plain or gzip'd |
//! | [`json`] | one line to one object |
//! | [`fields`] | which fields a format reads, and which it ignores |
//! | [`messages`] | lists of messages, and which of their turns the loss covers |
//! | [`dialogue`] | an answer and everything before it |
//! | [`formats`] | one object to prompts and answers, with the table of formats; [`tree`] is one of them |
//! | [`tally`] | what was not used, by reason |
//! | here | limits, the held-out split |
//!
//! # The rule
//!
//! Nothing is dropped silently. Every field of a row, and of every object in it,
//!
//! - is used: a different value changes the training data or is an error;
//! - or is on a short list of fields that the format defines and that training does not need: ids, sources,
//!   scores ([`fields::Fields::nothing`], [`fields::ORIGIN`]);
//! - or the row is refused with the field's name: an error with file and line, or a counted one if the
//!   user asked to skip such rows. This includes `tool_calls`, `reasoning_content`, `images` and
//!   everything that the bytes of a dialogue cannot express. Users can name such a field in
//!   `ignored_fields`; it is then counted.
//!
//! A null or empty field counts as missing. A row that can be read but not fully used is counted by its
//! [`Reason`].
//!
//! # What an objective takes
//!
//! A row with one answer and a `label` ("unpaired") says that the answer is right, or that it is
//! wrong. `sft` learns the right ones and counts the others, as do the supervised steps before other
//! objectives. `conditional_sft` and `c_rlft` learn both, each after the words of its class. All other
//! objectives compare answers to one prompt and refuse such rows; rows are never joined.
//!
//! The objectives that write words before the answer (`conditional_sft` to `self_debug`) leave out
//! prompts in which the answer has already begun.

pub mod dialogue;
pub mod fields;
pub mod formats;
pub mod json;
pub mod messages;
pub mod reader;
pub mod tally;
pub mod tree;

pub use dialogue::OPENING;
pub use tally::{Reason, Tally};

use super::error::{Error, Result};
use formats::Found;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, HashSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Built-in rows, for a run without a file.
const OWN: &str = include_str!("own.jsonl");
const OWN_NAME: &str = "own.jsonl";

/// A prompt and its answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// A dialogue that ends in `\n\nAssistant: `, or in what the assistant has said so far.
    pub prompt: String,
    /// Whether the answer has begun in the prompt.
    pub begun: bool,
    /// The [`group`] of the prompt or of the root of its tree, which must not be in both halves of a split.
    pub group: u64,
    /// The line that it comes from.
    pub row: usize,
    /// At least one.
    pub answers: Vec<Answer>,
    /// Whether a reward of 1 means right and 0 means wrong; otherwise rewards only compare.
    pub judged: bool,
}

impl Item {
    pub fn new(prompt: String, answers: Vec<Answer>) -> Self {
        Self {
            group: group(&prompt),
            prompt,
            begun: false,
            row: 0,
            answers,
            judged: false,
        }
    }

    /// Adds an answer.
    pub fn answer(&mut self, text: &str, reward: f64) {
        let text = match self.begun {
            // it may begin with a blank
            true => text.trim_end(),
            false => text.trim(),
        };
        self.answers.push(Answer {
            text: text.to_string(),
            reward,
        });
    }

    /// Whether an answer is good: right, if the row says so, or else the best of its item.
    pub fn is_good(&self, answer: &Answer) -> bool {
        match self.judged {
            true => answer.reward == 1.0,
            false => answer.reward == self.best(),
        }
    }

    /// The highest reward.
    pub fn best(&self) -> f64 {
        let rewards = self.answers.iter().map(|answer| answer.reward);
        rewards.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// A text as a number (FNV-1a): two texts may share one, and are then taken for the same group.
pub fn group(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// One answer. A higher reward is better; only the order within an item matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Without blanks around it; before it, there may be some where the prompt has begun the answer.
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

/// The largest number of kept messages about bad rows.
const MESSAGES: usize = 5;

/// How to read a file.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The most tokens of a prompt and an answer together, with the marks at start and end.
    pub max_len: usize,
    /// Count unreadable rows instead of stopping at the first one.
    pub skip_bad_rows: bool,
    /// Stop after this many rows.
    pub max_rows: Option<usize>,
    /// Names of fields to ignore.
    pub ignored_fields: Vec<String>,
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

/// The tokens besides prompt and answer: start and end.
pub const MARKS: usize = 2;

/// A file's content.
#[derive(Clone, Debug)]
pub struct Data {
    /// Where it came from, for messages.
    pub name: String,
    pub items: Vec<Item>,
    pub tally: Tally,
}

/// Reads a file, or the built-in rows.
pub fn load(path: Option<&Path>, reading: &Reading) -> Result<Data> {
    match path {
        Some(path) => collect(reader::Lines::open(path)?, path, reading),
        None => from_text(OWN, OWN_NAME, reading),
    }
}

/// Reads rows from a text; messages use `name` as the file.
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
        let found = match parse(&bytes, reading, &mut tally.ignored_fields) {
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
        if found.is_empty() {
            *tally.left_out.entry(Reason::NoAnswer).or_default() += 1;
        }
        for found in found {
            match found {
                Found::Item(mut item) => {
                    item.row = number;
                    items.extend(admit(item, reading, &mut tally));
                }
                Found::LeftOut(reason) => *tally.left_out.entry(reason).or_default() += 1,
            }
        }
    }
    if tally.rows == 0 {
        return Err(Error::file(path, "holds no rows"));
    }
    Ok(Data { name, items, tally })
}

/// Reads one line.
fn parse(
    bytes: &[u8],
    reading: &Reading,
    ignored: &mut BTreeMap<String, usize>,
) -> Result<formats::Parsed, String> {
    let line = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to() + 1;
        format!("is not valid UTF-8 at byte {at} of the line")
    })?;
    let mut object = json::object(line)?;
    fields::ignore(&mut object, &reading.ignored_fields, ignored);
    // the last bytes of a prompt that can matter, and enough to see that it was longer
    formats::row(&object, reading.max_len + char::MAX.len_utf8())
}

/// The item without unusable answers and with its prompt cut to the remaining room, or nothing. All
/// answers of an item keep the same prompt.
///
/// Answers of a list are removed one by one. An item that had at least two answers and now has fewer is
/// counted as left out, by the reason of the last removed answer.
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

/// The end of a text, at most this many bytes, because the last words matter most.
pub fn last_bytes(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    let boundary = (from..=text.len()).find(|&at| text.is_char_boundary(at));
    &text[boundary.unwrap_or(text.len())..]
}

/// How many different prompts these items have, and how many rows they come from.
pub fn prompts_and_rows(items: &[Item]) -> (usize, usize) {
    // by group, because a prompt may have lost its beginning
    let prompts = items.iter().map(|item| (item.group, item.prompt.as_str()));
    let rows = items.iter().map(|item| item.row);
    (
        prompts.collect::<HashSet<_>>().len(),
        rows.collect::<HashSet<_>>().len(),
    )
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
    let all = items.iter().map(|item| item.group);
    let mut groups: Vec<u64> = all.filter(|&group| seen.insert(group)).collect();
    if groups.len() < 2 {
        return Err(Error::Usage(format!(
            "a held-out split needs at least two different prompts, found {}",
            groups.len()
        )));
    }
    groups.shuffle(rng);
    let count = (groups.len() as f64 * held_out).round() as usize;
    groups.truncate(count.min(most).clamp(1, groups.len() - 1));
    let held: HashSet<u64> = groups.into_iter().collect();
    let (held, train) = items
        .into_iter()
        .partition(|item| held.contains(&item.group));
    Ok((train, held))
}

#[cfg(test)]
mod tests;
