//! Answers near the limit, and answers that were cut off (2025, after the survey).
//!
//! In one sentence: length costs nothing until the last stretch before the limit, and then ever more.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | │y│ | `lengths` | `[batch]` |
//! | L_max, L_cache | [`OverlongConfig`] | numbers |
//! | y has its end-of-sequence token | `ended` | `[batch]` |
//!
//! Read next: [`crate::online::rewards`], the penalty of an answer without an end.

use crate::error::{Result, require};
use crate::math::masked;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`overlong_penalty`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverlongConfig {
    /// L_max ≥ 1, the longest answer in tokens. Default 20 480, the paper's §4.1.
    pub limit: usize,
    /// L_cache, 1 to the limit: the stretch before the limit in which the penalty grows. Default 4096, the paper's §4.1.
    pub buffer: usize,
}

impl Default for OverlongConfig {
    fn default() -> Self {
        Self {
            limit: 20_480,
            buffer: 4096,
        }
    }
}

/// The penalty of each answer, to be added to its score.
///
/// # Equation
/// ```text
/// 0                                     │y│ ≤ L − c
/// ( (L − c) − │y│ ) / c                 L − c < │y│ ≤ L
/// −1                                    │y│ > L
/// ```
/// # Shapes
/// `lengths` `[batch]`, the tokens of each answer ([`TokenLogProbs::lengths`](crate::TokenLogProbs::lengths)). The result
/// is `[batch]`, a constant.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) unless the lengths are f32 or f64
/// `[batch]`; [`Error::Parameter`](crate::Error::Parameter) unless 1 ≤ buffer ≤ limit.
/// # Properties
/// * It is continuous, and between −1 and 0. With rewards of −1 and 1 the longest right answer gets 0.
/// * Both bounds of the stretch belong to it: at L − c it is 0 and at L it is −1.
/// # Departures
/// None. verl's form is not bounded above the limit, where an answer is cut off anyway.
/// # Examples
/// ```
/// use candle_align::online::shaping::{OverlongConfig, overlong_penalty};
/// use candle_core::{Device, Tensor};
///
/// let lengths = Tensor::new(&[6.0f64, 9.0, 10.0, 12.0], &Device::Cpu)?;
/// let config = OverlongConfig { limit: 10, buffer: 4 };
/// let penalty = overlong_penalty(&lengths, &config)?;
/// assert_eq!(penalty.to_vec1::<f64>()?, [0.0, -0.75, -1.0, -1.0]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// DAPO: Yu et al. 2025, arXiv:2503.14476v2, eq. 13; huggingface/trl, `rewards/other_rewards.py`.
#[doc(alias = "soft overlong punishment")]
pub fn overlong_penalty(lengths: &Tensor, config: &OverlongConfig) -> Result<Tensor> {
    let function = "overlong_penalty";
    let OverlongConfig { limit, buffer } = *config;
    let fits = (1..=limit).contains(&buffer);
    require(fits, function, "buffer", "1 to the limit", buffer)?;
    let lengths = Axes::new(function).float("lengths", lengths, &["batch"])?;

    // ( (L − c) − │y│ ) / c, between −1 and 0
    let free = (limit - buffer) as f64;
    let penalty = (lengths.detach().affine(-1.0, free)? / buffer as f64)?;
    Ok(penalty.minimum(0.0)?.maximum(-1.0)?)
}

/// A mask without the answers that were cut off.
///
/// # Equation
/// ```text
/// m′ₜ = mₜ · [ y has its end-of-sequence token ]
/// ```
/// # Shapes
/// `mask` u8 `[batch, time]`, `ended` u8 `[batch]`, 0 where an answer was cut off. The result is u8 `[batch, time]`.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ.
/// # Properties
/// * Used for the mask of the log-probabilities, it takes these answers out of the loss and out of every divisor:
///   [`Reduction`](crate::Reduction) counts the tokens and the answers that are left. A loss set to 0 whose tokens still
///   count would shrink the gradient of all others (trl#6439).
/// * Advantages come from the whole group, cut-off answers included: their rewards are still a baseline.
/// # Departures
/// None.
/// # Examples
/// ```
/// use candle_align::online::shaping::without_truncated;
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1, 0], [1, 1, 1]], &Device::Cpu)?;
/// let ended = Tensor::new(&[1u8, 0], &Device::Cpu)?;
/// let mask = without_truncated(&mask, &ended)?;
/// assert_eq!(mask.to_vec2::<u8>()?, [[1, 1, 0], [0, 0, 0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// DAPO: Yu et al. 2025, arXiv:2503.14476v2, §3.4 (overlong filtering); huggingface/trl, `mask_truncated_completions`.
#[doc(alias = "overlong filtering")]
pub fn without_truncated(mask: &Tensor, ended: &Tensor) -> Result<Tensor> {
    let mut axes = Axes::new("without_truncated");
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    let ended = axes.mask("ended", ended, &["batch"])?.unsqueeze(1)?;
    masked(&mask, &ended.broadcast_as(mask.shape())?)
}
