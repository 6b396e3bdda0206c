//! From a checkpoint's folder and a file of rows to ids, beside TRL and Transformers.

mod order;
mod probes;
mod refusals;
mod rows;
mod schedule;
mod template;
mod tokenizer;
mod trl;

use chrono::{NaiveDate, NaiveDateTime};
use minijinja::Value;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use train::checkpoint::rows::{Folder, Prepared, Settings, SftRow, Source, sft};
use train::checkpoint::template::Template;

/// A folder of `tests/golden`.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// A part of `rows.json`; objects keep their order.
fn cases<T: for<'de> Deserialize<'de>>(part: &str) -> Vec<T> {
    #[derive(Deserialize)]
    struct File {
        renders: Value,
        prepared: Value,
        orders: Value,
    }
    let text = fs::read_to_string(golden("rows.json")).unwrap();
    let file: File = serde_json::from_str(&text).unwrap();
    let value = match part {
        "renders" => file.renders,
        "prepared" => file.prepared,
        _ => file.orders,
    };
    let one = |case: Value| {
        let text = serde_json::to_string(&case).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let all: Vec<T> = value.try_iter().unwrap().map(one).collect();
    assert!(!all.is_empty());
    all
}

fn noon() -> NaiveDateTime {
    let day = NaiveDate::from_ymd_opt(2024, 5, 1).unwrap();
    day.and_hms_opt(12, 30, 0).unwrap()
}

fn special() -> BTreeMap<String, String> {
    let all = [
        ("bos_token", "<|im_start|>"),
        ("eos_token", "<|im_end|>"),
        ("pad_token", "<|im_end|>"),
    ];
    all.map(|(name, text)| (name.to_string(), text.to_string()))
        .into()
}

fn template(source: &str) -> Template {
    Template::new("chat_template.jinja", source, special(), noon()).unwrap()
}

/// A copy of a golden folder, with a chat template.
fn folder(name: &str, template: Option<&str>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    if let Some(template) = template {
        fs::write(copy.path().join("chat_template.jinja"), template).unwrap();
    }
    copy
}

fn open(folder: &tempfile::TempDir) -> Folder {
    Folder::open(folder.path(), noon()).unwrap()
}

fn source(rows: &str) -> Source {
    Source::from_text(rows, "rows.jsonl").unwrap()
}

fn supervised(folder: &Folder, rows: &str, settings: &Settings) -> Prepared<SftRow> {
    sft(source(rows), folder, settings).unwrap()
}

/// The learned part of a row as a text.
fn learned(folder: &Folder, row: &SftRow) -> String {
    let ids = row.ids.iter().zip(&row.learned);
    let ids: Vec<u32> = ids.filter(|(_, l)| **l).map(|(id, _)| *id).collect();
    folder.tokenizer.decode(&ids).unwrap()
}

/// Turns begin with a header and end with the end token and a line end; only the assistant's are marked.
const CHAT: &str = "\
{% for message in messages %}
{{ bos_token + message.role + '\n' }}
{%- if message.role == 'assistant' %}
{% generation %}{{ message.content + eos_token + '\n' }}{% endgeneration %}
{% else %}
{{- '\n' + message.content + eos_token + '\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}{{ bos_token + 'assistant\n' }}{% endif %}";
