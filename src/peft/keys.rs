//! A JSON object, read key by key, with errors that name file, key and value.

use crate::error::{Error, Result, cut, shown};
use crate::in_order;
use crate::parameter_efficient::targets::{TargetModules, Targets};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The JSON object of a file, read key by key.
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
        let value = shown(value);
        self.problem(format!(
            "holds `{key}` = {value}, which is not supported: {why}"
        ))
    }

    /// The value of a key; `None` if it is null or missing.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let Some(raw) = self.left.remove(key) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map_err(|error| {
            let (value, reason) = (shown(raw.get()), reason(&error));
            self.problem(format!("holds `{key}` = {value}: {reason}"))
        })
    }

    /// As [`Keys::take`], for a key whose value has several forms.
    pub(super) fn take_as<T: DeserializeOwned>(
        &mut self,
        key: &str,
        forms: &str,
    ) -> Result<Option<T>> {
        let Some(raw) = self.left.remove(key) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map_err(|error| {
            let (value, reason) = (shown(raw.get()), reason(&error));
            self.problem(format!("holds `{key}` = {value}: {reason}; it is {forms}"))
        })
    }

    /// Whether the value of a key starts with this character.
    pub(super) fn starts_with(&self, key: &str, first: char) -> bool {
        let value = self.left.get(key);
        value.is_some_and(|raw| raw.get().starts_with(first))
    }

    /// A list, or a single element in place of a list of one.
    fn many<T: DeserializeOwned>(&mut self, key: &str, forms: &str) -> Result<Vec<T>> {
        match self.starts_with(key, '[') {
            true => Ok(self.take_as(key, forms)?.unwrap_or_default()),
            false => Ok(self.take_as(key, forms)?.into_iter().collect()),
        }
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
        Err(self.unsupported(key, &text, why))
    }

    /// One of a few words or values, none of which has an effect.
    pub(super) fn one_of(&mut self, key: &str, known: &[&str], why: &str) -> Result<()> {
        match self.left.remove(key) {
            Some(raw) if !known.contains(&raw.get()) => Err(self.unsupported(key, raw.get(), why)),
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
            layers_to_transform: self
                .many("layers_to_transform", "a whole number or a list of them")?,
            layers_pattern: self.many("layers_pattern", "a string or a list of strings")?,
        })
    }
}
/// What `serde_json` says about a value, in JSON's terms, without the position.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (text, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    let Some((found, expected)) = text.rsplit_once("expected ") else {
        return cut(text, 200).into_owned();
    };
    let expected = match expected {
        "usize" | "u64" => "a whole number, 0 or more",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other => other,
    };
    format!("{}expected {expected}", cut(found, 200))
}

/// A `rank_pattern` or `alpha_pattern` of LoRA.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Pattern<T: for<'a> Deserialize<'a>>(
    #[serde(with = "in_order")] pub(super) Vec<(String, T)>,
);

/// Names in the order of a file: PEFT stores them as a set.
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
