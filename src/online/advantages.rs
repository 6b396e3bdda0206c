//! How much better an answer turned out than expected, token by token (survey §3.1).
//!
//! In one sentence: an advantage is the sum of later surprises, each discounted by how far away it
//! is.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | rₜ | `rewards` | `[batch, time]` |
//! | V(sₜ) | `values`: what was expected before token t was chosen | `[batch, time]` |
//! | γ, λ | [`GaeConfig`] | numbers |
//! | Âₜ, R̂ₜ | [`Advantages`] | `[batch, time]` |
//!
//! Advantages are commonly scaled to mean 0 and variance 1 with
//! [`whiten`](crate::math::whiten)`(…, Whiten::ZeroMean)`; returns are not.
//!
//! Read next: [`crate::online::ppo`].

use crate::error::{Result, require};
use crate::math::to_host;
use crate::shape::Axes;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of [`gae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaeConfig {
    /// γ in [0, 1], the discount per token. Default 1, as in InstructGPT and in lm-human-preferences:
    /// a later token is not worth less.
    pub gamma: f64,
    /// λ in [0, 1]: 1 trusts the rewards, 0 trusts the values. Default 0.95, the value of
    /// lm-human-preferences.
    pub lambda: f64,
}

impl Default for GaeConfig {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            lambda: 0.95,
        }
    }
}

/// What [`gae`] returns: constants, 0 where the mask does not count.
#[derive(Clone, Debug)]
pub struct Advantages {
    /// Âₜ `[batch, time]`: for [`ppo_policy_loss`](crate::ppo_policy_loss).
    pub advantages: Tensor,
    /// R̂ₜ = Âₜ + V(sₜ) `[batch, time]`: for [`ppo_value_loss`](crate::ppo_value_loss).
    pub returns: Tensor,
}

/// Generalized advantage estimation.
///
/// # Equation
/// ```text
/// δₜ = rₜ + γ · V(sₜ₊₁) − V(sₜ)
/// Âₜ = δₜ + γλ · Âₜ₊₁
/// R̂ₜ = Âₜ + V(sₜ)
/// ```
/// t + 1 is the next position that counts, however far away. After the last one V and Â are 0, because
/// the answer is over. The code computes the equivalent R̂ₜ = rₜ + γ [ (1 − λ) V(sₜ₊₁) + λ R̂ₜ₊₁ ],
/// Âₜ = R̂ₜ − V(sₜ), in which no value enters its own return. It runs on the host.
/// # Shapes
/// `rewards`, `values` `[batch, time]`, both f32 or both f64; `mask` u8 `[batch, time]`.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if the shapes or types differ, [`Error::Parameter`] unless
/// γ and λ are in [0, 1].
/// # Properties
/// * Positions that do not count may be anywhere: padding on either side, or the output of a tool in
///   the middle of an answer. Removing them changes nothing. They carry no reward, and they do not
///   discount the credit of earlier tokens.
/// * λ = 1: Âₜ = Σ_{i≥0} γⁱ rₜ₊ᵢ − V(sₜ), and with γ = 1 R̂ₜ is the sum of the rewards to come.
///   λ = 0: Âₜ = δₜ.
/// * With λ = γ = 1, V = 0 and the rewards of [`shaped_rewards`](crate::shaped_rewards), the
///   gradient of [`ppo_policy_loss`](crate::ppo_policy_loss) on its own draws is that of
///   −E r + β KL(π‖π_ref), over all tokens of the answer.
/// * Sums are in f64 whatever the type of the rewards, so 32 768 tokens in f32 are off by one rounding.
/// # Departures
/// None from the recursion. The paper's sum is infinite; here it ends with the answer. An answer that
/// was cut off is treated as if it had ended there, as in the authors' code for language models
/// ([`missing_eos_penalty`](crate::online::rewards::missing_eos_penalty) is the common remedy).
/// # Examples
/// ```
/// use candle_align::{GaeConfig, gae};
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[0.0f64, 9.0, 1.0]], &Device::Cpu)?;
/// let values = Tensor::new(&[[0.5f64, 9.0, 0.25]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0, 1]], &Device::Cpu)?;
///
/// let config = GaeConfig { gamma: 1.0, lambda: 0.5 };
/// let out = gae(&rewards, &values, &mask, &config)?;
/// // δ₃ = 1 − 0.25, δ₁ = 0 + 0.25 − 0.5; the middle does not count
/// assert_eq!(out.advantages.to_vec2::<f64>()?, [[-0.25 + 0.5 * 0.75, 0.0, 0.75]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The variance of the advantages over that of the returns, before whitening. It is 1 for a critic
///   that predicts a constant and 0 for a perfect one. Above 1 the critic adds noise.
/// * The mean of the advantages, before whitening. Since Âₜ = R̂ₜ − V(sₜ), it is the average error of the
///   critic and should be near 0.
/// # Try
/// * Compute one answer by hand at λ = 1 and at λ = 0. Which values enter Âₜ? Solution:
///   `tests/identities/ppo.rs::lambda_one_is_the_return_and_lambda_zero_the_temporal_difference`.
/// * Insert masked tokens into the middle of an answer, with γ < 1. Which advantages change? Solution:
///   `tests/identities/ppo.rs::columns_that_do_not_count_change_no_advantage_wherever_they_stand`.
/// # Source
/// Schulman et al. 2015, arXiv:1506.02438v6, eq. 16; authors' code openai/lm-human-preferences,
/// `train_policy.py`, `PPOTrainer.loss`.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "GAE")]
#[doc(alias = "generalized advantage estimation")]
pub fn gae(
    rewards: &Tensor,
    values: &Tensor,
    mask: &Tensor,
    config: &GaeConfig,
) -> Result<Advantages> {
    let function = "gae";
    let (gamma, lambda) = (config.gamma, config.lambda);
    for (field, value) in [("gamma", gamma), ("lambda", lambda)] {
        let holds = (0.0..=1.0).contains(&value);
        require(holds, function, field, "in [0, 1]", value)?;
    }
    let mut axes = Axes::new(function);
    let rewards = axes.float("rewards", rewards, &["batch", "time"])?;
    let values = axes.float("values", values, &["batch", "time"])?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    let (reward, value) = (on_host(&rewards)?, on_host(&values)?);
    let counts = to_host::<u8>(&mask)?;

    let time = mask.dim(1)?;
    let mut advantages = vec![0.0; counts.len()];
    let mut returns = vec![0.0; counts.len()];
    for row in 0..mask.dim(0)? {
        // V and R̂ of the next position that counts; 0 after the last
        let (mut next_value, mut next_return) = (0.0, 0.0);
        for at in (row * time..(row + 1) * time).rev() {
            if counts[at] == 0 {
                continue; // such a position adds no time step
            }
            // Âₜ + V(sₜ) = rₜ + γ · [ (1 − λ) V(sₜ₊₁) + λ R̂ₜ₊₁ ]
            let expected = share(1.0 - lambda, next_value) + share(lambda, next_return);
            returns[at] = reward[at] + share(gamma, expected);
            advantages[at] = returns[at] - value[at];
            (next_value, next_return) = (value[at], returns[at]);
        }
    }
    let back = |x: Vec<f64>| {
        Tensor::from_vec(x, mask.shape(), &Device::Cpu)?
            .to_dtype(rewards.dtype())?
            .to_device(rewards.device())
    };
    Ok(Advantages {
        advantages: back(advantages)?,
        returns: back(returns)?,
    })
}

/// factor · x, or 0 where the factor is 0, whatever x is.
fn share(factor: f64, x: f64) -> f64 {
    if factor == 0.0 { 0.0 } else { factor * x }
}

/// Every element in f64. The tensor is moved before it is widened, since not every device has f64.
pub(super) fn on_host(x: &Tensor) -> Result<Vec<f64>> {
    to_host::<f64>(&x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
}
