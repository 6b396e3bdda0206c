//! What a template finds: the environment that Transformers makes for chat templates.

use super::{generation, python};
use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

/// Before the message of `raise_exception`.
pub const RAISED: &str = "\u{0}raised ";

/// An environment; with `marks`, what the assistant generates stands between two marks.
pub fn new(now: NaiveDateTime, marks: bool) -> Result<Environment<'static>, Error> {
    let mut it = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    it.set_syntax(syntax);
    it.set_auto_escape_callback(|_| AutoEscape::None);
    it.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    it.set_formatter(|out, _, value| out.write_str(&python::text(value)).map_err(Error::from));
    it.add_filter("string", |value: &Value| python::text(value));
    it.add_filter("tojson", to_json);
    it.add_test("iterable", is_iterable);
    it.add_test("sequence", is_sequence);
    it.add_function(
        "raise_exception",
        |message: &Value| -> Result<Value, Error> {
            let text = format!("{RAISED}{}", python::text(message));
            Err(Error::new(ErrorKind::InvalidOperation, text))
        },
    );
    it.add_function("strftime_now", move |format: &str| strftime(now, format));
    it.add_function(
        generation::FUNCTION,
        move |state: &mut State, named: Kwargs| -> Result<Value, Error> {
            let caller: Value = named.get("caller")?;
            let body = caller.call(state, &[])?;
            Ok(match marks {
                true => Value::from(generation::marked(&body.to_string())),
                false => body,
            })
        },
    );
    Ok(it)
}

/// Unlike minijinja's, none is not iterable.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Unlike minijinja's, whatever has a length and items, such as a text.
fn is_sequence(value: &Value) -> bool {
    let kinds = [
        ValueKind::Undefined,
        ValueKind::Seq,
        ValueKind::Map,
        ValueKind::String,
    ];
    kinds.contains(&value.kind())
}

fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    let items: Vec<Item> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        let text = format!("strftime_now has an unknown format `{format}`");
        return Err(Error::new(ErrorKind::InvalidOperation, text));
    }
    let mut text = String::new();
    use std::fmt::Write;
    match write!(text, "{}", now.format_with_items(items.into_iter())) {
        Ok(()) => Ok(text),
        // such as a time zone, which this moment does not have
        Err(_) => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now cannot write `{format}`"),
        )),
    }
}

/// The filter `tojson(ensure_ascii, indent, separators, sort_keys)`.
fn to_json(value: &Value, places: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if places.len() > names.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    // by place or by name
    let find = |i: usize| match places.get(i) {
        Some(value) => Ok(value.clone()),
        None if named.has(names[i]) => named.get(names[i]),
        None => Ok(Value::from(())),
    };
    let (ensure_ascii, indent, separators, sort_keys) = (find(0)?, find(1)?, find(2)?, find(3)?);
    named.assert_all_used()?;
    let wrong = |name: &str, value: &Value| {
        let text = format!("`{name}` of tojson cannot be {value}");
        Error::new(ErrorKind::InvalidOperation, text)
    };
    let indent = match (indent.as_i64(), indent.as_str()) {
        (Some(width), _) => Some(" ".repeat(width.clamp(0, 80) as usize)),
        (None, Some(text)) => Some(text.to_string()),
        (None, None) if indent.is_none() => None,
        _ => return Err(wrong("indent", &indent)),
    };
    let item = if indent.is_none() { ", " } else { "," };
    let separators = match separators.is_none() {
        true => (item.to_string(), ": ".to_string()),
        false => {
            let part = |i| separators.get_item_by_index(i);
            match (part(0)?.as_str(), part(1)?.as_str(), separators.len()) {
                (Some(item), Some(key), Some(2)) => (item.to_string(), key.to_string()),
                _ => return Err(wrong("separators", &separators)),
            }
        }
    };
    let style = python::Json {
        ensure_ascii: ensure_ascii.is_true(),
        indent,
        separators,
        sort_keys: sort_keys.is_true(),
    };
    style.write(value)
}
