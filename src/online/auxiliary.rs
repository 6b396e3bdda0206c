//! Two terms that are added to the objective of reinforcement learning: entropy, and pretraining text
//! (survey §3.1).
//!
//! In one sentence: one term keeps the policy from becoming too sure of itself, and the other keeps it
//! from forgetting the text that it was pretrained on.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | c₂, S\[π\](sₜ) | [`EntropyConfig::coefficient`], [`TokenLogProbs::entropy`] | number, `[batch, time]` |
//! | γ, log π(x) | [`PtxConfig::gamma`], the log-probabilities of pretraining text | number, `[batch, time]` |
//!
//! Read next: [`crate::sft`], the loss behind the second term.

use crate::error::{Error, Result, non_negative};
use crate::log_probs::TokenLogProbs;
use crate::math::weighted;
use crate::outputs::TokenLoss;
use serde::{Deserialize, Serialize};

/// Settings of [`entropy_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntropyConfig {
    /// c ≥ 0. Default 0.01, the PPO paper's value for Atari (its table 5). The papers on language
    /// models that the survey names have no such term.
    pub coefficient: f64,
}

impl Default for EntropyConfig {
    fn default() -> Self {
        Self { coefficient: 0.01 }
    }
}

/// The entropy bonus of each token: the loss is lower where the policy is less sure.
///
/// # Equation
/// ```text
/// Hₜ = −Σᵥ π_θ(v│x, y₍<t₎) log π_θ(v│x, y₍<t₎)
/// lₜ = −c · Hₜ
/// ```
/// # Shapes
/// `log_probs` `[batch, time]`, computed with [`Statistics::entropy`](crate::Statistics); the result
/// is `[batch, time]` with its mask.
/// # Errors
/// [`Error::Argument`] if the log-probabilities were computed without the entropy;
/// [`Error::Parameter`] unless c is finite and not negative.
/// # Properties
/// * The gradient in the logits of a token is c · πᵥ (log πᵥ + Hₜ): 0 for the uniform distribution,
///   where the term has its only minimum, −c log V.
/// * Added to the loss of a one-token reward r, it gives π ∝ e^{r/c}. That is a KL penalty to a uniform
///   reference with β = c.
/// # Departures
/// The sign: the paper maximizes, and a loss is minimized. Not in the survey.
/// # Examples
/// ```
/// use candle_align::{EntropyConfig, Statistics, TokenLogProbs, entropy_loss};
/// use candle_core::{DType, Device, Tensor};
///
/// let logits = Tensor::zeros((1, 1, 4), DType::F64, &Device::Cpu)?;
/// let (target, mask) = (Tensor::new(&[[0u32]], &Device::Cpu)?, Tensor::new(&[[1u8]], &Device::Cpu)?);
/// let statistics = Statistics { entropy: true, ..Default::default() };
/// let log_probs = TokenLogProbs::aligned(&logits, &target, &mask, statistics)?;
///
/// let loss = entropy_loss(&log_probs, &EntropyConfig { coefficient: 0.5 })?.loss.to_vec2::<f64>()?;
/// assert!((loss[0][0] - -0.5 * 4.0f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean entropy per token ([`RlhfMetrics::entropy`](crate::RlhfMetrics::entropy)). It is log V for
/// the uniform distribution. When it falls towards 0, the policy repeats one answer and further draws
/// teach it nothing new. When it rises towards log V, c outweighs the reward.
/// # Try
/// * Train one token with reward r and coefficient c. Where does the policy end? Solution:
///   `tests/optimum/ppo.rs::an_entropy_bonus_is_a_tie_to_the_uniform_distribution`.
/// # Source
/// Schulman et al. 2017, arXiv:1707.06347v2, eq. 9.
#[doc(alias = "entropy bonus")]
#[doc(alias = "entropy regularization")]
pub fn entropy_loss(log_probs: &TokenLogProbs, config: &EntropyConfig) -> Result<TokenLoss> {
    let function = "entropy_loss";
    non_negative(function, "coefficient", config.coefficient)?;
    let entropy = log_probs.entropy().ok_or_else(|| {
        Error::argument(
            function,
            "log_probs",
            "was computed without Statistics::entropy",
        )
    })?;

    // −c · Hₜ
    Ok(TokenLoss {
        loss: weighted(entropy, -config.coefficient)?,
        mask: log_probs.mask().clone(),
    })
}

/// Settings of [`ptx_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PtxConfig {
    /// γ ≥ 0. Default 27.8, InstructGPT's (its appendix C.4), with eight times as many pretraining
    /// examples as answers. 0 is PPO without the term.
    pub gamma: f64,
}

impl Default for PtxConfig {
    fn default() -> Self {
        Self { gamma: 27.8 }
    }
}

/// The pretraining term of PPO-ptx, per token of pretraining text.
///
/// # Equation
/// ```text
/// lₜ = −γ · log π_θ(xₜ│x₍<t₎)
/// ```
/// # Shapes
/// `pretraining` `[batch, time]`, the log-probabilities of a separate batch of text, not of answers.
/// The result is `[batch, time]` with the mask of that batch.
/// # Errors
/// [`Error::Parameter`] unless γ is finite and not negative.
/// # Properties
/// * It is γ times [`sft_loss`](crate::sft_loss): the gradient is −γ, and γ = 0 adds nothing.
/// * With reward r, one token per answer and pretraining text distributed as d, PPO-ptx stops where
///   r − β log(π/π_ref) + γ d/π is the same for every answer. That is π* of the penalized reward, pulled
///   towards d. With β = 0 it is π = γ d / (λ − r), λ > max r.
/// # Departures
/// None. Eq. 2 maximizes a sum over each text; the caller chooses the reduction
/// ([`Reduction::SequenceMean`](crate::Reduction) is that expectation). Not in the survey's text.
/// # Examples
/// ```
/// use candle_align::{PtxConfig, TokenLogProbs, ptx_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 0]], &Device::Cpu)?;
/// let text = TokenLogProbs::new(&Tensor::new(&[[-0.5f64, -9.0]], &Device::Cpu)?, &mask)?;
/// let loss = ptx_loss(&text, &PtxConfig::default())?;
/// assert_eq!(loss.loss.to_vec2::<f64>()?, [[27.8 * 0.5, 0.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean loss divided by γ: the negative log-likelihood of pretraining text per token. When it rises
/// while the score rises, the policy is forgetting that text, and γ is too small.
/// # Try
/// * Give d and r and predict π for β = 0 from the formula above. Solution:
///   `tests/optimum/ppo.rs::the_pretraining_term_pulls_towards_the_text`.
/// # Source
/// Ouyang et al. 2022, arXiv:2203.02155v1, eq. 2 and appendix C.4.
#[doc(alias = "PPO-ptx")]
#[doc(alias = "pretraining loss")]
pub fn ptx_loss(pretraining: &TokenLogProbs, config: &PtxConfig) -> Result<TokenLoss> {
    non_negative("ptx_loss", "gamma", config.gamma)?;

    // −γ · log π_θ(xₜ)
    Ok(TokenLoss {
        loss: weighted(pretraining.values(), -config.gamma)?,
        mask: pretraining.mask().clone(),
    })
}
