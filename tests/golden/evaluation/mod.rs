//! The evaluation of answers against the packages that the field uses. `evaluation_*.py` writes the numbers.

mod human;
mod meta;
mod model;
mod text;

use serde::de::DeserializeOwned;

/// One part of `tests/golden/<file>.json`.
fn cases<T: DeserializeOwned>(file: &str, part: &str) -> Vec<T> {
    let path = format!("{}/tests/golden/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases: Vec<T> =
        serde_json::from_value(all[part].take()).unwrap_or_else(|e| panic!("{part}: {e}"));
    assert!(!cases.is_empty(), "{path}: {part}");
    cases
}

/// Errors count relative to the number expected where that is greater than 1.
#[track_caller]
fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    let error = (got - want).abs() / want.abs().max(1.0);
    assert!(
        error <= tolerance,
        "{what}: {got}, but {want} (off by {error:e})"
    );
}

#[track_caller]
fn all_close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        close(*got, *want, tolerance, what);
    }
}
