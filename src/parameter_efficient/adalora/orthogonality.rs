//! The penalty that keeps AdaLoRA's singular vectors orthogonal.

use super::AdaLoraLinear;
use crate::error::{Error, Result};
use crate::shape::same_type;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// How [`orthogonality_penalty`] combines the distances from orthogonality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orthogonality {
    /// Σ ‖PᵀP − I‖²_F + ‖QQᵀ − I‖²_F over all layers: the paper's.
    #[default]
    SquaredSum,
    /// The mean of ‖PᵀP − I‖_F and ‖QQᵀ − I‖_F over all matrices: the authors' code and PEFT. It does
    /// not grow with the number of layers, and its slope does not fall as the vectors become orthonormal.
    NormMean,
}

/// How far P and Q of all layers are from orthonormal vectors: a scalar to add to any loss, with a
/// weight.
///
/// # Equation
/// ```text
/// R = Σₖ ‖Pₖᵀ Pₖ − I‖²_F + ‖Qₖ Qₖᵀ − I‖²_F                      SquaredSum
/// R = 1/(2n) · Σₖ ‖Pₖᵀ Pₖ − I‖_F + ‖Qₖ Qₖᵀ − I‖_F               NormMean
/// ```
/// Objective: C(P, Λ, Q) + γ·R, γ of the paper in {0.1, 0.3, 0.5}, mostly 0.1.
/// # Shapes
/// Any number of layers ≥ 1 of one type; the result is a scalar.
/// # Errors
/// [`Error::Argument`] without layers; [`Error::DType`] for layers of different types.
/// # Properties
/// * It is 0 where all singular vectors are orthonormal, and its gradient there is 0 in both forms:
///   the kink of the norm gets the slope 0.
/// * It reaches P and Q but no λ: pruned triplets stay orthogonal to the others.
/// * At the start, with P and Q near 0, R ≈ 2nr in the squared form and √r in the other.
/// # Departures
/// PEFT adds its form inside the model's `forward`, and only where that returns a loss. A trainer with
/// its own loss trains without the penalty, and so does a PEFT model without a task type, whose outer
/// `forward` bypasses the one that adds it (0.21.2, run). Here it is a term like any other.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{AdaLoraConfig, AdaLoraLinear, Orthogonality,
///     orthogonality_penalty};
/// use candle_core::{Device, Tensor};
/// use candle_nn::Linear;
///
/// let at = |data: &[f64], shape| Tensor::from_slice(data, shape, &Device::Cpu);
/// let base = Linear::new(at(&[0.0; 6], (3, 2))?, None);
/// let config = AdaLoraConfig { rank: 1, ..Default::default() };
/// let (p, q) = (at(&[2.0, 0.0, 0.0], (3, 1))?, at(&[3.0, 0.0], (1, 2))?);
/// let layer = AdaLoraLinear::from_factors(&base, &config, &p, &at(&[0.5], (1, 1))?, &q)?;
///
/// let r = orthogonality_penalty(&[&layer], Orthogonality::SquaredSum)?;
/// assert_eq!(r.to_scalar::<f64>()?, (4.0f64 - 1.0).powi(2) + (9.0f64 - 1.0).powi(2));
/// let r = orthogonality_penalty(&[&layer], Orthogonality::NormMean)?;
/// assert_eq!(r.to_scalar::<f64>()?, ((4.0 - 1.0) + (9.0 - 1.0)) / 2.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zhang et al. 2023, arXiv:2303.10512, eq. 4; authors' code QingruZhang/AdaLoRA, `loralib/adalora.py`,
/// `compute_orth_regu`. The form of norms was compared with PEFT 0.21.2, in a training run together
/// with [`RankAllocator`](crate::parameter_efficient::RankAllocator).
#[doc(alias = "orth_reg_weight")]
pub fn orthogonality_penalty(layers: &[&AdaLoraLinear], form: Orthogonality) -> Result<Tensor> {
    let function = "orthogonality_penalty";
    let Some(first) = layers.first() else {
        return Err(Error::argument(function, "layers", "is empty"));
    };
    let dtype = first.q.dtype();
    let mut sum = Tensor::zeros((), dtype, first.q.device())?;
    for layer in layers {
        same_type(function, "layers", &layer.q, (dtype, "the first layer"))?;
        if layer.rank() == 0 {
            continue;
        }
        // PᵀP − I, QQᵀ − I
        let identity = Tensor::eye(layer.rank(), dtype, layer.q.device())?;
        for gram in [
            layer.p.t()?.matmul(&layer.p)?,
            layer.q.matmul(&layer.q.t()?)?,
        ] {
            let squared = (gram - &identity)?.sqr()?.sum_all()?;
            sum = match form {
                Orthogonality::SquaredSum => (sum + squared)?,
                Orthogonality::NormMean => (sum + root(&squared)?)?,
            };
        }
    }
    Ok(match form {
        Orthogonality::SquaredSum => sum,
        Orthogonality::NormMean => (sum / (2 * layers.len()) as f64)?,
    })
}

/// √x, with slope 0 at 0.
fn root(x: &Tensor) -> Result<Tensor> {
    let zero = x.eq(0.0)?;
    let inside = zero.where_cond(&x.ones_like()?, x)?;
    Ok(zero.where_cond(&x.zeros_like()?, &inside.sqrt()?)?)
}
