//! The tensors of an adapter: a safetensors file, with every claim of its header checked.

use super::CONFIG;
use super::unique::Unique;
use crate::error::{Error, Result};
use crate::files;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The longest header that the format's own readers accept.
pub(super) const LONGEST_HEADER: u64 = 100_000_000;
/// What the first bytes say about the file, in words.
const METADATA: &str = "__metadata__";

/// What a header says about one tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The tensors of a file, on the CPU. `source` names the file in messages.
pub(super) fn parse(
    function: &'static str,
    source: &str,
    bytes: &[u8],
) -> Result<BTreeMap<String, Tensor>> {
    checked(function, source, bytes).map_err(|error| match files::not_tensors(bytes) {
        // what the file is tells more than which rule it breaks
        Some(problem) => Error::argument(function, source, problem),
        None => error,
    })
}

fn checked(function: &'static str, source: &str, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
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
        if name == METADATA {
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

/// The settings that a file holds for itself. `start` is the file, or at least its header.
pub(super) fn settings(start: &[u8]) -> Option<String> {
    let (length, rest) = start.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Unique<Box<RawValue>> = serde_json::from_slice(rest.get(..length)?).ok()?;
    let Unique(mut metadata) =
        serde_json::from_str::<Unique<String>>(header.0.get(METADATA)?.get()).ok()?;
    metadata.remove(CONFIG)
}

/// The bytes of a file with these tensors, which also holds these settings. The same tensors and settings
/// give the same bytes.
pub(super) fn serialise(tensors: &BTreeMap<String, Tensor>, settings: &str) -> Result<Vec<u8>> {
    let file = safetensors::serialize(tensors, None).map_err(candle_core::Error::from)?;
    let not_a_header = || candle_core::Error::msg("safetensors without a header");
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(not_a_header)?;
    let (header, data) = rest
        .split_at_checked(u64::from_le_bytes(*length) as usize)
        .ok_or_else(not_a_header)?;
    // two words in a HashMap, as the format's own writer expects them, have no order
    let wrap = |error: serde_json::Error| candle_core::Error::wrap(error);
    let mut header: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(header).map_err(wrap)?;
    let metadata = BTreeMap::from([("format", "pt"), (CONFIG, settings)]);
    let metadata = serde_json::value::to_raw_value(&metadata).map_err(wrap)?;
    header.insert(METADATA.to_string(), metadata);
    let mut header = serde_json::to_vec(&header).map_err(wrap)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    Ok([&length, header.as_slice(), data].concat())
}
