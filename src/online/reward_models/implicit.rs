//! Implicit process rewards: step rewards from outcomes alone (2024, after the survey).
//!
//! In one sentence: train a policy as an outcome reward model by its log-ratio to a reference; the
//! log-ratio of each token is then its reward, without a label for any step.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(yₜ), log π_ref(yₜ) | `policy`, `reference` | `[batch, time]` |
//! | l, right or wrong | `labels` | `[batch]` |
//! | β | [`ImplicitRewardConfig::beta`] | number |
//!
//! Read next: [`outcome`](super::outcome), [`dpo_loss`](crate::dpo_loss).

use super::outcome::binary_cross_entropy;
use crate::error::{Result, positive};
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, masked_sum};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// What [`implicit_reward_loss`] returns.
#[derive(Clone, Debug)]
pub struct ImplicitReward {
    /// One loss per answer `[batch]`.
    pub loss: Tensor,
    /// The reward of each token, β·ρₜ `[batch, time]`, detached, 0 where the mask does not count. The reward of
    /// a step is the sum over its tokens.
    pub rewards: Tensor,
}

/// Settings of [`implicit_reward_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImplicitRewardConfig {
    /// β > 0. Default 0.05, the value of PRIME.
    pub beta: f64,
}

impl Default for ImplicitRewardConfig {
    fn default() -> Self {
        Self { beta: 0.05 }
    }
}

/// The loss of each answer, and the reward of each token.
///
/// # Equation
/// ```text
/// rₜ = β · ( log π_θ(yₜ) − log π_ref(yₜ) )
/// L = −l · log σ( Σₜ rₜ ) − (1 − l) · log σ( −Σₜ rₜ )
/// ```
/// # Shapes
/// `policy` and `reference` hold `[batch, time]`, `labels` `[batch]` between 0 and 1. Only the policy gets
/// a gradient.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::DType`](crate::Error::DType) unless all are f32 or all are f64.
/// # Properties
/// * It is [`outcome_reward_loss`](super::outcome::outcome_reward_loss) on Σₜ rₜ.
/// * With hard labels it is [`bco_loss`](crate::ranking::bco_loss) with δ = 0.
/// * An answer that counts no token has the loss ln 2 and no gradient.
/// # Departures
/// None from the paper's cross-entropy. PRIME takes σ first and the cross-entropy of its bf16 result,
/// which is infinite once σ rounds to 0 or 1; here σ is never taken.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::reward_models::{ImplicitRewardConfig, implicit_reward_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let tokens = |x: [f64; 2]| TokenLogProbs::new(&Tensor::new(&[x], &Device::Cpu)?, &mask);
/// let labels = Tensor::new(&[1.0f64], &Device::Cpu)?;
/// let config = ImplicitRewardConfig { beta: 0.5 };
/// let out = implicit_reward_loss(&tokens([-1.0, -2.0])?, &tokens([-1.5, -1.0])?, &labels, &config)?;
/// assert_eq!(out.rewards.to_vec2::<f64>()?, [[0.25, -0.5]]);
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + 0.25f64.exp()).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Yuan et al. 2024, arXiv:2412.01981; Cui et al. 2025 (PRIME), arXiv:2502.01456.
#[doc(alias = "implicit PRM")]
#[doc(alias = "PRIME")]
pub fn implicit_reward_loss(
    policy: &TokenLogProbs,
    reference: &TokenLogProbs,
    labels: &Tensor,
    config: &ImplicitRewardConfig,
) -> Result<ImplicitReward> {
    let function = "implicit_reward_loss";
    positive(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    let values = axes.float("policy", policy.values(), &["batch", "time"])?;
    let old = axes
        .float("reference", reference.values(), &["batch", "time"])?
        .detach();
    let labels = axes.float("labels", labels, &["batch"])?.detach();
    let mask = policy.mask();

    // rₜ
    let rewards = masked(&((values - old)? * config.beta)?, mask)?;
    // −l · log σ( Σₜ rₜ ) − (1 − l) · log σ( −Σₜ rₜ )
    Ok(ImplicitReward {
        loss: binary_cross_entropy(&masked_sum(&rewards, mask)?, &labels)?,
        rewards: rewards.detach(),
    })
}
