//! What rows look like in public preference files, one function per format.
//!
//! A row's format is told by its fields, row by row; fields that a format does not name are not read.
//!
//! | format | fields | gives | seen in |
//! |---|---|---|---|
//! | pair | `prompt`, `chosen`, `rejected` | two answers, the first better | most preference files |
//! | pair, prompt within | `chosen`, `rejected` as lists of messages that begin before the answer, or as dialogues with `\n\nHuman:` and `\n\nAssistant:` | the same; the answer is the last turn, the prompt all before it | anthropics/hh-rlhf |
//! | ranked list | `prompt`, `answers` (texts) and either `rewards` (higher is better) or `ranks` (lower is better), one number per answer | a list | yours |
//! | message tree | `prompt` with `text`, `role`, `replies`; each reply the same, with `rank` (0 is best) | a list at every message that has assistant replies | LAION-AI/Open-Assistant |
//! | solutions | `question` and named objects, each with `solution` and `is_correct` | a list with rewards 1 and 0, which mean right and wrong | openai/grade-school-math |
//! | prompt and completion | `prompt` and `completion`, `question` and `answer`, or `messages` that end with the assistant | one answer | openai/grade-school-math |
//! | instruction | `instruction` with `instances` of `input` and `output`, or with its own `input` and `output` | one answer per instance | yizhongw/self-instruct |
//!
//! A prompt is a text, or a list of messages `{"role": …, "content": …}`. Whatever it was, it
//! becomes a dialogue that ends in `\n\nAssistant: `, so that every file looks alike to the model:
//!
//! ```text
//! \n\nHuman: the prompt\n\nAssistant: the answer
//! ```
//! Answers are taken without the blanks around them.
//!
//! Dialogues are split by turns, at the last `\n\nAssistant:`. The longest common beginning of the
//! two texts is not the prompt: answers often begin with the same words.

use super::json::{self, Object};
use super::{Answer, Item, Reason};
use serde_json::Value;

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";
/// What every prompt ends with.
pub const OPENING: &str = "\n\nAssistant: ";

/// What a row gave: something to learn from, or something that is no mistake of the file but cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Item(Item),
    LeftOut(Reason),
}

/// The name of a row's format, and what it gave.
pub type Parsed = (&'static str, Vec<Found>);

/// Tells the format of a row by its fields and reads it.
pub fn row(row: &Object) -> Result<Parsed, String> {
    let has = |name| json::field(row, name).is_some();
    if row.contains_key("chosen") || row.contains_key("rejected") {
        Ok(("pair", pair(row)?))
    } else if json::field(row, "prompt").is_some_and(|prompt| prompt.get("replies").is_some()) {
        Ok(("message tree", tree(row)?))
    } else if has("answers") || has("ranks") || has("rewards") {
        Ok(("ranked list", ranked(row)?))
    } else if row.values().any(|value| value.get("is_correct").is_some()) {
        Ok(("solutions", solutions(row)?))
    } else if has("instruction") {
        Ok(("instruction", instruction(row)?))
    } else if has("completion") {
        Ok((
            "prompt and completion",
            completion(row, "prompt", "completion")?,
        ))
    } else if has("question") {
        Ok((
            "prompt and completion",
            completion(row, "question", "answer")?,
        ))
    } else if has("messages") {
        Ok(("prompt and completion", messages(row)?))
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
    let given = json::field(row, "prompt");
    let given = given.map(|value| prompt(value, "prompt")).transpose()?;
    let chosen = side(row, "chosen", given.as_deref())?;
    let rejected = side(row, "rejected", given.as_deref())?;
    if chosen.0 != rejected.0 {
        return Ok(vec![Found::LeftOut(Reason::PromptsDiffer)]);
    }
    let answers = vec![Answer::new(&chosen.1, 1.0), Answer::new(&rejected.1, 0.0)];
    Ok(vec![Found::Item(Item::new(chosen.0, answers))])
}

/// One side of a pair as (prompt, answer).
fn side(row: &Object, name: &str, given: Option<&str>) -> Result<(String, String), String> {
    let value = json::required(row, "", name)?;
    match (value, given) {
        // {"prompt": …, "chosen": "the answer"}
        (Value::String(answer), Some(prompt)) => Ok((prompt.to_string(), answer.clone())),
        // {"chosen": "\n\nHuman: …\n\nAssistant: the answer"}
        (Value::String(dialogue), None) => split(dialogue, name),
        // {"chosen": [{"role": …, "content": …}, …]}
        (Value::Array(list), _) => conversation(list, name, given),
        (other, _) => Err(format!(
            "`{name}` must be a text or a list of messages, found {}",
            json::kind(other)
        )),
    }
}

/// A dialogue's text as (prompt, answer): at its last assistant turn.
fn split(dialogue: &str, name: &str) -> Result<(String, String), String> {
    let (before, answer) = dialogue.rsplit_once(ASSISTANT).ok_or_else(|| {
        format!("`{name}` holds no turn `\\n\\nAssistant:`, and the row has no `prompt`")
    })?;
    if answer.contains(HUMAN) {
        return Err(format!(
            "`{name}` does not end with a turn `\\n\\nAssistant:`"
        ));
    }
    Ok((format!("{before}{ASSISTANT} "), answer.to_string()))
}

/// A list of messages as (prompt, answer). One that begins with the assistant continues `given`;
/// any other is a whole conversation, and holds its prompt itself.
fn conversation(
    list: &[Value],
    name: &str,
    given: Option<&str>,
) -> Result<(String, String), String> {
    let mut turns = turns(list, name)?;
    let starts_with_answer = turns.first().is_some_and(|turn| turn.role == "Assistant");
    let answer = match turns.pop() {
        Some(turn) if turn.role == "Assistant" => turn.content,
        Some(_) => return Err(format!("`{name}` must end with a message of the assistant")),
        None => return Err(format!("`{name}` is an empty list")),
    };
    let before = match (given, starts_with_answer) {
        (Some(given), true) => given.trim_end_matches(&format!("{ASSISTANT} ")).to_string(),
        _ => String::new(),
    };
    let prompt = before + &render(&turns);
    Ok((format!("{prompt}{ASSISTANT} "), answer.to_string()))
}

/// `prompt`, `answers` and `rewards` or `ranks`.
fn ranked(row: &Object) -> Result<Vec<Found>, String> {
    let prompt = prompt(json::required(row, "", "prompt")?, "prompt")?;
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
    let mut answers = Vec::new();
    for (i, (text, number)) in texts.iter().zip(numbers).enumerate() {
        let found = || format!("`answers[{i}]` must be a text, found {}", json::kind(text));
        let text = text.as_str().ok_or_else(found)?;
        let path = format!("{name}[{i}]");
        let number = json::as_number(number, &path)?;
        if !(number as f32).is_finite() {
            return Err(format!("`{path}` is {number:e}, too large for a reward"));
        }
        answers.push(Answer::new(text, sign * number));
    }
    Ok(vec![Found::Item(Item::new(prompt, answers))])
}

/// A tree of messages: every message with assistant replies is a prompt.
fn tree(row: &Object) -> Result<Vec<Found>, String> {
    let root = json::as_object(json::required(row, "", "prompt")?, "prompt")?;
    let group = json::text(root, "prompt.", "text")?.trim().to_string();
    let mut found = Vec::new();
    walk(root, "prompt", "", &group, &mut found)?;
    Ok(found)
}

/// Adds what `message` and all below it give; `before` is the dialogue that led to it.
fn walk(
    message: &Object,
    path: &str,
    before: &str,
    group: &str,
    found: &mut Vec<Found>,
) -> Result<(), String> {
    let here = format!("{path}.");
    let turn = Turn {
        role: role(json::text(message, &here, "role")?, &format!("{here}role"))?,
        content: json::text(message, &here, "text")?,
    };
    let dialogue = before.to_string() + &render(&[turn]);
    let mut answers = Vec::new();
    for (i, reply) in json::list(message, &here, "replies")?.iter().enumerate() {
        let path = format!("{path}.replies[{i}]");
        let reply = json::as_object(reply, &path)?;
        if reply.get("deleted") == Some(&Value::Bool(true)) {
            found.push(Found::LeftOut(Reason::Deleted));
            continue;
        }
        walk(reply, &path, &dialogue, group, found)?;
        if role(json::text(reply, &format!("{path}."), "role")?, &path)? == "Assistant" {
            let rank = json::field(reply, "rank");
            let rank = rank.map(|rank| json::as_number(rank, &format!("{path}.rank")));
            answers.push((json::text(reply, &path, "text")?, rank.transpose()?));
        }
    }
    // a lone reply needs no rank; among several, one without a rank cannot be compared
    let lone = answers.len() == 1;
    let unranked = |answer: &&(&str, Option<f64>)| answer.1.is_none() && !lone;
    let missing = answers.iter().filter(unranked).count();
    found.extend((0..missing).map(|_| Found::LeftOut(Reason::NoRank)));
    let answers: Vec<Answer> = answers
        .iter()
        .filter(|answer| !unranked(answer))
        .map(|(text, rank)| Answer::new(text, -rank.unwrap_or(0.0)))
        .collect();
    if !answers.is_empty() {
        let mut item = Item::new(format!("{dialogue}{ASSISTANT} "), answers);
        item.group = group.to_string();
        found.push(Found::Item(item));
    }
    Ok(())
}

/// `question` and named solutions, each correct or not.
fn solutions(row: &Object) -> Result<Vec<Found>, String> {
    let question = prompt(json::required(row, "", "question")?, "question")?;
    let mut answers = Vec::new();
    for (name, value) in row {
        let Value::Object(solution) = value else {
            continue;
        };
        let path = format!("{name}.");
        let text = json::text(solution, &path, "solution")?;
        let correct = json::required(solution, &path, "is_correct")?;
        let correct = correct.as_bool().ok_or_else(|| {
            let kind = json::kind(correct);
            format!("`{name}.is_correct` must be true or false, found {kind}")
        })?;
        answers.push(Answer::new(text, f64::from(u8::from(correct))));
    }
    let mut item = Item::new(question, answers);
    item.judged = true;
    Ok(vec![Found::Item(item)])
}

/// One prompt, one answer, by the names of their fields.
fn completion(row: &Object, from: &str, to: &str) -> Result<Vec<Found>, String> {
    let prompt = prompt(json::required(row, "", from)?, from)?;
    let (prompt, answer) = match json::required(row, "", to)? {
        Value::Array(list) => conversation(list, to, Some(&prompt))?,
        _ => (prompt, json::text(row, "", to)?.to_string()),
    };
    let answers = vec![Answer::new(&answer, 1.0)];
    Ok(vec![Found::Item(Item::new(prompt, answers))])
}

/// A conversation that ends with the assistant.
fn messages(row: &Object) -> Result<Vec<Found>, String> {
    let (prompt, answer) = conversation(json::list(row, "", "messages")?, "messages", None)?;
    let answers = vec![Answer::new(&answer, 1.0)];
    Ok(vec![Found::Item(Item::new(prompt, answers))])
}

/// `instruction` and what to apply it to.
fn instruction(row: &Object) -> Result<Vec<Found>, String> {
    let instruction = json::text(row, "", "instruction")?;
    let one = |object: &Object, path: &str| {
        let input = match json::field(object, "input") {
            Some(_) => json::text(object, path, "input")?.trim(),
            None => "",
        };
        let task = match input {
            "" => instruction.to_string(),
            input => format!("{}\n\n{input}", instruction.trim()),
        };
        let answers = vec![Answer::new(json::text(object, path, "output")?, 1.0)];
        let mut item = Item::new(from_text(&task), answers);
        item.group = instruction.to_string();
        Ok(Found::Item(item))
    };
    if json::field(row, "instances").is_none() {
        return Ok(vec![one(row, "")?]);
    }
    let instances = json::list(row, "", "instances")?.iter().enumerate();
    instances
        .map(|(i, instance)| {
            let path = format!("instances[{i}]");
            one(json::as_object(instance, &path)?, &format!("{path}."))
        })
        .collect()
}

/// A prompt, whichever way it is given, as a dialogue that waits for the assistant.
fn prompt(value: &Value, path: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(from_text(text)),
        Value::Array(list) => Ok(render(&turns(list, path)?) + ASSISTANT + " "),
        other => Err(format!(
            "`{path}` must be a text or a list of messages, found {}",
            json::kind(other)
        )),
    }
}

/// A text that is a dialogue already keeps its turns; any other is what the human said.
fn from_text(text: &str) -> String {
    let dialogue = if text.starts_with(HUMAN) {
        text.trim_end().to_string()
    } else {
        format!("{HUMAN} {}", text.trim())
    };
    if dialogue.ends_with(ASSISTANT) {
        dialogue + " "
    } else {
        dialogue + ASSISTANT + " "
    }
}

/// One turn of a dialogue.
struct Turn<'a> {
    role: &'static str,
    content: &'a str,
}

fn turns<'a>(list: &'a [Value], path: &str) -> Result<Vec<Turn<'a>>, String> {
    let turn = |(i, message): (usize, &'a Value)| {
        let path = format!("{path}[{i}]");
        let message = json::as_object(message, &path)?;
        let path = format!("{path}.");
        Ok(Turn {
            role: role(json::text(message, &path, "role")?, &format!("{path}role"))?,
            content: json::text(message, &path, "content")?,
        })
    };
    list.iter().enumerate().map(turn).collect()
}

fn role(name: &str, path: &str) -> Result<&'static str, String> {
    match name {
        "user" | "human" | "prompter" => Ok("Human"),
        "assistant" => Ok("Assistant"),
        "system" => Ok("System"),
        other => Err(format!(
            "`{path}` must be `user`, `human`, `prompter`, `assistant` or `system`, found `{other}`"
        )),
    }
}

fn render(turns: &[Turn]) -> String {
    let one = |turn: &Turn| format!("\n\n{}: {}", turn.role, turn.content.trim());
    turns.iter().map(one).collect()
}
