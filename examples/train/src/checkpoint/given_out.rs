//! What rank 0 gives the other ranks before the first step: the time, and the checkpoint that the run goes on from. The
//! folder of results is needed on its machine alone.

use super::super::error::{Error, Result};
use super::super::world::World;
use crate::files;
use std::fs;
use std::io;
use std::path::Path;
use tempfile::TempDir;

/// The text that rank 0 has.
pub fn text(world: &dyn World, own: String) -> Result<String> {
    let mut bytes = own.into_bytes();
    world.broadcast(&mut bytes)?;
    String::from_utf8(bytes)
        .map_err(|error| Error::Usage(format!("rank 0 gave a text that is none: {error}")))
}

/// On the other ranks, a copy of the files of a folder of rank 0, if it has one.
pub fn copy(world: &dyn World, folder: Option<&Path>) -> Result<Option<TempDir>> {
    if world.size() == 1 {
        return Ok(None);
    }
    let names = folder.map(names).transpose()?.unwrap_or_default();
    let names = text(world, names.join("\n"))?;
    if names.is_empty() {
        return Ok(None);
    }
    let temporary = |error: io::Error| Error::Usage(format!("no temporary folder: {error}"));
    let copy = match world.writes() {
        true => None,
        false => Some(tempfile::tempdir().map_err(temporary)?),
    };
    for name in names.lines() {
        let mut bytes = Vec::new();
        if let (true, Some(folder)) = (world.writes(), folder) {
            let path = folder.join(name);
            bytes = files::read(&path)
                .map_err(|error| Error::file(&path, format!("cannot be read: {error}")))?
                .to_vec();
        }
        world.broadcast(&mut bytes)?;
        if let Some(copy) = &copy {
            let path = copy.path().join(name);
            fs::write(&path, &bytes)
                .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
        }
    }
    Ok(copy)
}

/// The names of the files of a folder, in order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| Error::file(folder, format!("cannot be read: {error}"));
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
