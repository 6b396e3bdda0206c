//! The tensors of an adapter: a safetensors file that also holds the settings.

use super::CONFIG;
use crate::error::{Error, Result};
use crate::files;
use crate::tensor_file::{self, Kind, METADATA};
use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

const ADAPTER: Kind = Kind {
    name: "an adapter",
    types: &[DType::F64, DType::F32, DType::BF16, DType::F16],
};

/// The tensors of a file, on the CPU. `source` names the file in messages.
pub(super) fn parse(
    function: &'static str,
    source: &str,
    bytes: &[u8],
) -> Result<BTreeMap<String, Tensor>> {
    let problem = |text: String| Error::argument(function, source, text);
    check(bytes).map_err(|text| match files::not_tensors(bytes) {
        // what the file is tells more than which rule it breaks
        Some(what) => problem(what.to_string()),
        None => problem(text),
    })?;
    let file = SafeTensors::deserialize(bytes).map_err(candle_core::Error::from)?;
    file.iter()
        .map(|(name, view)| Ok((name.to_string(), view.load(&Device::Cpu)?)))
        .collect()
}

fn check(bytes: &[u8]) -> Result<(), String> {
    let found = tensor_file::header(&mut &*bytes, bytes.len() as u64, &ADAPTER)?;
    match found.iter().find(|(_, tensor)| tensor.shape.len() > 8) {
        Some((name, _)) => Err(format!("holds `{name}`, which has more than 8 axes")),
        None => Ok(()),
    }
}

/// The settings that a file holds for itself. `start` is the file, or at least its header.
pub(super) fn settings(start: &[u8]) -> Option<String> {
    tensor_file::word(start, CONFIG)
}

/// The bytes of a file with these tensors, which also holds these settings. The same tensors and settings
/// give the same bytes.
pub(super) fn serialize(tensors: &BTreeMap<String, Tensor>, settings: &str) -> Result<Vec<u8>> {
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
