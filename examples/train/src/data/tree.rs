//! Trees of messages.

use super::dialogue::OPENING;
use super::formats::Found;
use super::json::{self, Object};
use super::messages::{role, turn};
use super::{Answer, Item, Reason, fields, last_bytes};
use serde_json::Value;

/// A tree of messages: every message with assistant replies is a prompt.
pub fn tree(row: &Object, keep: usize) -> Result<Vec<Found>, String> {
    fields::TREE.check(row, "")?;
    let root = json::as_object(json::required(row, "", "prompt")?, "prompt")?;
    let mut walk = Walk {
        keep,
        group: super::group(json::text(root, "prompt.", "text")?.trim()),
        found: Vec::new(),
    };
    match gone(root, "prompt.")? {
        Some(reason) => walk.found.push(Found::LeftOut(reason)),
        None => walk.message(root, "prompt", "")?,
    }
    Ok(walk.found)
}

/// The reason why a message is left out with everything below it, if it is.
fn gone(message: &Object, path: &str) -> Result<Option<Reason>, String> {
    let says = |name: &str, what: bool| -> Result<bool, String> {
        match json::field(message, name) {
            None => Ok(false),
            Some(value) => Ok(json::as_bool(value, &format!("{path}{name}"))? == what),
        }
    };
    Ok(
        match (says("deleted", true)?, says("review_result", false)?) {
            (true, _) => Some(Reason::Deleted),
            (_, true) => Some(Reason::Rejected),
            _ => None,
        },
    )
}

struct Walk {
    keep: usize,
    group: u64,
    found: Vec<Found>,
}

impl Walk {
    /// Adds the items of `message` and everything below it; `before` is the dialogue up to it.
    fn message(&mut self, message: &Object, path: &str, before: &str) -> Result<(), String> {
        let here = format!("{path}.");
        fields::REPLY.check(message, &here)?;
        let role = role(json::text(message, &here, "role")?, &format!("{here}role"))?;
        let said = turn(role, json::text(message, &here, "text")?);
        let dialogue = before.to_string() + &said;
        // a prompt is cut anyway, and each of many replies copies it
        let dialogue = last_bytes(&dialogue, self.keep);
        if let Some(rank) = json::field(message, "rank") {
            json::as_reward(rank, &format!("{here}rank"))?;
        }
        // text and rank of each answer
        let mut answers: Vec<(&str, Option<f64>)> = Vec::new();
        for (i, reply) in json::list(message, &here, "replies")?.iter().enumerate() {
            let path = format!("{path}.replies[{i}]");
            let reply = json::as_object(reply, &path)?;
            let at = format!("{path}.");
            if let Some(reason) = gone(reply, &at)? {
                self.found.push(Found::LeftOut(reason));
                continue;
            }
            self.message(reply, &path, dialogue)?;
            if json::text(reply, &at, "role")? == "assistant" {
                let rank = json::field(reply, "rank").and_then(Value::as_f64);
                answers.push((json::text(reply, &at, "text")?, rank));
            }
        }
        // a lone reply needs no rank; among several, one without a rank cannot be compared
        let lone = answers.len() == 1;
        let known = answers.len();
        answers.retain(|(_, rank)| rank.is_some() || lone);
        for _ in answers.len()..known {
            self.found.push(Found::LeftOut(Reason::NoRank));
        }
        if !answers.is_empty() {
            let answers = answers.iter();
            let answers = answers.map(|(text, rank)| Answer::new(text, -rank.unwrap_or(0.0)));
            let mut item = Item::new(format!("{dialogue}{OPENING}"), answers.collect());
            item.group = self.group;
            self.found.push(Found::Item(item));
        } else if role != "Assistant" && known == 0 {
            self.found.push(Found::LeftOut(Reason::NoAnswer));
        }
        Ok(())
    }
}
