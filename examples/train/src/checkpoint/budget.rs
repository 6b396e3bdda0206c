//! AdaLoRA's additions to a step: the penalty on its vectors, and the pruning after the step.

use super::super::error::{Error, Result};
use super::load::TRAINED;
use candle_align::decoder::Decoder;
use candle_align::parameter_efficient::{
    AdaLoraLinear, Orthogonality, RankAllocator, orthogonality_penalty,
};
use candle_align::peft::{AdapterMethod, AnyAdapter};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use std::collections::{BTreeMap, HashMap};

/// The triplets of a decoder.
pub struct Budget {
    layers: Vec<AdaLoraLinear>,
    /// None for an adapter whose ranks are those of its file.
    allocator: Option<RankAllocator>,
    orthogonality: f64,
}

impl Budget {
    /// For a run of this many steps; none if the trained adapter is not of AdaLoRA.
    pub fn new(decoder: &Decoder, steps: usize) -> Result<Option<Self>> {
        if decoder.adapter() != Some(TRAINED) {
            return Ok(None);
        }
        let AdapterMethod::AdaLora(file) = &decoder.adapter_config(TRAINED)?.method else {
            return Ok(None);
        };
        let triplets = |(path, layer)| match layer {
            AnyAdapter::AdaLora(layer) => Some((path, layer)),
            _ => None,
        };
        let layers = decoder.adapter_layers(TRAINED)?.into_iter();
        let layers: Vec<(String, AdaLoraLinear)> = layers.filter_map(triplets).collect();
        let allocator = match file.kept.is_empty() {
            true if file.allocator.total_steps != steps => {
                return Err(Error::Usage(format!(
                    "the adapter's `total_step` is {}, and the run has {steps} steps: leave it out, or make \
                     both equal",
                    file.allocator.total_steps
                )));
            }
            true => Some(RankAllocator::new(&layers, &file.allocator)?),
            false => None,
        };
        Ok(Some(Self {
            layers: layers.into_iter().map(|(_, layer)| layer).collect(),
            allocator,
            orthogonality: file.orthogonality,
        }))
    }

    /// γ · R(P, Q), to be added to the loss of a step.
    pub fn penalty(&self) -> Result<Tensor> {
        let layers: Vec<&AdaLoraLinear> = self.layers.iter().collect();
        let penalty = orthogonality_penalty(&layers, Orthogonality::NormMean)?;
        Ok((penalty * self.orthogonality)?)
    }

    /// Called after the optimizer's step, counted from 1, with its gradients.
    pub fn after(&mut self, step: usize, grads: &GradStore) -> Result<()> {
        if let Some(allocator) = &mut self.allocator {
            allocator.update(step, grads)?;
        }
        Ok(())
    }

    /// The triplets after the last pruning, by layer; none if nothing is pruned here.
    pub fn kept(&self) -> Option<BTreeMap<String, Vec<bool>>> {
        let kept = self.allocator.as_ref()?.kept();
        Some(kept.into_iter().collect())
    }

    /// Whether triplets are pruned here.
    pub fn is_allocating(&self) -> bool {
        self.allocator.is_some()
    }

    /// The allocator's state, for a checkpoint.
    pub fn state(&self) -> Result<Option<HashMap<String, Tensor>>> {
        Ok(self
            .allocator
            .as_ref()
            .map(RankAllocator::state)
            .transpose()?)
    }

    /// Takes back what [`Budget::state`] gave.
    pub fn restore(&mut self, state: HashMap<String, Tensor>) -> Result<()> {
        match &mut self.allocator {
            Some(allocator) => Ok(allocator.restore(state)?),
            None => Ok(()),
        }
    }
}
