//! The tensors of an adapter: a safetensors file, read with every claim of its header checked.

use super::unique::Unique;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};

/// The longest header that the format's own readers take.
const LONGEST_HEADER: u64 = 100_000_000;

/// What a header says of one tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The tensors of a file, on the CPU. `source` is the file, for the messages.
pub(super) fn parse(
    function: &'static str,
    source: &str,
    bytes: &[u8],
) -> Result<BTreeMap<String, Tensor>> {
    let problem = |text: String| Error::argument(function, source, text);
    let short = || problem(format!("is cut short: it has {} bytes", bytes.len()));
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        let text = format!("claims a header of {length} bytes, above {LONGEST_HEADER}");
        return Err(problem(text));
    }
    let (header, data) = rest.split_at_checked(length as usize).ok_or_else(short)?;
    let header: Unique<Box<RawValue>> = serde_json::from_slice(header)
        .map_err(|e| problem(format!("has a header that is not one: {e}")))?;

    let mut entries = Vec::new();
    for (name, raw) in &header.0 {
        if name == "__metadata__" {
            serde_json::from_str::<Unique<String>>(raw.get())
                .map_err(|e| problem(format!("has `__metadata__` that is no text: {e}")))?;
            continue;
        }
        let entry: Entry = serde_json::from_str(raw.get())
            .map_err(|e| problem(format!("describes `{name}` wrongly: {e}")))?;
        entries.push((name, entry));
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);

    let mut tensors = BTreeMap::new();
    let mut end = 0;
    for (name, entry) in entries {
        let (begin, stop) = entry.data_offsets;
        let problem = |text: &str| problem(format!("holds `{name}`, {text}"));
        if entry.shape.len() > 8 {
            return Err(problem("which has more than 8 axes"));
        }
        let (dtype, width) = match entry.dtype.as_str() {
            "F64" => (DType::F64, 8),
            "F32" => (DType::F32, 4),
            "BF16" => (DType::BF16, 2),
            "F16" => (DType::F16, 2),
            other => {
                let text = format!("which is {other}; an adapter holds F64, F32, BF16 or F16");
                return Err(problem(&text));
            }
        };
        // an axis of 0 must not hide the others: strides are products of them
        let product = |floor: u64| {
            let mut axes = entry.shape.iter();
            axes.try_fold(width, |n: u64, &d| n.checked_mul(d.max(floor)))
        };
        let (Some(_), Some(size)) = (product(1), product(0)) else {
            return Err(problem("whose shape overflows"));
        };
        if begin < end {
            return Err(problem("which overlaps another tensor"));
        }
        if begin > end {
            return Err(problem("before which bytes belong to no tensor"));
        }
        if stop.checked_sub(begin) != Some(size) {
            return Err(problem(&format!(
                "of shape {:?}, which takes {size} bytes, at bytes {begin} to {stop}",
                entry.shape
            )));
        }
        let range = begin as usize..stop as usize;
        let Some(content) = usize::try_from(stop).ok().and_then(|_| data.get(range)) else {
            return Err(problem("whose bytes are cut short"));
        };
        let shape: Vec<usize> = entry.shape.iter().map(|&d| d as usize).collect();
        let tensor = Tensor::from_raw_buffer(content, dtype, &shape, &Device::Cpu)?;
        tensors.insert(name.clone(), tensor);
        end = stop;
    }
    if end != data.len() as u64 {
        let text = format!(
            "has {} bytes that belong to no tensor",
            data.len() as u64 - end
        );
        return Err(problem(text));
    }
    Ok(tensors)
}

/// The bytes of a file that holds these tensors.
pub(super) fn serialise(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(tensors, Some(metadata)).map_err(|e| candle_core::Error::from(e).into())
}
