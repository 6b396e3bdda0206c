//! The header of a safetensors file. Every claim is checked before it is used, and a false one is named
//! with its tensor.
//!
//! The format's own reader, [`safetensors::SafeTensors`], does not name the tensor, takes the last of two
//! tensors with one name, ignores fields that the format does not have, lets an axis of 0 hide others whose
//! product overflows, and adds up sizes that may overflow. A header that passes here passes there.

use crate::error::cut;
use crate::in_order::InOrder;
use candle_core::DType;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// The longest header that the format's own reader accepts.
pub(crate) const LONGEST_HEADER: u64 = 100_000_000;
/// The entry with words about the file, beside those of the tensors.
pub(crate) const METADATA: &str = "__metadata__";

/// What a file may hold: `an adapter` and its types.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) types: &'static [DType],
}

impl Kind {
    /// The type of this name, or what to say instead.
    fn dtype(&self, found: &str) -> Result<DType, String> {
        let names = self.types.iter().map(|d| d.as_str().to_ascii_uppercase());
        let names: Vec<String> = names.collect();
        if let Some(at) = names.iter().position(|name| name == found) {
            return Ok(self.types[at]);
        }
        let (last, first) = names.split_last().map_or(("", &names[..]), |(l, f)| (l, f));
        let (holder, first) = (self.name, first.join(", "));
        let found = cut(found, 200);
        Err(format!(
            "which is {found}; {holder} holds {first} or {last}"
        ))
    }
}

/// One tensor, as a header describes it.
pub(crate) struct Described {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    /// Where its bytes begin in the file.
    pub(crate) begin: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(expecting = "an object of dtype, shape and data_offsets")]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Reads the header at the start of a file of `size` bytes, and no more of it. The error says what is wrong
/// with the file.
pub(crate) fn header(
    file: &mut impl Read,
    size: u64,
    kind: &Kind,
) -> Result<BTreeMap<String, Described>, String> {
    let unreadable = |e: io::Error| format!("cannot be read: {e}");
    let short = || format!("is cut short: it has {size} bytes");
    let rest = size.checked_sub(8).ok_or_else(short)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(unreadable)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(format!(
            "claims a header of {length} bytes, above {LONGEST_HEADER}"
        ));
    }
    let data = rest.checked_sub(length).ok_or_else(short)?;
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(unreadable)?;
    let mut entries = entries(&text)?;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);

    // the tensors follow one another and fill the file
    let mut found = BTreeMap::new();
    let mut end = 0;
    for (name, entry) in entries {
        let problem = |text: String| format!("holds `{}`, {text}", cut(&name, 200));
        let dtype = kind.dtype(&entry.dtype).map_err(problem)?;
        let (begin, stop) = entry.data_offsets;
        let shape = entry.shape;
        // an axis of 0 must not hide the others: strides are products of them
        let product = |floor: u64| {
            let width = dtype.size_in_bytes() as u64;
            let mut axes = shape.iter();
            axes.try_fold(width, |n, &d| n.checked_mul(d.max(floor)))
        };
        let (Some(_), Some(size)) = (product(1), product(0)) else {
            return Err(problem("whose shape overflows".into()));
        };
        if begin < end {
            return Err(problem("which overlaps another tensor".into()));
        }
        if begin > end {
            return Err(problem("before which bytes belong to no tensor".into()));
        }
        if stop.checked_sub(begin) != Some(size) {
            return Err(problem(format!(
                "of shape {}, which takes {size} bytes, at bytes {begin} to {stop}",
                cut(&format!("{shape:?}"), 200)
            )));
        }
        if stop > data {
            return Err(problem("whose bytes are cut short".into()));
        }
        end = stop;
        let begin = 8 + length + begin;
        found.insert(
            name,
            Described {
                dtype,
                shape,
                begin,
            },
        );
    }
    match data - end {
        0 => Ok(found),
        more => Err(format!("has {more} bytes that belong to no tensor")),
    }
}

/// The tensors of a header, in the order of its text.
fn entries(header: &[u8]) -> Result<Vec<(String, Entry)>, String> {
    let mut entries = Vec::new();
    for (name, raw) in fields(header)? {
        if name == METADATA {
            words(&raw).map_err(|e| format!("has `{METADATA}` that is no text: {}", brief(&e)))?;
            continue;
        }
        let entry = serde_json::from_str(raw.get());
        let entry =
            entry.map_err(|e| format!("describes `{}` wrongly: {}", cut(&name, 200), brief(&e)))?;
        entries.push((name, entry));
    }
    Ok(entries)
}

fn fields(header: &[u8]) -> Result<Vec<(String, Box<RawValue>)>, String> {
    match serde_json::from_slice(header) {
        Ok(InOrder(fields)) => Ok(fields),
        Err(e) => Err(format!("has a header that is not one: {}", brief(&e))),
    }
}

fn words(raw: &RawValue) -> serde_json::Result<Vec<(String, String)>> {
    serde_json::from_str(raw.get()).map(|InOrder(words)| words)
}

fn brief(error: &serde_json::Error) -> String {
    cut(&error.to_string(), 200).into_owned()
}

/// One of the words about a file, if it has them. `start` is the file, or at least its header.
pub(crate) fn word(start: &[u8], key: &str) -> Option<String> {
    let (length, rest) = start.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let mut fields = fields(rest.get(..length)?).ok()?.into_iter();
    let (_, words_of_file) = fields.find(|(name, _)| name == METADATA)?;
    let mut found = words(&words_of_file).ok()?.into_iter();
    found.find(|(name, _)| name == key).map(|(_, word)| word)
}
