//! A fresh adapter in the settings: a file of PEFT's, or its keys.

use super::super::error::{Error, Result, cut};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

/// A fresh adapter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FreshAdapter {
    /// PEFT's `adapter_config.json`.
    File(PathBuf),
    /// The same keys, such as `{"r": 8, "lora_alpha": 16}`. `peft_type` is LORA and `target_modules` is
    /// "all-linear" if they are missing.
    ///
    /// In a pattern the first match counts, so that the order of its keys matters, which a JSON object of this
    /// program loses. A pattern is kept as the list of its pairs.
    Keys(Map<String, Value>),
}

/// The keys whose objects have an order.
const PATTERNS: [&str; 2] = ["rank_pattern", "alpha_pattern"];

impl FreshAdapter {
    /// From the text of a setting: a path, or an object.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let json = text.trim_start();
        match json.starts_with(['{', '"']) || json == "null" {
            true => serde_json::from_str(text)
                .map_err(|error| usage("adapter", text, &error.to_string())),
            false => Ok(Some(Self::File(text.into()))),
        }
    }

    /// Changes one key. The value is JSON, or else plain text.
    pub fn set(&mut self, key: &str, text: &str) -> Result<()> {
        let keys = match self {
            Self::Keys(keys) => keys,
            Self::File(path) => {
                let problem = "has the adapter's settings: change them there";
                return Err(Error::file(path, problem));
            }
        };
        let value = match PATTERNS.contains(&key) {
            true => {
                let pattern = serde_json::from_str::<Pattern>(text);
                let name = format!("adapter.{key}");
                pattern
                    .map_err(|error| usage(&name, text, &error.to_string()))?
                    .0
            }
            false => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_string())),
        };
        keys.insert(key.to_string(), value);
        Ok(())
    }
}

fn usage(name: &str, text: &str, problem: &str) -> Error {
    let (text, problem) = (cut(text, 80), cut(problem, 1_000));
    Error::Usage(format!("--set {name}={text}: {problem}"))
}

/// The text of an `adapter_config.json` with these keys.
pub fn peft_text(keys: &Map<String, Value>) -> String {
    let objects = |entries: Vec<String>| format!("{{{}}}", entries.join(", "));
    let entry = |key: &Value, value: String| format!("{key}: {value}");
    let pattern = |pairs: &Vec<Value>| {
        let pair = |pair: &Value| entry(&pair[0], pair[1].to_string());
        objects(pairs.iter().map(pair).collect())
    };
    let of = |(key, value): (&String, &Value)| {
        let text = match value.as_array() {
            Some(pairs) if PATTERNS.contains(&key.as_str()) => pattern(pairs),
            _ => value.to_string(),
        };
        entry(&json!(key), text)
    };
    objects(keys.iter().map(of).collect())
}

impl<'de> Deserialize<'de> for FreshAdapter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Adapter)
    }
}

struct Adapter;

impl<'de> Visitor<'de> for Adapter {
    type Value = FreshAdapter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path of an `adapter_config.json`, or an object of its keys")
    }

    fn visit_str<E>(self, path: &str) -> std::result::Result<FreshAdapter, E> {
        Ok(FreshAdapter::File(path.into()))
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<FreshAdapter, A::Error> {
        let mut keys = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = match PATTERNS.contains(&key.as_str()) {
                true => map.next_value::<Pattern>()?.0,
                false => map.next_value::<Value>()?,
            };
            once::<A::Error>(keys.contains_key(&key), &key)?;
            keys.insert(key, value);
        }
        Ok(FreshAdapter::Keys(keys))
    }
}

fn once<E: serde::de::Error>(seen: bool, key: &str) -> std::result::Result<(), E> {
    match seen {
        true => Err(E::custom(format!(
            "the key `{}` is there twice",
            cut(key, 80)
        ))),
        false => Ok(()),
    }
}

/// A pattern as the list of its pairs, or null.
struct Pattern(Value);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Pairs).map(Self)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of expressions and numbers, or the list of its pairs")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let (mut pairs, mut seen) = (Vec::new(), HashSet::new());
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            once::<A::Error>(!seen.insert(key.clone()), &key)?;
            pairs.push(json!([key, value]));
        }
        Ok(Value::Array(pairs))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Value, A::Error> {
        let (mut pairs, mut seen) = (Vec::new(), HashSet::new());
        while let Some((key, value)) = list.next_element::<(String, Value)>()? {
            once::<A::Error>(!seen.insert(key.clone()), &key)?;
            pairs.push(json!([key, value]));
        }
        Ok(Value::Array(pairs))
    }
}
