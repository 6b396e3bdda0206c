//! DPO's reference: a model that does not change, or its log-probabilities, computed once and kept in a file.
//!
//! ```text
//! precompute_ref_log_probs = false     a pass of the reference in every step
//! precompute_ref_log_probs = true      one pass over all rows before the first step, or a file of it
//! ```
//! The file's name is a hash of all that the numbers depend on: the model's files, those of an adapter that
//! serves as reference, the token ids, and which rows go through the model together. If any of it differs, the
//! name does, and the numbers are computed. A model that is trained as a whole then needs no second copy.

use super::super::error::{Error, Result};
use super::super::world::parts::{gather, part};
use super::super::world::{World, any};
use super::evaluate;
use super::hash::Hash;
use super::objective::Objective;
use super::objective::text::{Text, halves, log_probs};
use super::order::parts;
use super::origin::{ADAPTER_DIR, MODEL, Origin};
use super::prepare::Prepared;
use super::settings::Settings;
use crate::{atomic::Staged, files};
use candle_align::Pair;
use candle_align::decoder::{Decoder, Mode};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The reference of DPO.
pub enum Reference {
    /// The decoder with its adapter off.
    AdapterOff,
    /// Another adapter of the decoder, by name.
    Adapter(String),
    /// A frozen copy of the decoder at its start.
    Frozen(Box<Decoder>),
    /// Computed before the first step.
    Cached(Cached),
}

impl Reference {
    /// The summed log-probabilities of the answers to some rows. `texts` are these answers, the chosen ones
    /// first.
    pub fn sums(&self, decoder: &Decoder, rows: &[usize], texts: &[&Text]) -> Result<Pair<Tensor>> {
        if let Self::Cached(cached) = self {
            return cached.of(rows);
        }
        let of = self.compute(decoder, &|model, mode| log_probs(model, texts, mode))?;
        halves(&of.sum()?.detach())
    }

    /// The summed log-probabilities of one answer for each row.
    pub fn each(&self, decoder: &Decoder, rows: &[usize], texts: &[&Text]) -> Result<Tensor> {
        if let Self::Cached(cached) = self {
            return Ok(cached.of(rows)?.chosen);
        }
        let of = self.compute(decoder, &|model, mode| log_probs(model, texts, mode))?;
        Ok(of.sum()?.detach())
    }

    /// What the model of the reference computes, without dropout.
    pub fn compute<T>(
        &self,
        decoder: &Decoder,
        compute: &dyn Fn(&Decoder, Mode) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::AdapterOff => compute(decoder, Mode::Reference),
            Self::Adapter(name) => {
                let mut other = decoder.without_gradients();
                other.set_adapter(Some(name))?;
                compute(&other, Mode::Evaluation)
            }
            Self::Frozen(frozen) => compute(frozen, Mode::Evaluation),
            Self::Cached(_) => Err(Error::Usage(
                "the loss needs the reference itself, not its stored log-probabilities".to_string(),
            )),
        }
    }
}

/// The summed log-probabilities of all rows' answers.
pub struct Cached {
    /// `[rows, 2]`: the chosen answer's first.
    sums: Tensor,
}

impl Cached {
    fn of(&self, rows: &[usize]) -> Result<Pair<Tensor>> {
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let sums = self
            .sums
            .index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
        Ok(Pair {
            chosen: sums.narrow(1, 0, 1)?.squeeze(1)?,
            rejected: sums.narrow(1, 1, 1)?.squeeze(1)?,
        })
    }
}

/// The references of the rows of a run.
pub struct Precomputed {
    pub train: Reference,
    pub held_out: Reference,
    /// What was done, for the user.
    pub report: String,
}

/// Reads the numbers of all rows, or computes and keeps them. The model must be as it was before the first
/// step. Each rank computes a part; rank 0 reads and writes.
pub fn precompute(
    settings: &Settings,
    rows: &Prepared,
    origin: &Origin,
    decoder: &Decoder,
    reference: &Reference,
    world: &dyn World,
) -> Result<Precomputed> {
    let key = key(settings, rows, origin);
    let path = folder(settings).join(format!("{key}.safetensors"));
    let counts = [
        rows.train.len(),
        rows.held_out.as_ref().map_or(0, |held| held.rows.len()),
    ];
    let shown = path.display();
    let kept = match world.writes() {
        true => read(&path, &key, counts),
        false => None,
    };
    let is_kept = any(world, matches!(kept, Some(Ok(_))))?;
    let (found, report) = match kept {
        Some(Ok(found)) => {
            let numbers = |sums: &Tensor| everywhere(world, numbers(sums)?);
            let found = [numbers(&found[0])?, numbers(&found[1])?];
            (found, format!("read from {shown}"))
        }
        _ if is_kept => {
            let found = [
                everywhere(world, Vec::new())?,
                everywhere(world, Vec::new())?,
            ];
            (found, String::new())
        }
        none_or_bad => {
            let found = compute(settings, rows, decoder, reference, world)?;
            if world.writes() {
                write(&path, &key, &found)?;
            }
            let why = match none_or_bad {
                Some(Err(problem)) => format!(", which {problem}: 1 file replaced"),
                _ => String::new(),
            };
            (found, format!("computed, and kept in {shown}{why}"))
        }
    };
    let [train, held_out] = found.map(|sums| Reference::Cached(Cached { sums }));
    let [trained_on, held] = counts;
    Ok(Precomputed {
        train,
        held_out,
        report: format!(
            "log-probabilities of the reference for {trained_on} rows and {held} held-out rows: {report}"
        ),
    })
}

/// Where the files are.
fn folder(settings: &Settings) -> PathBuf {
    let default = || PathBuf::from("target/train/reference");
    settings.ref_log_probs_dir.clone().unwrap_or_else(default)
}

/// A hash of all that the numbers depend on.
fn key(settings: &Settings, rows: &Prepared, origin: &Origin) -> String {
    let mut hash = Hash::default();
    hash.text("summed log-probabilities, 1");
    for (name, number) in origin {
        if name.starts_with(MODEL) || name.starts_with(ADAPTER_DIR) {
            hash.text(name);
            hash.text(number);
        }
    }
    hash.text(&rows.fingerprint);
    hash.text(&format!("{:?}", settings.dtype));
    let fit = &settings.fit;
    hash.text(&format!("{} {:?}", fit.batch, fit.max_tokens));
    if settings.objective.is_unpaired() {
        hash.text("one answer for each row");
    }
    hash.hex()
}

/// The numbers of the training rows and of the held-out rows, in the batches in which they are used when the
/// order is that of the file.
fn compute(
    settings: &Settings,
    rows: &Prepared,
    decoder: &Decoder,
    reference: &Reference,
    world: &dyn World,
) -> Result<[Tensor; 2]> {
    let quiet = decoder.without_gradients();
    let sums = |objective: &Objective, batches: Vec<Vec<usize>>| -> Result<Tensor> {
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        let mut own = Vec::new();
        for batch in &batches[part(&sizes, world.rank(), world.size())] {
            let Pair { chosen, rejected } = objective.reference_sums(&quiet, reference, batch)?;
            own.extend(numbers(&Tensor::stack(&[chosen, rejected], 1)?)?);
        }
        everywhere(world, own)
    };
    let fit = &settings.fit;
    let train: Vec<usize> = (0..rows.train.len()).collect();
    let train = train.chunks(fit.batch).flat_map(|batch| {
        let parts = parts(batch, fit.max_tokens, |row| rows.train.tokens(row));
        parts.into_iter().map(<[usize]>::to_vec).collect::<Vec<_>>()
    });
    let train = sums(&rows.train, train.collect())?;
    let held_out = match &rows.held_out {
        Some(held) => sums(&held.rows, evaluate::passes(&held.rows, fit))?,
        None => Tensor::zeros((0, 2), DType::F32, &Device::Cpu)?,
    };
    Ok([train, held_out])
}

fn numbers(sums: &Tensor) -> Result<Vec<f64>> {
    Ok(sums.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?)
}

/// The numbers of all ranks as `[rows, 2]`.
fn everywhere(world: &dyn World, own: Vec<f64>) -> Result<Tensor> {
    let all = gather(world, own)?.concat();
    let rows = all.len() / 2;
    Ok(Tensor::from_vec(all, (rows, 2), &Device::Cpu)?.to_dtype(DType::F32)?)
}

const NAMES: [&str; 2] = ["train", "held_out"];
/// Says for what a file was computed, and a hash of its numbers. One word: several have no order.
const WORD: &str = "computed";

fn write(path: &Path, key: &str, found: &[Tensor; 2]) -> Result<()> {
    let failed = |error: String| Error::file(path, format!("cannot be written: {error}"));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    }
    let word = format!("{key} {}", content(found)?);
    let words = HashMap::from([(WORD.to_string(), word)]);
    let tensors = NAMES.into_iter().zip(found);
    let staged = Staged::new(path, |part| {
        safetensors::serialize_to_file(tensors, Some(words), part)
    });
    let put = staged.and_then(Staged::put);
    put.map_err(|failure| failed(failure.cause))
}

/// A hash of the numbers.
fn content(found: &[Tensor; 2]) -> Result<String> {
    let mut hash = Hash::default();
    for sums in found {
        for sum in sums.flatten_all()?.to_vec1::<f32>()? {
            hash.bytes(&sum.to_le_bytes());
        }
    }
    Ok(hash.hex())
}

/// The numbers of a file, if it exists; the error says what is wrong with it.
fn read(path: &Path, key: &str, counts: [usize; 2]) -> Option<Result<[Tensor; 2], String>> {
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(format!("could not be read: {error}"))),
    };
    let damaged = |what: String| format!("was damaged ({what})");
    let found = || -> Result<[Tensor; 2], String> {
        let known = SafeTensors::read_metadata(&bytes).map_err(|error| error.to_string())?;
        let words = known.1.metadata().clone().unwrap_or_default();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        let tensors = tensors.map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for (name, count) in NAMES.into_iter().zip(counts) {
            match tensors.get(name) {
                Some(sums) if sums.dims() == [count, 2] && sums.dtype() == DType::F32 => {
                    found.push(sums.clone());
                }
                _ => return Err(format!("it holds no `{name}` of {count} rows")),
            }
        }
        let found: [Tensor; 2] = found.try_into().map_err(|_| "it is short".to_string())?;
        let content = content(&found).map_err(|error| error.to_string())?;
        match words.get(WORD) == Some(&format!("{key} {content}")) {
            true => Ok(found),
            false => Err("its numbers are not those that were written".to_string()),
        }
    };
    Some(found().map_err(damaged))
}
