//! Which template of a folder counts.

use super::super::super::data::json;
use super::super::super::error::{Error, Result};
use super::super::tokenizer::Tokenizer;
use super::super::{optional_object, optional_text};
use super::Template;
use chrono::NaiveDateTime;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A template's name for messages, and its text.
type Source = (String, String);

/// The templates of a folder.
///
/// `chat_template.jinja` with the files of `additional_chat_templates/` beside it wins over
/// `chat_template` in `tokenizer_config.json`, which is a text or a list of named ones. Among several,
/// `tool_use` is for rows with tools, and `default` for the others.
#[derive(Debug)]
pub struct Templates {
    folder: PathBuf,
    named: BTreeMap<String, Template>,
}

impl Templates {
    /// Reads the templates of a folder. A folder without one is no error until one is needed.
    pub fn open(folder: &Path, tokenizer: &Tokenizer, now: NaiveDateTime) -> Result<Self> {
        let mut sources = files(folder)?;
        if sources.is_empty() {
            sources = entries(&folder.join("tokenizer_config.json"))?;
        }
        let special: BTreeMap<String, String> = tokenizer
            .special()
            .iter()
            .map(|(name, token)| (name.clone(), token.text.clone()))
            .collect();
        let mut named = BTreeMap::new();
        for (name, (file, text)) in sources {
            named.insert(name, Template::new(&file, &text, special.clone(), now)?);
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            named,
        })
    }

    /// The template for a row with or without tools.
    pub fn choose(&self, tools: bool) -> Result<&Template> {
        let tool_use = self.named.get("tool_use").filter(|_| tools);
        let problem = || match self.named.is_empty() {
            true => "has no chat template (`chat_template.jinja`, or `chat_template` in \
                     `tokenizer_config.json`), and rows of messages need one"
                .to_string(),
            false => {
                let names: Vec<&str> = self.named.keys().map(String::as_str).collect();
                format!(
                    "has several chat templates ({}) and no `default`",
                    names.join(", ")
                )
            }
        };
        tool_use
            .or_else(|| self.named.get("default"))
            .ok_or_else(|| Error::file(&self.folder, problem()))
    }
}

/// The template files of a folder, by name.
fn files(folder: &Path) -> Result<BTreeMap<String, Source>> {
    let mut found = BTreeMap::new();
    let path = folder.join("chat_template.jinja");
    if let Some(text) = optional_text(&path)? {
        found.insert("default".to_string(), (path.display().to_string(), text));
    }
    let more = folder.join("additional_chat_templates");
    let failed = |error| Error::file(&more, format!("cannot be read: {error}"));
    let list = match std::fs::read_dir(&more) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        list => list.map_err(failed)?,
    };
    for entry in list {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let jinja = path.extension().is_some_and(|end| end == "jinja");
        if let (Some(name), true) = (name, jinja) {
            let text = optional_text(&path)?.unwrap_or_default();
            found.insert(name.to_string(), (path.display().to_string(), text));
        }
    }
    Ok(found)
}

/// The templates in `tokenizer_config.json`, by name.
fn entries(path: &Path) -> Result<BTreeMap<String, Source>> {
    let mut found = BTreeMap::new();
    let object = optional_object(path)?.unwrap_or_default();
    let at = |key: &str| format!("{}, `{key}`", path.display());
    let mut read = || -> Result<(), String> {
        match json::field(&object, "chat_template") {
            None => {}
            Some(Value::Array(list)) => {
                for (i, entry) in list.iter().enumerate() {
                    let key = format!("chat_template[{i}]");
                    let entry = json::as_object(entry, &key)?;
                    let name = json::text(entry, &format!("{key}."), "name")?;
                    let text = json::text(entry, &format!("{key}."), "template")?;
                    found.insert(name.to_string(), (at(&key), text.to_string()));
                }
            }
            Some(one) => {
                let text = json::as_text(one, "chat_template")?.to_string();
                found.insert("default".to_string(), (at("chat_template"), text));
            }
        }
        Ok(())
    };
    read().map_err(|problem| Error::file(path, problem))?;
    Ok(found)
}
