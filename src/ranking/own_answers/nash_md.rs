//! Nash-MD: play against a mixture of the policy and the reference (2023, after the survey).
//!
//! In one sentence: an answer of the policy meets one drawn from the geometric mixture of policy and
//! reference, and its log-probability rises with the probability that it wins, at a price for leaving the
//! reference.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(yₜ), log π_ref(yₜ) | `policy`, `reference` | `[batch, time]` |
//! | P(y ≻ y′), y′ of the mixture | `wins` | `[batch]` |
//! | τ | [`NashMdConfig::beta`] | number |
//!
//! Read next: [`rebel`](super::rebel), [`online_dpo`](super::online_dpo).

use crate::error::{Result, non_negative, require};
use crate::log_probs::TokenLogProbs;
use crate::math::{log_softmax, masked_sum, weighted};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Which tokens pay for the KL to the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlCredit {
    /// Every token pays for the whole answer's log-ratio: the gradient of KL(π‖π_ref) over answers.
    Answer,
    /// Every token pays for its own log-ratio alone: TRL's form, which is not that gradient.
    Token,
}

/// Settings of [`nash_md_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NashMdConfig {
    /// β ≥ 0, the price of the KL. Default 0.1, TRL's value.
    pub beta: f64,
    /// Which tokens pay for it. Default the whole answer, which is the paper's KL.
    pub credit: KlCredit,
}

impl Default for NashMdConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            credit: KlCredit::Answer,
        }
    }
}

/// The logits of the geometric mixture, log( π_ref^λ · π^{1−λ} ) normalized, from which the opponent is drawn:
/// `[.., vocabulary]`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ or there are not three axes,
/// [`Error::DType`](crate::Error::DType) unless both are f32 or f64 alike,
/// [`Error::Parameter`](crate::Error::Parameter) unless λ is in \[0, 1\].
pub fn geometric_mixture(
    policy_logits: &Tensor,
    reference_logits: &Tensor,
    reference_share: f64,
) -> Result<Tensor> {
    let function = "geometric_mixture";
    let inside = (0.0..=1.0).contains(&reference_share);
    require(
        inside,
        function,
        "reference_share",
        "in [0, 1]",
        reference_share,
    )?;
    let mut axes = Axes::new(function);
    let logits = ["batch", "time", "vocabulary"];
    let policy = axes.float("policy_logits", policy_logits, &logits)?;
    let reference = axes.float("reference_logits", reference_logits, &logits)?;
    let reference = weighted(&reference.detach(), reference_share)?;
    log_softmax(
        &(reference + weighted(&policy, 1.0 - reference_share)?)?,
        None,
    )
}

/// The loss of each answer, for a gradient with the policy's own draws.
///
/// # Equation
/// ```text
/// L = β · sg[ Σₜ(log π_θ(yₜ) − log π_ref(yₜ)) ] · Σₜ log π_θ(yₜ) − (P − ½) · Σₜ log π_θ(yₜ)
///   or β · Σₜ sg[ log π_θ(yₜ) − log π_ref(yₜ) ] · log π_θ(yₜ) − … with the credit per token
/// ```
/// # Shapes
/// `policy` and `reference` hold `[batch, time]` under one mask, `wins` is `[batch]`; only the policy gets
/// a gradient, and sg is a constant. The loss is `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β ≥ 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::DType`](crate::Error::DType) unless all are f32 or all are f64.
/// # Properties
/// * Its value means nothing; its gradient is that of β·KL(π‖π_ref) − E\[P\] over answers of the policy,
///   with the baseline ½.
/// * At the first step, where policy and reference agree, only −(P − ½) acts.
/// * For an answer of one token the two credits agree.
/// # Departures
/// TRL 1.13 has the credit per token; its expectation lacks what the choice of a token does to the KL of
/// later ones.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::ranking::{KlCredit, NashMdConfig, nash_md_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let tokens = |x: [f64; 2]| TokenLogProbs::new(&Tensor::new(&[x], &Device::Cpu)?, &mask);
/// let (policy, reference) = (tokens([-1.0, -2.0])?, tokens([-1.5, -1.0])?);
/// let wins = Tensor::new(&[0.75f64], &Device::Cpu)?;
/// let config = NashMdConfig { beta: 0.1, credit: KlCredit::Token };
/// let loss = nash_md_loss(&policy, &reference, &wins, &config)?;
/// let want = 0.1 * (0.5 * -1.0 + -1.0 * -2.0) - 0.25 * -3.0;
/// assert!((loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Log the win probability and the KL; the loss itself is no measure of progress.
/// # Try
/// * Compare both credits on an answer of one token and of two. Solution:
///   `tests/identities/since.rs::a_single_token_pays_alike_under_both_credits`.
/// # Source
/// Munos et al. 2023, arXiv:2312.00886; huggingface/trl, `experimental/nash_md` of release 1.13.0.
#[doc(alias = "Nash learning from human feedback")]
pub fn nash_md_loss(
    policy: &TokenLogProbs,
    reference: &TokenLogProbs,
    wins: &Tensor,
    config: &NashMdConfig,
) -> Result<Tensor> {
    let function = "nash_md_loss";
    non_negative(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    let values = axes.float("policy", policy.values(), &["batch", "time"])?;
    let mask = axes.mask("policy", policy.mask(), &["batch", "time"])?;
    let old = axes.float("reference", reference.values(), &["batch", "time"])?;
    let wins = axes.float("wins", wins, &["batch"])?.detach();
    let sum = policy.sum()?;

    // − (P − ½) · Σₜ log π_θ(yₜ)
    let gain = ((wins - 0.5)? * &sum)?;
    if config.beta == 0.0 {
        return Ok(gain.neg()?);
    }
    // + β · sg[ log-ratio ] · log π_θ, of the answer or of each token
    let ratios = (&values - old)?.detach();
    let price = match config.credit {
        KlCredit::Answer => (masked_sum(&ratios, &mask)? * &sum)?,
        KlCredit::Token => masked_sum(&(ratios * &values)?, &mask)?,
    };
    Ok(((price * config.beta)? - gain)?)
}
