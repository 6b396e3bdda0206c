//! The formats of rows in public preference files, one function per format.
//!
//! Each row's fields determine its format.
//!
//! | format | fields | gives | seen in |
//! |---|---|---|---|
//! | pair | `prompt`, `chosen`, `rejected` | two answers, the first better | most preference files |
//! | pair, prompt within | `chosen`, `rejected` as lists of messages that begin before the answer, or as dialogues with `\n\nHuman:` and `\n\nAssistant:` | the same; the answer is the last turn, the prompt all before it | anthropics/hh-rlhf |
//! | ranked list | `prompt`, `answers` (texts) and either `rewards` (higher is better) or `ranks` (lower is better), one number per answer | a list | yours |
//! | message tree | `prompt` with `text`, `role`, `replies`; each reply the same, with `rank` (0 is best) | a list at every message that has assistant replies | LAION-AI/Open-Assistant |
//! | solutions | `question` and named objects, each with `solution` and `is_correct` | a list with rewards 1 and 0, which mean right and wrong | openai/grade-school-math |
//! | prompt and completion | `prompt` and `completion`, `question` and `answer`, or `messages` that end with the assistant | one answer | openai/grade-school-math |
//! | unpaired | the same, with `label` | one answer that is right (`true`) or wrong (`false`) | huggingface/trl |
//! | instruction | `instruction` with `instances` of `input` and `output`, or with its own `input` and `output` | one answer per instance | yizhongw/self-instruct |
//!
//! A prompt is a text, or a list of messages `{"role": …, "content": …}`. In both cases it becomes a
//! dialogue that ends in `\n\nAssistant: `, so that all files look the same to the model:
//!
//! ```text
//! \n\nHuman: the prompt\n\nAssistant: the answer
//! ```
//! Blanks around answers are removed.
//!
//! Before an answer, every format except trees and `messages` may have:
//!
//! - `system`, a text, and `history`, a list of `[asked, answered]`: turns before the prompt.
//! - A `prompt` that ends with a turn of the assistant: the answer has begun, and continues that turn
//!   without a second heading; the blanks between them stay.
//! - A `prompt` beside lists or dialogues that hold the whole conversation: they must begin with it.
//!   A system turn in only one of the two is kept.
//!
//! `weight` of a message is 0 or 1. If a turn of the assistant in `messages` or `completion` has
//! one, every turn of the assistant is an answer to everything before it, except turns of weight 0,
//! which are only context. Without weights the last turn is the answer. A pair compares last turns;
//! any other request by a `weight` is an error.
//!
//! Dialogues are split by turns, at the last `\n\nAssistant:`. The longest common beginning of the
//! two texts is not the prompt: answers often begin with the same words.
//!
//! A message of a tree that is `deleted`, or whose `review_result` is false, is left out with everything
//! below it.

use super::dialogue::Dialogue;
use super::fields::{self, Fields};
use super::json::{self, Object};
use super::messages::{last_alone, turns};
use super::taught::{self, Taught, from_text, from_turns};
use super::{Item, Reason, tree};
use serde_json::Value;

/// The result of a row: training data, or a reason why a correct row cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Item(Item),
    LeftOut(Reason),
}

/// The name of a row's format, and its result.
pub type Parsed = (&'static str, Vec<Found>);

/// Finds the format of a row by its fields and reads it. At least the last `keep` bytes of each prompt
/// are kept.
pub fn row(row: &Object, keep: usize) -> Result<Parsed, String> {
    let has = |name| json::field(row, name).is_some();
    let unpaired = match has("label") {
        true => "unpaired",
        false => "prompt and completion",
    };
    if row.contains_key("chosen") || row.contains_key("rejected") {
        Ok(("pair", pair(row)?))
    } else if json::field(row, "prompt").is_some_and(|prompt| prompt.get("replies").is_some()) {
        Ok(("message tree", tree::tree(row, keep)?))
    } else if has("answers") || has("ranks") || has("rewards") {
        Ok(("ranked list", ranked(row)?))
    } else if has("question") && row.values().any(|value| value.get("is_correct").is_some()) {
        Ok(("solutions", solutions(row)?))
    } else if has("instruction") {
        Ok(("instruction", instruction(row, keep)?))
    } else if has("completion") {
        let names = ("prompt", "completion");
        Ok((unpaired, completion(row, &fields::COMPLETION, names, keep)?))
    } else if has("question") {
        let names = ("question", "answer");
        Ok((unpaired, completion(row, &fields::QUESTION, names, keep)?))
    } else if has("messages") {
        Ok((unpaired, messages(row, keep)?))
    } else {
        let names: Vec<String> = row.keys().take(8).map(|name| format!("`{name}`")).collect();
        Err(format!(
            "is of no known format: it needs `chosen` and `rejected`, `prompt` and `answers`, \
             `prompt` and `completion`, `question` and `answer`, `instruction`, or `messages`, and has {}",
            match names.len() {
                0 => "no field".to_string(),
                _ => names.join(", "),
            }
        ))
    }
}

/// `chosen` and `rejected`, with or without `prompt`.
fn pair(row: &Object) -> Result<Vec<Found>, String> {
    fields::PAIR.check(row, "")?;
    let given = Dialogue::of(row, "prompt")?;
    let chosen = side(row, "chosen", given.as_ref())?;
    let rejected = side(row, "rejected", given.as_ref())?;
    if (&chosen.prompt, chosen.begun) != (&rejected.prompt, rejected.begun) {
        return Ok(vec![Found::LeftOut(Reason::PromptsDiffer)]);
    }
    let mut item = taught(chosen, 1.0);
    item.answer(&rejected.answer, 0.0);
    Ok(vec![Found::Item(item)])
}

/// One side of a pair.
fn side(row: &Object, name: &str, given: Option<&Dialogue>) -> Result<Taught, String> {
    match json::required(row, "", name)? {
        // "the answer", or "\n\nHuman: …\n\nAssistant: the answer"
        Value::String(text) => from_text(text, name, given),
        // [{"role": …, "content": …}, …]
        Value::Array(list) => {
            let turns = turns(list, name)?;
            last_alone(&turns, name)?;
            from_turns(&turns, name, given)
        }
        other => Err(format!(
            "`{name}` must be a text or a list of messages, found {}",
            json::kind(other)
        )),
    }
}

/// A prompt with one answer.
fn taught(taught: Taught, reward: f64) -> Item {
    let mut item = waiting(&taught);
    item.answer(&taught.answer, reward);
    item
}

/// A prompt without an answer yet.
fn waiting(taught: &Taught) -> Item {
    let mut item = Item::new(taught.prompt.clone(), Vec::new());
    item.begun = taught.begun;
    item
}

/// `prompt`, `answers` and `rewards` or `ranks`.
fn ranked(row: &Object) -> Result<Vec<Found>, String> {
    fields::RANKED.check(row, "")?;
    let prompt = Dialogue::required(row, "prompt")?;
    let texts = json::list(row, "", "answers")?;
    let (name, sign) = match (json::field(row, "rewards"), json::field(row, "ranks")) {
        (Some(_), None) => ("rewards", 1.0),
        (None, Some(_)) => ("ranks", -1.0),
        (None, None) => return Err("`rewards` or `ranks` is missing".to_string()),
        (Some(_), Some(_)) => {
            return Err("`rewards` and `ranks` are both given: which holds?".to_string());
        }
    };
    let numbers = json::list(row, "", name)?;
    if numbers.len() != texts.len() {
        let (n, k) = (numbers.len(), texts.len());
        return Err(format!("`{name}` has {n} entries, `answers` has {k}"));
    }
    let mut item = waiting(&prompt.answered(""));
    for (i, (text, number)) in texts.iter().zip(numbers).enumerate() {
        let text = json::as_text(text, &format!("answers[{i}]"))?;
        let path = format!("{name}[{i}]");
        let reward = sign * json::as_reward(number, &path)?;
        item.answer(text, reward);
    }
    Ok(vec![Found::Item(item)])
}

/// `question` and named solutions, each correct or not.
fn solutions(row: &Object) -> Result<Vec<Found>, String> {
    let known = &fields::SOLUTIONS;
    let mut item = waiting(&Dialogue::required(row, "question")?.answered(""));
    item.judged = true;
    for (name, value) in row {
        let solution = match value {
            _ if known.read.contains(&name.as_str()) || known.means_nothing(name, "") => continue,
            _ if fields::says_nothing(value) => continue,
            Value::Object(solution) => solution,
            _ => return Err(known.unknown(name, "")),
        };
        let path = format!("{name}.");
        fields::SOLUTION.check(solution, &path)?;
        let text = json::text(solution, &path, "solution")?;
        let correct = json::required(solution, &path, "is_correct")?;
        let correct = json::as_bool(correct, &format!("{path}is_correct"))?;
        item.answer(text, f64::from(u8::from(correct)));
    }
    Ok(vec![Found::Item(item)])
}

/// One prompt, one answer, by the names of their fields.
fn completion(
    row: &Object,
    known: &Fields,
    (from, to): (&str, &str),
    keep: usize,
) -> Result<Vec<Found>, String> {
    known.check(row, "")?;
    let given = Dialogue::required(row, from)?;
    let taught = match json::required(row, "", to)? {
        Value::Array(list) => taught::answers(&turns(list, to)?, to, Some(&given), keep)?,
        _ => vec![from_text(json::text(row, "", to)?, to, Some(&given))?],
    };
    found(row, taught)
}

/// A conversation that ends with the assistant.
fn messages(row: &Object, keep: usize) -> Result<Vec<Found>, String> {
    fields::MESSAGES.check(row, "")?;
    let turns = turns(json::list(row, "", "messages")?, "messages")?;
    let answers = taught::answers(&turns, "messages", None, keep)?;
    found(row, answers)
}

/// One item for each answer of a conversation, right or wrong by the row's `label`.
fn found(row: &Object, answers: Vec<Taught>) -> Result<Vec<Found>, String> {
    if answers.is_empty() {
        return Ok(vec![Found::LeftOut(Reason::NoWeight)]);
    }
    let label = json::field(row, "label").map(|label| json::as_bool(label, "label"));
    let label = label.transpose()?;
    let mut items: Vec<Item> = answers
        .into_iter()
        .map(|answer| taught(answer, f64::from(u8::from(label.unwrap_or(true)))))
        .collect();
    let group = items[0].group;
    for item in &mut items {
        (item.group, item.judged) = (group, label.is_some());
    }
    Ok(items.into_iter().map(Found::Item).collect())
}

/// `instruction` and what to apply it to.
fn instruction(row: &Object, keep: usize) -> Result<Vec<Found>, String> {
    fields::INSTRUCTION.check(row, "")?;
    json::text(row, "", "instruction")?;
    let mut asked = Dialogue::required(row, "instruction")?;
    let group = super::group(&asked.text);
    // each instance copies it
    asked.text = super::last_bytes(&asked.text, keep).to_string();
    let one = |object: &Object, path: &str| {
        let input = match json::field(object, "input") {
            Some(_) => json::text(object, path, "input")?.trim(),
            None => "",
        };
        let output = json::text(object, path, "output")?;
        let mut item = match input {
            "" => taught(asked.answered(output), 1.0),
            input => taught(asked.asking(input)?.answered(output), 1.0),
        };
        item.group = group;
        Ok(Found::Item(item))
    };
    if json::field(row, "instances").is_none() {
        return Ok(vec![one(row, "")?]);
    }
    let own = |name: &&&str| row.get(**name).is_some_and(|v| !fields::says_nothing(v));
    if let Some(own) = ["input", "output"].iter().find(own) {
        return Err(format!(
            "`instances` and `{own}` are both given: which holds?"
        ));
    }
    let instances = json::list(row, "", "instances")?.iter().enumerate();
    instances
        .map(|(i, instance)| {
            let path = format!("instances[{i}]");
            let (instance, path) = (json::as_object(instance, &path)?, format!("{path}."));
            fields::INSTANCE.check(instance, &path)?;
            one(instance, &path)
        })
        .collect()
}
