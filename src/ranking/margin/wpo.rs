//! WPO: pairs that the policy could have written count for more (2024, after the survey).
//!
//! In one sentence: weigh each pair by how likely the policy is to write its two answers, so that pairs of
//! other models act as if they had been drawn from the policy.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log-probabilities of both answers | `policy` | `[batch, time]` |
//! | log Σ_v π(v)² | [`Statistics::log_collision`](crate::Statistics::log_collision) | `[batch, time]` |
//! | w(x, y_w) · w(x, y_l) | the result | `[batch]` |
//!
//! Read next: [`dpo`](crate::ranking::dpo).

use crate::error::{Error, Result, positive};
use crate::log_probs::{Pair, TokenLogProbs};
use crate::math::{at_most, masked_mean};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`wpo_weights`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WpoConfig {
    /// The largest weight of a pair, > 0, or none. Default none, as in TRL 1.16; releases before capped it
    /// at 1.
    #[doc(alias = "clamp")]
    pub largest: Option<f64>,
}

/// The weight of each pair, a constant.
///
/// # Equation
/// ```text
/// w(x, y_w) · w(x, y_l),        w(x, y) = exp( (1/│y│) Σₜ [ log π(yₜ) − log Σ_v π(v)² ] )
/// ```
/// # Shapes
/// `policy` holds `[batch, time]` with [`Statistics::log_collision`](crate::Statistics::log_collision).
/// The weights `[batch]` are constants; multiply the losses of the pairs by them.
/// # Errors
/// [`Error::Argument`] without that statistic,
/// [`Error::Shape`] if batches differ, [`Error::DType`] if types
/// differ, [`Error::Parameter`] unless the cap is > 0.
/// # Properties
/// * A weight compares a token's probability with the mean probability of a drawn token: answers drawn
///   from the policy itself have weights around 1. For uniform distributions every weight is 1.
/// * An answer that counts no token has weight 1.
/// # Departures
/// None from TRL 1.16's `use_weighting`. Release 0.24.0 shifted the log-probabilities by one token but not
/// the mask.
/// # Examples
/// ```
/// use candle_align::ranking::{WpoConfig, wpo_weights};
/// use candle_align::{Pair, Statistics, TokenLogProbs};
/// use candle_core::{Device, Tensor};
///
/// let statistics = Statistics { log_collision: true, ..Default::default() };
/// let answer = |token: u32| -> candle_align::Result<TokenLogProbs> {
///     // ¾ and ¼: Σ p² = 10/16
///     let logits = Tensor::new(&[[[3.0f64.ln(), 0.0], [0.0, 0.0]]], &Device::Cpu)?;
///     let tokens = Tensor::new(&[[0u32, token]], &Device::Cpu)?;
///     let mask = Tensor::new(&[[0u8, 1]], &Device::Cpu)?;
///     TokenLogProbs::next_token_with(&logits, &tokens, &mask, statistics)
/// };
/// let pair = Pair { chosen: answer(0)?, rejected: answer(1)? };
/// let weight = wpo_weights(&pair, &WpoConfig::default())?.to_vec1::<f64>()?[0];
/// assert!((weight - (0.75 / 0.625) * (0.25 / 0.625)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean of the weights. Near 0 for whole batches means that no pair is anything the policy
///   would write; the learning rate then falls with it.
/// # Try
/// * Compute the weight of a uniform policy. Solution:
///   `tests/values/since.rs::wpo_weighs_a_pair_by_what_the_policy_would_write`.
/// # Source
/// Zhou et al. 2024, arXiv:2406.11827, eq. 2 and the alignment of weights; huggingface/trl,
/// `trainer/dpo_trainer.py` of release 1.16.0.
#[doc(alias = "weighted preference optimization")]
#[doc(alias = "use_weighting")]
pub fn wpo_weights(policy: &Pair<TokenLogProbs>, config: &WpoConfig) -> Result<Tensor> {
    let function = "wpo_weights";
    if let Some(largest) = config.largest {
        positive(function, "largest", largest)?;
    }
    let mut axes = Axes::new(function);
    axes.float(
        "policy.chosen",
        policy.chosen.values(),
        &["batch", "chosen time"],
    )?;
    axes.float(
        "policy.rejected",
        policy.rejected.values(),
        &["batch", "rejected time"],
    )?;

    // (1/│y│) Σₜ [ log π(yₜ) − log Σ_v π(v)² ]
    let of = |argument: &str, answer: &TokenLogProbs| -> Result<Tensor> {
        let Some(collision) = answer.log_collision() else {
            let problem = "was computed without Statistics::log_collision";
            return Err(Error::argument(function, argument, problem));
        };
        masked_mean(&(answer.values() - collision)?.detach(), answer.mask())
    };
    let chosen = of("policy.chosen", &policy.chosen)?;
    let rejected = of("policy.rejected", &policy.rejected)?;

    // w(x, y_w) · w(x, y_l)
    let weights = (chosen + rejected)?.exp()?;
    match config.largest {
        Some(largest) => at_most(&weights, largest),
        None => Ok(weights),
    }
}
