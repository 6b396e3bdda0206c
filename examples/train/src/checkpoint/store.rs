//! Checkpoints: what is trained, the state of the optimizer, of AdaLoRA's allocator and of BCO's mean reward, the
//! step and the settings, in one folder that appears with all its files.

use super::super::error::{Error, Result};
use super::budget::Budget;
use super::guard::CHECKPOINTS;
use super::save;
use super::staged::{PARTIAL, delete, recover, staged};
use super::state::{STATE, State};
use super::update::Update;
use crate::{atomic::Staged, files};
use candle_align::decoder::Decoder;
use candle_align::ranking::RewardShift;
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "trained.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const ADAPTER: &str = "adapter";
const STEP: &str = "step-";
const ALLOCATOR: &str = "allocator.safetensors";
const SHIFT: &str = "shift.safetensors";
const MEAN: &str = "mean_and_count";

/// The checkpoints of a run.
pub struct Store {
    folder: PathBuf,
    keep: usize,
}

impl Store {
    /// In `checkpoints` of the folder of results, which the first checkpoint makes.
    pub fn of(out: &Path, keep: usize) -> Self {
        let folder = out.join(CHECKPOINTS);
        Self { folder, keep }
    }

    /// Ends what a killed run began: checkpoints that it was replacing get their names back, and what is half-written
    /// is deleted.
    pub fn recover(&self) -> Result<()> {
        for name in self.names()? {
            let of = match name.ends_with(PARTIAL) {
                true => name.split('.').next().filter(|of| of.starts_with(STEP)),
                false => None,
            };
            of.map_or(Ok(()), |of| recover(&self.folder.join(of)))?;
        }
        Ok(())
    }

    /// The names of all that is there.
    fn names(&self) -> Result<Vec<String>> {
        let failed =
            |error: io::Error| Error::file(&self.folder, format!("cannot be read: {error}"));
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            Ok(entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned())
        };
        entries.map(name).collect()
    }

    /// The steps of all checkpoints with their folders, in order.
    pub fn all(&self) -> Result<Vec<(usize, PathBuf)>> {
        let step = |name: String| {
            let step = name.strip_prefix(STEP)?.parse().ok()?;
            Some((step, self.folder.join(name)))
        };
        let mut all: Vec<_> = self.names()?.into_iter().filter_map(step).collect();
        all.sort();
        Ok(all)
    }

    /// The error of reading a checkpoint, with what to do.
    pub fn damaged(&self, path: &Path, error: &Error) -> Error {
        let all = self.all().unwrap_or_default();
        // it is the last one
        let older = all.iter().rev().find(|(_, other)| other != path);
        let advice = match older {
            Some((step, _)) => format!(
                "The checkpoint of step {step} is there too: delete {} to go on from it",
                path.display()
            ),
            None => "There is no checkpoint before it: begin again with another --out".to_string(),
        };
        Error::Usage(format!(
            "{error}; a run cannot go on from this checkpoint. {advice}"
        ))
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
    // its own writer makes files that others cannot read
    Staged::new(path, |part| candle_core::safetensors::save(&tensors, part))
        .and_then(Staged::put)
        .map_err(|failure| Error::file(path, format!("cannot be written: {}", failure.cause)))
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
