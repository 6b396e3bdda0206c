//! What a run must not write over: files that it reads, and results that are not its own.

use super::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

const FOREIGN: &str =
    "is there already and is not of this run, which would write over it: choose another --out";

/// The error about results that are not of the run.
pub fn foreign(path: &Path) -> Error {
    Error::file(path, FOREIGN)
}

/// An error if the run reads something in its folder of results that it would write over. `inputs` are what the run
/// reads, each with its name; `is_result` tells whether the run writes a name of that folder.
pub fn check_inputs(
    inputs: &[(&str, &Path)],
    out: &Path,
    is_result: impl Fn(&str) -> bool,
) -> Result<()> {
    let folder = real(out);
    for (what, path) in inputs {
        let found = real(path);
        let Ok(below) = found.strip_prefix(&folder) else {
            continue;
        };
        // the folder itself may be the model's
        let first = below.components().next();
        let is_replaced = first.is_none_or(|first| is_result(&first.as_os_str().to_string_lossy()));
        if is_replaced {
            let problem = format!(
                "the run reads {what} here, and would write its results over it in {}: choose another --out",
                out.display()
            );
            return Err(Error::file(path, problem));
        }
    }
    Ok(())
}

/// The path without links, as far as it exists.
pub fn real(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| {
        let existing = match above.as_os_str().is_empty() {
            true => Path::new("."),
            false => above,
        };
        let rest = path.strip_prefix(above).ok()?;
        Some(fs::canonicalize(existing).ok()?.join(rest))
    });
    found.unwrap_or_else(|| path.to_path_buf())
}

/// Whether anything has this name, a broken link too.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The first of these names that is there in a folder.
pub fn first_there(out: &Path, names: &[&str]) -> Option<PathBuf> {
    let mut paths = names.iter().map(|name| out.join(name));
    paths.find(|path| is_there(path))
}
