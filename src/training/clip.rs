//! Gradient clipping by the global norm.

use super::distinct;
use super::step::is_finite;
use crate::error::{Error, Result, positive};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

/// Elements that are in f64 at one time.
const PART: usize = 1 << 20;

/// Scales the gradients of `vars` so that their common L2 norm is at most `max_norm`; returns the norm
/// before.
///
/// ```text
/// ‖g‖ = √( Σ over variables Σ g² )        g ← g · min(1, max_norm / ‖g‖)
/// ```
/// Only these variables count: candle's store also holds the gradients of every constant and every
/// intermediate tensor, and a norm over all of its entries is a different, larger number.
/// Variables without a gradient are skipped ([`grad_coverage`](super::grad_coverage) finds them). A
/// variable that is listed under several names (a tied embedding) counts once and is scaled once.
///
/// The norm is summed in f64. Each scaled gradient is then rounded to its own type, so the norm
/// afterwards is not exactly `max_norm` but at most
///
/// | gradients | norm after ≤ |
/// |---|---|
/// | f64, n elements in all | max_norm · (1 + n · 2⁻⁵²) |
/// | f32 | max_norm · (1 + 2⁻²²) |
/// | bf16 | max_norm · (1 + 2⁻⁸ + 2⁻²⁰) |
/// | f16, n elements in all | max_norm · (1 + 2⁻¹¹ + 2⁻²⁰) + √n · 2⁻²⁵, the last term for elements below 2⁻¹⁴ |
///
/// for up to 10⁸ elements. A [`GradAccumulator`](super::GradAccumulator) holds no bf16 and no f16.
///
/// # Errors
/// [`Error::Parameter`] unless `max_norm` is finite and > 0; [`Error::Argument`] that names the
/// first variable whose gradient is not finite, in which case nothing has changed.
#[doc(alias = "gradient clipping")]
#[doc(alias = "clip_grad_norm_")]
#[doc(alias = "max_grad_norm")]
pub fn clip_grad_norm(vars: &[(String, Var)], grads: &mut GradStore, max_norm: f64) -> Result<f64> {
    let function = "clip_grad_norm";
    positive(function, "max_norm", max_norm)?;
    let vars: Vec<_> = distinct(vars).collect();
    // Σ (scale · g)²
    let squares = |grads: &GradStore, scale: f64| -> Result<f64> {
        let mut sum = 0.0;
        for grad in vars.iter().filter_map(|(_, var)| grads.get(var)) {
            let flat = grad.flatten_all()?;
            for from in (0..flat.elem_count()).step_by(PART) {
                let part = flat.narrow(0, from, PART.min(flat.elem_count() - from))?;
                let mut wide = part.to_dtype(DType::F64)?;
                if scale != 1.0 {
                    wide = (wide * scale)?;
                }
                sum += wide.sqr()?.sum_all()?.to_scalar::<f64>()?;
            }
        }
        Ok(sum)
    };
    let (mut scale, mut sum) = (1.0, squares(grads, 1.0)?);
    if !sum.is_finite() {
        for (name, var) in &vars {
            let Some(grad) = grads.get(var) else { continue };
            if !is_finite(&grad.contiguous()?)? {
                let problem = format!("holds a gradient of `{name}` that is not finite");
                return Err(Error::argument(function, "grads", problem));
            }
        }
        // finite numbers whose squares are not finite
        scale = 2f64.powi(-600);
        sum = squares(grads, scale)?;
    }
    let norm = sum.sqrt() / scale;
    if norm > max_norm {
        let factor = max_norm * scale / sum.sqrt();
        for (_, var) in &vars {
            if let Some(grad) = grads.remove(var) {
                grads.insert(var, scaled(&grad, factor)?);
            }
        }
    }
    Ok(norm)
}

/// g · factor, rounded once to the type of g; in f32 the factor is also rounded.
fn scaled(grad: &Tensor, factor: f64) -> Result<Tensor> {
    // below this, a factor in f32 has few digits left
    let single = grad.dtype() == DType::F32 && factor >= f64::from(f32::MIN_POSITIVE);
    Ok(match single {
        true => (grad * factor)?,
        false => (grad.to_dtype(DType::F64)? * factor)?.to_dtype(grad.dtype())?,
    })
}
