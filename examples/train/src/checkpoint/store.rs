//! Checkpoints: what is trained, the state of the optimizer, of AdaLoRA's allocator and of BCO's mean reward, the
//! step and the settings, in one folder that is there completely or not at all.

use super::super::error::{Error, Result};
use super::budget::Budget;
use super::origin::Origin;
use super::save;
use super::settings::Settings;
use super::staged::{PARTIAL, delete, staged};
use super::update::Update;
use crate::files;
use candle_align::decoder::Decoder;
use candle_align::ranking::RewardShift;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
const WEIGHTS: &str = "trained.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const ADAPTER: &str = "adapter";
const STEP: &str = "step-";
const ALLOCATOR: &str = "allocator.safetensors";
const SHIFT: &str = "shift.safetensors";
const MEAN: &str = "mean_and_count";

/// What a checkpoint says of its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// The number of the rows.
    pub rows: String,
    /// The numbers of the files that the run began with.
    pub origin: Origin,
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
            (settings.out, settings.ref_log_probs_dir) = (None, None);
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

    /// An error if the run began with other files: the checkpoint holds only what is trained.
    pub fn check_origin(&self, origin: &Origin) -> Result<()> {
        let names = self.origin.keys().chain(origin.keys());
        let changed = |name: &&String| self.origin.get(*name) != origin.get(*name);
        let changed: std::collections::BTreeSet<&String> = names.filter(changed).collect();
        match changed.first() {
            None => Ok(()),
            Some(name) => {
                let more = match changed.len() - 1 {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                Err(Error::Usage(format!(
                    "--resume: `{name}`{more} is not the file that the run began with, which was so until step \
                     {}; the run cannot go on as it began",
                    self.step
                )))
            }
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

    /// Writes a checkpoint and deletes those that are too many. `shift` is BCO's.
    pub fn save(
        &self,
        state: &State,
        update: &Update,
        shift: Option<&RewardShift>,
        decoder: &Decoder,
    ) -> Result<()> {
        let path = self.folder.join(format!("{STEP}{:06}", state.step));
        staged(&path, |part| {
            let vars = update.vars().iter();
            let tensors = vars.map(|(name, var)| (name.clone(), var.as_detached_tensor()));
            tensors_to(&part.join(WEIGHTS), tensors.collect())?;
            update.optimizer().save(part.join(OPTIMIZER))?;
            if let Some(state) = update.budget().map(Budget::state).transpose()?.flatten() {
                tensors_to(&part.join(ALLOCATOR), state)?;
            }
            if let Some(shift) = shift {
                // the bits: a number in JSON may lose its last one
                let RewardShift { mean, count } = *shift;
                let numbers = Tensor::new(&[mean, count as f64], &Device::Cpu)?;
                tensors_to(
                    &part.join(SHIFT),
                    HashMap::from([(MEAN.to_string(), numbers)]),
                )?;
            }
            if decoder.adapter().is_some() {
                save::adapter(decoder, update.budget(), &part.join(ADAPTER))?;
            }
            let text = serde_json::to_string_pretty(state)
                .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
            let file = part.join(STATE);
            fs::write(&file, text + "\n")
                .map_err(|error| Error::file(&file, format!("cannot be written: {error}")))
        })?;
        let all = self.all()?;
        for (_, old) in &all[..all.len().saturating_sub(self.keep)] {
            delete(old)?;
        }
        Ok(())
    }
}

fn tensors_to(path: &Path, tensors: HashMap<String, Tensor>) -> Result<()> {
    candle_core::safetensors::save(&tensors, path)
        .map_err(|error| Error::file(path, format!("cannot be written: {error}")))
}

fn tensors_from(path: &Path) -> Result<HashMap<String, Tensor>> {
    let bytes =
        files::read(path).map_err(|error| Error::file(path, format!("cannot be read: {error}")))?;
    candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|error| Error::file(path, format!("cannot be read: {error}")))
}

/// Gives the weights, the optimizer, AdaLoRA's allocator and BCO's shift what a checkpoint holds.
pub fn restore(folder: &Path, update: &mut Update, shift: Option<&mut RewardShift>) -> Result<()> {
    let path = folder.join(WEIGHTS);
    let mut tensors = tensors_from(&path)?;
    for (name, var) in update.vars() {
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
    update.optimizer_mut().load(folder.join(OPTIMIZER))?;
    if let Some(shift) = shift {
        let path = folder.join(SHIFT);
        let numbers = tensors_from(&path)?.remove(MEAN);
        let numbers = numbers
            .map(|numbers| numbers.to_vec1::<f64>())
            .transpose()?;
        match numbers.as_deref() {
            Some([mean, count]) => {
                *shift = RewardShift {
                    mean: *mean,
                    count: *count as u64,
                };
            }
            _ => {
                let problem = format!("must hold `{MEAN}`: a mean and a count");
                return Err(Error::file(&path, problem));
            }
        }
    }
    if update.budget().is_some_and(Budget::is_allocating) {
        let path = folder.join(ALLOCATOR);
        let state = tensors_from(&path)?;
        let restored = update.budget_mut().map(|budget| budget.restore(state));
        if let Some(Err(error)) = restored {
            return Err(Error::file(&path, error.to_string()));
        }
    }
    Ok(())
}
