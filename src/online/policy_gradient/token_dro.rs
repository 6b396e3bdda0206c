//! DRO per token: the policy gradient with a quadratic price on the log-ratio (2024, after the survey).
//!
//! In one sentence: no ratio and no clip; what holds the policy back is the square of how far it moved.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old | `new`, `old` | `[batch, time]` |
//! | r − V | `advantages` | `[batch]` or `[batch, time]` |
//! | τ | [`TokenDroConfig::beta`] | number |
//!
//! Read next: [`crate::online::policy_gradient::reinforce`]; [`crate::online::kl`], whose k₂ the price is.

use super::super::surrogate::times;
use super::inputs::Inputs;
use crate::error::{Result, non_negative};
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, weighted};
use crate::outputs::TokenLoss;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`token_dro_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenDroConfig {
    /// β ≥ 0. Default 0.1; 0 is REINFORCE.
    pub beta: f64,
}

impl Default for TokenDroConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each token.
///
/// # Equation
/// ```text
/// l = −Â · log π_θ(yₜ) + (β/2) · ( log π_θ(yₜ) − log π_old(yₜ) )²
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The result is `[batch, time]` with the mask of
/// `new`. `old` and `advantages` get no gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless β is finite and not negative.
/// # Properties
/// * It is [`reinforce_loss`](super::reinforce_loss) and β times k₂ of [`kl_loss`](crate::kl_loss) against the old policy.
/// * The slope −(Â − β dₜ) is 0 at dₜ = Â/β: each token has a target for its log-ratio, Â/β, and is pulled back beyond
///   it. It is (β/2)(dₜ − Â/β)² up to a constant.
/// # Departures
/// The paper's DRO is of whole answers and learns V beside the policy. This is the form per token of verl, where
/// advantages take the place of r − V.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{TokenDroConfig, token_dro_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.5f64]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-1.5f64]], &Device::Cpu)?;
/// let advantages = Tensor::new(&[2.0f64], &Device::Cpu)?;
/// let loss = token_dro_loss(&new, &old, &advantages, &TokenDroConfig { beta: 1.0 })?;
/// assert_eq!(loss.loss.to_vec2::<f64>()?, [[2.0 * 0.5 + 0.5 * 1.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Richemond et al. 2024, arXiv:2405.19107v1; per token: volcengine/verl, `trainer/ppo/core_algos.py`.
#[doc(alias = "DRO")]
#[doc(alias = "direct reward optimization")]
pub fn token_dro_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &TokenDroConfig,
) -> Result<TokenLoss> {
    let function = "token_dro_loss";
    non_negative(function, "beta", config.beta)?;
    let inputs = Inputs::read(function, new, old, advantages)?;

    // −Â · log π_θ
    let policy = times(new.values(), &inputs.advantages.neg()?)?;

    // + (β/2) · ( log π_θ − log π_old )², which decides alone where it is infinite
    let price = weighted(&inputs.log_ratio.sqr()?, config.beta / 2.0)?;
    let policy = masked(&policy, &price.detach().ne(f64::INFINITY)?)?;
    Ok(TokenLoss {
        loss: (policy + price)?,
        mask: inputs.mask,
    })
}
