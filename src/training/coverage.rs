//! Which variables a backward pass reached.

use super::distinct;
use super::step::is_finite;
use crate::error::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Var};
use std::fmt;

/// The variables of a model, sorted by what the backward pass left for them; each list is sorted by name.
///
/// Candle's fused operations (`rms_norm`, `rope`, `softmax_last_dim` and others) cut the graph
/// without an error: `backward()` returns `Ok`, the loss falls, and only the output layer learns.
/// Check once, after the first backward pass.
///
/// A gradient that exists may still lack a part: where the graph is cut inside a residual branch
/// (`x + cut(f(x))`), every variable below gets what flows past the branch, and all seem to learn
/// (candle#3823). [`gradient_agreement`](super::gradient_agreement) finds those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GradCoverage {
    /// A finite gradient that is not all zero.
    pub learning: Vec<String>,
    /// No gradient at all: the variable was not used, or the graph is cut above it.
    pub missing: Vec<String>,
    /// A gradient of zeros. Expected for a LoRA's `A` at its first step, since `B` starts at 0.
    pub zero: Vec<String>,
    /// A gradient that holds NaN or an infinity.
    pub non_finite: Vec<String>,
}

impl GradCoverage {
    /// Whether every variable has a finite gradient that is not all zero.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.zero.is_empty() && self.non_finite.is_empty()
    }
}

impl fmt::Display for GradCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total =
            self.learning.len() + self.missing.len() + self.zero.len() + self.non_finite.len();
        write!(f, "{} of {total} variables learn", self.learning.len())?;
        for (what, names) in [
            ("no gradient", &self.missing),
            ("zero gradient", &self.zero),
            ("non-finite gradient", &self.non_finite),
        ] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Sorts a model's variables by what the backward pass left for them. A variable that is listed under
/// several names (a tied embedding) is reported once, under the first of them.
///
/// It checks whether a gradient exists, not whether it is the gradient of the loss:
/// [`gradient_agreement`](super::gradient_agreement) compares the two.
///
/// # Errors
/// Only candle's own.
///
/// ```
/// use candle_align::training::grad_coverage;
/// use candle_core::{Device, Var};
///
/// let used = Var::new(&[1.0f64, 2.0], &Device::Cpu)?;
/// let idle = Var::new(&[1.0f64], &Device::Cpu)?;
/// let grads = used.sqr()?.sum_all()?.backward()?;
///
/// let vars = [("idle".to_string(), idle), ("used".to_string(), used)];
/// let coverage = grad_coverage(&vars, &grads)?;
/// assert_eq!(coverage.to_string(), "1 of 2 variables learn; no gradient: idle");
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "missing gradient")]
#[doc(alias = "detached graph")]
pub fn grad_coverage(vars: &[(String, Var)], grads: &GradStore) -> Result<GradCoverage> {
    let mut coverage = GradCoverage::default();
    for (name, var) in distinct(vars) {
        let list = match grads.get(var) {
            None => &mut coverage.missing,
            Some(grad) if !is_finite(&grad.contiguous()?)? => &mut coverage.non_finite,
            Some(grad) => {
                // counted, since a sum of numbers can vanish or overflow
                let other_than_zero = grad.ne(0f64)?.to_dtype(DType::F64)?.sum_all()?;
                match other_than_zero.to_scalar::<f64>()? {
                    0.0 => &mut coverage.zero,
                    _ => &mut coverage.learning,
                }
            }
        };
        list.push(name.clone());
    }
    for list in [
        &mut coverage.learning,
        &mut coverage.missing,
        &mut coverage.zero,
        &mut coverage.non_finite,
    ] {
        list.sort();
    }
    Ok(coverage)
}
