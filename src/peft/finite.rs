//! Numbers that are not finite, by tensor name.

use crate::error::{Error, Result};
use crate::math::to_host;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// The first number that is NaN or infinite, and its position.
pub(super) fn first(tensor: &Tensor) -> Result<Option<(usize, f64)>> {
    let wide = tensor.detach().to_dtype(DType::F64)?;
    let mut values = to_host::<f64>(&wide)?.into_iter().enumerate();
    Ok(values.find(|(_, value)| !value.is_finite()))
}

/// A description of the problem for each tensor with such a number.
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
