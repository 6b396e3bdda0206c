//! One row: its fields, checked.

use super::super::super::data::fields::{self, Fields};
use super::super::super::data::json::{self, Object};
use super::Settings;
use minijinja::{Value, value::ValueKind};
use std::collections::BTreeMap;

const OF_CHATS: [&str; 2] = ["tools", "chat_template_kwargs"];

/// The forms of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Completion,
    Messages,
    Text,
    Ids,
    /// With a prompt, or without one.
    Pair(bool),
    PairIds,
    /// The same pair with a gold answer.
    Triple(bool),
    /// The same pair with a reward for each answer.
    Scored(bool),
    /// One answer, desirable or not.
    Labeled,
}

/// One row of a file.
#[derive(Debug)]
pub struct Record {
    pub line: usize,
    pub object: Object,
    /// The same; its objects keep their order, which a template may write.
    ordered: Value,
}

/// A text, or a list of messages.
#[derive(Clone, Debug)]
pub enum Part {
    Text(String),
    Messages(Vec<Value>),
}

impl Part {
    pub fn is_chat(&self) -> bool {
        matches!(self, Part::Messages(_))
    }
}

impl Record {
    pub fn parse(
        line: usize,
        bytes: &[u8],
        settings: &Settings,
        ignored: &mut BTreeMap<String, usize>,
    ) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| format!("is not valid UTF-8 after byte {}", error.valid_up_to()))?;
        let mut object = json::object(text)?;
        let ordered: Value =
            serde_json::from_str(text).map_err(|error| format!("is not valid JSON: {error}"))?;
        fields::ignore(&mut object, &settings.ignored_fields, ignored);
        let ordered = without(&ordered, &settings.ignored_fields);
        Ok(Self {
            line,
            object,
            ordered,
        })
    }

    pub fn has(&self, name: &str) -> bool {
        json::field(&self.object, name).is_some()
    }

    /// An error if the row has a field that is not read in such a row.
    pub fn check(&self, of: &'static str, read: &[&str], chat: bool) -> Result<(), String> {
        let more = if chat { &OF_CHATS[..] } else { &[] };
        let read: Vec<&str> = read.iter().chain(more).copied().collect();
        let fields = Fields {
            of,
            read: &[],
            nothing: &["score", "score_chosen", "score_rejected"],
        };
        let unknown = self.object.iter().find(|(name, value)| {
            !read.contains(&name.as_str())
                && !fields.means_nothing(name, "")
                && !fields::says_nothing(value)
        });
        unknown.map_or(Ok(()), |(name, _)| Err(fields.unknown(name, "")))
    }

    /// A field that is a text or a list of messages.
    pub fn part(&self, name: &str) -> Result<Part, String> {
        match json::required(&self.object, "", name)? {
            serde_json::Value::String(text) => Ok(Part::Text(text.clone())),
            serde_json::Value::Array(list) => self.messages(name, list).map(Part::Messages),
            other => Err(format!(
                "`{name}` must be a text or a list of messages, found {}",
                json::kind(other)
            )),
        }
    }

    fn messages(&self, name: &str, list: &[serde_json::Value]) -> Result<Vec<Value>, String> {
        if list.is_empty() {
            return Err(format!("`{name}` is an empty list"));
        }
        for (i, message) in list.iter().enumerate() {
            let path = format!("{name}[{i}]");
            let message = json::as_object(message, &path)?;
            json::text(message, &format!("{path}."), "role")?;
            content(message, &path)?;
        }
        self.items(name)
    }

    /// The items of a list in the order of its objects' fields.
    pub fn items(&self, name: &str) -> Result<Vec<Value>, String> {
        let list = self.get(name).try_iter();
        Ok(list.map_err(|error| error.to_string())?.collect())
    }

    fn get(&self, name: &str) -> Value {
        self.ordered.get_attr(name).unwrap_or_default()
    }

    /// `conversations`, whose messages have `from` and `value`, as `messages`.
    pub fn rename_conversations(&mut self) -> Result<(), String> {
        let Some(list) = self.object.remove("conversations") else {
            return Ok(());
        };
        let name = |key: &str| match key {
            "from" => "role".to_string(),
            "value" => "content".to_string(),
            key => key.to_string(),
        };
        let mut messages = Vec::new();
        for message in self.items("conversations")? {
            let keys = message.try_iter().map_err(|error| error.to_string())?;
            let fields = keys.map(|key| {
                let value = message.get_item(&key).unwrap_or_default();
                (name(&key.to_string()), value)
            });
            messages.push(Value::from_pairs(fields));
        }
        let serde_json::Value::Array(mut list) = list else {
            return Err("`conversations` must be a list".to_string());
        };
        for message in list
            .iter_mut()
            .filter_map(|message| message.as_object_mut())
        {
            *message = std::mem::take(message)
                .into_iter()
                .map(|(key, value)| (name(&key), value))
                .collect();
        }
        self.object.insert("messages".into(), list.into());
        self.ordered = minijinja::context! { messages, ..self.ordered.clone() };
        Ok(())
    }

    /// The tools of a conversation: undefined if it has none.
    pub fn tools(&self) -> Result<Value, String> {
        let tools = match json::field(&self.object, "tools") {
            None => return Ok(Value::UNDEFINED),
            Some(serde_json::Value::String(text)) => serde_json::from_str(text)
                .map_err(|error| format!("`tools` is a text that is not valid JSON: {error}"))?,
            Some(_) => self.get("tools"),
        };
        let problem = || Err("`tools` must be a list of objects, or its JSON".to_string());
        let all =
            |mut list: minijinja::value::ValueIter| list.all(|tool| tool.kind() == ValueKind::Map);
        match tools.kind() {
            ValueKind::None => Ok(Value::UNDEFINED),
            ValueKind::Seq if tools.try_iter().is_ok_and(all) => Ok(tools),
            _ => problem(),
        }
    }

    /// The variables of a row for the template.
    pub fn variables(&self) -> Result<Vec<(String, Value)>, String> {
        let name = "chat_template_kwargs";
        let Some(value) = json::field(&self.object, name) else {
            return Ok(Vec::new());
        };
        json::as_object(value, name)?;
        let variables = self.get(name);
        let keys = variables.try_iter().map_err(|error| error.to_string())?;
        let pair = |key: Value| {
            let value = variables.get_item(&key).unwrap_or_default();
            (key.to_string(), value)
        };
        Ok(keys.map(pair).collect())
    }

    /// A list of token ids.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>, String> {
        let id = |value: &serde_json::Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| format!("`{name}` must be a list of token ids, found {value} in it"))
        };
        json::list(&self.object, "", name)?.iter().map(id).collect()
    }

    /// Which of the ids have a label: the others have −100 there.
    pub fn labels(&self, ids: &[u32]) -> Result<Vec<bool>, String> {
        let labels = json::list(&self.object, "", "labels")?.iter().enumerate();
        let one = |(i, value): (usize, &serde_json::Value)| match value.as_i64() {
            Some(-100) => Ok(false),
            Some(label) if ids.get(i).is_none_or(|id| i64::from(*id) == label) => Ok(true),
            _ => Err(format!(
                "`labels[{i}]` must be -100 or `input_ids[{i}]`, found {value}"
            )),
        };
        labels.map(one).collect()
    }

    /// A list of 0 and 1.
    pub fn mask(&self, name: &str) -> Result<Vec<bool>, String> {
        let bit = |value: &serde_json::Value| match value.as_u64() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(format!(
                "`{name}` must be a list of 0 and 1, found {value} in it"
            )),
        };
        json::list(&self.object, "", name)?
            .iter()
            .map(bit)
            .collect()
    }
}

/// Text alone: a text, or a list of parts of the type `text`.
fn content(message: &Object, path: &str) -> Result<(), String> {
    let Some(content) = json::field(message, "content") else {
        return Ok(());
    };
    match content {
        serde_json::Value::String(_) => Ok(()),
        serde_json::Value::Array(parts) => {
            for (i, part) in parts.iter().enumerate() {
                let at = format!("{path}.content[{i}]");
                let part = json::as_object(part, &at)?;
                let kind = json::text(part, &format!("{at}."), "type")?;
                if kind != "text" {
                    return Err(format!(
                        "`{at}` is of type `{kind}`, and the model reads text alone"
                    ));
                }
            }
            Ok(())
        }
        other => Err(format!(
            "`{path}.content` must be a text or a list of texts, found {}",
            json::kind(other)
        )),
    }
}

/// A value without the named fields, at any depth.
fn without(value: &Value, names: &[String]) -> Value {
    if names.is_empty() {
        return value.clone();
    }
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::Seq => items().map(|item| without(&item, names)).collect(),
        ValueKind::Map => {
            let kept = items().filter(|key| !names.iter().any(|name| key.as_str() == Some(name)));
            Value::from_pairs(kept.map(|key| {
                let item = without(&value.get_item(&key).unwrap_or_default(), names);
                (key, item)
            }))
        }
        _ => value.clone(),
    }
}
