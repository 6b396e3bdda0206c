//! DPO with an NLL term, known as RPO (2024, after the survey).
//!
//! In one sentence: DPO keeps only the difference of two log-probabilities, so add the negative
//! log-likelihood of the chosen answer to hold it up.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | log π_θ(y_w│x) per token | `chosen`, from [`sft_loss`](crate::sft_loss) | `[batch, time]` |
//! | α | [`RpoConfig::alpha`] | number |
//!
//! Read next: [`cpo`](crate::ranking::reference_free::cpo) (the same without a reference).

use super::LogRatios;
use crate::error::{Result, non_negative, positive};
use crate::math::{log_sigmoid, weighted};
use crate::outputs::{PreferenceLoss, TokenLoss};
use crate::ranking::{ReferenceTokens, answer_nll};
use serde::{Deserialize, Serialize};

/// Settings of [`rpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// α ≥ 0, the weight of the likelihood term. Default 1. The first version of the paper put α in front
    /// of the DPO term (trl#1868).
    pub alpha: f64,
    /// Whether the likelihood term of a pair is a sum over the tokens of its chosen answer or their mean.
    /// Default the mean, the paper's form.
    pub tokens: ReferenceTokens,
}

impl Default for RpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 1.0,
            tokens: ReferenceTokens::Mean,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β·(ρ_w − ρ_l) ) + α · NLL(y_w),        NLL = −(1/│y_w│) log π_θ(y_w│x)   or   −log π_θ(y_w│x)
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`. `chosen` is the loss of each token of the chosen answers `[batch, time]`,
/// from [`sft_loss`](crate::sft_loss); which tokens count is the caller's choice.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and α ≥ 0,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * α = 0 is [`dpo_loss`](crate::dpo_loss).
/// * With labels without noise it has no optimum short of all mass on chosen answers; DPO alone may lower
///   them.
/// * The mean gives a short answer as much weight as a long one, the sum does not.
/// # Departures
/// TRL 1.16 has `["sigmoid", "sft"]` with weights: its likelihood is the mean over the tokens of the whole
/// micro-batch, which no loss of one pair can be. Add [`sft_loss`](crate::sft_loss) under
/// [`Reduction::TokenMean`](crate::Reduction::TokenMean) to the mean of [`dpo_loss`](crate::dpo_loss) for
/// that form. LLaMA-Factory takes the sum under `sigmoid`.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, RpoConfig, rpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// use candle_align::{SftConfig, TokenLogProbs, sft_loss};
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let tokens = TokenLogProbs::new(&Tensor::new(&[[-1.5f64, -2.0]], &Device::Cpu)?, &mask)?;
/// let chosen = sft_loss(&tokens, None, &SftConfig::default())?;
/// let out = rpo_loss(&ratios, &chosen, &RpoConfig { alpha: 0.5, ..Default::default() })?;
/// let want = (1.0 + (-0.01f64).exp()).ln() + 0.5 * 3.5 / 2.0;
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the log-probability of the chosen answers: holding it up is what the term is for.
/// # Try
/// * Give a pair with shared tokens to DPO with and without the term. Solution:
///   `tests/identities/since.rs::without_its_likelihood_term_rpo_is_dpo`.
/// # Source
/// Pang et al. 2024 (iterative reasoning preference optimization), arXiv:2404.19733; Liu et al. 2024,
/// arXiv:2405.16436.
#[doc(alias = "DPO with NLL")]
#[doc(alias = "iterative RPO")]
#[doc(alias = "rpo_alpha")]
pub fn rpo_loss(
    ratios: &LogRatios,
    chosen: &TokenLoss,
    config: &RpoConfig,
) -> Result<PreferenceLoss> {
    let function = "rpo_loss";
    positive(function, "beta", config.beta)?;
    non_negative(function, "alpha", config.alpha)?;
    let rewards = ratios.rewards(config.beta)?;

    // −log σ( β·(ρ_w − ρ_l) )
    let preference = log_sigmoid(&rewards.margin()?)?.neg()?;
    // + α · NLL(y_w)
    let nll = answer_nll(function, &preference, ("chosen", chosen), config.tokens)?;
    PreferenceLoss::new((preference + weighted(&nll, config.alpha)?)?, &rewards)
}
