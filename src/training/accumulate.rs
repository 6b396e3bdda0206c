//! Gradient accumulation: the sum of the gradients of several micro-batches.

use super::distinct;
use crate::error::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

/// Sums the gradients of micro-batches, only for a model's variables.
///
/// Candle's own `GradStore::extend` would also keep the gradients of every constant and every
/// intermediate tensor of every micro-batch. Divide each micro-batch's loss by the count of the
/// whole window ([`Reduction::over`](crate::Reduction::over)); then the sum is the gradient of one
/// large batch.
///
/// Gradients in bf16 and f16 are summed in f32. A sum in their own type stalls as soon as an addend
/// falls below a unit in its last place: 4,096 times 1/4096 is 0.0625 in bf16 and 0.5 in f16.
#[doc(alias = "gradient accumulation")]
#[doc(alias = "micro-batch")]
#[derive(Debug, Default)]
pub struct GradAccumulator {
    total: GradStore,
}

impl GradAccumulator {
    /// An empty sum.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gradients of `vars` from one backward pass. A variable that is listed under several
    /// names (a tied embedding) is added once.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn add(&mut self, vars: &[(String, Var)], grads: &GradStore) -> Result<()> {
        for (_, var) in distinct(vars) {
            let Some(grad) = grads.get(var) else { continue };
            let grad = wide(grad)?;
            let sum = match self.total.get(var) {
                Some(total) => (total + grad)?,
                None => grad,
            };
            self.total.insert(var, sum);
        }
        Ok(())
    }

    /// Returns the sum so far and starts an empty one. Give the sum to the optimizer.
    ///
    /// A sum is f64 where the gradients are, else f32, even for a variable in bf16 or f16.
    /// [`clip_grad_norm`](super::clip_grad_norm) and [`AdamW::step`](super::AdamW::step) accept it;
    /// an optimizer that requires a gradient in the variable's type needs a cast.
    pub fn take(&mut self) -> GradStore {
        std::mem::take(&mut self.total)
    }
}

/// f32 or f64, detached: a gradient may still hold what it was computed from.
fn wide(grad: &Tensor) -> Result<Tensor> {
    let dtype = match grad.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    Ok(grad.detach().to_dtype(dtype)?)
}
