//! An adapter's file on the decoder: any candle model can use one in this way.

use super::beside::Adapters;
use super::linear_adapters::linear_names;
use super::transformer::Transformer;
use candle_align::Result;
use candle_align::parameter_efficient::{BlockScale, FrozenLinear, Nf4Linear};
use candle_align::peft::{AdapterFile, AdapterMethod, Strictness};
use candle_core::Tensor;
use candle_nn::Linear;
use std::collections::HashMap;

/// How the base keeps the weights of its linear maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    Wide,
    /// NF4 with double quantization, the base of QLoRA's training.
    FourBits,
}

/// `base`, frozen, under the adapter of `file`.
///
/// # Errors
/// [`AdapterFile::layers`]': a tensor that is missing, of another shape, or of no place.
pub fn put_on(base: &Transformer, file: &AdapterFile, weights: Weights) -> Result<Transformer> {
    match file.config().method {
        AdapterMethod::Prompt(_) => {
            let prompt = file.prompt()?;
            return Ok(base.frozen()?.with_adapters(Adapters::of_prompt(prompt)));
        }
        AdapterMethod::Prefix(_) => {
            let prefix = file.prefix()?;
            return Ok(base.frozen()?.with_adapters(Adapters::of_prefix(prefix)));
        }
        _ => {}
    }
    let mut dict: HashMap<String, Tensor> = base.weights().clone().into_iter().collect();
    if weights == Weights::FourBits {
        for name in linear_names(base) {
            if let Some(weight) = dict.remove(&format!("{name}.weight")) {
                let four = Nf4Linear::quantize(&Linear::new(weight, None), BlockScale::Double)?;
                dict.extend(four.to_state_dict(&name)?);
            }
        }
    }
    let mut found = file.layers(&dict, Strictness::Strict)?;
    base.map_linears(|name, weight| match found.layers.remove(name) {
        Some(layer) => Ok(Box::new(layer)),
        None => Ok(Box::new(FrozenLinear::new(weight, None)?)),
    })
}
