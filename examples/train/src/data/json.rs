//! JSON that refuses two silent mistakes: a duplicate key, and a field of another type.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// One object per line.
pub type Object = Map<String, Value>;

/// Parses one line.
pub fn object(line: &str) -> Result<Object, String> {
    let value = serde_json::from_str::<NoDuplicates>(line).map_err(|error| {
        // a row is one line, so only the column is useful
        let message = error
            .to_string()
            .replace(" at line 1 column ", " at column ");
        match mark_at(line, error.column()) {
            Some(byte) => format!(
                "has a byte-order mark at byte {byte}: two files were joined here; take the mark out"
            ),
            None => format!("is not valid JSON: {message}"),
        }
    })?;
    match value.0 {
        Value::Object(object) => Ok(object),
        other => Err(format!("must be a JSON object, found {}", kind(&other))),
    }
}

/// The place of a byte-order mark, if the parser stopped at one; from 1, like the column.
fn mark_at(line: &str, column: usize) -> Option<usize> {
    let at = column.saturating_sub(1);
    let rest = line.as_bytes().get(at..)?;
    rest.starts_with("\u{feff}".as_bytes()).then_some(at + 1)
}

/// The field, if it is there and not null.
pub fn field<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// The field, which must be there.
pub fn required<'a>(object: &'a Object, path: &str, name: &str) -> Result<&'a Value, String> {
    match object.get(name) {
        None => Err(format!("`{path}{name}` is missing")),
        Some(Value::Null) => Err(format!("`{path}{name}` is null")),
        Some(value) => Ok(value),
    }
}

/// A field that must be a text.
pub fn text<'a>(object: &'a Object, path: &str, name: &str) -> Result<&'a str, String> {
    as_text(required(object, path, name)?, &format!("{path}{name}"))
}

/// A value that must be a text.
pub fn as_text<'a>(value: &'a Value, path: &str) -> Result<&'a str, String> {
    let found = || format!("`{path}` must be a text, found {}", kind(value));
    value.as_str().ok_or_else(found)
}

/// A field that must be a list.
pub fn list<'a>(object: &'a Object, path: &str, name: &str) -> Result<&'a [Value], String> {
    let value = required(object, path, name)?;
    let found = || format!("`{path}{name}` must be a list, found {}", kind(value));
    Ok(value.as_array().ok_or_else(found)?)
}

/// A value that must be an object.
pub fn as_object<'a>(value: &'a Value, path: &str) -> Result<&'a Object, String> {
    let found = || format!("`{path}` must be an object, found {}", kind(value));
    value.as_object().ok_or_else(found)
}

/// A value that must be a number.
pub fn as_number(value: &Value, path: &str) -> Result<f64, String> {
    let found = || format!("`{path}` must be a number, found {}", kind(value));
    value.as_f64().ok_or_else(found)
}

/// A value that must be true or false.
pub fn as_bool(value: &Value, path: &str) -> Result<bool, String> {
    let found = || format!("`{path}` must be true or false, found {}", kind(value));
    value.as_bool().ok_or_else(found)
}

/// A number that orders answers.
pub fn as_reward(value: &Value, path: &str) -> Result<f64, String> {
    let number = as_number(value, path)?;
    match (number as f32).is_finite() {
        true => Ok(number),
        false => Err(format!("`{path}` is {number:e}, too large for a reward")),
    }
}

/// What a value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A JSON value without duplicate keys in an object; the usual parsers keep the last one.
struct NoDuplicates(Value);

impl<'de> Deserialize<'de> for NoDuplicates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build).map(NoDuplicates)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(NoDuplicates(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("`{key}` stands twice")));
            }
            let NoDuplicates(value) = map.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_an_error_at_any_depth() {
        let twice = |line| object(line).unwrap_err();
        assert_eq!(
            twice(r#"{"a": 1, "a": 2}"#),
            "is not valid JSON: `a` stands twice at column 12"
        );
        assert_eq!(
            twice(r#"{"x": [{"b": 1, "b": 1}]}"#),
            "is not valid JSON: `b` stands twice at column 19"
        );
    }

    #[test]
    fn values_survive_as_they_stand() {
        let line = r#"{"n":null,"b":true,"i":-3,"u":18446744073709551615,"f":0.5,"s":"\u00e9","l":[[],{}]}"#;
        let expected: Value = serde_json::from_str(line).unwrap();
        assert_eq!(Value::Object(object(line).unwrap()), expected);
    }

    #[test]
    fn what_is_no_object_is_named() {
        assert_eq!(
            object("[1]").unwrap_err(),
            "must be a JSON object, found a list"
        );
        assert_eq!(
            object("3").unwrap_err(),
            "must be a JSON object, found a number"
        );
        assert_eq!(
            object("{\"a\": ").unwrap_err(),
            "is not valid JSON: EOF while parsing a value at column 6"
        );
    }
}
