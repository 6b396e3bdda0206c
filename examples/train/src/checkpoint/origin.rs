//! Hashes of the files that a run starts from, to see later whether they are still the same.

use super::super::error::{Error, Result};
use super::hash::Hash;
use super::online::rewards::Reward;
use super::settings::{FreshAdapter, Settings};
use crate::files;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

/// The size and a hash of each file, by what it is for the run.
pub type Origin = BTreeMap<String, String>;

/// The model's part of an [`Origin`].
pub const MODEL: &str = "model/";
/// The part of the adapter that a run goes on from.
pub const ADAPTER_DIR: &str = "adapter_dir/";

/// The part of the teacher.
const TEACHER: &str = "teacher/";

/// Of the model, of a teacher, of the adapter that the run goes on from, of the settings of a fresh one, and of what
/// gives or scores answers.
pub fn origin(settings: &Settings) -> Result<Origin> {
    let mut all = Origin::new();
    for name in weights(&settings.model)? {
        let number = number(&settings.model.join(&name))?;
        all.insert(format!("{MODEL}{name}"), number);
    }
    if let Some(folder) = &settings.teacher {
        for name in weights(folder)? {
            let number = number(&folder.join(&name))?;
            all.insert(format!("{TEACHER}{name}"), number);
        }
    }
    if let Some(folder) = &settings.adapter_dir {
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            all.insert(format!("{ADAPTER_DIR}{name}"), number(&folder.join(name))?);
        }
    }
    for (at, reward) in settings.online.rewards.iter().enumerate() {
        if let Reward::RewardModel(model) = reward {
            let adapter = ["adapter_config.json", "adapter_model.safetensors"];
            let names = match model.folder.join(adapter[0]).exists() {
                true => adapter.map(str::to_string).into_iter().collect(),
                false => weights(&model.folder)?,
            };
            for name in names {
                let number = number(&model.folder.join(&name))?;
                all.insert(format!("reward_model {}/{name}", at + 1), number);
            }
        }
    }
    if let Some(path) = &settings.online.completions_file {
        all.insert("completions_file".to_string(), number(path)?);
    }
    if let Some(FreshAdapter::File(path)) = &settings.adapter {
        all.insert("adapter".to_string(), number(path)?);
    }
    Ok(all)
}

/// The names of the files that the model is read from.
fn weights(folder: &Path) -> Result<BTreeSet<String>> {
    let (one, index) = ("model.safetensors", "model.safetensors.index.json");
    let mut names = BTreeSet::from(["config.json".to_string()]);
    if folder.join(one).exists() {
        names.insert(one.to_string());
        return Ok(names);
    }
    // what the index lacks, the decoder has refused
    let text = super::optional_object(&folder.join(index))?.unwrap_or_default();
    let shards = text.get("weight_map").and_then(Value::as_object);
    let shards = shards.into_iter().flat_map(|map| map.values());
    names.extend(shards.filter_map(|shard| shard.as_str().map(str::to_string)));
    names.insert(index.to_string());
    Ok(names)
}

/// The size of a file and a hash of its content.
fn number(path: &Path) -> Result<String> {
    let failed = |error: io::Error| Error::file(path, format!("cannot be read: {error}"));
    let mut file = files::open(path).map_err(failed)?;
    let (mut hash, mut size) = (Hash::default(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        // whole words, except at the end
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).map_err(failed)? {
                0 => break,
                more => filled += more,
            }
        }
        hash.bytes(&buffer[..filled]);
        size += filled;
        if filled < buffer.len() {
            return Ok(format!("{size}-{}", hash.hex()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_file_changes_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            number(&path).unwrap()
        };
        let bytes: Vec<u8> = (0..(1 << 20) + 13).map(|i| (i % 251) as u8).collect();
        let whole = of(&bytes);
        assert_eq!(of(&bytes), whole);
        assert!(whole.starts_with("1048589-"), "{whole}");
        let mut seen = std::collections::HashSet::from([whole]);
        for at in [
            0,
            7,
            8,
            4095,
            1 << 19,
            (1 << 20) - 1,
            1 << 20,
            (1 << 20) + 12,
        ] {
            for flip in [1, 0x80] {
                let mut other = bytes.clone();
                other[at] ^= flip;
                assert!(seen.insert(of(&other)), "{at} {flip}");
            }
        }
        // the signs of two numbers, which a plain product of words would not see
        let mut other = bytes.clone();
        (other[7], other[15]) = (other[7] ^ 0x80, other[15] ^ 0x80);
        assert!(seen.insert(of(&other)));
        assert!(seen.insert(of(&bytes[..bytes.len() - 1])));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(seen.insert(of(&longer)));
    }
}
