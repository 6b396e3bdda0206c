//! The weights of a folder: one safetensors file, or several with an index.

use crate::error::{Error, Result, shown};
use crate::files;
use crate::tensor_file::{self, Described, Kind};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

pub(super) const ONE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

const WEIGHTS: Kind = Kind {
    name: "a checkpoint",
    types: &[DType::F64, DType::F32, DType::BF16, DType::F16],
};

/// Which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// All tensors of a folder, on the CPU, in the types of its files.
pub(super) fn read(function: &'static str, folder: &Path) -> Result<BTreeMap<String, Tensor>> {
    let index = folder.join(INDEX);
    if folder.join(ONE).exists() || !index.exists() {
        return shard(function, &folder.join(ONE));
    }
    let source = index.display().to_string();
    let problem = |text: String| Error::argument(function, &source, text);
    let bytes = files::read(&index).map_err(|e| problem(format!("cannot be read: {e}")))?;
    if let Some(what) = files::not_json(&bytes) {
        return Err(problem(what.to_string()));
    }
    let Index { weight_map } =
        serde_json::from_slice(&bytes).map_err(|e| problem(format!("is not an index: {e}")))?;
    let mut shards: BTreeMap<&str, BTreeMap<String, Tensor>> = BTreeMap::new();
    for (name, file) in &weight_map {
        let shown = shown(file);
        let mut parts = Path::new(file).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(problem(format!(
                "names the file `{shown}`, which is not in its folder"
            )));
        }
        if !shards.contains_key(file.as_str()) {
            shards.insert(file, shard(function, &folder.join(file))?);
        }
        if !shards[file.as_str()].contains_key(name) {
            return Err(problem(format!(
                "says that `{shown}` holds `{name}`, which it does not"
            )));
        }
    }
    let mut all = BTreeMap::new();
    for (file, tensors) in shards {
        for (name, tensor) in tensors {
            if weight_map.get(&name).map(String::as_str) != Some(file) {
                let file = shown(file);
                return Err(problem(format!(
                    "does not say that `{file}` holds `{name}`, which it does"
                )));
            }
            all.insert(name, tensor);
        }
    }
    Ok(all)
}

/// The tensors of one file, read one after another.
fn shard(function: &'static str, path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let source = path.display().to_string();
    let problem = |text: String| Error::argument(function, &source, text);
    let unreadable = |e: std::io::Error| problem(format!("cannot be read: {e}"));
    let mut file = files::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let header = match tensor_file::header(&mut file, size, &WEIGHTS) {
        Ok(header) => header,
        Err(text) => {
            // what the file is tells more than which rule it breaks
            let start = start(path).map_err(unreadable)?;
            return Err(problem(
                files::not_tensors(&start).map_or(text, str::to_string),
            ));
        }
    };
    let mut tensors = BTreeMap::new();
    for (name, described) in header {
        let tensor = tensor(&mut file, &described).map_err(unreadable)??;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// The first bytes of a file.
fn start(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    files::open(path)?.take(4096).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One tensor, from its place in the file.
fn tensor(file: &mut File, described: &Described) -> std::io::Result<candle_core::Result<Tensor>> {
    let shape: Vec<usize> = described.shape.iter().map(|&axis| axis as usize).collect();
    let count: usize = shape.iter().product();
    file.seek(SeekFrom::Start(described.begin))?;
    let cpu = &Device::Cpu;
    Ok(match described.dtype {
        DType::F64 => Tensor::from_vec(numbers(file, count, f64::from_le_bytes)?, shape, cpu),
        DType::F32 => Tensor::from_vec(numbers(file, count, f32::from_le_bytes)?, shape, cpu),
        DType::BF16 => Tensor::from_vec(numbers(file, count, bf16::from_le_bytes)?, shape, cpu),
        _ => Tensor::from_vec(numbers(file, count, f16::from_le_bytes)?, shape, cpu),
    })
}

/// `count` numbers of N bytes each.
fn numbers<T, const N: usize>(
    file: &mut File,
    count: usize,
    number: fn([u8; N]) -> T,
) -> std::io::Result<Vec<T>> {
    let mut numbers = Vec::with_capacity(count);
    let mut buffer = vec![0; N * count.min(1 << 16)];
    while numbers.len() < count {
        let part = N * (count - numbers.len()).min(1 << 16);
        file.read_exact(&mut buffer[..part])?;
        let (whole, _) = buffer[..part].as_chunks::<N>();
        numbers.extend(whole.iter().map(|bytes| number(*bytes)));
    }
    Ok(numbers)
}
