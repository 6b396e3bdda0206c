//! DPPO: a bound on the probability's own change in place of the ratio's (2026, after the survey).
//!
//! In one sentence: a rare token may change its ratio tenfold and move nothing, so the gradient stops by how much
//! probability moved.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | Âᵢ | `advantages` | `[batch]` or `[batch, time]` |
//! | D_TV or D_KL of the token against all others, δ | [`DppoConfig`] | numbers |
//!
//! Read next: [`crate::online::policy_gradient::cispo`], the same weight without a mask.

use super::super::kl::bounded_exp;
use super::super::ppo::PolicyLoss;
use super::super::surrogate::product;
use super::inputs::Inputs;
use crate::error::{Result, positive};
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Added within the logarithms of the probability of all other tokens, as in verl.
const FLOOR: f64 = 1e-8;

/// Between which two numbers the distance is, for the drawn token against all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryDivergence {
    /// │p − p_old│.
    #[default]
    TotalVariation,
    /// p_old log(p_old/p) + (1 − p_old) log((1 − p_old)/(1 − p)).
    Kl,
}

/// Settings of [`dppo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DppoConfig {
    /// Default [`BinaryDivergence::TotalVariation`].
    pub divergence: BinaryDivergence,
    /// δ > 0 where Â ≤ 0. Default 0.2, that of prime-rl for the total variation; it is not a share of the ratio.
    pub low: f64,
    /// δ > 0 where Â > 0. Default 0.2.
    pub high: f64,
    /// The largest weight, > 0. Default 20, that of verl (the paper's §5.4 advises a large one).
    pub largest_ratio: f64,
}

impl Default for DppoConfig {
    fn default() -> Self {
        Self {
            divergence: BinaryDivergence::TotalVariation,
            low: 0.2,
            high: 0.2,
            largest_ratio: 20.0,
        }
    }
}

/// The loss of each token.
///
/// # Equation
/// ```text
/// TV:  M = [ p − p_old ≤ δ_high ] where Â > 0,   [ p − p_old ≥ −δ_low ] elsewhere
/// KL:  M = [ D ≤ δ_high or p ≤ p_old ] where Â > 0,   [ D ≤ δ_low or p ≥ p_old ] elsewhere
/// l = −stop[ M · min(ρ, 20) ] · Â · log π_θ(yₜ│x, y₍<t₎)
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The results are `[batch, time]` with the mask
/// of `new`; `clipped` is 1 − M. `old` and `advantages` get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless all settings are finite and > 0.
/// # Properties
/// * A move back towards the old probability is never stopped.
/// * A token with p_old < δ that grows by any ratio is stopped only once its probability exceeds p_old + δ; GRPO stops it
///   at 1.2 p_old. A token with p_old near 1 is never stopped from growing.
/// * At the first step nothing is stopped: [`reinforce_loss`](super::reinforce_loss).
/// # Departures
/// The form is verl's. prime-rl masks by total variation too, but takes the gradient through ρ and adds a square of the
/// log-ratio. In verl's files the δ stand under `clip_ratio`, whose default is a ratio's, and the largest weight under
/// `clip_ratio_c`, which its own configuration sets to 3.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{DppoConfig, dppo_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// // from 0.01 to 0.05, and from 0.5 to 0.9
/// let new = Tensor::new(&[[0.05f64.ln(), 0.9f64.ln()]], &Device::Cpu)?;
/// let old = Tensor::new(&[[0.01f64.ln(), 0.5f64.ln()]], &Device::Cpu)?;
/// let advantages = Tensor::new(&[1.0f64], &Device::Cpu)?;
///
/// let new = TokenLogProbs::new(&new, &mask)?;
/// let out = dppo_loss(&new, &old, &advantages, &DppoConfig::default())?;
/// assert_eq!(out.clipped.to_vec2::<f64>()?, [[0.0, 1.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// arXiv:2602.04879; volcengine/verl, `trainer/ppo/core_algos.py`, `compute_policy_loss_dppo_tv` and
/// `compute_policy_loss_dppo_kl`.
#[doc(alias = "DPPO")]
#[doc(alias = "divergence proximal policy optimization")]
pub fn dppo_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &DppoConfig,
) -> Result<PolicyLoss> {
    let function = "dppo_loss";
    for (field, value) in [
        ("low", config.low),
        ("high", config.high),
        ("largest_ratio", config.largest_ratio),
    ] {
        positive(function, field, value)?;
    }
    let inputs = Inputs::read(function, new, old, advantages)?;

    // p and p_old, at most 1
    let log_p = new.values().detach().minimum(0.0)?;
    let log_old = masked(&old.detach(), &inputs.mask)?.minimum(0.0)?;
    let (p, p_old) = (log_p.exp()?, log_old.exp()?);
    let distance = match config.divergence {
        BinaryDivergence::TotalVariation => (&p - &p_old)?.abs()?,
        BinaryDivergence::Kl => {
            let others = |p: &Tensor| p.affine(-1.0, 1.0 + FLOOR)?.log();
            let token = product(&(log_old - log_p)?, &p_old)?;
            let rest = ((others(&p_old)? - others(&p)?)? * p_old.affine(-1.0, 1.0)?)?;
            (token + rest)?
        }
    };
    // M = 0 where p moved with its advantage, by more than δ
    let better = inputs.advantages.gt(0.0)?;
    let risen = p.gt(&p_old)?.mul(&distance.gt(config.high)?)?;
    let fallen = p.lt(&p_old)?.mul(&distance.gt(config.low)?)?;
    let stopped = better.where_cond(&risen, &fallen)?;

    // −stop[ M · min(ρ, 20) ] · Â · log π_θ
    let ratio = bounded_exp(&inputs.log_ratio.detach())?;
    let weight = masked(&ratio.minimum(config.largest_ratio)?, &stopped.eq(0u8)?)?;
    let constant = product(&weight, &inputs.advantages)?;
    inputs.weighted_log_probs(new, &constant, &ratio, &stopped)
}
