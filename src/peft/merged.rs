//! The base model with an adapter merged into it.

use super::load::Loader;
use super::{AdapterFile, AnyAdapter, BaseModel, Strictness, finite};
use crate::error::{Error, Result};
use crate::parameter_efficient::adapter::Adapter;
use candle_core::Tensor;
use std::collections::HashMap;

const FUNCTION: &str = "AdapterFile::merged";

/// A base model with an adapter merged into it.
#[derive(Clone, Debug)]
pub struct MergedModel {
    /// The state dict.
    pub tensors: HashMap<String, Tensor>,
    /// What a lenient reader left out, in words.
    pub left_out: Vec<String>,
}

impl AdapterFile {
    /// The base model's state dict with the adapter merged into it: the model that
    /// [`AdapterFile::layers`] makes, without its layers.
    ///
    /// If a state dict comes back with both names of a tied table but went in with one, its model is no
    /// longer tied (`tie_word_embeddings = false`).
    ///
    /// # Errors
    /// As [`AdapterFile::layers`]; [`Error::Argument`] with the module's path if a merged weight would
    /// not be finite.
    #[doc(alias = "merge_and_unload")]
    pub fn merged<'a>(
        &self,
        base: impl Into<BaseModel<'a>>,
        strictness: Strictness,
    ) -> Result<MergedModel> {
        let base = base.into();
        let Loader { found, turned, .. } = self.load(base, strictness)?;
        let mut merged = base.tensors.clone();
        merged.extend(found.weights);
        for (path, layer) in &found.layers {
            let (weight, bias) = layer.merged_weights().map_err(|error| of(path, error))?;
            let embedding = matches!(layer, AnyAdapter::LoraEmbedding(_));
            let weight = match turned.contains(path) && !embedding {
                true => weight.t()?.contiguous()?,
                false => weight,
            };
            if let AnyAdapter::Qlora(_) = layer {
                let parts = format!("{path}.weight.");
                merged.retain(|name, _| !name.starts_with(&parts));
            }
            merged.insert(format!("{path}.weight"), weight);
            if let Some(bias) = bias {
                // a bias that is not trained may exceed the range of a weight that was quantized
                if let Some((at, value)) = finite::first(&bias)? {
                    let problem =
                        format!("would hold {value} at flat position {at} after the merge");
                    let name = format!("{path}.bias");
                    return Err(Error::argument(FUNCTION, name, problem));
                }
                merged.insert(format!("{path}.bias"), bias);
            }
        }
        for (name, table) in found.tied {
            let adapted = found
                .layers
                .keys()
                .any(|path| name == format!("{path}.weight"));
            // still one table, under its one name
            let shared = merged.values().any(|other| other.id() == table.id());
            if !adapted && (base.tensors.contains_key(&name) || !shared) {
                merged.insert(name, table);
            }
        }
        Ok(MergedModel {
            tensors: merged,
            left_out: found.left_out,
        })
    }
}

/// A layer's error with the path of its module.
fn of(path: &str, error: Error) -> Error {
    match error {
        Error::Argument {
            argument, problem, ..
        } => Error::argument(FUNCTION, format!("{path}.{argument}"), problem),
        other => other,
    }
}
