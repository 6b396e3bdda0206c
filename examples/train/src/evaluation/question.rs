//! One row to a question with choices.
//!
//! | benchmark | question | choices | the right one |
//! |---|---|---|---|
//! | MMLU | `question` | `choices`: a list of texts | `answer`: an index from 0 on, or a letter |
//! | ARC, OpenBookQA, CommonsenseQA | `question` | `choices`: `{"text": […], "label": […]}` | `answerKey`: one of the labels |
//! | HellaSwag | `ctx`, to be continued | `endings` | `label`: an index from 0 on, also as a text |
//! | PIQA | `goal` | `sol1`, `sol2` | `label`: 0 or 1 |
//! | others | `question`, `query` or `goal` | `choices` or `endings` | `answer`, `label`, `gold` or `answerKey` |
//!
//! Where choices have labels, the right one is named by its label, and otherwise by an index from 0 on or a
//! letter from A on. A text that is the index of one choice and the wording of another is refused.

use super::super::data::fields::Fields;
use super::super::data::json::{self, Object};
use super::one_of;
use serde_json::Value;

/// The fields of a row.
pub const FIELDS: Fields = Fields {
    of: "a question with choices",
    read: &[
        "question",
        "query",
        "goal",
        CONTINUED,
        "choices",
        "endings",
        "sol1",
        "sol2",
        "answer",
        "label",
        "gold",
        "answerKey",
    ],
    // ids and splits; `ctx_a` and `ctx_b` are the two parts of `ctx`
    nothing: &[
        "subject",
        "ind",
        "source_id",
        "split",
        "split_type",
        "ctx_a",
        "ctx_b",
    ],
};

const QUESTIONS: [&str; 4] = ["question", "query", "goal", CONTINUED];
/// A text that the choices continue.
const CONTINUED: &str = "ctx";
const CHOICES: [&str; 3] = ["choices", "endings", "sol1"];
const ANSWERS: [&str; 4] = ["answer", "label", "gold", "answerKey"];

/// Choices with labels, beside their texts.
const LABELED: Fields = Fields {
    of: "choices with labels",
    read: &["text", "label"],
    nothing: &[],
};

/// A question with its choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    /// Whether the choices continue the text instead of answering it.
    pub continued: bool,
    /// Without blanks around them.
    pub choices: Vec<String>,
    /// The right choice.
    pub answer: usize,
}

impl Question {
    /// Of one row.
    pub fn read(row: &Object) -> Result<Self, String> {
        FIELDS.check(row, "")?;
        let (asks, text) = one_of(row, &QUESTIONS)?;
        let text = said(text, asks)?;
        let (choices, labels) = choices(row)?;
        let (name, answer) = one_of(row, &ANSWERS)?;
        let answer = match labels {
            Some(labels) => by_label(answer, name, &labels)?,
            None => by_place(answer, name, &choices)?,
        };
        Ok(Self {
            text,
            continued: asks == CONTINUED,
            choices,
            answer,
        })
    }
}

/// The texts of the choices, and their labels if they have some.
fn choices(row: &Object) -> Result<(Vec<String>, Option<Vec<String>>), String> {
    let (name, value) = one_of(row, &CHOICES)?;
    let texts = |list: &[Value], path: &str| -> Result<Vec<String>, String> {
        let each = list.iter().enumerate();
        each.map(|(i, value)| said(value, &format!("{path}[{i}]")))
            .collect()
    };
    let (choices, labels) = match value {
        first if name == "sol1" => {
            let second = json::required(row, "", "sol2")?;
            (vec![said(first, "sol1")?, said(second, "sol2")?], None)
        }
        Value::Array(list) => (texts(list, name)?, None),
        Value::Object(object) if name == "choices" => {
            LABELED.check(object, "choices.")?;
            let list = |field| {
                let list = json::list(object, "choices.", field)?;
                texts(list, &format!("choices.{field}"))
            };
            (list("text")?, Some(list("label")?))
        }
        other => {
            let found = json::kind(other);
            return Err(format!("`{name}` must be a list of texts, found {found}"));
        }
    };
    if name != "sol1" && json::field(row, "sol2").is_some() {
        return Err("has `sol2` without `sol1`".to_string());
    }
    if choices.len() < 2 {
        return Err(format!("`{name}` has {} choice", choices.len()));
    }
    if let Some(labels) = &labels {
        if labels.len() != choices.len() {
            let (labels, texts) = (labels.len(), choices.len());
            return Err(format!("`choices` has {labels} labels for {texts} texts"));
        }
        if let Some(at) = (1..labels.len()).find(|at| labels[..*at].contains(&labels[*at])) {
            return Err(format!("`choices.label` has `{}` twice", labels[at]));
        }
    }
    Ok((choices, labels))
}

/// A text without blanks around it, which must hold something.
fn said(value: &Value, path: &str) -> Result<String, String> {
    match json::as_text(value, path)?.trim() {
        "" => Err(format!("`{path}` is blank")),
        text => Ok(text.to_string()),
    }
}

fn by_label(answer: &Value, name: &str, labels: &[String]) -> Result<usize, String> {
    let said = match answer {
        Value::Number(number) => number.to_string(),
        other => json::as_text(other, name)?.trim().to_string(),
    };
    let found = labels.iter().position(|label| *label == said);
    found.ok_or_else(|| {
        let labels = labels.join("`, `");
        format!("`{name}` is `{said}`, which is none of the labels `{labels}`")
    })
}

fn by_place(answer: &Value, name: &str, choices: &[String]) -> Result<usize, String> {
    let count = choices.len();
    let said = match answer {
        Value::Number(_) => None,
        other => Some(json::as_text(other, name)?.trim()),
    };
    let place = match said {
        None => answer.as_u64(),
        Some(said) => match said.as_bytes() {
            [letter @ b'A'..=b'Z'] => Some(u64::from(letter - b'A')),
            // not "+1"
            _ if said.bytes().all(|byte| byte.is_ascii_digit()) => said.parse().ok(),
            _ => None,
        },
    };
    let place = place.and_then(|place| usize::try_from(place).ok());
    let Some(place) = place.filter(|place| *place < count) else {
        let last = (b'A'..=b'Z').nth(count - 1).map(char::from);
        let letters = last.map_or(String::new(), |last| {
            format!(", or a letter from A to {last}")
        });
        let highest = count - 1;
        return Err(format!(
            "`{name}` must be an index from 0 to {highest}{letters}, found {answer}"
        ));
    };
    let worded = said.and_then(|said| choices.iter().position(|choice| choice == said));
    match worded.filter(|worded| *worded != place) {
        None => Ok(place),
        Some(worded) => Err(format!(
            "`{name}` is {answer}, which names choice {place}, counted from 0, and is the text of choice {worded}; \
             say the index as a number"
        )),
    }
}
