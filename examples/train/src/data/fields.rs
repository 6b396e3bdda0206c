//! Which fields are read, which are ignored, and how all others are refused.

use super::json::Object;
use serde_json::Value;
use std::collections::BTreeMap;

/// The allowed fields of an object in a row.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// What it is, for messages.
    pub of: &'static str,
    /// Read: a different value changes the training data or is an error.
    pub read: &'static [&'static str],
    /// Known and not needed: ids, sources and scores that the format defines.
    pub nothing: &'static [&'static str],
}

/// Of every row: where it came from.
pub const ORIGIN: &[&str] = &["id", "prompt_id", "source", "dataset"];

pub const PAIR: Fields = Fields {
    of: "a pair",
    read: &["prompt", "chosen", "rejected", "system", "history"],
    // the names say which answer is better
    nothing: &["score", "score_chosen", "score_rejected"],
};

pub const RANKED: Fields = Fields {
    of: "a ranked list",
    read: &["prompt", "answers", "rewards", "ranks", "system", "history"],
    nothing: &[],
};

pub const TREE: Fields = Fields {
    of: "a message tree",
    read: &["prompt"],
    nothing: &["message_tree_id", "tree_state"],
};

pub const REPLY: Fields = Fields {
    of: "a message of a tree",
    read: &[
        "text",
        "role",
        "replies",
        "rank",
        "deleted",
        "review_result",
    ],
    nothing: &[
        "message_id",
        "parent_id",
        "message_tree_id",
        "user_id",
        "created_date",
        "lang",
        "review_count",
        "synthetic",
        "model_name",
        "emojis",
        "labels",
        "detoxify",
    ],
};

/// Beside these, every field of such a row is a [`SOLUTION`].
pub const SOLUTIONS: Fields = Fields {
    of: "solutions",
    read: &["question", "system", "history"],
    // what `is_correct` was judged by
    nothing: &["ground_truth"],
};

pub const SOLUTION: Fields = Fields {
    of: "a solution",
    read: &["solution", "is_correct"],
    nothing: &[],
};

pub const COMPLETION: Fields = Fields {
    of: "prompt and completion",
    read: &["prompt", "completion", "label", "system", "history"],
    nothing: &[],
};

pub const QUESTION: Fields = Fields {
    of: "question and answer",
    read: &["question", "answer", "label", "system", "history"],
    nothing: &[],
};

pub const MESSAGES: Fields = Fields {
    of: "messages",
    read: &["messages", "label"],
    nothing: &[],
};

pub const MESSAGE: Fields = Fields {
    of: "a message",
    read: &["role", "content", "weight"],
    nothing: &[],
};

pub const INSTRUCTION: Fields = Fields {
    of: "an instruction",
    read: &[
        "instruction",
        "instances",
        "input",
        "output",
        "system",
        "history",
    ],
    nothing: &["name", "is_classification"],
};

pub const INSTANCE: Fields = Fields {
    of: "an instance",
    read: &["input", "output"],
    nothing: &[],
};

impl Fields {
    /// An error if the object has a field that is neither read nor known.
    pub fn check(&self, object: &Object, path: &str) -> Result<(), String> {
        let known = |name: &str| self.read.contains(&name) || self.means_nothing(name, path);
        let unknown = |(name, value): &(&String, &Value)| !says_nothing(value) && !known(name);
        match object.iter().find(unknown) {
            None => Ok(()),
            Some((name, _)) => Err(self.unknown(name, path)),
        }
    }

    /// The message about an unknown field.
    pub fn unknown(&self, name: &str, path: &str) -> String {
        format!(
            "`{path}{name}` is not read in {}, and without it the row might teach something else; \
             if it means nothing here, say --ignore-field {name}",
            self.of
        )
    }

    /// Whether a field is on the list of ignored ones; `path` leads to its object and is empty for a row.
    pub fn means_nothing(&self, name: &str, path: &str) -> bool {
        self.nothing.contains(&name) || path.is_empty() && ORIGIN.contains(&name)
    }
}

/// Null and empty values count as missing.
pub fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Removes the named fields, at any depth, and counts them.
pub fn ignore(object: &mut Object, names: &[String], counts: &mut BTreeMap<String, usize>) {
    for name in names {
        if object
            .remove(name)
            .is_some_and(|value| !says_nothing(&value))
        {
            *counts.entry(name.clone()).or_default() += 1;
        }
    }
    for (_, value) in object.iter_mut() {
        within(value, names, counts);
    }
}

fn within(value: &mut Value, names: &[String], counts: &mut BTreeMap<String, usize>) {
    match value {
        Value::Object(object) => ignore(object, names, counts),
        Value::Array(list) => {
            for value in list {
                within(value, names, counts);
            }
        }
        _ => {}
    }
}
