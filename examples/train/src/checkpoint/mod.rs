//! From a Hugging Face folder and a file of rows to token ids, in the order of the steps.
//!
//! Everything here follows TRL's trainers, so that a run sees the same tokens in the same order.
//!
//! | file | does |
//! |---|---|
//! | [`tokenizer`] | text to ids; the special tokens of a folder |
//! | [`template`] | messages to text, by the folder's chat template |
//! | [`rows`] | rows to ids, masks and a count of what was cut or dropped |
//! | [`order`] | which rows each step takes |
//! | [`schedule`] | the learning rate of each step |
//! | [`objective`] | the loss of a micro-batch, with TRL's reductions |
//! | [`fit`] | the steps: accumulation, clipping, AdamW |

pub mod fit;
pub mod objective;
pub mod order;
pub mod rows;
pub mod schedule;
pub mod template;
pub mod tokenizer;

use super::error::{Error, Result};
use crate::files;
use std::path::Path;

/// The text of a file of the folder, if the file exists.
fn optional_text(path: &Path) -> Result<Option<String>> {
    match files::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Error::file(path, "is not valid UTF-8")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path, format!("cannot be read: {error}"))),
    }
}

/// The JSON object in a file of the folder, if the file exists.
fn optional_object(path: &Path) -> Result<Option<super::data::json::Object>> {
    let Some(text) = optional_text(path)? else {
        return Ok(None);
    };
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(Error::file(path, "must hold a JSON object")),
        Err(error) => Err(Error::json(path, &text, &error)),
    }
}
