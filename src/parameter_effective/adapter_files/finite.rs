//! Numbers that are none, by name.

use super::load::Loader;
use crate::math::to_host;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// The first number that is NaN or infinite, and where it stands.
pub(super) fn first(tensor: &Tensor) -> Result<Option<(usize, f64)>> {
    let wide = tensor.detach().to_dtype(DType::F64)?;
    let mut values = to_host::<f64>(&wide)?.into_iter().enumerate();
    Ok(values.find(|(_, value)| !value.is_finite()))
}

/// What is wrong with each tensor that has such a number.
pub(super) fn problems(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, tensor) in tensors {
        if let Some((at, value)) = first(tensor)? {
            found.push(format!(
                "holds `{name}`, with {value} at flat position {at}"
            ));
        }
    }
    Ok(found)
}

/// The first of these problems as an error; `source` is the file.
pub(super) fn require(
    function: &'static str,
    source: &str,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    match problems(tensors)?.into_iter().next() {
        Some(text) => Err(Error::argument(function, source, text)),
        None => Ok(()),
    }
}

impl Loader<'_> {
    /// A tensor of the file in the type and the place of `like`. One that the type cannot hold is a
    /// problem, and none.
    pub(super) fn cast(
        &mut self,
        name: &str,
        tensor: &Tensor,
        like: &Tensor,
    ) -> Result<Option<Tensor>> {
        let cast = tensor.to_dtype(like.dtype())?.to_device(like.device())?;
        if tensor.dtype() == like.dtype() || first(tensor)?.is_some() {
            return Ok(Some(cast));
        }
        let Some((at, _)) = first(&cast)? else {
            return Ok(Some(cast));
        };
        let kind = like.dtype().as_str();
        self.problem(format!(
            "holds `{name}`, whose number at flat position {at} is beyond the range of {kind}, the \
             type in which it is used"
        ))?;
        Ok(None)
    }
}
