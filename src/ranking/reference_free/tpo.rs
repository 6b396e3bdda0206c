//! TPO: a gold answer beside the pair (2024, after the survey).
//!
//! In one sentence: compare a chosen and a rejected answer without a reference model, and fine-tune on a
//! third, gold answer to the same prompt.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(y_w│x), log π_θ(y_l│x) | `policy`: sums, or means for TPO-L | `[batch]` |
//! | −log π_θ(y_ref│x) | `gold`, from [`sft_loss`](crate::sft_loss) | `[batch, time]` |
//! | β, α, γ | [`TpoConfig`] | number |
//!
//! Read next: [`cpo`](super::cpo) (the chosen answer is its own gold).

use super::simpo::RequiredLead;
use crate::error::{Result, non_negative, positive, require};
use crate::log_probs::Pair;
use crate::math::{smoothed_logistic, weighted};
use crate::outputs::{PreferenceLoss, TokenLoss};
use crate::ranking::{ReferenceTokens, answer_nll};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`tpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TpoConfig {
    /// β > 0. Default 0.01, TRL's value.
    pub beta: f64,
    /// ε in [0, ½), as in [`DpoConfig`](crate::DpoConfig). Default 0.
    pub label_smoothing: f64,
    /// α ≥ 0, the weight of the gold answer. Default 1, TRL's value.
    pub alpha: f64,
    /// γ or γ/β. Default 0, the form on sums; TPO-L on means has γ = 0.5 in TRL.
    pub margin: RequiredLead,
    /// Whether the term of a gold answer is a sum over its tokens or their mean. Default the mean.
    pub tokens: ReferenceTokens,
}

impl Default for TpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.01,
            label_smoothing: 0.0,
            alpha: 1.0,
            margin: RequiredLead::Gamma(0.0),
            tokens: ReferenceTokens::Mean,
        }
    }
}

/// The loss of each triple.
///
/// # Equation
/// ```text
/// L = −(1 − ε) · log σ(z) − ε · log σ(−z) + α · NLL(y_gold),        z = β·( log π_θ(y_w│x) − log π_θ(y_l│x) ) − γ
/// ```
/// # Shapes
/// `policy` `[batch]`, sums of token log-probabilities or, for TPO-L, their means; `gold` the loss of each
/// token of the gold answers `[batch, time]`. The loss is `[batch]`, and so are the rewards, β times what
/// `policy` holds.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0, 0 ≤ ε < ½, α ≥ 0 and γ is finite,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * With the chosen answers as gold and γ = 0 it is [`cpo_loss`](super::cpo::cpo_loss).
/// * With α = 0 on means it is [`simpo_loss`](super::simpo::simpo_loss).
/// # Departures
/// TRL 1.16's term of the gold answers is the mean over the tokens of the batch: for that form add
/// [`sft_loss`](crate::sft_loss) under [`Reduction::TokenMean`](crate::Reduction::TokenMean) to the mean
/// of this loss with α = 0. Its `hinge` and `ipo` are [`hinge_dpo_loss`](crate::ranking::hinge_dpo_loss)
/// and [`ipo_loss`](crate::ranking::ipo_loss) over a reference of zeros, `ipo` on means.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{TpoConfig, tpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// use candle_align::{SftConfig, TokenLogProbs, sft_loss};
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let tokens = TokenLogProbs::new(&Tensor::new(&[[-0.2f64, -0.4]], &Device::Cpu)?, &mask)?;
/// let gold = sft_loss(&tokens, None, &SftConfig::default())?;
/// let policy = Pair { chosen: at(-3.0)?, rejected: at(-4.0)? };
/// let out = tpo_loss(&policy, &gold, &TpoConfig { beta: 0.5, ..Default::default() })?;
/// let want = (1.0 + (-0.5f64).exp()).ln() + 0.3;
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Log the two parts apart: with β = 0.01 the gold term decides nearly everything at first.
/// # Try
/// * Use the chosen answers as gold. Solution:
///   `tests/identities/since.rs::tpo_with_the_chosen_answer_as_gold_is_cpo`.
/// # Source
/// Saeidi et al. 2024, arXiv:2405.16681; huggingface/trl, `experimental/tpo` of release 1.16.0.
#[doc(alias = "triple preference optimization")]
pub fn tpo_loss(
    policy: &Pair<Tensor>,
    gold: &TokenLoss,
    config: &TpoConfig,
) -> Result<PreferenceLoss> {
    let function = "tpo_loss";
    let epsilon = config.label_smoothing;
    positive(function, "beta", config.beta)?;
    let inside = (0.0..0.5).contains(&epsilon);
    require(inside, function, "label_smoothing", "in [0, 0.5)", epsilon)?;
    non_negative(function, "alpha", config.alpha)?;
    let gamma = config.margin.gamma(function, config.beta)?;
    let policy = Axes::new(function).pair("policy", policy)?;

    // z
    let rewards = Pair {
        chosen: (policy.chosen * config.beta)?,
        rejected: (policy.rejected * config.beta)?,
    };
    let z = (rewards.margin()? - gamma)?;
    // −(1 − ε) · log σ(z) − ε · log σ(−z)
    let loss = smoothed_logistic(&z, epsilon)?;
    // + α · NLL(y_gold)
    let nll = answer_nll(function, &loss, ("gold", gold), config.tokens)?;
    PreferenceLoss::new((loss + weighted(&nll, config.alpha)?)?, &rewards)
}
