//! A folder of results that one run has to itself.

use super::super::error::{Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The file that is locked. It is empty, and there only while a run is alive or after it was killed.
pub const LOCK: &str = ".run.lock";

/// A folder that no other run writes to while this value lives. The operating system holds the lock, so a killed run
/// holds none. A run that wrote nothing leaves nothing: the folder is deleted again if this made it and it is empty.
pub struct Hold {
    path: PathBuf,
    /// Why the folder is not locked, where the file system has no locks.
    pub unlocked: Option<String>,
    // unlocked before folders are deleted: fields are dropped in this order
    _lock: File,
    _made: Made,
}

impl Hold {
    pub fn of(out: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::file(out, format!("cannot be written to: {error}"));
        let made = Made::before(out);
        let path = out.join(LOCK);
        loop {
            fs::create_dir_all(out).map_err(failed)?;
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let lock = match opened {
                Ok(lock) => lock,
                // a run that had made the folder has just deleted it
                Err(error) if error.kind() == io::ErrorKind::NotFound && !out.exists() => continue,
                Err(error) => return Err(failed(error)),
            };
            let unlocked = match lock.try_lock() {
                // a run that ended in between has deleted the file
                Ok(()) if !is_at(&lock, &path) => continue,
                Ok(()) => None,
                Err(TryLockError::WouldBlock) => {
                    let problem = "another run is writing to this folder: wait until it has ended, or choose another --out";
                    return Err(Error::file(out, problem));
                }
                Err(TryLockError::Error(error)) => Some(format!(
                    "{} cannot be locked ({error}): start no other run in it before this one has ended",
                    out.display()
                )),
            };
            return Ok(Self {
                path,
                unlocked,
                _lock: lock,
                _made: made,
            });
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // whoever has opened the file sees, after it is unlocked, that it is not there any more
        if cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether an open file is the one at a path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |found: fs::Metadata| (found.dev(), found.ino());
    let of_file = file.metadata().map(number).ok();
    of_file.is_some() && of_file == fs::metadata(path).map(number).ok()
}

/// It is never deleted here.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// The folders that did not exist before, the innermost first. Those that are empty at the end are deleted.
struct Made(Vec<PathBuf>);

impl Made {
    fn before(out: &Path) -> Self {
        let new = |at: &&Path| !at.as_os_str().is_empty() && !at.exists();
        Self(
            out.ancestors()
                .take_while(new)
                .map(Path::to_path_buf)
                .collect(),
        )
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Else a run could hold a file that nobody else finds.
    #[test]
    fn a_deleted_file_is_not_the_one_at_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        let other = File::create(&path).unwrap();
        assert!(!is_at(&file, &path) && is_at(&other, &path));
    }
}
