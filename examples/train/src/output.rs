//! Files that are written completely or not at all.

use super::error::{Error, Result};
use crate::atomic::Staged;
use candle_core::{Tensor, Var};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder for results, known to be writable.
pub struct Folder(PathBuf);

impl Folder {
    /// Creates the folder and tries to write into it, before the run instead of after an hour.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)
            .and_then(|()| tempfile::tempfile_in(path))
            .map_err(|error| Error::file(path, format!("cannot be written to: {error}")))?;
        Ok(Self(path.to_path_buf()))
    }

    pub fn text(&self, name: &str, text: &str) -> Result<()> {
        self.put(name, |part| fs::write(part, text))
    }

    pub fn json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).map_err(|error| {
            Error::file(&self.0.join(name), format!("cannot be written: {error}"))
        })?;
        text.push('\n');
        self.text(name, &text)
    }

    pub fn lines(&self, name: &str, values: &[impl Serialize]) -> Result<()> {
        let lines: Result<String, serde_json::Error> = values
            .iter()
            .map(|value| Ok(serde_json::to_string(value)? + "\n"))
            .collect();
        let lines = lines.map_err(|error| {
            Error::file(&self.0.join(name), format!("cannot be written: {error}"))
        })?;
        self.text(name, &lines)
    }

    pub fn vars(&self, name: &str, vars: &[(String, Var)]) -> Result<()> {
        let tensors = vars.iter();
        let tensors = tensors.map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        self.weights(name, &tensors.collect())
    }

    pub fn weights(&self, name: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let tensors: HashMap<String, Tensor> = tensors.clone().into_iter().collect();
        self.put(name, |part| candle_core::safetensors::save(&tensors, part))
    }

    /// Writes to a temporary file and renames it, so that a reader sees the old file or the new one.
    fn put<E: Display>(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<()> {
        let path = self.0.join(name);
        let put = Staged::new(&path, write).and_then(Staged::put);
        put.map_err(|failure| Error::file(&path, format!("cannot be written: {}", failure.cause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.text("a.txt", "old").unwrap();
        let failed = folder.put("a.txt", |path| {
            fs::write(path, "half").map_err(|error| error.to_string())?;
            Err("the disk is full".to_string())
        });
        let path = dir.path().join("a.txt");
        assert_eq!(
            failed.unwrap_err().to_string(),
            format!("{}: cannot be written: the disk is full", path.display())
        );
        assert_eq!(fs::read_to_string(path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_users_own_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let own = [".probe.tmp", ".a.txt.tmp", "a.txt.part"];
        for name in own {
            fs::write(dir.path().join(name), "mine").unwrap();
        }
        Folder::open(dir.path())
            .unwrap()
            .text("a.txt", "new")
            .unwrap();
        for name in own {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine", "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    /// Weights too, whose own writer makes them closed to others.
    #[cfg(unix)]
    #[test]
    fn weights_have_the_permissions_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        folder.text("a.txt", "text").unwrap();
        folder.weights("a.safetensors", &BTreeMap::new()).unwrap();
        let mode = |name: &str| {
            let found = fs::metadata(dir.path().join(name)).unwrap();
            found.permissions().mode()
        };
        assert_eq!(mode("a.safetensors"), mode("a.txt"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let Err(error) = Folder::open(&file.join("out")) else {
            panic!("a file is no folder");
        };
        let start = format!("{}: cannot be written to: ", file.join("out").display());
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}
