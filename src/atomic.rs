//! Files that are whole or as they were.

use candle_core::Result;
use std::fs::{File, OpenOptions, remove_file, rename};
use std::path::{Path, PathBuf};

/// What shall take the place of a file, written beside it under the same name with `.part` after it;
/// deleted if it is dropped before [`Staged::put`].
pub(crate) struct Staged {
    part: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// `write` is told where, and what it wrote is then forced onto the disk.
    pub(crate) fn new(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let staged = Self {
            part: path.with_file_name(name),
            path: path.to_path_buf(),
        };
        write(&staged.part)?;
        let file: File = OpenOptions::new().write(true).open(&staged.part)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Takes the place of the file, in one step.
    pub(crate) fn put(self) -> Result<()> {
        Ok(rename(&self.part, &self.path)?)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // nothing is there after `put`; the error that is reported is the first one
        let _ = remove_file(&self.part);
    }
}
