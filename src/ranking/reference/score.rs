//! The score of a log-ratio under a divergence.

use crate::error::{Result, require};
use crate::math::{expm1, log_sigmoid};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The divergence whose derivative scores an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FDivergence {
    /// KL(π‖π_ref), DPO's: s(ρ) = ρ.
    #[default]
    ReverseKl,
    /// KL(π_ref‖π): s(ρ) = 1 − e^(−ρ).
    ForwardKl,
    /// Jensen–Shannon: s(ρ) = log 2 + log σ(ρ).
    JensenShannon,
    /// The α-divergence: s(ρ) = (e^((α−1)ρ) − 1)/(α − 1). α = 0 is [`FDivergence::ForwardKl`], α → 1 is
    /// [`FDivergence::ReverseKl`].
    Alpha {
        /// α, finite.
        alpha: f64,
    },
}

/// Where the α-divergence is taken to be its limit, the reverse KL.
const NEAR_ONE: f64 = 1e-6;

impl FDivergence {
    /// s(ρ), elementwise, up to a constant that no difference of scores sees.
    ///
    /// The exponents of the forward KL and of the α-divergence stop at 80 in f32 and 700 in f64. There the
    /// score is constant, and its slope stays that of the last exponent rather than falling to 0.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless α is finite.
    pub fn score(&self, log_ratio: &Tensor) -> Result<Tensor> {
        match *self {
            Self::ReverseKl => Ok(log_ratio.clone()),
            // 1 − e^{−ρ}
            Self::ForwardKl => Ok(expm1(&log_ratio.neg()?)?.neg()?),
            // log 2 + log σ(ρ)
            Self::JensenShannon => Ok((log_sigmoid(log_ratio)? + 2f64.ln())?),
            Self::Alpha { alpha } => {
                require(
                    alpha.is_finite(),
                    "FDivergence::score",
                    "alpha",
                    "finite",
                    alpha,
                )?;
                let power = alpha - 1.0;
                if power.abs() < NEAR_ONE {
                    return Ok(log_ratio.clone());
                }
                // (e^{(α−1)ρ} − 1)/(α − 1)
                Ok((expm1(&(log_ratio * power)?)? / power)?)
            }
        }
    }
}
