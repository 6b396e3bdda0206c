//! Reading a decoder from a folder.

use super::config::DecoderConfig;
use super::folder;
use super::layer::Layer;
use super::model::{Decoder, EMBEDDING, HEAD, SCORE};
use super::norm::Norm;
use super::tensors::{Load, Tensors};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

impl Decoder {
    /// Reads a folder: `config.json`, and `model.safetensors` or the shards of an index.
    ///
    /// # Errors
    /// As [`DecoderConfig::read`]; [`Error::Argument`] with the path for a file that cannot be read, and with
    /// the name of a tensor that is missing, misshapen or unexpected.
    pub fn load(folder: impl AsRef<Path>, load: &Load) -> Result<Self> {
        let function = "Decoder::load";
        let folder = folder.as_ref();
        let config = DecoderConfig::read(folder)?;
        let half = matches!(load.dtype, DType::BF16 | DType::F16);
        if !half && !matches!(load.dtype, DType::F32 | DType::F64) {
            let found = load.dtype.as_str();
            return Err(Error::argument(
                function,
                "load.dtype",
                format!("is {found}, and weights are f32, f64, bf16 or f16"),
            ));
        }
        if half && load.trained {
            let text = "is a half type, in which the steps of an optimizer are lost: train in f32";
            return Err(Error::argument(function, "load.dtype", text));
        }
        if load.nf4.is_some() && load.trained {
            let text = "quantizes weights, which are then frozen: load with `trained` = false and add an adapter";
            return Err(Error::argument(function, "load.nf4", text));
        }
        let tensors = folder::read(function, folder)?;
        let source = folder.display().to_string();
        let mut tensors = Tensors::new(function, source, tensors, load);
        let table = [config.vocab_size, config.hidden_size];
        let embedding = tensors.take(EMBEDDING, &table)?;
        let layers =
            (0..config.num_hidden_layers).map(|number| Layer::new(&mut tensors, &config, number));
        let layers = layers.collect::<Result<Vec<Layer>>>()?;
        let norm = Norm::new(&mut tensors, &config, "model.norm", config.hidden_size)?;
        let score = match tensors.has(SCORE) {
            true => {
                // the number of Transformers, which does not write it
                let labels = config.num_labels.unwrap_or(2);
                Some(tensors.take(SCORE, &[labels, config.hidden_size])?)
            }
            false => None,
        };
        let head = match (config.tie_word_embeddings, tensors.has(HEAD)) {
            (true, false) => None,
            // a tied file may hold the table twice; another table is no tie
            (true, true) => {
                let head = tensors.take(HEAD, &table)?;
                (!same(head.tensor(), embedding.tensor())?).then_some(head)
            }
            (false, false) if score.is_some() => None,
            (false, _) => Some(tensors.take(HEAD, &table)?),
        };
        tensors.none_left()?;
        Ok(Self {
            padding: config.pad_token_id,
            config,
            embedding,
            layers,
            norm,
            head,
            score,
            adapter: None,
            attached: BTreeMap::new(),
            recompute: false,
            keeps_graph: true,
        })
    }
}

fn same(one: &Tensor, other: &Tensor) -> Result<bool> {
    let differ = one.ne(other)?.to_dtype(DType::F64)?.sum_all()?;
    Ok(differ.to_scalar::<f64>()? == 0.0)
}
