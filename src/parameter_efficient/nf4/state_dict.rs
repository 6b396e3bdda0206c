//! The tensors in which bitsandbytes stores a four-bit weight.

use super::code::{BLOCK, DYNAMIC, NESTED_BLOCK};
use super::{NF4, Nf4Linear, Nf4Scales, Nf4Tensor, Stored};
use crate::error::{Error, Result};
use crate::math::to_host;
use candle_core::{DType, Device, Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// What is not a tensor, as JSON text in a tensor of bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nested_blocksize: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nested_dtype: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nested_offset: Option<f64>,
}

/// The name endings of a weight's tensors; `STATE` is the JSON.
const ABSMAX: &str = "absmax";
const MAP: &str = "quant_map";
const NESTED_ABSMAX: &str = "nested_absmax";
const NESTED_MAP: &str = "nested_quant_map";
const STATE: &str = "quant_state.bitsandbytes__nf4";

/// bitsandbytes' names for the types that it quantizes.
const TYPES: [(&str, DType); 3] = [
    ("float32", DType::F32),
    ("bfloat16", DType::BF16),
    ("float16", DType::F16),
];

/// One call's view of the dictionary.
struct Reader<'a> {
    function: &'static str,
    tensors: &'a HashMap<String, Tensor>,
}

impl Reader<'_> {
    fn wrong(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::argument(self.function, name, problem)
    }

    fn tensor(&self, name: &str, dtype: DType, length: Option<(usize, &str)>) -> Result<&Tensor> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| self.wrong(name, "is missing"))?;
        if tensor.dtype() != dtype {
            return Err(Error::dtype(
                self.function,
                name,
                tensor.dtype(),
                dtype.as_str().to_string(),
            ));
        }
        // bitsandbytes gives the packed weight a second axis of 1
        let fits = match tensor.dims() {
            [n] | [n, 1] => length.is_none_or(|(length, _)| length == *n),
            _ => false,
        };
        if fits {
            return Ok(tensor);
        }
        Err(Error::Shape {
            function: self.function,
            argument: name.to_string(),
            shape: tensor.dims().to_vec(),
            expected: match length {
                Some((length, from)) => format!("{length} {from}"),
                None => "bytes".to_string(),
            },
        })
    }

    /// `length` floats, all of them finite.
    fn floats(&self, name: &str, length: usize, what: &str) -> Result<Vec<f32>> {
        let values: Vec<f32> = to_host(self.tensor(name, DType::F32, Some((length, what)))?)?;
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let problem = format!("holds {} at position {at}; it must be finite", values[at]);
                Err(self.wrong(name, problem))
            }
        }
    }

    fn bytes(&self, name: &str, length: usize, what: &str) -> Result<Vec<u8>> {
        to_host(self.tensor(name, DType::U8, Some((length, what)))?)
    }

    /// The JSON under `name`, checked except for its shape.
    fn state(&self, name: &str) -> Result<(State, DType)> {
        let bytes: Vec<u8> = to_host(self.tensor(name, DType::U8, None)?)?;
        let state: State = serde_json::from_slice(&bytes)
            .map_err(|e| self.wrong(name, format!("holds no quantization state: {e}")))?;
        let only = |field: &str, found: String, here: &str| {
            self.wrong(name, format!("has {field} {found}; only {here} is read"))
        };
        if state.quant_type != "nf4" {
            return Err(only("quant_type", state.quant_type, "nf4"));
        }
        if state.blocksize != BLOCK {
            return Err(only("blocksize", state.blocksize.to_string(), "64"));
        }
        match TYPES.iter().find(|(name, _)| *name == state.dtype) {
            Some((_, dtype)) => Ok((state, *dtype)),
            None => Err(only("dtype", state.dtype, "float32, bfloat16 or float16")),
        }
    }

    fn nf4(&self, weight: &str) -> Result<Nf4Tensor> {
        let name = |end: &str| format!("{weight}.{end}");
        self.known(weight)?;
        let (state, dtype) = self.state(&name(STATE))?;
        let mut sizes = state.shape.iter();
        let count = match sizes.try_fold(1usize, |n, size| n.checked_mul(*size)) {
            Some(count) if count > 0 => Ok(count),
            Some(_) => Err("which holds no elements"),
            None => Err("whose elements cannot be counted"),
        };
        let count = count.map_err(|problem| {
            let problem = format!("has shape {:?}, {problem}", state.shape);
            self.wrong(&name(STATE), problem)
        })?;

        let packed = self.bytes(weight, count.div_ceil(2), "bytes of two indices")?;
        let map = self.floats(&name(MAP), NF4.len(), "values of NF4")?;
        if let Some(at) = (0..NF4.len()).find(|i| map[*i] != NF4[*i]) {
            let problem = format!(
                "holds {} at position {at}, where NF4 has {}",
                map[at], NF4[at]
            );
            return Err(self.wrong(&name(MAP), problem));
        }
        let blocks = count.div_ceil(BLOCK);
        let nested = [NESTED_ABSMAX, NESTED_MAP].map(|end| self.tensors.contains_key(&name(end)));
        let scales = match state.nested_blocksize.is_some() || nested.contains(&true) {
            true => self.double(weight, &state, blocks)?,
            false => Nf4Scales::Single(self.floats(&name(ABSMAX), blocks, "scales of blocks")?),
        };
        Ok(Nf4Tensor(Arc::new(Stored {
            packed,
            scales,
            shape: Shape::from(state.shape),
            dtype,
        })))
    }

    fn double(&self, weight: &str, state: &State, blocks: usize) -> Result<Nf4Scales> {
        let name = |end: &str| format!("{weight}.{end}");
        let lacks = |field: &str| self.wrong(&name(STATE), format!("lacks {field}"));
        let only = |field: &str, found: &dyn std::fmt::Display, here: &str| {
            let problem = format!("has {field} {found}; only {here} is read");
            self.wrong(&name(STATE), problem)
        };
        match state.nested_blocksize {
            Some(NESTED_BLOCK) => {}
            Some(other) => return Err(only("nested_blocksize", &other, "256")),
            None => return Err(lacks("nested_blocksize")),
        }
        match state.nested_dtype.as_deref() {
            Some("float32") => {}
            Some(other) => return Err(only("nested_dtype", &other, "float32")),
            None => return Err(lacks("nested_dtype")),
        }
        let offset = state.nested_offset.ok_or_else(|| lacks("nested_offset"))? as f32;
        if !offset.is_finite() {
            return Err(only("nested_offset", &offset, "a finite f32"));
        }
        let map = self.floats(
            &name(NESTED_MAP),
            DYNAMIC.len(),
            "values of the dynamic map",
        )?;
        let nested = blocks.div_ceil(NESTED_BLOCK);
        Ok(Nf4Scales::Double {
            indices: self.bytes(&name(ABSMAX), blocks, "indices of scales")?,
            nested: self.floats(&name(NESTED_ABSMAX), nested, "scales of scales")?,
            offset,
            map: match map == *DYNAMIC {
                true => Cow::Borrowed(&DYNAMIC),
                // other releases' tables are kept, so that their scales keep their meaning
                false => Cow::Owned(map),
            },
        })
    }

    /// An error if something under the weight's name is not part of it.
    fn known(&self, weight: &str) -> Result<()> {
        let prefix = format!("{weight}.");
        let ends = [ABSMAX, MAP, NESTED_ABSMAX, NESTED_MAP, STATE];
        let mut names: Vec<&String> = self.tensors.keys().collect();
        names.sort();
        let unknown = names.into_iter().find(|name| {
            let end = name.strip_prefix(&prefix);
            end.is_some_and(|end| !ends.contains(&end))
        });
        match unknown {
            None => Ok(()),
            Some(name) => Err(self.wrong(name, "is no part of a weight in NF4")),
        }
    }
}

/// `module.weight`, or `weight` for an empty module.
fn within(module: &str, name: &str) -> String {
    match module {
        "" => name.to_string(),
        module => format!("{module}.{name}"),
    }
}

impl Nf4Tensor {
    /// The weight `name` of a bitsandbytes state dict, as `candle_core::safetensors::load` returns it:
    /// `name` holds the packed bytes; `name.absmax`, `name.quant_map`, `name.nested_absmax`,
    /// `name.nested_quant_map` and `name.quant_state.bitsandbytes__nf4` hold the rest.
    ///
    /// Strict: a tensor that is missing, unknown, of another form or made with other settings is an error.
    ///
    /// # Errors
    /// [`Error::Argument`] naming a tensor that is missing, unknown, or made with other settings;
    /// [`Error::Shape`] and [`Error::DType`] for one of another form.
    pub fn from_state_dict(tensors: &HashMap<String, Tensor>, name: &str) -> Result<Self> {
        let function = "Nf4Tensor::from_state_dict";
        Reader { function, tensors }.nf4(name)
    }

    /// The same tensors under the same names, for `candle_core::safetensors::save`.
    ///
    /// # Errors
    /// [`Error::DType`] for a tensor quantized from f64, which bitsandbytes does not have.
    pub fn to_state_dict(&self, name: &str) -> Result<HashMap<String, Tensor>> {
        let stored = &*self.0;
        let Some((dtype, _)) = TYPES.iter().find(|(_, dtype)| *dtype == stored.dtype) else {
            return Err(Error::DType {
                function: "Nf4Tensor::to_state_dict",
                argument: "self".to_string(),
                found: stored.dtype.as_str(),
                expected: "f32, bf16 or f16".to_string(),
            });
        };
        let mut state = State {
            quant_type: "nf4".to_string(),
            blocksize: BLOCK,
            dtype: dtype.to_string(),
            shape: stored.shape.dims().to_vec(),
            nested_blocksize: None,
            nested_dtype: None,
            nested_offset: None,
        };
        let device = &Device::Cpu;
        let floats = |values: &[f32]| Tensor::new(values, device);
        let packed = Tensor::from_slice(&stored.packed, (stored.packed.len(), 1), device)?;
        let mut tensors = vec![("", packed), (MAP, floats(&NF4)?)];
        match &stored.scales {
            Nf4Scales::Single(scales) => tensors.push((ABSMAX, floats(scales)?)),
            Nf4Scales::Double {
                indices,
                nested,
                offset,
                map,
            } => {
                tensors.push((ABSMAX, Tensor::new(indices.as_slice(), device)?));
                tensors.push((NESTED_ABSMAX, floats(nested)?));
                tensors.push((NESTED_MAP, floats(map)?));
                state.nested_blocksize = Some(NESTED_BLOCK);
                state.nested_dtype = Some("float32".to_string());
                state.nested_offset = Some(f64::from(*offset));
            }
        }
        let json = serde_json::to_vec(&state).map_err(candle_core::Error::wrap)?;
        tensors.push((STATE, Tensor::new(json.as_slice(), device)?));
        let named = |(end, tensor)| match end {
            "" => (name.to_string(), tensor),
            end => (format!("{name}.{end}"), tensor),
        };
        Ok(tensors.into_iter().map(named).collect())
    }
}

impl Nf4Linear {
    /// The layer `module` of a bitsandbytes state dict: `module.weight` as
    /// [`Nf4Tensor::from_state_dict`] reads it, and `module.bias` if it exists.
    ///
    /// # Errors
    /// As [`Nf4Tensor::from_state_dict`]; [`Error::Shape`] or [`Error::DType`] for a weight that is
    /// not `[out, in]` or a bias that does not fit it.
    pub fn from_state_dict(tensors: &HashMap<String, Tensor>, module: &str) -> Result<Self> {
        let function = "Nf4Linear::from_state_dict";
        let (weight, bias) = (within(module, "weight"), within(module, "bias"));
        let stored = Reader { function, tensors }.nf4(&weight)?;
        Self::checked(
            function,
            [&weight, &bias],
            stored,
            tensors.get(&bias).cloned(),
        )
    }

    /// The same tensors under the same names.
    ///
    /// # Errors
    /// As [`Nf4Tensor::to_state_dict`].
    pub fn to_state_dict(&self, module: &str) -> Result<HashMap<String, Tensor>> {
        let mut tensors = self.weight().to_state_dict(&within(module, "weight"))?;
        if let Some(bias) = self.bias() {
            tensors.insert(within(module, "bias"), bias.clone());
        }
        Ok(tensors)
    }
}
