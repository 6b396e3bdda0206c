//! TDPO: DPO with the divergence of every token (2024, after the survey).
//!
//! In one sentence: besides the drawn tokens, compare how far the whole distributions of the two answers
//! have moved from the reference, and let a rejected answer that moved less than the chosen one count
//! against the margin.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | D_SeqKL(x, y; π_ref‖π_θ) | `divergences`, from [`sequential_kl`] | `[batch]` |
//! | α | [`Tdpo2Config::alpha`] | number |
//!
//! Read next: [`dpo`](crate::ranking::dpo).

use crate::error::{Result, non_negative, positive};
use crate::known::readable;
use crate::log_probs::Pair;
use crate::math::{log_sigmoid, log_softmax, masked, masked_sum, weighted};
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use crate::shape::Axes;
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

/// D = Σₜ KL( π_ref(·│x, y₍<t₎) ‖ π_θ(·│x, y₍<t₎) ) over the tokens that count: `[batch]`.
///
/// `policy_logits` and `reference_logits` are `[batch, time, vocabulary]` in f32 or f64, aligned with a u8 `mask`
/// `[batch, time]`: position t of the logits predicts the token that position t of the mask counts. The
/// reference is a constant. Positions that do not count may hold anything, even NaN. A symbol that both exclude
/// (−∞) adds 0; one that only the policy excludes makes D infinite.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) as above.
#[doc(alias = "forward KL")]
pub fn sequential_kl(
    policy_logits: &Tensor,
    reference_logits: &Tensor,
    mask: &Tensor,
) -> Result<Tensor> {
    let mut axes = Axes::new("sequential_kl");
    let logits = ["batch", "time", "vocabulary"];
    let policy = axes.float("policy_logits", policy_logits, &logits)?;
    let reference = axes.float("reference_logits", reference_logits, &logits)?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;

    // where the mask does not count both become uniform, their KL 0
    let counts = readable(&mask.unsqueeze(2)?.broadcast_as(policy.shape())?)?;
    let log_policy = log_softmax(&masked(&policy, &counts)?, None)?;
    let log_reference = log_softmax(&masked(&reference.detach(), &counts)?, None)?;

    // Σᵥ p_ref · ( log p_ref − log p_θ ), where 0 · log 0 = 0
    let p = log_reference.exp()?;
    let possible = p.gt(0.0)?;
    let difference = (masked(&log_reference, &possible)? - masked(&log_policy, &possible)?)?;
    masked_sum(&(p * difference)?.sum(D::Minus1)?, &mask)
}

/// Settings of [`tdpo1_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tdpo1Config {
    /// β > 0. Default 0.1, the authors' value.
    pub beta: f64,
}

impl Default for Tdpo1Config {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// TDPO₁: the loss of each pair, with the divergences of both answers trained.
///
/// # Equation
/// ```text
/// L = −log σ( β·( ρ_w − ρ_l − (D_l − D_w) ) )
/// ```
/// # Shapes
/// `ratios` of [`LogRatios::sums`](crate::ranking::LogRatios::sums). `divergences` `[batch]`, with their
/// history. The loss and the rewards β·ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::DType`](crate::Error::DType) unless all are f32 or all are f64.
/// # Properties
/// * At the first step both divergences are 0, and so are their gradients: DPO's loss and gradient.
/// * The gradient reaches both divergences: D_w is raised and D_l lowered, which also holds the policy of
///   the rejected answer near the reference.
/// # Departures
/// None from the authors' code, whose default is this form (`if_tdpo2: false`). Its softmax is followed by
/// a logarithm and gives NaN at a logit of −∞; [`sequential_kl`] does not.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, Tdpo1Config, tdpo1_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let divergences = Pair { chosen: at(0.2)?, rejected: at(0.05)? };
/// let out = tdpo1_loss(&ratios, &divergences, &Tdpo1Config { beta: 1.0 })?;
/// let margin = 0.1 - (0.05 - 0.2);
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch both divergences, in nats per answer. D_w far above D_l means that only the chosen answers'
///   distributions move.
/// # Try
/// * Compute the first step's gradient with and without the term. Solution:
///   `tests/identities/since.rs::without_divergence_tdpo_is_dpo`.
/// # Source
/// Zeng et al. 2024, arXiv:2404.11999; authors' code Vance0124/Token-level-Direct-Preference-Optimization.
#[doc(alias = "token-level DPO")]
pub fn tdpo1_loss(
    ratios: &LogRatios,
    divergences: &Pair<Tensor>,
    config: &Tdpo1Config,
) -> Result<PreferenceLoss> {
    let function = "tdpo1_loss";
    positive(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    axes.pair("ratios", ratios.scores())?;
    let divergences = axes.pair("divergences", divergences)?;

    // D_l − D_w
    let more = divergences.margin()?.neg()?;
    // −log σ( β·( ρ_w − ρ_l − … ) )
    let rewards = ratios.rewards(config.beta)?;
    let margin = (rewards.margin()? - (more * config.beta)?)?;
    PreferenceLoss::new(log_sigmoid(&margin)?.neg()?, &rewards)
}

/// Settings of [`tdpo2_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tdpo2Config {
    /// β > 0. Default 0.1, the authors' value.
    pub beta: f64,
    /// α ≥ 0, the weight of the divergences. Default 0.5, the authors' value.
    pub alpha: f64,
}

impl Default for Tdpo2Config {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 0.5,
        }
    }
}

/// TDPO₂: the loss of each pair, with the chosen answer's divergence as a constant.
///
/// # Equation
/// ```text
/// L = −log σ( β·( ρ_w − ρ_l − α·(D_l − sg[D_w]) ) )
/// ```
/// # Shapes
/// As [`tdpo1_loss`]; sg is a constant.
/// # Errors
/// As [`tdpo1_loss`], and [`Error::Parameter`](crate::Error::Parameter) unless α ≥ 0.
/// # Properties
/// * α = 0 is [`dpo_loss`](crate::dpo_loss).
/// * With α = 1 the value is that of [`tdpo1_loss`]; the gradient does not raise D_w.
/// # Departures
/// None from the paper.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, Tdpo2Config, tdpo2_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let divergences = Pair { chosen: at(0.2)?, rejected: at(0.05)? };
/// let out = tdpo2_loss(&ratios, &divergences, &Tdpo2Config { beta: 1.0, alpha: 0.5 })?;
/// let margin = 0.1 - 0.5 * (0.05 - 0.2);
/// assert!((out.loss.to_vec1::<f64>()?[0] - (1.0 + f64::exp(-margin)).ln()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch both divergences; D_w is free here and may grow.
/// # Try
/// * Compare values and gradients of both forms at α = 1. Solution:
///   `tests/identities/since.rs::without_divergence_tdpo_is_dpo`.
/// # Source
/// Zeng et al. 2024, arXiv:2404.11999; authors' code Vance0124/Token-level-Direct-Preference-Optimization.
pub fn tdpo2_loss(
    ratios: &LogRatios,
    divergences: &Pair<Tensor>,
    config: &Tdpo2Config,
) -> Result<PreferenceLoss> {
    let function = "tdpo2_loss";
    positive(function, "beta", config.beta)?;
    non_negative(function, "alpha", config.alpha)?;
    let mut axes = Axes::new(function);
    axes.pair("ratios", ratios.scores())?;
    let divergences = axes.pair("divergences", divergences)?;

    // α·( D_l − sg[D_w] )
    let more = (divergences.rejected - divergences.chosen.detach())?;
    let price = weighted(&more, config.beta * config.alpha)?;
    // −log σ( β·( ρ_w − ρ_l − … ) )
    let rewards = ratios.rewards(config.beta)?;
    PreferenceLoss::new(log_sigmoid(&(rewards.margin()? - price)?)?.neg()?, &rewards)
}
