//! Folders that are there completely or not at all.

use super::super::error::{Error, Result};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The end of the name of a folder that is being written or deleted.
pub const PARTIAL: &str = ".partial";

/// A folder that `write` fills under another name, flushed to disk before it gets its own. What was there
/// is replaced: it is deleted only after the new folder has its name.
pub fn staged(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |error: io::Error| Error::file(path, format!("cannot be written: {error}"));
    let (part, old) = (beside(path, PARTIAL), beside(path, ".old.partial"));
    // left by a writer that was killed
    remove(&part)
        .and_then(|()| remove(&old))
        .and_then(|()| fs::create_dir_all(&part))
        .map_err(failed)?;
    let written = write(&part).and_then(|()| sync(&part).map_err(failed));
    if let Err(error) = written {
        // the error that counts is the first one
        let _ = fs::remove_dir_all(&part);
        return Err(in_place(error, &part, path));
    }
    if path.exists() {
        fs::rename(path, &old).map_err(failed)?;
    }
    fs::rename(&part, path).map_err(failed)?;
    // not every system can flush a folder
    let _ = path
        .parent()
        .map(File::open)
        .and_then(|parent| parent.ok()?.sync_all().ok());
    remove(&old).map_err(|error| Error::file(&old, format!("cannot be deleted: {error}")))
}

/// Deletes a folder, which loses its name first.
pub fn delete(path: &Path) -> Result<()> {
    let old = beside(path, ".old.partial");
    remove(&old)
        .and_then(|()| fs::rename(path, &old))
        .and_then(|()| remove(&old))
        .map_err(|error| Error::file(path, format!("cannot be deleted: {error}")))
}

/// Deletes a folder, if it exists.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(end);
    PathBuf::from(name)
}

/// The error with the name that the folder would have got.
fn in_place(error: Error, part: &Path, path: &Path) -> Error {
    let (from, to) = (part.display().to_string(), path.display().to_string());
    let text = error.to_string();
    match text.contains(&from) {
        true => Error::Usage(text.replace(&from, &to)),
        false => error,
    }
}

/// Flushes all files of a folder to disk.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    Ok(())
}
