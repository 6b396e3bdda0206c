//! The text before an answer, from messages or texts.

use super::fields::says_nothing;
use super::json::{self, Object};
use super::messages::{render, turn, turns};
use super::taught::Taught;
use serde_json::Value;

pub(super) const HUMAN: &str = "\n\nHuman:";
pub(super) const ASSISTANT: &str = "\n\nAssistant:";
const SYSTEM: &str = "\n\nSystem:";
/// The end of a prompt, unless the answer has already begun.
pub const OPENING: &str = "\n\nAssistant: ";

/// The text before an answer.
#[derive(Clone, Debug)]
pub struct Dialogue {
    /// Without the heading of the answer, unless the answer has begun.
    pub text: String,
    /// Whether it ends within the assistant's turn, which the answer continues.
    pub begun: bool,
    /// The fields that it comes from, for messages.
    pub(super) names: String,
}

impl Dialogue {
    /// `system`, `history` and the field `name` of a row; none if it has none of them.
    pub fn of(row: &Object, name: &str) -> Result<Option<Self>, String> {
        let mut text = String::new();
        let mut names = Vec::new();
        let said = |name| json::field(row, name).filter(|value| !says_nothing(value));
        if let Some(value) = said("system") {
            text += &turn("System", json::as_text(value, "system")?);
            names.push("`system`");
        }
        if said("history").is_some() {
            for (i, pair) in json::list(row, "", "history")?.iter().enumerate() {
                text += &exchange(pair, &format!("history[{i}]"))?;
            }
            names.push("`history`");
        }
        let mut begun = false;
        let own = format!("`{name}`");
        if let Some(value) = json::field(row, name) {
            let (said, open) = read(value, name)?;
            if !text.is_empty() && !system_turn(&said).0.is_empty() {
                let before = names.join(" and ");
                return Err(format!(
                    "`{name}` begins with a system turn, and {before} would stand before it"
                ));
            }
            (text, begun) = (text + &said, open);
            names.push(&own);
        }
        Ok((!names.is_empty()).then(|| Self {
            text,
            begun,
            names: names.join(", "),
        }))
    }

    /// The same, of a row that must have the field.
    pub fn required(row: &Object, name: &str) -> Result<Self, String> {
        json::required(row, "", name)?;
        Ok(Self::of(row, name)?.expect("the field is there"))
    }

    /// With an answer of its own.
    pub fn answered(&self, answer: &str) -> Taught {
        match self.begun {
            true => Taught::continued(&self.text, answer),
            false => Taught::new(&self.text, answer),
        }
    }

    /// With `input` under it.
    pub fn asking(&self, input: &str) -> Result<Self, String> {
        if self.begun {
            return Err(format!(
                "{} ends within an answer, and `input` would follow it",
                self.names
            ));
        }
        let mut asked = self.clone();
        asked.text += match asked.text.ends_with(HUMAN) {
            true => " ",
            false => "\n\n",
        };
        asked.text += input;
        Ok(asked)
    }

    /// Where this dialogue ends in a `whole` one that begins with it, and the whole. If only one of them
    /// has a system turn, the whole gets it.
    pub(super) fn begins(&self, whole: &str, anywhere: bool) -> Option<(String, usize)> {
        let headings = [HUMAN, ASSISTANT, SYSTEM];
        let at_turn = |rest: &str| rest.is_empty() || headings.iter().any(|h| rest.starts_with(h));
        let fits = |whole: &str, start: &str| {
            let rest = whole.strip_prefix(start);
            rest.is_some_and(|rest| anywhere || at_turn(rest))
        };
        if fits(whole, &self.text) {
            return Some((whole.to_string(), self.text.len()));
        }
        let (own, said) = system_turn(&self.text);
        let (other, rest) = system_turn(whole);
        match (own.is_empty(), other.is_empty()) {
            (false, true) if fits(whole, said) => Some((format!("{own}{whole}"), self.text.len())),
            (true, false) if fits(rest, &self.text) => {
                Some((whole.to_string(), other.len() + self.text.len()))
            }
            _ => None,
        }
    }
}

/// A prompt in any form, and whether the answer has begun in it.
fn read(value: &Value, path: &str) -> Result<(String, bool), String> {
    let list = match value {
        Value::String(text) => return Ok(opened(text)),
        Value::Array(list) => list,
        other => {
            let kind = json::kind(other);
            return Err(format!(
                "`{path}` must be a text or a list of messages, found {kind}"
            ));
        }
    };
    let turns = turns(list, path)?;
    if let Some(i) = turns.iter().position(|turn| turn.weight == Some(true)) {
        return Err(format!(
            "`{path}[{i}].weight` is 1, and a turn of a prompt is not learned"
        ));
    }
    match turns.split_last() {
        None => Err(format!("`{path}` is an empty list")),
        Some((last, before)) if last.role == "Assistant" => {
            Ok(begun(&render(before), last.content))
        }
        Some(_) => Ok((render(&turns), false)),
    }
}

/// A text that is already a dialogue keeps its turns; any other text is the human's turn.
fn opened(text: &str) -> (String, bool) {
    let dialogue = match is_dialogue(text) {
        true => text.to_string(),
        false => format!("{HUMAN} {}", text.trim_start()),
    };
    let last = dialogue.rfind(ASSISTANT);
    let after = dialogue.rfind(HUMAN).max(dialogue.rfind(SYSTEM));
    match last.filter(|_| last > after) {
        Some(at) => begun(&dialogue[..at], &dialogue[at + ASSISTANT.len()..]),
        None => (dialogue.trim_end().to_string(), false),
    }
}

/// A dialogue that ends with what the assistant has said so far.
fn begun(before: &str, said: &str) -> (String, bool) {
    match said.trim_start() {
        "" => (before.to_string(), false),
        said => (format!("{before}{OPENING}{said}"), true),
    }
}

/// The turns of a prompt as roles of a chat template with what they say.
pub fn messages(prompt: &str) -> Vec<(&'static str, &str)> {
    let roles = [
        (HUMAN, "user"),
        (ASSISTANT, "assistant"),
        (SYSTEM, "system"),
    ];
    let next = |from: usize| {
        let found = roles.iter().filter_map(|(heading, role)| {
            let at = prompt[from..].find(heading)? + from;
            Some((at, at + heading.len(), *role))
        });
        found.min()
    };
    let mut turns = Vec::new();
    let mut open = next(0);
    while let Some((_, start, role)) = open {
        open = next(start);
        let end = open.map_or(prompt.len(), |(at, _, _)| at);
        turns.push((role, prompt[start..end].trim()));
    }
    turns
}

pub(super) fn is_dialogue(text: &str) -> bool {
    [HUMAN, ASSISTANT, SYSTEM]
        .iter()
        .any(|h| text.starts_with(h))
}

/// The system turn at the beginning, and the rest.
fn system_turn(dialogue: &str) -> (&str, &str) {
    if !dialogue.starts_with(SYSTEM) {
        return ("", dialogue);
    }
    let ends = [HUMAN, ASSISTANT].map(|heading| dialogue.find(heading));
    let end = ends.into_iter().flatten().min().unwrap_or(dialogue.len());
    dialogue.split_at(end)
}

/// One entry of `history`: what was asked, and what was answered.
fn exchange(value: &Value, path: &str) -> Result<String, String> {
    match value.as_array().map(Vec::as_slice) {
        Some([asked, answered]) => {
            let asked = json::as_text(asked, &format!("{path}[0]"))?;
            let answered = json::as_text(answered, &format!("{path}[1]"))?;
            Ok(turn("Human", asked) + &turn("Assistant", answered))
        }
        _ => Err(format!("`{path}` must be a list of two texts")),
    }
}
