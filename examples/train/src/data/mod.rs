//! From a preference file to prompts with rated answers, and the counts of what was left out.
//!
//! | file | does |
//! |---|---|
//! | [`reader`] | lines of `.jsonl`, plain or gzip'd |
//! | [`json`] | one line to one object |
//! | [`fields`] | which fields a format reads, and which it ignores |
//! | [`messages`] | lists of messages, and which of their turns the loss covers |
//! | [`dialogue`], [`taught`] | the text before an answer; the answer with it |
//! | [`formats`] | one object to prompts and answers, with the table of formats; [`tree`] is one of them |
//! | [`tally`] | what was not used, by reason |
//! | `item` | a prompt and its answers |
//! | `admit` | limits |
//! | `split` | the held-out split |
//! | here | files and lines |
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

mod admit;
pub mod dialogue;
pub mod fields;
pub mod formats;
mod item;
pub mod json;
pub mod messages;
pub mod reader;
mod split;
pub mod tally;
pub mod taught;
pub mod tree;

pub use admit::{MARKS, last_bytes, longest_answer};
pub use dialogue::OPENING;
pub use item::{Answer, Item, group};
pub use split::{prompts_and_rows, split};
pub use tally::{Reason, Tally};

use super::error::{Error, Result};
use admit::admit;
use formats::Found;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Built-in rows, for a run without a file.
const OWN: &str = include_str!("own.jsonl");
const OWN_NAME: &str = "own.jsonl";

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

#[cfg(test)]
mod tests;
