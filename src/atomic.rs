//! Atomic writes: afterwards a file is either completely new or unchanged.
//!
//! A file is staged: it is written in a new folder beside its place, flushed to disk, and then moved into
//! place in one step. The examples include this file too, so it uses nothing else from the crate.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{
    File, OpenOptions, Permissions, create_dir, read_dir, remove_dir_all, remove_file, rename,
};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::{Builder, TempDir};

/// The end of the folder's name, which is `.NAME.XXXXXX.candle-align`.
const SUFFIX: &str = ".candle-align";

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be written: {cause}")]
pub(crate) struct Failure {
    /// The requested file, not the staged one.
    pub(crate) path: String,
    /// The error of the file system or of the writer.
    pub(crate) cause: String,
}

impl Failure {
    pub(crate) fn new(path: &Path, cause: impl Display) -> Self {
        Self {
            path: path.display().to_string(),
            cause: cause.to_string(),
        }
    }
}

/// The new content of a file, or a new folder. It is deleted if it is dropped before [`Staged::put`].
///
/// It is in a folder with a unique name beside the file. So two writers of one file do not collide, nothing
/// is written through a link, and anything that a writer leaves beside its file is deleted with the
/// folder. Where the system supports locks, the folder is locked while its writer is alive. So the folder
/// of a dead writer can be recognized, and the next writer of the same file deletes it.
pub(crate) struct Staged {
    stage: Stage,
    path: PathBuf,
}

impl Staged {
    /// `write` gets the path to write to. The file is then flushed to disk.
    pub(crate) fn new<E: Display>(
        path: &Path,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Self, Failure> {
        Self::of(path, |_| Ok(()), write)
    }

    /// A new folder with all its files. `write` gets the path of an empty folder to write into. A folder that
    /// holds something cannot be replaced in one step, so it is an error.
    pub(crate) fn folder<E: Display>(
        path: &Path,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Self, Failure> {
        match path.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                return Err(Failure::new(
                    path,
                    "it is there already and is not a folder",
                ));
            }
            Ok(_) if read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) => {
                let text = "it is there already and is not empty: name a new folder";
                return Err(Failure::new(path, text));
            }
            _ => {}
        }
        let folder = |part: &Path| remove_file(part).and_then(|()| create_dir(part));
        Self::of(path, folder, write)
    }

    fn of<E: Display>(
        path: &Path,
        prepare: impl FnOnce(&Path) -> io::Result<()>,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Self, Failure> {
        let Some(name) = path.file_name() else {
            return Err(Failure::new(path, "it names no file"));
        };
        let failed = |error: io::Error| Failure::new(path, of_the_system(&error));
        let stage = Stage::new(folder_of(path), name).map_err(failed)?;
        prepare(&stage.part).map_err(failed)?;
        write(&stage.part).map_err(|error| Failure::new(path, error))?;
        stage.finish().map_err(failed)?;
        let path = path.to_path_buf();
        Ok(Self { stage, path })
    }

    /// Replaces the file, in one step.
    pub(crate) fn put(self) -> Result<(), Failure> {
        self.put_and_stay().map(drop)
    }

    /// As [`Staged::put`], but the folder beside the file stays until the returned value is dropped.
    pub(crate) fn put_and_stay(self) -> Result<Stage, Failure> {
        rename(&self.stage.part, &self.path).map_err(|error| Failure::new(&self.path, error))?;
        sync(folder_of(&self.path));
        Ok(self.stage)
    }

    /// Does not replace the file; the folder stays until the returned value is dropped.
    pub(crate) fn stay(self) -> Stage {
        self.stage
    }
}

/// Whether a file is being written, or was being written when its writer was killed.
pub(crate) fn is_staged(path: &Path) -> bool {
    let prefix = path.file_name().map(prefix_of);
    prefix.is_some_and(|prefix| stages(folder_of(path), &prefix).next().is_some())
}

/// A folder for one file.
pub(crate) struct Stage {
    part: PathBuf,
    /// The permissions of an ordinary new file. Some writers create files that others cannot read.
    permissions: Permissions,
    // deleted before the lock is released: fields are dropped in this order
    _folder: TempDir,
    _lock: Option<File>,
}

impl Stage {
    fn new(beside: &Path, name: &OsStr) -> io::Result<Self> {
        let prefix = prefix_of(name);
        sweep(beside, &prefix);
        loop {
            let folder = Builder::new()
                .prefix(&prefix)
                .suffix(SUFFIX)
                .tempdir_in(beside)?;
            // where folders cannot be locked, no writer deletes them
            let lock = File::open(folder.path())
                .and_then(|at| at.lock().map(|()| at))
                .ok();
            let part = folder.path().join(name);
            let made = File::create_new(&part).and_then(|file| file.metadata());
            match made {
                Ok(found) => {
                    return Ok(Self {
                        part,
                        permissions: found.permissions(),
                        _folder: folder,
                        _lock: lock,
                    });
                }
                // another writer deleted it: before the lock it looked like that of a dead writer
                Err(_) if !folder.path().exists() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn finish(&self) -> io::Result<()> {
        if !self.part.is_dir() {
            return self.finish_file(&self.part);
        }
        for entry in read_dir(&self.part)? {
            self.finish_file(&entry?.path())?;
        }
        sync(&self.part);
        Ok(())
    }

    fn finish_file(&self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.permissions() != self.permissions {
            file.set_permissions(self.permissions.clone())?;
        }
        file.sync_all()
    }
}

/// The error without the path that `tempfile` adds.
fn of_the_system(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at path ") {
        Some((system, _)) => system.to_string(),
        None => text,
    }
}

/// The folder of a file. The current folder is `.`.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Flushes the names in a folder to disk. Not every system supports that, and the bytes are on disk
/// already, so a failure is not an error.
fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// The start of the names of the folders for a file.
fn prefix_of(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

/// The staging folders of a file.
fn stages(beside: &Path, prefix: &OsStr) -> impl Iterator<Item = PathBuf> {
    let staged = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(SUFFIX.as_bytes())
    };
    let entries = read_dir(beside).into_iter().flatten().flatten();
    entries
        .filter(move |entry| {
            staged(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_dir())
        })
        .map(|entry| entry.path())
}

/// Deletes what dead writers of a file left behind. What cannot be deleted is left for the next writer.
fn sweep(beside: &Path, prefix: &OsStr) {
    for path in stages(beside, prefix) {
        // held until the folder is gone: its writer may be about to lock it
        let Ok(folder) = File::open(&path) else {
            continue;
        };
        if folder.try_lock().is_ok() {
            let _ = remove_dir_all(&path);
        }
    }
}
