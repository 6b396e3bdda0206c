//! What a checkpoint says of its run, and whether a run goes on as it began.

use super::super::error::{Error, Result};
use super::origin::Origin;
use super::settings::Settings;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Its file.
pub const STATE: &str = "state.json";

/// What a checkpoint says of its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// The number of the rows.
    pub rows: String,
    /// The numbers of the files that the run began with.
    pub origin: Origin,
    pub settings: Settings,
}

impl State {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let text = super::super::input::json(&path)?;
        serde_json::from_str(&text).map_err(|error| Error::json(&path, &text, &error))
    }

    /// An error if a run with these settings would not go on as the run of the checkpoint. What is saved,
    /// and how much of it is kept, may differ.
    pub fn check(&self, settings: &Settings) -> Result<()> {
        let value = |settings: &Settings| {
            let mut settings = settings.clone();
            (settings.out, settings.ref_log_probs_dir) = (None, None);
            (settings.save_every, settings.keep_last) = (0, 0);
            serde_json::to_value(settings).unwrap_or_default()
        };
        match difference(String::new(), &value(&self.settings), &value(settings)) {
            None => Ok(()),
            Some((name, was, is)) => Err(Error::Usage(format!(
                "--resume: `{name}` is {is}, and was {was} until step {}; the run cannot go on as it began",
                self.step
            ))),
        }
    }

    /// An error if the run began with other files: the checkpoint holds only what is trained.
    pub fn check_origin(&self, origin: &Origin) -> Result<()> {
        let names = self.origin.keys().chain(origin.keys());
        let changed = |name: &&String| self.origin.get(*name) != origin.get(*name);
        let changed: std::collections::BTreeSet<&String> = names.filter(changed).collect();
        match changed.first() {
            None => Ok(()),
            Some(name) => {
                let more = match changed.len() - 1 {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                Err(Error::Usage(format!(
                    "--resume: `{name}`{more} is not the file that the run began with, which was so until step \
                     {}; the run cannot go on as it began",
                    self.step
                )))
            }
        }
    }
}

/// The first setting that differs, and both values.
fn difference(
    path: String,
    was: &serde_json::Value,
    is: &serde_json::Value,
) -> Option<(String, String, String)> {
    if let (Some(old), Some(new)) = (was.as_object(), is.as_object()) {
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let null = serde_json::Value::Null;
        return names.into_iter().find_map(|name| {
            let path = match path.as_str() {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            difference(
                path,
                old.get(name).unwrap_or(&null),
                new.get(name).unwrap_or(&null),
            )
        });
    }
    (was != is).then(|| (path, was.to_string(), is.to_string()))
}
