//! Numbers and settings as text in tables.

use serde_json::Value;

/// A share in percent, or a dash.
pub fn share(x: Option<f64>) -> String {
    x.map_or("–".into(), |x| format!("{:.1}%", 100.0 * x))
}

/// A share that may be small.
pub(super) fn escaped(x: Option<f64>) -> String {
    match x {
        None => "–".into(),
        Some(x) if x < 5e-5 => "&lt; 0.01%".into(),
        Some(x) => format!("{:.2}%", 100.0 * x),
    }
}

/// Settings on one line: `name = value · name = value`.
pub fn flat(settings: &Value) -> String {
    match settings {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Object(inner) if inner.is_empty() => name.clone(),
                Value::Object(_) => format!("{name} ({})", flat(value)),
                value => format!("{name} = {}", flat(value)),
            })
            .collect::<Vec<_>>()
            .join(" · "),
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A number of the table, or a dash.
pub fn number(x: Option<f64>) -> String {
    // A regret of −1e-16 is 0.
    x.map_or("–".into(), |x| {
        format!("{:.3}", x + 0.0).replace("-0.000", "0.000")
    })
}
