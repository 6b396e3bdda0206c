//! A safetensors file whose names, types and shapes are all known: the header is read at once, each tensor
//! when its turn comes, and nothing larger than the file is allocated.

use crate::error::{Error, Result, cut};
use crate::files;
use crate::tensor_file::{self, Described, Kind};
use candle_core::{DType, Device, Shape, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const STATE: Kind = Kind {
    name: "an optimizer's state",
    types: &[DType::F64, DType::F32, DType::I64],
};

/// An open file, and the tensors of its header that have not been used yet.
pub(super) struct StateFile {
    function: &'static str,
    source: String,
    file: File,
    left: BTreeMap<String, Described>,
}

impl StateFile {
    /// Opens a file and checks its header.
    pub(super) fn open(function: &'static str, path: &Path) -> Result<Self> {
        let source = path.display().to_string();
        let problem = |text: String| Error::argument(function, source.as_str(), text);
        let unreadable = |e: std::io::Error| problem(format!("cannot be read: {e}"));
        let mut file = files::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let left = tensor_file::header(&mut file, size, &STATE).map_err(problem)?;
        Ok(Self {
            function,
            source,
            file,
            left,
        })
    }

    /// An error that names the file.
    pub(super) fn problem(&self, text: impl Into<String>) -> Error {
        Error::argument(self.function, self.source.as_str(), text)
    }

    /// The tensor of this name, if it has this type and shape.
    pub(super) fn take(&mut self, name: &str, dtype: DType, shape: &Shape) -> Result<Tensor> {
        let Some(found) = self.left.remove(name) else {
            return Err(self.problem(format!("holds no tensor `{name}`")));
        };
        let dims = shape.dims();
        let axes = dims.iter().map(|&d| d as u64);
        if found.dtype != dtype || !axes.eq(found.shape.iter().copied()) {
            return Err(self.problem(format!(
                "holds `{name}` as {} {}, expected {} {dims:?}",
                found.dtype.as_str(),
                cut(&format!("{:?}", found.shape), 200),
                dtype.as_str(),
            )));
        }
        let mut bytes = vec![0; shape.elem_count() * dtype.size_in_bytes()];
        let read = self.file.seek(SeekFrom::Start(found.begin));
        let read = read.and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| self.problem(format!("cannot be read: {e}")))?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, dims, &Device::Cpu)?)
    }

    /// The first tensor, in order of names, that was not used.
    pub(super) fn rest(&self) -> Option<String> {
        self.left
            .keys()
            .next()
            .map(|name| cut(name, 200).into_owned())
    }
}
