//! Two files that belong together: read as a pair, and replaced so that there is always one.
//!
//! The tensors are one file, which is replaced in one step and also holds the settings; a mark in
//! `adapter_config.json` says whether these are the settings beside it.

use super::absent;
use super::tensors;
use super::{CONFIG, TENSORS};
use crate::atomic::{Failure, Staged, is_staged};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor_file::LONGEST_HEADER;
use serde::Deserialize;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::thread;

/// The text before the mark, after the version of PEFT. PEFT puts its commit there.
const MARK: &str = "@candle-align.";
/// Where the settings are kept while their tensors are replaced.
const ASIDE: &str = ".adapter_config.json.replaced.candle-align";
/// How often the reader looks at two files that do not belong together.
const TRIES: usize = 100;

/// The mark of settings: the 64-bit FNV-1a hash of their text without the mark.
pub(super) fn mark(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{MARK}{hash:016x}")
}

/// The mark in a text, if any.
fn mark_in(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Settings {
        peft_version: String,
    }
    let found: Settings = serde_json::from_slice(text).ok()?;
    let (_, mark) = found.peft_version.split_once(MARK)?;
    Some(mark.to_string())
}

/// Two files of one adapter, each with its path for messages.
pub(super) struct Pair {
    pub(super) settings: (String, Vec<u8>),
    pub(super) tensors: (String, Vec<u8>),
}

/// Reads a pair.
pub(super) fn read(function: &'static str, folder: &Path) -> Result<Pair> {
    if folder.is_file() {
        let text = "is a file: name the folder that it is in";
        return Err(Error::argument(
            function,
            folder.display().to_string(),
            text,
        ));
    }
    for _ in 0..TRIES {
        if let Some(pair) = look(function, folder)? {
            return Ok(pair);
        }
        thread::yield_now();
    }
    let text = format!(
        "and `{CONFIG}` beside it are of two adapters, in {TRIES} looks: one of the two was put there \
         alone, or another program is at work that writes there; without `{CONFIG}` these tensors are \
         read with the settings that they hold"
    );
    let source = folder.join(TENSORS).display().to_string();
    Err(Error::argument(function, source, text))
}

/// The pair in a folder, or `None` while it changes. The tensors are read from one open file, whatever
/// replaces it meanwhile, so only the matching settings have to be found.
fn look(function: &'static str, folder: &Path) -> Result<Option<Pair>> {
    let (at, path) = (folder.join(CONFIG), folder.join(TENSORS));
    let tensors = Tensors::open(&path);
    let mut settings = settings_at(function, &at)?;
    if settings.is_none() && tensors.as_ref().is_ok_and(|t| t.settings.is_none()) {
        // they were moved aside, and these tensors do not hold them
        settings = settings_at(function, &folder.join(ASIDE))?;
    }
    let tensors = match tensors {
        Ok(tensors) => tensors,
        Err(_) if settings.is_none() => return Err(absent::settings(function, folder)),
        // the first adapter of the folder, written since
        Err(error) if error.kind() == ErrorKind::NotFound && path.exists() => return Ok(None),
        Err(error) => return Err(absent::tensors(function, folder, &error)),
    };
    let source = path.display().to_string();
    let own = tensors.settings.as_ref();
    let own = own.map(|text| (source.clone(), text.clone().into_bytes()));
    let marks = [&settings, &own].map(|found| found.as_ref().and_then(|(_, text)| mark_in(text)));
    let settings = match (marks, settings, own) {
        (_, None, Some(own)) => own,
        ([Some(beside), Some(of_tensors)], Some(settings), Some(own)) => {
            match beside == of_tensors {
                true => settings,
                // a writer is between the two files, or was killed there
                false if is_staged(&at) => own,
                false => return Ok(None),
            }
        }
        // nothing marks the pair, but the settings were found while these tensors were there
        (_, settings, _) if tensors.stand_at(&path) => {
            settings.ok_or_else(|| absent::settings(function, folder))?
        }
        _ => return Ok(None),
    };
    let bytes = tensors.rest().map_err(|error| {
        let text = format!("cannot be read: {error}");
        Error::argument(function, source.as_str(), text)
    })?;
    let tensors = (source, bytes);
    Ok(Some(Pair { settings, tensors }))
}

/// Settings and their path; `None` if there is no file.
fn settings_at(function: &'static str, path: &Path) -> Result<Option<(String, Vec<u8>)>> {
    match files::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => super::content(function, path, read).map(Some),
    }
}

/// A tensor file that was opened and read up to the end of its header.
struct Tensors {
    file: File,
    start: Vec<u8>,
    settings: Option<String>,
}

impl Tensors {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = files::open(path)?;
        let mut start = Vec::new();
        file.by_ref().take(8).read_to_end(&mut start)?;
        if let Some(length) = start.first_chunk::<8>().map(|n| u64::from_le_bytes(*n))
            && length <= LONGEST_HEADER
        {
            file.by_ref().take(length).read_to_end(&mut start)?;
        }
        let settings = tensors::settings(&start);
        Ok(Self {
            file,
            start,
            settings,
        })
    }

    /// Whether it is the file at a path, as far as the header tells.
    fn stand_at(&self, path: &Path) -> bool {
        Self::open(path).is_ok_and(|now| now.start == self.start)
    }

    /// The whole file.
    fn rest(mut self) -> io::Result<Vec<u8>> {
        self.file.read_to_end(&mut self.start)?;
        Ok(self.start)
    }
}

/// Replaces one pair by another. Until it is complete, a folder for the settings exists beside the files.
/// A reader that finds two files of two adapters concludes that a writer is between them, or was killed
/// there, and uses the settings in the tensors. At every instant [`read`] finds one of the two pairs: old
/// settings are moved aside first, so that none are beside tensors of another, and tensors hold their
/// own settings.
pub(super) fn write(folder: &Path, text: &str, content: &[u8]) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::new(folder, error))?;
    let (at, path) = (folder.join(CONFIG), folder.join(TENSORS));
    let tensors = Staged::new(&path, |part| fs::write(part, content))?;
    let settings = Staged::new(&at, |part| fs::write(part, text))?;
    if at.is_dir() {
        return Err(Failure::new(&at, "it is a folder, not a file"));
    }
    let aside = folder.join(ASIDE);
    let same = files::read(&at).is_ok_and(|old| old == text.as_bytes());
    let moved = !same && {
        let moved = fs::rename(&at, &aside);
        moved.map_or_else(
            |error| match error.kind() {
                ErrorKind::NotFound => Ok(false),
                _ => Err(Failure::new(&at, error)),
            },
            |()| Ok(true),
        )?
    };
    if let Err(failure) = tensors.put() {
        if moved && !at.exists() {
            // the first error is the one that is reported
            let _ = fs::rename(&aside, &at);
        }
        return Err(failure);
    }
    let _stage = match same {
        true => settings.stay(),
        false => settings.put_and_stay()?,
    };
    // left by a write that was interrupted too; it may not exist
    let _ = fs::remove_file(&aside);
    settle(&at, &path)
}

/// Puts the settings beside their tensors, in case two writers put one file each. Every writer does so
/// last, so the last one leaves a pair.
fn settle(at: &Path, path: &Path) -> Result<(), Failure> {
    for _ in 0..TRIES {
        let Some(own) = Tensors::open(path).ok().and_then(|found| found.settings) else {
            return Ok(());
        };
        let beside = files::read(at).ok().and_then(|text| mark_in(&text));
        if beside.is_some() && beside == mark_in(own.as_bytes()) {
            return Ok(());
        }
        Staged::new(at, |part| fs::write(part, &own))?.put()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The published values of FNV-1a.
    #[test]
    fn the_mark_is_the_hash_of_the_text() {
        for (text, hash) in [
            ("", "cbf29ce484222325"),
            ("a", "af63dc4c8601ec8c"),
            ("foobar", "85944171f73967e8"),
        ] {
            assert_eq!(mark(text), format!("{MARK}{hash}"));
        }
    }

    /// Settings, and tensors that hold them.
    fn adapter(text: &str) -> (String, Vec<u8>) {
        let settings = format!(r#"{{"peft_version": "0{}"}}"#, mark(text));
        let content = tensors::serialize(&BTreeMap::new(), &settings).unwrap();
        (settings, content)
    }

    #[test]
    fn settings_of_another_adapter_give_way_to_those_of_the_tensors() {
        let folder = tempfile::tempdir().unwrap();
        let (at, path) = (folder.path().join(CONFIG), folder.path().join(TENSORS));
        let ((own, content), (other, _)) = (adapter("one"), adapter("another"));
        fs::write(&path, content).unwrap();
        settle(&at, &path).unwrap();
        assert_eq!(fs::read_to_string(&at).unwrap(), own);
        for beside in [other.as_str(), "{}"] {
            fs::write(&at, beside).unwrap();
            settle(&at, &path).unwrap();
            assert_eq!(fs::read_to_string(&at).unwrap(), own, "{beside}");
        }
        // of this mark they stay, whatever was changed
        let changed = own.replace('}', r#", "revision": "main"}"#);
        fs::write(&at, &changed).unwrap();
        settle(&at, &path).unwrap();
        assert_eq!(fs::read_to_string(&at).unwrap(), changed);
    }

    #[test]
    fn tensors_stand_where_their_header_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [("one", "one"), ("copy", "one"), ("another", "another")] {
            fs::write(path(name), adapter(text).1).unwrap();
        }
        let found = Tensors::open(&path("one")).unwrap();
        let stands = ["one", "copy", "another", "missing"].map(|name| found.stand_at(&path(name)));
        assert_eq!(stands, [true, true, false, false]);
    }
}
