//! An answer and everything before it, from a text, from turns, or from a whole conversation.

use super::dialogue::{ASSISTANT, Dialogue, HUMAN, OPENING, is_dialogue};
use super::last_bytes;
use super::messages::{Turn, ended, learned, render};

/// An answer and everything before it.
#[derive(Clone, Debug)]
pub struct Taught {
    pub prompt: String,
    /// Whether the prompt ends within the assistant's turn, which the answer continues.
    pub begun: bool,
    pub answer: String,
}

impl Taught {
    pub(super) fn new(before: &str, answer: &str) -> Self {
        Self {
            prompt: format!("{before}{OPENING}"),
            begun: false,
            answer: answer.trim().to_string(),
        }
    }

    pub(super) fn continued(prompt: &str, answer: &str) -> Self {
        Self {
            prompt: prompt.to_string(),
            begun: true,
            answer: answer.to_string(),
        }
    }
}

/// An answer that is given as a text: alone, after `given`, or as the last turn of a dialogue.
pub fn from_text(text: &str, name: &str, given: Option<&Dialogue>) -> Result<Taught, String> {
    if let Some(given) = given
        && !is_dialogue(text)
    {
        return Ok(given.answered(text));
    }
    let (before, answer) = text.rsplit_once(ASSISTANT).ok_or_else(|| match given {
        Some(_) => format!("`{name}` does not end with a turn `\\n\\nAssistant:`"),
        None => format!("`{name}` holds no turn `\\n\\nAssistant:`, and the row has no `prompt`"),
    })?;
    if answer.contains(HUMAN) {
        return Err(format!(
            "`{name}` does not end with a turn `\\n\\nAssistant:`"
        ));
    }
    match (whole(before, answer, name, given)?, given) {
        (Some(taught), _) => Ok(taught),
        // the heading of the answer alone
        (None, Some(given)) if before.trim().is_empty() => Ok(given.answered(answer)),
        _ => Err(contradiction(name, given)),
    }
}

/// The last of these turns as an answer. The turns repeat `given`, or begin after it with the
/// assistant.
pub fn from_turns(turns: &[Turn], name: &str, given: Option<&Dialogue>) -> Result<Taught, String> {
    let (last, before) = ended(turns, name)?;
    let (own, answer) = (render(before), last.content);
    if let Some(taught) = whole(&own, answer, name, given)? {
        return Ok(taught);
    }
    match (given, before.split_first()) {
        // nothing but the answer
        (Some(given), None) => Ok(given.answered(answer)),
        (Some(given), Some((first, rest))) if first.role == "Assistant" => {
            let begun = match given.begun {
                true => given.text.clone() + first.content.trim_end(),
                false => given.text.clone() + &render(&[*first]),
            };
            Ok(Taught::new(&(begun + &render(rest)), answer))
        }
        _ => Err(contradiction(name, given)),
    }
}

/// The answers of a conversation, each to everything before it, of which at least the last `keep` bytes
/// are kept.
pub fn answers(
    turns: &[Turn],
    name: &str,
    given: Option<&Dialogue>,
    keep: usize,
) -> Result<Vec<Taught>, String> {
    let mut found: Vec<Taught> = Vec::new();
    let mut from = 0;
    for i in learned(turns, name)? {
        let taught = match found.last() {
            None => from_turns(&turns[..=i], name, given)?,
            Some(last) => {
                let so_far = format!("{}{}", last.prompt, last.answer.trim_end());
                let before = so_far + &render(&turns[from..i]);
                Taught::new(last_bytes(&before, keep), turns[i].content)
            }
        };
        found.push(taught);
        from = i + 1;
    }
    Ok(found)
}

fn contradiction(name: &str, given: Option<&Dialogue>) -> String {
    let names = given.map_or("", |given| &given.names);
    format!("`{name}` does not begin with {names}: which holds?")
}

/// An answer to a whole dialogue, if that begins with what is `given`.
fn whole(
    before: &str,
    answer: &str,
    name: &str,
    given: Option<&Dialogue>,
) -> Result<Option<Taught>, String> {
    let Some(given) = given else {
        return match before.trim().is_empty() {
            true => Err(format!(
                "`{name}` holds nothing before the answer, and the row has no `prompt`"
            )),
            false => Ok(Some(Taught::new(before, answer))),
        };
    };
    if let Some((before, _)) = given.begins(before, false) {
        return Ok(Some(Taught::new(&before, answer)));
    }
    if given.begun {
        let all = format!("{before}{OPENING}{}", answer.trim_start());
        if let Some((all, end)) = given.begins(&all, true) {
            return Ok(Some(Taught::continued(&all[..end], &all[end..])));
        }
    }
    Ok(None)
}
