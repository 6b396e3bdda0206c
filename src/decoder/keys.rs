//! A JSON object of a checkpoint, read key by key.

use crate::error::{Error, Result, shown};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The largest size of a model.
const MOST: usize = 1 << 24;

/// The object of a file, or an object inside it. A key that is taken is gone; what is left at the end is
/// unknown.
pub(super) struct Keys<'a> {
    pub(super) function: &'static str,
    /// The file, for messages.
    pub(super) source: &'a str,
    /// The key of this object in the file, with a dot behind it, or nothing.
    within: String,
    left: Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(function: &'static str, source: &'a str, left: Map<String, Value>) -> Self {
        Self {
            function,
            source,
            within: String::new(),
            left,
        }
    }

    pub(super) fn problem(&self, text: impl Into<String>) -> Error {
        Error::argument(self.function, self.source, text)
    }

    /// The error for a value that is not supported.
    pub(super) fn refused(&self, key: &str, value: impl std::fmt::Display, why: &str) -> Error {
        let value = value.to_string();
        let (within, value) = (&self.within, shown(&value));
        self.problem(format!("holds `{within}{key}` = {value}: {why}"))
    }

    /// The value of a key; `None` if it is null or missing.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        match self.left.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(self.refused(key, value, &error.to_string())),
            },
        }
    }

    pub(super) fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T> {
        Ok(self.take(key)?.unwrap_or(default))
    }

    pub(super) fn needed<T: DeserializeOwned>(&mut self, key: &str) -> Result<T> {
        let found = self.take(key)?;
        let within = &self.within;
        found.ok_or_else(|| self.problem(format!("holds no `{within}{key}`")))
    }

    /// A whole number that is not 0.
    pub(super) fn count(&mut self, key: &str) -> Result<Option<usize>> {
        match self.whole(key)? {
            Some(0) => Err(self.refused(key, 0, "it must be at least 1")),
            found => Ok(found),
        }
    }

    /// A whole number, small enough that products of three fit.
    pub(super) fn whole(&mut self, key: &str) -> Result<Option<usize>> {
        match self.take(key)? {
            Some(number) if number > MOST => {
                Err(self.refused(key, number, "it must be at most 16777216"))
            }
            found => Ok(found),
        }
    }

    /// A finite number above 0.
    pub(super) fn positive(&mut self, key: &str) -> Result<Option<f64>> {
        match self.take(key)? {
            Some(number) if !(number > 0.0 && f64::is_finite(number)) => {
                Err(self.refused(key, number, "it must be finite and above 0"))
            }
            found => Ok(found),
        }
    }

    /// A token; null is none, and a missing key is `default`.
    pub(super) fn token(&mut self, key: &str, default: Option<u32>) -> Result<Option<u32>> {
        match self.said(key) {
            true => self.take(key),
            false => Ok(default),
        }
    }

    /// The object under a key, to be read in the same way.
    pub(super) fn object(&mut self, key: &str) -> Result<Option<Keys<'a>>> {
        let left: Option<Map<String, Value>> = self.take(key)?;
        Ok(left.map(|left| Keys {
            function: self.function,
            source: self.source,
            within: format!("{}{key}.", self.within),
            left,
        }))
    }

    /// Whether no key is left.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether a key is there with a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.get(key).is_some_and(|value| !value.is_null())
    }

    /// Whether a key is there, even as null.
    pub(super) fn said(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Takes a key that may only have this value, or be null or missing.
    pub(super) fn only<T>(&mut self, key: &str, value: T, why: &str) -> Result<()>
    where
        T: DeserializeOwned + PartialEq + std::fmt::Display,
    {
        match self.take::<T>(key)? {
            Some(found) if found != value => Err(self.refused(key, found, why)),
            _ => Ok(()),
        }
    }

    /// Drops keys that mean nothing here.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.left.remove(*key);
        }
    }

    /// An error if a key is left.
    pub(super) fn none_left(self) -> Result<()> {
        match self.left.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((key, value)) => Err(self.refused(
                key,
                value,
                "this key is unknown, so that the model could be another than the file means",
            )),
        }
    }
}
