//! The layers that a file describes.

use crate::error::Result;
use crate::parameter_efficient::adalora::AdaLoraLinear;
use crate::parameter_efficient::adapter::{Adapter, AdapterState};
use crate::parameter_efficient::dora::DoraLinear;
use crate::parameter_efficient::ia3::Ia3Linear;
use crate::parameter_efficient::lora::LoraLinear;
use crate::parameter_efficient::lora::embedding::LoraEmbedding;
use crate::parameter_efficient::qlora::QloraLinear;
use crate::parameter_efficient::vera::{VeraLinear, VeraProjections};
use candle_core::{Tensor, Var};
use candle_nn::Module;
use std::collections::BTreeMap;

/// A layer under an adapter of any kind that a file can hold. All of them are [`Adapter`]s, and so is this.
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

impl AnyAdapter {
    fn adapter(&self) -> &dyn Adapter {
        match self {
            Self::Lora(layer) => layer,
            Self::LoraEmbedding(layer) => layer,
            Self::Dora(layer) => layer,
            Self::AdaLora(layer) => layer,
            Self::Ia3(layer) => layer,
            Self::Vera(layer) => layer,
            Self::Qlora(layer) => layer,
        }
    }

    fn adapter_mut(&mut self) -> &mut dyn Adapter {
        match self {
            Self::Lora(layer) => layer,
            Self::LoraEmbedding(layer) => layer,
            Self::Dora(layer) => layer,
            Self::AdaLora(layer) => layer,
            Self::Ia3(layer) => layer,
            Self::Vera(layer) => layer,
            Self::Qlora(layer) => layer,
        }
    }
}

impl Adapter for AnyAdapter {
    fn state(&self) -> &AdapterState {
        self.adapter().state()
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        self.adapter_mut().state_mut()
    }

    fn vars(&self) -> Vec<(&'static str, &Var)> {
        self.adapter().vars()
    }

    fn adapted(&self, x: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        self.adapter().adapted(x, dropped)
    }

    fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        self.adapter().merge_weight(weight)
    }

    fn merge_bias(&self, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
        self.adapter().merge_bias(bias)
    }
}

impl Module for AnyAdapter {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.adapter().forward(x)
    }
}

/// All that an adapter adds to a model: the result of applying a file to a base model, or the source of a
/// new file.
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
