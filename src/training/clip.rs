//! Clipping by the global norm.

use crate::error::positive;
use crate::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Var};

/// Scales the gradients of `vars` so that their common L2 norm is at most `max_norm`; returns the
/// norm before.
///
/// ```text
/// ‖g‖ = √( Σ over variables Σ g² )        g ← g · min(1, max_norm / ‖g‖)
/// ```
/// Only these variables count: candle's store also holds the gradients of every constant and every
/// intermediate tensor, and a norm over all of its entries is another, larger number.
/// Variables without a gradient are passed over ([`grad_coverage`](super::grad_coverage) tells).
///
/// # Errors
/// [`Error::Parameter`] unless `max_norm` is finite and > 0; [`Error::Argument`] that names the
/// first variable whose gradient is not finite, in which case nothing was changed.
pub fn clip_grad_norm(vars: &[(String, Var)], grads: &mut GradStore, max_norm: f64) -> Result<f64> {
    let function = "clip_grad_norm";
    positive(function, "max_norm", max_norm)?;
    let mut squares = 0.0;
    for (name, var) in vars {
        let Some(grad) = grads.get(var) else { continue };
        let square = grad
            .to_dtype(DType::F64)?
            .sqr()?
            .sum_all()?
            .to_scalar::<f64>()?;
        if !square.is_finite() {
            return Err(Error::argument(
                function,
                "grads",
                format!("holds a gradient of `{name}` that is not finite"),
            ));
        }
        squares += square;
    }
    let norm = squares.sqrt();
    if norm > max_norm {
        for (_, var) in vars {
            if let Some(grad) = grads.remove(var) {
                grads.insert(var, (grad * (max_norm / norm))?);
            }
        }
    }
    Ok(norm)
}
