//! A safetensors file whose names, types and shapes are all known. Every claim of its header is checked,
//! and nothing larger than the file is allocated.

use crate::error::{Error, Result, cut};
use crate::files;
use candle_core::{DType, Device, Shape, Tensor};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The longest header that the format's own readers accept.
const LONGEST_HEADER: u64 = 100_000_000;

/// What a header says about one tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// An open file, and the part of its header that has not been used yet.
pub(super) struct StateFile {
    function: &'static str,
    source: String,
    file: File,
    /// Where the header ends.
    start: u64,
    entries: BTreeMap<String, Entry>,
}

impl StateFile {
    /// Opens a file and checks its header.
    pub(super) fn open(function: &'static str, path: &Path) -> Result<Self> {
        let source = path.display().to_string();
        let problem = |text: String| Error::argument(function, source.as_str(), text);
        let unreadable = |e: std::io::Error| problem(format!("cannot be read: {e}"));
        let mut file = files::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();

        let short = || problem(format!("is cut short: it has {size} bytes"));
        let rest = size.checked_sub(8).ok_or_else(short)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(unreadable)?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER {
            let text = format!("claims a header of {length} bytes, above {LONGEST_HEADER}");
            return Err(problem(text));
        }
        let data = rest.checked_sub(length).ok_or_else(short)?;
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let Header(entries) = serde_json::from_slice(&header).map_err(|e| {
            problem(format!(
                "has a header that is not one: {}",
                brief(&e.to_string())
            ))
        })?;

        // the tensors follow one another and fill the file
        let mut order: Vec<_> = entries.iter().collect();
        order.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut end = 0;
        for (name, entry) in order {
            let (begin, stop) = entry.data_offsets;
            if begin != end || stop < begin || stop > data {
                return Err(problem(format!(
                    "holds `{}` at bytes {begin} to {stop}, expected to begin at {end} and to end \
                     by {data}",
                    brief(name)
                )));
            }
            end = stop;
        }
        if end != data {
            let text = format!("has {} bytes that belong to no tensor", data - end);
            return Err(problem(text));
        }
        let start = 8 + length;
        Ok(Self {
            function,
            source,
            file,
            start,
            entries,
        })
    }

    /// An error that names the file.
    pub(super) fn problem(&self, text: impl Into<String>) -> Error {
        Error::argument(self.function, self.source.as_str(), text)
    }

    /// The tensor of this name, if it has this type and shape.
    pub(super) fn take(&mut self, name: &str, dtype: DType, shape: &Shape) -> Result<Tensor> {
        let Some(entry) = self.entries.remove(name) else {
            return Err(self.problem(format!("holds no tensor `{name}`")));
        };
        let found = entry.dtype.to_ascii_lowercase();
        let dims = shape.dims();
        let same = found == dtype.as_str()
            && entry.shape.len() == dims.len()
            && entry.shape.iter().zip(dims).all(|(&f, &d)| f == d as u64);
        if !same {
            return Err(self.problem(format!(
                "holds `{name}` as {} {}, expected {} {dims:?}",
                brief(&found),
                brief(&format!("{:?}", &entry.shape[..entry.shape.len().min(9)])),
                dtype.as_str(),
            )));
        }
        let (begin, stop) = entry.data_offsets;
        let size = shape.elem_count() * dtype.size_in_bytes();
        if stop - begin != size as u64 {
            return Err(self.problem(format!(
                "holds `{name}`, which takes {size} bytes, at bytes {begin} to {stop}"
            )));
        }
        let mut bytes = vec![0; size];
        let read = self.file.seek(SeekFrom::Start(self.start + begin));
        let read = read.and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| self.problem(format!("cannot be read: {e}")))?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, dims, &Device::Cpu)?)
    }

    /// The first tensor, in order of names, that was not used.
    pub(super) fn rest(&self) -> Option<String> {
        self.entries.keys().next().map(|name| brief(name))
    }
}

/// A text from a file, shortened for a message.
fn brief(text: &str) -> String {
    cut(text, 200).into_owned()
}

/// The tensors of a header, without duplicate names.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry = map.next_value()?;
            if entries.contains_key(&name) {
                let name = brief(&name);
                return Err(A::Error::custom(format!("`{name}` stands twice")));
            }
            entries.insert(name, entry);
        }
        Ok(Header(entries))
    }
}
