//! Importance weights of the sampler, truncated or dropped beyond their bounds (2025, after the survey).
//!
//! In one sentence: a token that the trainer finds likelier than the sampler did counts more, up to a bound.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π of the training engine, at the start of the update | `old` | `[batch, time]` |
//! | log μ of the sampler | `sampler` | `[batch, time]` |
//! | C, or α and β | [`RolloutWeightConfig`] | numbers |
//!
//! Read next: [`crate::online::rollout_correction::sequence_band`].

use super::super::kl::bounded_exp;
use super::super::ratio::RatioLevel;
use super::super::surrogate::times;
use crate::error::{Result, non_negative, positive, require};
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use crate::outputs::TokenLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// What becomes of a weight beyond its bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// It is the bound.
    Truncate,
    /// It is 0.
    #[default]
    Drop,
}

/// Settings of [`rollout_weights`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutWeightConfig {
    /// Over what the ratio is taken. Default [`RatioLevel::SequenceSum`], as in TRL.
    pub level: RatioLevel,
    /// The lower bound, ≥ 0. Default none.
    pub low: Option<f64>,
    /// The upper bound, > 0 and not below the lower. Default 3, that of TRL.
    pub high: Option<f64>,
    /// Default [`Beyond::Drop`], as in TRL.
    pub beyond: Beyond,
}

impl Default for RolloutWeightConfig {
    fn default() -> Self {
        Self {
            level: RatioLevel::SequenceSum,
            low: None,
            high: Some(3.0),
            beyond: Beyond::Drop,
        }
    }
}

impl RolloutWeightConfig {
    /// Truncated importance sampling of tokens: min(w, high).
    pub fn tis(high: f64) -> Self {
        Self {
            level: RatioLevel::Token,
            low: None,
            high: Some(high),
            beyond: Beyond::Truncate,
        }
    }

    /// IcePop: tokens outside [0.5, 5] are dropped, the paper's band.
    pub fn ice_pop() -> Self {
        Self {
            level: RatioLevel::Token,
            low: Some(0.5),
            high: Some(5.0),
            beyond: Beyond::Drop,
        }
    }
}

/// The weight of each token.
///
/// # Equation
/// ```text
/// w = π_old/μ at the level
/// truncate: clip( w, low, high )        drop: w · [ low ≤ w ≤ high ]
/// ```
/// # Shapes
/// `old`, `sampler` `[batch, time]`. The result is `[batch, time]`, a constant, 0 where the mask does not count: for
/// [`corrected`]. The tokens of an answer share a weight of a sequence.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless low is finite and ≥ 0, and high is finite, > 0 and not below it.
/// # Properties
/// * Where both programs agree every weight is 1, at every level.
/// * Without bounds, tokens weighted by the ratio of whole answers give the gradient of fresh draws without bias and with
///   a variance that grows exponentially in the length. Truncation bounds the variance and biases towards the sampler.
/// * A token that the sampler could not score has NaN in `sampler`; it counts as a difference of 0, and so does one that
///   is impossible to both.
/// # Departures
/// None from TRL's four modes (`token` or `sequence`, `truncate` or `mask`), NaN included.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::rollout_correction::{RolloutWeightConfig, rollout_weights};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let old = TokenLogProbs::new(&Tensor::new(&[[-1.0f64, -2.0]], &Device::Cpu)?, &mask)?;
/// let sampler = Tensor::new(&[[-1.0f64, -4.0]], &Device::Cpu)?; // ratios 1 and e²
/// let tis = rollout_weights(&old, &sampler, &RolloutWeightConfig::tis(2.0))?;
/// assert_eq!(tis.to_vec2::<f64>()?, [[1.0, 2.0]]);
/// let dropped = rollout_weights(&old, &sampler, &RolloutWeightConfig::ice_pop())?;
/// assert_eq!(dropped.to_vec2::<f64>()?, [[1.0, 0.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean weight and the share of dropped tokens. Before the first update both programs hold the same weights of the
/// network: a mean far from 1 then is a fault (another temperature, another mask), not staleness.
/// # Source
/// IcePop: Ring-1T, arXiv:2510.18855; huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0
/// (`vllm_importance_sampling_mode`).
#[doc(alias = "truncated importance sampling")]
#[doc(alias = "TIS")]
#[doc(alias = "IcePop")]
pub fn rollout_weights(
    old: &TokenLogProbs,
    sampler: &Tensor,
    config: &RolloutWeightConfig,
) -> Result<Tensor> {
    let function = "rollout_weights";
    let low = config.low.unwrap_or(0.0);
    non_negative(function, "low", low)?;
    if let Some(high) = config.high {
        positive(function, "high", high)?;
        require(high >= low, function, "high", ">= low", high)?;
    }
    let high = config.high.unwrap_or(f64::INFINITY);
    let differences = differences(function, ("old", old), sampler)?;

    // π_old/μ at the level
    let w = bounded_exp(&config.level.exponent(&differences, old.mask())?)?;
    let w = match config.beyond {
        Beyond::Truncate => w.maximum(low)?.minimum(high)?,
        Beyond::Drop => masked(&w, &w.ge(low)?.mul(&w.le(high)?)?)?,
    };
    masked(&w, old.mask())
}

/// log π_old − log μ, a constant, 0 where the mask does not count, the sampler has NaN or both are −∞.
pub(super) fn differences(
    function: &'static str,
    (name, old): (&str, &TokenLogProbs),
    sampler: &Tensor,
) -> Result<Tensor> {
    let mut axes = Axes::new(function);
    axes.float(name, old.values(), &["batch", "time"])?;
    let sampler = axes.float("sampler", sampler, &["batch", "time"])?.detach();
    let differences = (old.values().detach() - sampler)?;
    // the sampler did not score the token, or both are −∞
    let known = differences.eq(&differences)?;
    masked(&masked(&differences, &known)?, old.mask())
}

/// A loss whose tokens are weighted; which tokens count, and so every divisor, stays as it is.
///
/// `weights` is `[batch]` or `[batch, time]`, in the type of the loss or u8. A weight of 0 takes the token's term out, with
/// a slope of 0, whatever the term is. Use it once for each of several weights.
///
/// ```
/// use candle_align::online::rollout_correction::corrected;
/// use candle_align::{Reduction, TokenLoss};
/// use candle_core::{Device, Tensor};
///
/// let loss = Tensor::new(&[[1.0f64, 3.0], [f64::INFINITY, 2.0]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1], [1, 1]], &Device::Cpu)?;
/// let keep = Tensor::new(&[1u8, 0], &Device::Cpu)?; // answers
/// let loss = corrected(&TokenLoss { loss, mask }, &keep)?;
/// assert_eq!(loss.reduce(Reduction::TokenMean)?.to_scalar::<f64>()?, 4.0 / 4.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ.
pub fn corrected(loss: &TokenLoss, weights: &Tensor) -> Result<TokenLoss> {
    let mut axes = Axes::new("corrected");
    let of_tokens = ["batch", "time"];
    let of_loss = axes.float("loss", &loss.loss, &of_tokens)?;
    let names: &[&str] = match weights.rank() {
        1 => &["batch"],
        _ => &of_tokens,
    };
    let weights = match weights.dtype() {
        candle_core::DType::U8 => axes
            .mask("weights", weights, names)?
            .ne(0u8)?
            .to_dtype(of_loss.dtype())?,
        _ => axes.float("weights", weights, names)?.detach(),
    };
    let weights = match weights.rank() {
        1 => weights.unsqueeze(1)?,
        _ => weights,
    };
    let weights = masked(&weights.broadcast_as(of_loss.shape())?, &loss.mask)?;
    Ok(TokenLoss {
        loss: times(&of_loss, &weights)?,
        mask: loss.mask.clone(),
    })
}
