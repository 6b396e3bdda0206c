//! Gradients of several micro-batches added up.

use crate::Result;
use candle_core::Var;
use candle_core::backprop::GradStore;

/// Adds the gradients of micro-batches, of a model's variables and of nothing else.
///
/// Candle's own `GradStore::extend` would also keep the gradients of every constant and every
/// intermediate tensor of every micro-batch. Divide each micro-batch's loss by the count of the
/// whole window ([`Reduction::over`](crate::Reduction::over)); then the sum is the gradient of one
/// large batch.
#[derive(Debug, Default)]
pub struct GradAccumulator {
    total: GradStore,
}

impl GradAccumulator {
    /// An empty sum.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gradients of `vars` from one backward pass.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn add(&mut self, vars: &[(String, Var)], grads: &GradStore) -> Result<()> {
        for (_, var) in vars {
            let Some(grad) = grads.get(var) else { continue };
            let sum = match self.total.get(var) {
                Some(total) => (total + grad)?,
                None => grad.clone(),
            };
            self.total.insert(var, sum);
        }
        Ok(())
    }

    /// The sum so far, leaving an empty one: hand it to the optimiser.
    pub fn take(&mut self) -> GradStore {
        std::mem::take(&mut self.total)
    }
}
