//! IW-OPD: weights for the tokens of an answer, by how much was said before them (2026, after the survey).
//!
//! In one sentence: the more the teacher and the student have disagreed so far, the less the next token of the
//! answer tells, so its advantage weighs less.
//!
//! | symbol | here | shape |
//! |---|---|---|
//! | Âₜ | `advantages`, from [`reverse_kl_advantages`](super::on_policy::reverse_kl_advantages) | `[batch, time]` |
//! | γ | [`IwOpdConfig::gamma`] | number |
//! | wₜ | the result | `[batch, time]` |
//!
//! Read next: [`on_policy`](super::on_policy) (the advantages), [`wpo`](crate::ranking::margin::wpo) (weights of
//! pairs).

use crate::error::{Result, non_negative};
use crate::math::{masked, to_host};
use crate::shape::Axes;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`iw_opd_weights`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IwOpdConfig {
    /// γ ≥ 0: the first token weighs 1 + γ. Default 0.5, TRL's value.
    #[doc(alias = "iw_opd_gamma")]
    pub gamma: f64,
}

impl Default for IwOpdConfig {
    fn default() -> Self {
        Self { gamma: 0.5 }
    }
}

/// The weight of each token's advantage.
///
/// # Equation
/// ```text
/// wₜ = 1 + γ · ( 1 − Σ_{i<t}│Âᵢ│ / Σᵢ│Âᵢ│ )
/// ```
/// # Shapes
/// `advantages` `[batch, time]`; `mask` u8 `[batch, time]`: the tokens of the answers. The result is
/// `[batch, time]`, 0 where the mask does not count. It is a constant: the advantages get no gradient from it. It
/// runs on the host.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless γ ≥ 0, [`Error::Shape`](crate::Error::Shape) if sizes differ,
/// [`Error::DType`](crate::Error::DType) unless the advantages are f32 or f64.
/// # Properties
/// * The first token of an answer weighs 1 + γ, no token less than 1, and none more than one before it.
/// * γ = 0 is plain on-policy distillation: every token weighs 1.
/// * Only the ratios of an answer's advantages matter: c · Â has the same weights for any c ≠ 0.
/// * The mean weight by size, Σ wₜ│Âₜ│ / Σ│Âₜ│, is 1 + γ/2 · (1 + ΣÂₜ² / (Σ│Âₜ│)²), in whatever order the
///   advantages come. It is between 1 + γ/2 and 1 + γ: the weights also raise the size of a step.
/// * Where all advantages of an answer are 0, its tokens weigh 1 + γ.
/// # Departures
/// TRL 1.16 divides by Σ│Âᵢ│ or 10⁻⁸ if that is larger; here nothing is added. If the teacher excludes a token that
/// was drawn, its advantage is −∞: tokens up to it then weigh 1 + γ and later ones 1, the limit of the equation.
/// # Examples
/// ```
/// use candle_align::distillation::iw_opd::{IwOpdConfig, iw_opd_weights};
/// use candle_core::{Device, Tensor};
///
/// let advantages = Tensor::new(&[[0.5f64, -1.0, 9.0, 0.5]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0, 1]], &Device::Cpu)?;
/// let weights = iw_opd_weights(&advantages, &mask, &IwOpdConfig { gamma: 1.0 })?;
/// // nothing, a quarter and three quarters of │0.5│ + │−1│ + │0.5│ come before
/// assert_eq!(weights.to_vec2::<f64>()?, [[2.0, 1.75, 0.0, 1.25]]);
/// let weighted = (advantages * weights)?; // for `ppo_policy_loss`
/// assert_eq!(weighted.to_vec2::<f64>()?, [[1.0, -1.75, 0.0, 0.625]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean weight of the last quarter of the tokens. Near 1 it says that most of the disagreement comes before, and
/// that the end of the answers is learned from as without weights.
/// # Try
/// * Change the order of an answer's advantages and compare the mean weight by size. Solution:
///   `tests/identities/distillation.rs::the_mean_weight_of_an_answer_does_not_depend_on_the_order`.
/// # Source
/// "On the Position Bias of On-Policy Distillation" 2026, arXiv:2606.22600, as huggingface/trl has it,
/// `experimental/iw_opd` of release 1.16.0.
#[doc(alias = "importance-weighted on-policy distillation")]
#[doc(alias = "position bias")]
pub fn iw_opd_weights(advantages: &Tensor, mask: &Tensor, config: &IwOpdConfig) -> Result<Tensor> {
    let function = "iw_opd_weights";
    non_negative(function, "gamma", config.gamma)?;
    let mut axes = Axes::new(function);
    let advantages = axes.float("advantages", advantages, &["batch", "time"])?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    let sizes = masked(&advantages.detach(), &mask)?.abs()?;
    let sizes = to_host::<f64>(&sizes.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)?;
    let counts = to_host::<u8>(&mask)?;

    let time = advantages.dim(1)?;
    let mut weights = vec![0.0; sizes.len()];
    for row in 0..advantages.dim(0)? {
        let own = row * time..(row + 1) * time;
        // Σᵢ│Âᵢ│ and Σ_{i<t}│Âᵢ│
        let (all, mut before) = (sizes[own.clone()].iter().sum::<f64>(), 0.0);
        for at in own {
            if counts[at] == 0 {
                continue;
            }
            let share = match before == all {
                // all of it, though it may be ∞; or nothing of nothing
                true => f64::from(u8::from(all > 0.0)),
                false => before / all,
            };
            weights[at] = 1.0 + config.gamma * (1.0 - share);
            before += sizes[at];
        }
    }
    let weights = Tensor::from_vec(weights, advantages.shape(), &Device::Cpu)?;
    Ok(weights
        .to_dtype(advantages.dtype())?
        .to_device(advantages.device())?)
}
