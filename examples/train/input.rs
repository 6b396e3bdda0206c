//! Files of settings.

use super::error::{Error, Result};
use super::support::files;
use std::path::Path;

/// The text of a file of JSON, or what it is instead.
pub fn json(path: &Path) -> Result<String> {
    let unread = |error: String| Error::file(path, format!("cannot be read: {error}"));
    let bytes = files::read(path).map_err(|error| unread(error.to_string()))?;
    match files::not_json(&bytes) {
        Some(problem) => Err(Error::file(path, problem)),
        None => String::from_utf8(bytes).map_err(|error| unread(error.to_string())),
    }
}
