//! Evaluations of a checkpoint on a file of rows (survey §4): what the model finds likely, and how it judges.
//!
//! | method | a row has | the model is asked for | library |
//! |---|---|---|---|
//! | `multiple_choice` | a question, its choices, the right one | log P of every choice after the question, and after words without the question | `choice_scores`, `choose`, `accuracy` |
//! | `gpt_score` | a text, and what it answers or sums up | log P of the text after a prompt that names an aspect | `gpt_score` |
//! | `g_eval` | the same | log P of each score as the next token of a form | `expected_score` |
//!
//! | file | does |
//! |---|---|
//! | [`settings`] | every setting with its default |
//! | [`question`], [`judged`] | one row to a question, or to a text to judge: the table of fields |
//! | [`ask`] | rows to ids; the log-probabilities that the model gives |
//! | [`choices`] | multiple choice: scores, accuracy |
//! | [`judges`] | GPTScore and G-Eval: scores, beside those of people |
//! | [`people`] | correlations with the scores of people, by level |
//! | [`report`] | the results: `evaluation.json`, `rows.jsonl`, and the table on the terminal |
//! | [`run`](mod@run) | an evaluation from start to end |
//!
//! The rows of a question share their beginning, and what is shared goes through the model once. Logits are
//! never stored whole.

pub mod ask;
pub mod choices;
pub mod judged;
pub mod judges;
pub mod people;
pub mod question;
pub mod report;
pub mod run;
pub mod settings;

use super::data::fields::says_nothing;
use super::data::json::{self, Object};
use serde_json::Value;

/// Of names for one thing, the one that a row has, with its value.
fn one_of<'a, 'n>(object: &'a Object, names: &[&'n str]) -> Result<(&'n str, &'a Value), String> {
    match at_most_one_of(object, names)? {
        Some(found) => Ok(found),
        None => Err(format!("`{}` is missing", names.join("` or `"))),
    }
}

fn at_most_one_of<'a, 'n>(
    object: &'a Object,
    names: &[&'n str],
) -> Result<Option<(&'n str, &'a Value)>, String> {
    let found = names.iter().filter_map(|name| {
        let value = json::field(object, name).filter(|value| !says_nothing(value));
        value.map(|value| (*name, value))
    });
    let found: Vec<_> = found.collect();
    match found[..] {
        [(one, _), (other, _), ..] => Err(format!(
            "has `{one}` and `{other}`, and one of them is read; say --ignore-field for the other"
        )),
        _ => Ok(found.into_iter().next()),
    }
}
