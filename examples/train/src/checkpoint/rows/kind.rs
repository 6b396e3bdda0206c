//! What the fields of a row say about its kind.

use super::super::super::data::json::{self, Object};
use super::super::super::data::reader::Lines;
use super::super::super::error::{Error, Result};
use std::path::Path;

/// The first row of a file, without the fields to ignore. What cannot be read is an error of the reader, with its line.
pub fn first(path: &Path, ignored: &[String]) -> Result<Object> {
    let Some((_, bytes)) = Lines::open(path)?.next().transpose()? else {
        return Err(Error::file(path, "holds no rows"));
    };
    let row: Object = serde_json::from_slice(&bytes).unwrap_or_default();
    let kept = row.into_iter().filter(|(name, _)| !ignored.contains(name));
    Ok(kept.collect())
}

/// Whether a row has one of these fields.
pub fn has_any(row: &Object, names: &[&str]) -> bool {
    names.iter().any(|name| json::field(row, name).is_some())
}

/// Whether a row is a prompt with rated answers, of a kind that TRL does not read: a list, a tree, a question.
pub fn is_rated(row: &Object) -> bool {
    let tree = row
        .get("prompt")
        .is_some_and(|prompt| prompt.get("replies").is_some());
    tree || has_any(
        row,
        &["answers", "rewards", "ranks", "question", "instruction"],
    )
}
