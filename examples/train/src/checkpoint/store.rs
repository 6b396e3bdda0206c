//! Checkpoints: what is trained, the optimizer's state, the step and the settings, in one folder that is
//! there completely or not at all.

use super::super::error::{Error, Result};
use super::fit::Fitting;
use super::load::TRAINED;
use super::settings::Settings;
use crate::files;
use candle_align::decoder::Decoder;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
const WEIGHTS: &str = "trained.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const ADAPTER: &str = "adapter";
const STEP: &str = "step-";
/// The end of the name of a folder that is being written or deleted.
const PARTIAL: &str = ".partial";

/// What a checkpoint says of its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// The number of the rows.
    pub rows: String,
    pub settings: Settings,
}

impl State {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let text = super::super::input::json(&path)?;
        serde_json::from_str(&text).map_err(|error| Error::json(&path, &text, &error))
    }

    /// An error if a run with these settings would not go on as the run of the checkpoint. What is saved,
    /// and how much of it is kept, may differ.
    pub fn check(&self, settings: &Settings) -> Result<()> {
        let value = |settings: &Settings| {
            let mut settings = settings.clone();
            settings.out = None;
            (settings.save_every, settings.keep_last) = (0, 0);
            serde_json::to_value(settings).unwrap_or_default()
        };
        match difference(String::new(), &value(&self.settings), &value(settings)) {
            None => Ok(()),
            Some((name, was, is)) => Err(Error::Usage(format!(
                "--resume: `{name}` is {is}, and was {was} until step {}; the run cannot go on as it began",
                self.step
            ))),
        }
    }
}

/// The first setting that differs, and both values.
fn difference(
    path: String,
    was: &serde_json::Value,
    is: &serde_json::Value,
) -> Option<(String, String, String)> {
    if let (Some(old), Some(new)) = (was.as_object(), is.as_object()) {
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let null = serde_json::Value::Null;
        return names.into_iter().find_map(|name| {
            let path = match path.as_str() {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            difference(
                path,
                old.get(name).unwrap_or(&null),
                new.get(name).unwrap_or(&null),
            )
        });
    }
    (was != is).then(|| (path, was.to_string(), is.to_string()))
}

/// The checkpoints of a run.
pub struct Store {
    folder: PathBuf,
    keep: usize,
}

impl Store {
    /// In `checkpoints` of the folder of results. What a killed run left half-written is deleted.
    pub fn open(out: &Path, keep: usize) -> Result<Self> {
        let folder = out.join("checkpoints");
        let failed =
            |error: io::Error| Error::file(&folder, format!("cannot be written to: {error}"));
        fs::create_dir_all(&folder).map_err(failed)?;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(STEP) && name.ends_with(PARTIAL) {
                fs::remove_dir_all(&path).map_err(failed)?;
            }
        }
        Ok(Self { folder, keep })
    }

    /// The steps of all checkpoints with their folders, in order.
    pub fn all(&self) -> Result<Vec<(usize, PathBuf)>> {
        let failed =
            |error: io::Error| Error::file(&self.folder, format!("cannot be read: {error}"));
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let step = name
                .and_then(|name| name.strip_prefix(STEP))
                .and_then(|step| step.parse().ok());
            all.extend(step.map(|step| (step, path)));
        }
        all.sort();
        Ok(all)
    }

    /// Writes a checkpoint and deletes those that are too many.
    pub fn save(&self, state: &State, fitting: &Fitting, decoder: &Decoder) -> Result<()> {
        let path = self.folder.join(format!("{STEP}{:06}", state.step));
        staged(&path, |part| {
            let vars = fitting.vars().iter();
            let tensors = vars.map(|(name, var)| (name.clone(), var.as_detached_tensor()));
            candle_core::safetensors::save(
                &tensors.collect::<HashMap<_, _>>(),
                part.join(WEIGHTS),
            )?;
            fitting.optimizer().save(part.join(OPTIMIZER))?;
            if decoder.adapter().is_some() {
                decoder.save_adapter(TRAINED, part.join(ADAPTER))?;
            }
            let text = serde_json::to_string_pretty(state)
                .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
            fs::write(part.join(STATE), text + "\n")
                .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))
        })?;
        let all = self.all()?;
        for (_, old) in &all[..all.len().saturating_sub(self.keep)] {
            delete(old)?;
        }
        Ok(())
    }
}

/// Gives the weights and the optimizer what a checkpoint holds.
pub fn restore(folder: &Path, fitting: &mut Fitting) -> Result<()> {
    let path = folder.join(WEIGHTS);
    let bytes = files::read(&path)
        .map_err(|error| Error::file(&path, format!("cannot be read: {error}")))?;
    let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
    let mut tensors: HashMap<String, Tensor> =
        read.map_err(|error| Error::file(&path, format!("cannot be read: {error}")))?;
    for (name, var) in fitting.vars() {
        let tensor = tensors.remove(name);
        let tensor =
            tensor.ok_or_else(|| Error::file(&path, format!("holds no tensor `{name}`")))?;
        if tensor.dims() != var.dims() || tensor.dtype() != var.dtype() {
            let problem = format!(
                "holds `{name}` as {} {:?}, expected {} {:?}",
                tensor.dtype().as_str(),
                tensor.dims(),
                var.dtype().as_str(),
                var.dims()
            );
            return Err(Error::file(&path, problem));
        }
        var.set(&tensor)?;
    }
    if let Some(name) = tensors.keys().min() {
        return Err(Error::file(
            &path,
            format!("holds `{name}`, which is not trained here"),
        ));
    }
    Ok(fitting.optimizer_mut().load(folder.join(OPTIMIZER))?)
}

/// A folder that `write` fills under another name, flushed to disk before it gets its own. What was there
/// is replaced.
pub fn staged(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |error: io::Error| Error::file(path, format!("cannot be written: {error}"));
    let part = partial(path);
    let made = match part.exists() {
        true => fs::remove_dir_all(&part),
        false => Ok(()),
    };
    made.and_then(|()| fs::create_dir_all(&part))
        .map_err(failed)?;
    let written = write(&part).and_then(|()| sync(&part).map_err(failed));
    if let Err(error) = written {
        // the error that counts is the first one
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    if path.exists() {
        delete(path)?;
    }
    fs::rename(&part, path).map_err(failed)?;
    // not every system can flush a folder
    let _ = path
        .parent()
        .map(File::open)
        .and_then(|parent| parent.ok()?.sync_all().ok());
    Ok(())
}

/// Deletes a folder, which loses its name first.
fn delete(path: &Path) -> Result<()> {
    let mut gone = path.as_os_str().to_os_string();
    gone.push(".old");
    gone.push(PARTIAL);
    fs::rename(path, &gone)
        .and_then(|()| fs::remove_dir_all(&gone))
        .map_err(|error| Error::file(path, format!("cannot be deleted: {error}")))
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(PARTIAL);
    PathBuf::from(name)
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
