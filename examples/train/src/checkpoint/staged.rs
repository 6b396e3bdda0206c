//! Folders that appear with all their files, and are replaced as a whole.
//!
//! A folder that is there cannot be replaced in one step: it is moved aside, and the new one gets its name. Between
//! the two, nothing has the name. A run that is killed just there leaves both folders under other names, and
//! [`recover`] puts the old one back at the next start.
//!
//! | beside `NAME` | holds |
//! |---|---|
//! | `NAME.partial` | a folder that is being written |
//! | `NAME.old.partial` | the whole folder that had the name before |
//! | `NAME.gone.partial` | a folder that is being deleted |

use super::super::error::{Error, Result};
use super::super::overwrite::is_there;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The end of the names of folders that are being written, replaced or deleted.
pub const PARTIAL: &str = ".partial";
const OLD: &str = ".old.partial";
const GONE: &str = ".gone.partial";

/// A folder that `write` fills under another name, flushed to disk before it gets its own. What was there
/// is replaced: it is deleted only after the new folder has its name. After an error it is still there.
pub fn staged(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |error: io::Error| Error::file(path, format!("cannot be written: {error}"));
    recover(path)?;
    let part = beside(path, PARTIAL);
    fs::create_dir_all(&part).map_err(failed)?;
    let written = write(&part)
        .and_then(|()| sync(&part).map_err(failed))
        .and_then(|()| replace(&part, path).map_err(failed));
    if let Err(error) = written {
        // the error that counts is the first one
        let _ = fs::remove_dir_all(&part);
        return Err(in_place(error, &part, path));
    }
    // not every system can flush a folder
    let _ = path
        .parent()
        .map(File::open)
        .and_then(|parent| parent.ok()?.sync_all().ok());
    let old = beside(path, OLD);
    discard(&old, path).map_err(|error| Error::file(&old, format!("cannot be deleted: {error}")))
}

/// Gives a folder its name. What had the name is moved aside first, and gets it back if that fails.
pub fn replace(part: &Path, path: &Path) -> io::Result<()> {
    let old = beside(path, OLD);
    let replaces = is_there(path);
    if replaces {
        fs::rename(path, &old)?;
    }
    fs::rename(part, path).inspect_err(|_| {
        if replaces {
            // if this fails too, the next start does it
            let _ = fs::rename(&old, path);
        }
    })
}

/// Ends what a killed writer of a folder began: the name goes back to the folder that had it, and what is
/// half-written or half-deleted goes.
pub fn recover(path: &Path) -> Result<()> {
    let old = beside(path, OLD);
    let put_back = || match is_there(path) {
        false if is_there(&old) => fs::rename(&old, path),
        _ => discard(&old, path),
    };
    put_back()
        .and_then(|()| remove(&beside(path, PARTIAL)))
        .map_err(|error| {
            let problem =
                format!("what an interrupted run left beside it cannot be put right: {error}");
            Error::file(path, problem)
        })
}

/// The names beside a folder that its writer uses.
pub fn names_beside(path: &Path) -> [PathBuf; 3] {
    [PARTIAL, OLD, GONE].map(|end| beside(path, end))
}

/// Deletes a folder, which loses its name first.
pub fn delete(path: &Path) -> Result<()> {
    discard(path, path).map_err(|error| Error::file(path, format!("cannot be deleted: {error}")))
}

/// Deletes a folder, if it exists, under a name that says so: under its own name no part of it is ever found.
fn discard(folder: &Path, path: &Path) -> io::Result<()> {
    let gone = beside(path, GONE);
    remove(&gone)?;
    if is_there(folder) {
        fs::rename(folder, &gone)?;
    }
    remove(&gone)
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
