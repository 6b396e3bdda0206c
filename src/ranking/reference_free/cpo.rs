//! CPO: DPO without a reference, held by the likelihood of the chosen answer (2024, after the survey).
//!
//! In one sentence: replace the reference by a uniform one, which cancels, and add the negative
//! log-likelihood of the chosen answers in its place.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ(y_w│x), log π_θ(y_l│x) | `policy`: sums over tokens | `[batch]` |
//! | L_NLL | `chosen`, from [`sft_loss`](crate::sft_loss) | `[batch, time]` |
//!
//! Read next: [`rpo`](crate::ranking::reference::rpo) (with a reference), [`simpo`](super::simpo).

use crate::error::{Result, non_negative, positive, require};
use crate::log_probs::Pair;
use crate::math::{smoothed_logistic, weighted};
use crate::outputs::{PreferenceLoss, TokenLoss};
use crate::ranking::{ReferenceTokens, answer_nll};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`cpo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// ε in [0, ½), as in [`DpoConfig`](crate::DpoConfig). Default 0.
    pub label_smoothing: f64,
    /// α ≥ 0, the weight of the likelihood term. Default 1, the paper's value and TRL's `cpo_alpha`.
    #[doc(alias = "cpo_alpha")]
    pub alpha: f64,
    /// Whether the likelihood term of a pair is a sum over the tokens of its chosen answer or their mean.
    /// Default the sum, the paper's −log π(y_w).
    pub tokens: ReferenceTokens,
}

impl Default for CpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            label_smoothing: 0.0,
            alpha: 1.0,
            tokens: ReferenceTokens::Sum,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −(1 − ε) · log σ(z) − ε · log σ(−z) + α · NLL(y_w),        z = β·( log π_θ(y_w│x) − log π_θ(y_l│x) )
/// ```
/// # Shapes
/// `policy` `[batch]`, sums of token log-probabilities; `chosen` the loss of each token of the chosen
/// answers `[batch, time]`. The loss is `[batch]`, and so are the rewards, β times the sums.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0, 0 ≤ ε < ½ and α ≥ 0,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * α = 0 is [`dpo_loss`](crate::dpo_loss) without a reference.
/// * It is DPO with a uniform reference plus the likelihood term: no model but the policy is needed.
/// # Departures
/// TRL 1.16's likelihood term is the mean over the tokens of the batch: for that form add
/// [`sft_loss`](crate::sft_loss) under [`Reduction::TokenMean`](crate::Reduction::TokenMean) to the mean
/// of this loss with α = 0. Its `ipo` and `simpo` divide by lengths, its `sigmoid` and `hinge` do not;
/// Liger divides under all of them.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{CpoConfig, cpo_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// use candle_align::{SftConfig, TokenLogProbs, sft_loss};
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let tokens = TokenLogProbs::new(&Tensor::new(&[[-1.5f64, -2.0]], &Device::Cpu)?, &mask)?;
/// let chosen = sft_loss(&tokens, None, &SftConfig::default())?;
/// let policy = Pair { chosen: tokens.sum()?, rejected: at(-4.5)? };
/// let out = cpo_loss(&policy, &chosen, &CpoConfig { beta: 0.5, ..Default::default() })?;
/// let want = (1.0 + (-0.5f64).exp()).ln() + 3.5;
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the likelihood of the chosen answers apart from the loss: with sums it dwarfs the preference
///   term on long answers.
/// # Try
/// * Turn the likelihood off. Solution:
///   `tests/identities/since.rs::without_its_likelihood_term_cpo_is_dpo_without_a_reference`.
/// # Source
/// Xu et al. 2024, arXiv:2401.08417; huggingface/trl, `experimental/cpo` of release 1.16.0.
#[doc(alias = "contrastive preference optimization")]
pub fn cpo_loss(
    policy: &Pair<Tensor>,
    chosen: &TokenLoss,
    config: &CpoConfig,
) -> Result<PreferenceLoss> {
    let function = "cpo_loss";
    let epsilon = config.label_smoothing;
    positive(function, "beta", config.beta)?;
    let inside = (0.0..0.5).contains(&epsilon);
    require(inside, function, "label_smoothing", "in [0, 0.5)", epsilon)?;
    non_negative(function, "alpha", config.alpha)?;
    let policy = Axes::new(function).pair("policy", policy)?;

    // z
    let rewards = Pair {
        chosen: (policy.chosen * config.beta)?,
        rejected: (policy.rejected * config.beta)?,
    };
    let margin = rewards.margin()?;
    // −(1 − ε) · log σ(z) − ε · log σ(−z)
    let loss = smoothed_logistic(&margin, epsilon)?;
    // + α · NLL(y_w)
    let nll = answer_nll(function, &loss, ("chosen", chosen), config.tokens)?;
    PreferenceLoss::new((loss + weighted(&nll, config.alpha)?)?, &rewards)
}
