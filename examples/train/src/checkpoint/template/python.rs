//! Values as Python writes them: `str`, `repr`, and `json.dumps`.

use minijinja::{Error, ErrorKind, Value, value::ValueKind};
use std::fmt::Write;

/// `str(value)`, which is what `{{ value }}` writes.
pub fn text(value: &Value) -> String {
    match (value.as_str(), value.is_undefined()) {
        (Some(text), _) => text.to_string(),
        (None, true) => String::new(),
        (None, false) => repr(value),
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    let items = |open: &str, close: &str| {
        let items: Vec<String> = entries(value).map(|item| repr(&item)).collect();
        format!("{open}{}{close}", items.join(", "))
    };
    match value.kind() {
        ValueKind::None => "None".to_string(),
        ValueKind::Bool if value.is_true() => "True".to_string(),
        ValueKind::Bool => "False".to_string(),
        ValueKind::Number => number(value),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq if value.is_tuple() && value.len() == Some(1) => items("(", ",)"),
        ValueKind::Seq if value.is_tuple() => items("(", ")"),
        ValueKind::Seq => items("[", "]"),
        ValueKind::Map => {
            let pairs =
                pairs(value).map(|(key, value)| format!("{}: {}", repr(&key), repr(&value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

fn entries(list: &Value) -> impl Iterator<Item = Value> {
    list.try_iter().into_iter().flatten()
}

fn pairs(map: &Value) -> impl Iterator<Item = (Value, Value)> {
    entries(map).map(|key| {
        let value = map.get_item(&key).unwrap_or_default();
        (key, value)
    })
}

/// The shortest digits that give the number back, with Python's choice of an exponent.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(number) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    if !number.is_finite() {
        return match (number.is_nan(), number > 0.0) {
            (true, _) => "nan",
            (false, true) => "inf",
            (false, false) => "-inf",
        }
        .to_string();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    match exponent {
        -4..16 => format!("{number:?}"),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

fn quoted(text: &str) -> String {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        let code = u32::from(c);
        let done = match c {
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\\' => write!(out, "\\\\"),
            c if c == quote => write!(out, "\\{c}"),
            c if c.is_control() => write!(out, "\\x{code:02x}"),
            c => write!(out, "{c}"),
        };
        debug_assert!(done.is_ok(), "a text takes everything");
    }
    out.push(quote);
    out
}

/// The settings of `json.dumps`.
#[derive(Clone, Debug)]
pub struct Json {
    pub ensure_ascii: bool,
    /// What each level begins with, if every item has a line of its own.
    pub indent: Option<String>,
    /// Between items, and between a key and its value.
    pub separators: (String, String),
    pub sort_keys: bool,
}

impl Json {
    /// The value as JSON.
    pub fn write(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.value(value, 0, &mut out)?;
        Ok(out)
    }

    fn value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&match number(value).as_str() {
                "nan" => "NaN".to_string(),
                "inf" => "Infinity".to_string(),
                "-inf" => "-Infinity".to_string(),
                number => number.to_string(),
            }),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq => {
                let items: Vec<Value> = entries(value).collect();
                self.group(('[', ']'), items.len(), depth, out, |i, out| {
                    self.value(&items[i], depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut items: Vec<(String, Value)> = pairs(value)
                    .map(|(key, value)| Ok((self.key(&key)?, value)))
                    .collect::<Result<_, Error>>()?;
                if self.sort_keys {
                    items.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.group(('{', '}'), items.len(), depth, out, |i, out| {
                    let (key, value) = &items[i];
                    self.string(key, out);
                    out.push_str(&self.separators.1);
                    self.value(value, depth + 1, out)
                })?;
            }
            kind => {
                let text = format!("{kind} cannot be written as JSON");
                return Err(Error::new(ErrorKind::BadSerialization, text));
            }
        }
        Ok(())
    }

    fn key(&self, key: &Value) -> Result<String, Error> {
        if let Some(text) = key.as_str() {
            return Ok(text.to_string());
        }
        let mut text = String::new();
        match key.kind() {
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.value(key, 0, &mut text).map(|()| text)
            }
            kind => Err(Error::new(
                ErrorKind::BadSerialization,
                format!("{kind} cannot be a key in JSON"),
            )),
        }
    }

    /// Items between two brackets.
    fn group(
        &self,
        (open, close): (char, char),
        items: usize,
        depth: usize,
        out: &mut String,
        item: impl Fn(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(open);
        for i in 0..items {
            if i > 0 {
                out.push_str(&self.separators.0);
            }
            line(depth + 1, out);
            item(i, out)?;
        }
        if items > 0 {
            line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
