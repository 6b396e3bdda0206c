//! An object of JSON, key by key, with errors that name file, key and value.

use crate::parameter_effective::targets::in_order;
use crate::{Error, Result, TargetModules, Targets};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The object of a file, key by key.
pub(super) struct Keys<'a> {
    pub(super) function: &'static str,
    pub(super) source: &'a str,
    pub(super) left: BTreeMap<String, Box<RawValue>>,
}

impl Keys<'_> {
    pub(super) fn problem(&self, text: String) -> Error {
        Error::argument(self.function, self.source, text)
    }

    pub(super) fn unsupported(&self, key: &str, value: &str, why: &str) -> Error {
        self.problem(format!(
            "holds `{key}` = {value}, which is not supported: {why}"
        ))
    }

    /// The value of a key; `None` if it is null or not there.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let Some(raw) = self.left.remove(key) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get())
            .map_err(|e| self.problem(format!("holds `{key}` = {}: {e}", shown(raw.get()))))
    }

    pub(super) fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T> {
        Ok(self.take(key)?.unwrap_or(default))
    }

    pub(super) fn needed<T: DeserializeOwned>(&mut self, key: &str) -> Result<T> {
        let found = self.take(key)?;
        found.ok_or_else(|| self.problem(format!("holds no `{key}`")))
    }

    /// Refuses a key at any value but null and `idle`.
    pub(super) fn idle(&mut self, key: &str, idle: &str, why: &str) -> Result<()> {
        let Some(text) = self.left.get(key).map(|raw| raw.get().to_string()) else {
            return Ok(());
        };
        let found: Option<Value> = self.take(key)?;
        if found.is_none() || found == serde_json::from_str(idle).ok() {
            return Ok(());
        }
        Err(self.unsupported(key, shown(&text), why))
    }

    /// One of a few words or values, which are of no effect.
    pub(super) fn one_of(&mut self, key: &str, known: &[&str], why: &str) -> Result<()> {
        match self.left.remove(key) {
            Some(raw) if !known.contains(&raw.get()) => {
                Err(self.unsupported(key, shown(raw.get()), why))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn targets(&mut self) -> Result<Targets> {
        let target_modules: Option<TargetModules> = self.take("target_modules")?;
        let Some(target_modules) = target_modules else {
            let why = "it stands for a table of known models; name the modules";
            return Err(self.unsupported("target_modules", "null", why));
        };
        Ok(Targets {
            target_modules: sorted(target_modules),
            exclude_modules: sorted(self.or("exclude_modules", TargetModules::default())?),
            modules_to_save: self.or("modules_to_save", Vec::new())?,
            layers_to_transform: self.or("layers_to_transform", Many(Vec::new()))?.0,
            layers_pattern: self.or("layers_pattern", Many(Vec::new()))?.0,
        })
    }
}

/// The beginning of a value, for a message.
fn shown(text: &str) -> &str {
    match text.char_indices().nth(80) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

/// A list, or one element.
#[derive(Deserialize)]
#[serde(from = "OneOrMany<T>")]
struct Many<T>(Vec<T>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> From<OneOrMany<T>> for Many<T> {
    fn from(found: OneOrMany<T>) -> Self {
        Self(match found {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }
}

/// A `rank_pattern` or `alpha_pattern` of LoRA.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Pattern<T: for<'a> Deserialize<'a>>(
    #[serde(with = "in_order")] pub(super) Vec<(String, T)>,
);

/// Names in the order of a file: PEFT keeps them as a set.
pub(super) fn sorted(modules: TargetModules) -> TargetModules {
    match modules {
        TargetModules::Names(mut names) => {
            names.sort();
            names.dedup();
            TargetModules::Names(names)
        }
        other => other,
    }
}
