//! Likelihood terms that are added to a policy loss: of right answers, and of observations (2025, after the survey).
//!
//! In one sentence: tokens that are worth predicting give a supervised loss from a forward pass that is needed anyway.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ | `log_probs` | `[batch, time]` |
//! | the right answers of VAPO | `counted` | `[batch]` |
//! | the environment's tokens of ECHO | the mask of `log_probs` | `[batch, time]` |
//! | μ, λ | [`AddedNllConfig::weight`] | number |
//!
//! Read next: [`crate::sft`], the same loss alone; [`crate::online::auxiliary`], the pretraining term.

use crate::error::{Result, non_negative};
use crate::log_probs::TokenLogProbs;
use crate::math::{masked, weighted};
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`added_nll_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddedNllConfig {
    /// The weight, ≥ 0. Default 0.1, that of prime-rl for observations; the papers' values are of their tasks.
    pub weight: f64,
}

impl Default for AddedNllConfig {
    fn default() -> Self {
        Self { weight: 0.1 }
    }
}

/// The likelihood term of each token.
///
/// # Equation
/// ```text
/// l = −μ · log π_θ(yₜ│x, y₍<t₎)      for the tokens that count in both masks
/// ```
/// # Shapes
/// `log_probs` `[batch, time]`; `counted` u8 `[batch]`, the answers whose tokens count, or `[batch, time]`, or none. The
/// result is `[batch, time]` with both masks as one: a token mean divides by the tokens of the term.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless the weight is finite and not negative.
/// # Properties
/// * VAPO: the policy's `log_probs`, and `counted` 1 for each answer that was right. ECHO: log-probabilities of the same
///   pass, masked to the tokens that the environment wrote, and no `counted`.
/// * It is μ times [`sft_loss`](crate::sft_loss) on those tokens.
/// * The policy loss and the term have divisors of their own, so each is reduced and then they are added.
/// * Right answers are pulled up even where all answers of a group are right and their advantages are 0.
/// # Departures
/// None. VAPO divides by the tokens of the right answers ([`Reduction::TokenMean`](crate::Reduction)).
/// # Examples
/// ```
/// use candle_align::online::policy_gradient::{AddedNllConfig, added_nll_loss};
/// use candle_align::{Reduction, TokenLogProbs};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1], [1, 1]], &Device::Cpu)?;
/// let new = Tensor::new(&[[-0.5f64, -1.5], [-9.0, -9.0]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&new, &mask)?;
/// let right = Tensor::new(&[1u8, 0], &Device::Cpu)?;
///
/// let term = added_nll_loss(&new, Some(&right), &AddedNllConfig { weight: 0.5 })?;
/// assert_eq!(term.reduce(Reduction::TokenMean)?.to_scalar::<f64>()?, 0.5 * 1.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// VAPO: Yue et al. 2025, arXiv:2504.05118; ECHO: Shrivastava et al. 2026, arXiv:2605.24517.
#[doc(alias = "VAPO")]
#[doc(alias = "ECHO")]
#[doc(alias = "positive example LM loss")]
pub fn added_nll_loss(
    log_probs: &TokenLogProbs,
    counted: Option<&Tensor>,
    config: &AddedNllConfig,
) -> Result<TokenLoss> {
    let function = "added_nll_loss";
    non_negative(function, "weight", config.weight)?;
    let mut axes = Axes::new(function);
    axes.float("log_probs", log_probs.values(), &["batch", "time"])?;
    let mask = match counted {
        None => log_probs.mask().clone(),
        Some(counted) => {
            let counted = match counted.rank() {
                1 => axes.mask("counted", counted, &["batch"])?.unsqueeze(1)?,
                _ => axes.mask("counted", counted, &["batch", "time"])?,
            };
            masked(
                &counted.broadcast_as(log_probs.mask().shape())?,
                log_probs.mask(),
            )?
        }
    };

    // −μ · log π_θ
    let loss = weighted(&masked(log_probs.values(), &mask)?, -config.weight)?;
    Ok(TokenLoss { loss, mask })
}
