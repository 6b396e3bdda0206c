//! AdaLoRA's additions to a step: the penalty on its vectors, and the pruning after the step.

use super::Adapter;
use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraLinear, Orthogonality, RankAllocator, orthogonality_penalty,
};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use std::collections::BTreeMap;
use support::adapters::{Adapted, AdapterSettings};

/// Which triplets of each layer are left, by its name.
pub type Kept = BTreeMap<String, Vec<bool>>;

/// The triplets of a model, and their allocator.
pub struct Budget {
    layers: Vec<AdaLoraLinear>,
    allocator: RankAllocator,
    orthogonality: f64,
}

impl Budget {
    /// For a run of this many steps; none for methods other than AdaLoRA.
    pub fn new(adapter: &Adapter, adapted: &Adapted, steps: usize) -> Result<Option<Self>> {
        let AdapterSettings::AdaLora(config) = &adapter.method else {
            return Ok(None);
        };
        let schedule = adapter.ada_lora.schedule(config.rank, steps);
        let layers = adapted.triplets();
        Ok(Some(Self {
            allocator: RankAllocator::new(layers, &schedule)?,
            layers: layers.iter().map(|(_, layer)| layer.clone()).collect(),
            orthogonality: adapter.ada_lora.orthogonality,
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
        self.allocator.update(step, grads)?;
        Ok(())
    }

    /// The triplets after the last pruning.
    pub fn kept(&self) -> Kept {
        self.allocator.kept().into_iter().collect()
    }
}
