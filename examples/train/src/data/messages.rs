//! Lists of messages: turns, and which of them the loss covers.

use super::fields::MESSAGE;
use super::json::{self, Object};
use serde_json::Value;

/// One turn of a dialogue.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    pub role: &'static str,
    pub content: &'a str,
    /// Whether the row says that the loss covers it, or that it does not.
    pub weight: Option<bool>,
}

/// The turns of a list of messages.
pub fn turns<'a>(list: &'a [Value], path: &str) -> Result<Vec<Turn<'a>>, String> {
    let turn = |(i, message): (usize, &'a Value)| {
        let path = format!("{path}[{i}]");
        let message = json::as_object(message, &path)?;
        let path = format!("{path}.");
        MESSAGE.check(message, &path)?;
        let turn = Turn {
            role: role(json::text(message, &path, "role")?, &format!("{path}role"))?,
            content: json::text(message, &path, "content")?,
            weight: weight(message, &path)?,
        };
        match turn.weight == Some(true) && turn.role != "Assistant" {
            true => Err(format!(
                "`{path}weight` is 1, and only turns of the assistant are learned"
            )),
            false => Ok(turn),
        }
    };
    list.iter().enumerate().map(turn).collect()
}

fn weight(message: &Object, path: &str) -> Result<Option<bool>, String> {
    let Some(value) = json::field(message, "weight") else {
        return Ok(None);
    };
    match json::as_number(value, &format!("{path}weight"))? {
        0.0 => Ok(Some(false)),
        1.0 => Ok(Some(true)),
        other => Err(format!("`{path}weight` must be 0 or 1, found {other}")),
    }
}

/// The heading that a role has here.
pub fn role(name: &str, path: &str) -> Result<&'static str, String> {
    match name {
        "user" | "human" | "prompter" => Ok("Human"),
        "assistant" => Ok("Assistant"),
        "system" => Ok("System"),
        other => Err(format!(
            "`{path}` must be `user`, `human`, `prompter`, `assistant` or `system`, found `{other}`"
        )),
    }
}

/// Turns as a text.
pub fn render(turns: &[Turn]) -> String {
    let one = |of: &Turn| turn(of.role, of.content);
    turns.iter().map(one).collect()
}

/// One turn as a text.
pub fn turn(role: &str, content: &str) -> String {
    format!("\n\n{role}: {}", content.trim())
}

/// The turns of a conversation that the loss covers: the last one, or, if a turn of the assistant has a
/// `weight`, all turns of the assistant except those of weight 0.
pub fn learned(turns: &[Turn], name: &str) -> Result<Vec<usize>, String> {
    ended(turns, name)?;
    let answers = || {
        turns
            .iter()
            .enumerate()
            .filter(|(_, turn)| turn.role == "Assistant")
    };
    Ok(match answers().any(|(_, turn)| turn.weight.is_some()) {
        true => answers()
            .filter(|(_, turn)| turn.weight != Some(false))
            .map(|(i, _)| i)
            .collect(),
        false => vec![turns.len() - 1],
    })
}

/// An error if a side of a pair asks the loss to cover anything except its last turn.
pub fn last_alone(turns: &[Turn], name: &str) -> Result<(), String> {
    let (_, before) = ended(turns, name)?;
    let last = before.len();
    if turns[last].weight == Some(false) {
        return Err(format!(
            "`{name}[{last}].weight` is 0, and this turn is what a pair compares"
        ));
    }
    match before.iter().position(|turn| turn.weight == Some(true)) {
        None => Ok(()),
        Some(i) => Err(format!(
            "`{name}[{i}].weight` is 1, and the last turn alone is what a pair compares"
        )),
    }
}

/// The last turn, which must be the assistant's, and those before it.
pub fn ended<'a, 'b>(
    turns: &'b [Turn<'a>],
    name: &str,
) -> Result<(&'b Turn<'a>, &'b [Turn<'a>]), String> {
    match turns.split_last() {
        None => Err(format!("`{name}` is an empty list")),
        Some((last, _)) if last.role != "Assistant" => {
            Err(format!("`{name}` must end with a message of the assistant"))
        }
        Some(parts) => Ok(parts),
    }
}
