//! Folders that lack one of the two files: what is there instead, and what to do about it.

use super::{CONFIG, TENSORS};
use crate::error::Error;
use std::fs;
use std::io;
use std::path::Path;

/// The most folders that a message names.
const NAMED: usize = 8;

/// The error for a folder without settings.
pub(super) fn settings(function: &'static str, folder: &Path) -> Error {
    let path = folder.join(CONFIG);
    let named: Vec<String> = names(folder)
        .into_iter()
        .filter(|name| folder.join(name).join(CONFIG).is_file())
        .collect();
    let text = match (named.as_slice(), fs::metadata(&path)) {
        ([one], _) => {
            format!("is not there, but in the folder `{one}` beside it: read that folder")
        }
        ([_, _, ..], _) => format!(
            "is not there, but in folders beside it, one adapter in each: read one of {}",
            listed(&named)
        ),
        ([], Err(error)) => format!("cannot be read: {error}"),
        ([], Ok(_)) => "was not there".to_string(),
    };
    Error::argument(function, path.display().to_string(), text)
}

/// The error for a folder whose tensors cannot be read, with the system's message.
pub(super) fn tensors(function: &'static str, folder: &Path, error: &io::Error) -> Error {
    let path = folder.join(TENSORS);
    let names = names(folder);
    let find = |fits: &dyn Fn(&str) -> bool| names.iter().find(|name| fits(name));
    let of_weights = |name: &str| name.starts_with("adapter_model");
    let pickled = find(&|name| {
        of_weights(name) && (name.ends_with(".bin") || name.ends_with(".bin.index.json"))
    });
    let part =
        find(&|name| of_weights(name) && (name.contains("-of-") || name.ends_with(".index.json")));
    let text = match (error.kind(), pickled, part) {
        (io::ErrorKind::NotFound, Some(name), _) => format!(
            "is not there, but `{name}`: pickled weights can run code and are not read; load them \
             in Python's PEFT and save them again, by `PeftModel.from_pretrained(base, \
             folder).save_pretrained(folder, safe_serialization=True)`"
        ),
        (io::ErrorKind::NotFound, None, Some(name)) => format!(
            "is not there, but in parts, as `{name}`, which is not supported: make one file of \
             them, in Python by `load_file` of every part and one `save_file` of all tensors, of \
             `safetensors.torch`"
        ),
        _ => format!("cannot be read: {error}"),
    };
    Error::argument(function, path.display().to_string(), text)
}

/// The names in a folder, sorted; none if it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMED)
        .map(|name| format!("`{name}`"))
        .collect();
    match names.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}
