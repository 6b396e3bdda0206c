//! One row to a text that is judged.
//!
//! | what | fields |
//! |---|---|
//! | what the text was written for | `source`, `document`, `prompt` or `question` |
//! | the text to judge | `system_output`, `output`, `summary`, `response` or `answer` |
//! | what people say | `score`, a number, or `scores`, numbers by aspect; in all rows or in none |
//! | which texts were written for the same input | `doc_id`; in all rows or in none |
//!
//! These are the names of SummEval as G-Eval's authors publish it, and some others. A `reference` is known, and
//! these judges do not read it.

use super::super::data::fields::Fields;
use super::super::data::json::{self, Object};
use super::{at_most_one_of, one_of};
use serde_json::Value;

/// The fields of a row.
pub const FIELDS: Fields = Fields {
    of: "a text to judge",
    read: &[
        "source",
        "document",
        "prompt",
        "question",
        "system_output",
        "output",
        "summary",
        "response",
        "answer",
        "score",
        "scores",
        "doc_id",
    ],
    nothing: &["system_id", "reference"],
};

const INPUTS: [&str; 4] = ["source", "document", "prompt", "question"];
const OUTPUTS: [&str; 5] = ["system_output", "output", "summary", "response", "answer"];

/// A text to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What it was written for.
    pub input: String,
    pub output: String,
    /// The score that people gave it.
    pub human: Option<f64>,
    /// Texts of one input have the same.
    pub doc_id: Option<String>,
}

impl Judged {
    /// Of one row.
    pub fn read(row: &Object, aspect: &str) -> Result<Self, String> {
        FIELDS.check(row, "")?;
        let text = |names: &[&str]| -> Result<String, String> {
            let (name, value) = one_of(row, names)?;
            match json::as_text(value, name)?.trim() {
                "" => Err(format!("`{name}` is blank")),
                text => Ok(text.to_string()),
            }
        };
        let human = match at_most_one_of(row, &["score", "scores"])? {
            None => None,
            Some(("score", value)) => Some(json::as_number(value, "score")?),
            Some((name, value)) => {
                let all = json::as_object(value, name)?;
                let own = json::required(all, "scores.", aspect)
                    .map_err(|problem| format!("{problem}; `aspect` names the key"))?;
                Some(json::as_number(own, &format!("scores.{aspect}"))?)
            }
        };
        let doc_id = match json::field(row, "doc_id") {
            None => None,
            Some(Value::Number(number)) => Some(number.to_string()),
            Some(value) => Some(json::as_text(value, "doc_id")?.to_string()),
        };
        Ok(Self {
            input: text(&INPUTS)?,
            output: text(&OUTPUTS)?,
            human,
            doc_id,
        })
    }

    /// An error if a row has what the first one lacks, or lacks what the first one has.
    pub fn beside(&self, first: &Self) -> Result<(), String> {
        let fields = [
            (
                "`score` or `scores`",
                first.human.is_some(),
                self.human.is_some(),
            ),
            ("`doc_id`", first.doc_id.is_some(), self.doc_id.is_some()),
        ];
        match fields.iter().find(|(_, first, own)| first != own) {
            None => Ok(()),
            Some((name, true, _)) => Err(format!("has no {name}, and the first row has one")),
            Some((name, ..)) => Err(format!("has {name}, and the first row has none")),
        }
    }
}
