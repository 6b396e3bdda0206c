//! The norm of a decoder.

use super::config::DecoderConfig;
use super::projection::Weight;
use super::tensors::Tensors;
use crate::error::Result;
use crate::ops;
use candle_core::Tensor;

/// A norm's weight, and whether 1 is added to it.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    name: String,
    weight: Weight,
    plus_one: bool,
    eps: f64,
}

impl Norm {
    pub(super) fn new(
        tensors: &mut Tensors,
        config: &DecoderConfig,
        path: &str,
        width: usize,
    ) -> Result<Self> {
        let name = format!("{path}.weight");
        Ok(Self {
            weight: tensors.take(&name, &[width])?,
            name,
            plus_one: config.family.is_gemma(),
            eps: config.rms_norm_eps,
        })
    }

    /// w · x / √(mean x² + ε) over the last axis.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight.wide()?;
        let weight = match self.plus_one {
            true => (weight + 1.0)?,
            false => weight,
        };
        Ok(ops::rms_norm(x, &weight, self.eps as f32)?)
    }

    pub(super) fn tensor(&self) -> (String, &Weight) {
        (self.name.clone(), &self.weight)
    }
}
