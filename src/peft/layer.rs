//! The layers that a file describes.

use crate::error::Result;
use crate::parameter_efficient::adalora::AdaLoraLinear;
use crate::parameter_efficient::dora::DoraLinear;
use crate::parameter_efficient::ia3::Ia3Linear;
use crate::parameter_efficient::lora::LoraLinear;
use crate::parameter_efficient::lora::embedding::LoraEmbedding;
use crate::parameter_efficient::qlora::QloraLinear;
use crate::parameter_efficient::vera::{VeraLinear, VeraProjections};
use candle_core::{Tensor, Var};
use candle_nn::Module;
use rand::Rng;
use std::collections::BTreeMap;

/// One layer under an adapter.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the types say it
pub enum AnyAdapter {
    Lora(LoraLinear),
    LoraEmbedding(LoraEmbedding),
    Dora(DoraLinear),
    AdaLora(AdaLoraLinear),
    Ia3(Ia3Linear),
    Vera(VeraLinear),
    Qlora(QloraLinear),
}

/// The same expression for every kind of layer.
macro_rules! each {
    ($layer:expr, $found:ident => $what:expr) => {
        match $layer {
            AnyAdapter::Lora($found) => $what,
            AnyAdapter::LoraEmbedding($found) => $what,
            AnyAdapter::Dora($found) => $what,
            AnyAdapter::AdaLora($found) => $what,
            AnyAdapter::Ia3($found) => $what,
            AnyAdapter::Vera($found) => $what,
            AnyAdapter::Qlora($found) => $what,
        }
    };
}

impl AnyAdapter {
    /// The trained variables, under the names of the file without `base_model.model.`; `prefix` is the path
    /// of the module.
    pub fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        each!(self, layer => layer.trainable(prefix))
    }

    /// [`Module::forward`] in training: with the dropout of the settings, if the layer has any.
    ///
    /// # Errors
    /// As the layer's own `forward_train`, or `forward` for layers without dropout.
    pub fn forward_train(&self, x: &Tensor, rng: &mut impl Rng) -> Result<Tensor> {
        match self {
            Self::Lora(layer) => layer.forward_train(x, rng),
            Self::Dora(layer) => layer.forward_train(x, rng),
            Self::AdaLora(layer) => layer.forward_train(x, rng),
            Self::Vera(layer) => layer.forward_train(x, rng),
            Self::Qlora(layer) => layer.forward_train(x, rng),
            Self::LoraEmbedding(_) | Self::Ia3(_) => Ok(self.forward(x)?),
        }
    }

    /// Switches the adapter off, which gives exactly the base layer, or on again.
    pub fn set_enabled(&mut self, enabled: bool) {
        each!(self, layer => layer.set_enabled(enabled))
    }

    /// The merged weight, in the layer's own layout, and the merged bias. A quantized weight is returned
    /// in the type that it was quantized from.
    ///
    /// # Errors
    /// As the layer's own `merged_linear`.
    pub fn merged(&self) -> Result<(Tensor, Option<Tensor>)> {
        let linear = match self {
            Self::LoraEmbedding(layer) => {
                return Ok((layer.merged_embedding()?.embeddings().clone(), None));
            }
            Self::Lora(layer) => layer.merged_linear()?,
            Self::Dora(layer) => layer.merged_linear()?,
            Self::AdaLora(layer) => layer.merged_linear()?,
            Self::Ia3(layer) => layer.merged_linear()?,
            Self::Vera(layer) => layer.merged_linear()?,
            Self::Qlora(layer) => layer.merged_linear()?,
        };
        Ok((linear.weight().clone(), linear.bias().cloned()))
    }
}

impl Module for AnyAdapter {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        each!(self, layer => layer.forward(x))
    }
}

/// The result of applying a file to a base model, or the source of a new file.
#[derive(Clone, Debug, Default)]
pub struct ModelAdapters {
    /// The layers under an adapter, by the path of their module.
    pub layers: BTreeMap<String, AnyAdapter>,
    /// Weights that replace the base model's, under the same names: the modules that were trained as a
    /// whole, biases of other modules, a vocabulary that was saved with the adapter.
    pub weights: BTreeMap<String, Tensor>,
    /// The tensor under the other name of a tied table that the adapter changes: the two names no longer
    /// hold one table, or both hold the embedding's trained rows. Put it into the model together with
    /// `weights`; no file holds it. Empty unless the base is [tied](super::BaseModel::tied).
    pub tied: BTreeMap<String, Tensor>,
    /// VeRA's A and B.
    pub projections: Option<VeraProjections>,
    /// What a lenient reader left out, in words.
    pub left_out: Vec<String>,
}
