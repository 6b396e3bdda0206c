//! MaxRL's advantages: a reward less the group's mean, over the group's mean (2026, after the survey).
//!
//! In one sentence: divided by the share of successes, the gradient of the probability of success becomes that of its
//! logarithm, the likelihood of being right.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | rᵢ, 0 or 1 | `rewards` | `[prompts, answers]` |
//! | r̂ | the mean of a row | – |
//!
//! Read next: [`crate::online::group_advantages::grpo`], which divides by the deviation.

use super::groups::{Groups, centered, mean};
use super::grpo::over;
use crate::error::Result;
use crate::shape::Axes;
use candle_core::Tensor;

/// The advantage of each answer.
///
/// # Equation
/// ```text
/// Âᵢ = ( rᵢ − r̂ ) / r̂,   and 0 where r̂ ≤ 0
/// ```
/// # Shapes
/// `rewards` `[prompts, answers]`; `mask` u8 of the same shape, or none where all answers count. The result is
/// `[prompts, answers]`, a constant, 0 where an answer does not count.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts is not finite. It reads the rewards to the host.
/// # Properties
/// * For rewards of 0 and 1 and N answers the expected gradient is Σ_{k=1}^{N−1} (1/k) ∇pass@k, with pass@k = 1 −
///   (1 − p)ᵏ. As N → ∞ it is ∇p/p = ∇ log p.
/// * The order is N − 1 and not N: a group of failures has advantages of 0, where an estimator of order N still
///   subtracts its baseline. For N = 4 and p = 0.3 the gradient is 2.19 ∇p; order 4 would be 2.533 ∇p.
/// * A group of one, and a group of equal rewards, have exactly 0.
/// # Departures
/// Meant for rewards of 0 and 1. Others are accepted, as in prime-rl; a group of negative mean is 0.
/// # Examples
/// ```
/// use candle_align::online::group_advantages::max_rl_advantages;
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[1.0f64, 0.0, 0.0, 0.0], [0.0; 4]], &Device::Cpu)?;
/// let advantages = max_rl_advantages(&rewards, None)?.to_vec2::<f64>()?;
/// assert_eq!(advantages, [[3.0, -1.0, -1.0, -1.0], [0.0; 4]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Try
/// * Which order of the expansion does a group of N reach? Solution:
///   `tests/identities/group_advantages.rs::max_rl_reaches_one_order_less_than_the_group`.
/// # Source
/// arXiv:2602.02710; PrimeIntellect-ai/prime-rl, `algo/max_rl.py`.
#[doc(alias = "MaxRL")]
#[doc(alias = "maximum likelihood reinforcement learning")]
pub fn max_rl_advantages(rewards: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let groups = Groups::read(&mut Axes::new("max_rl_advantages"), rewards, mask)?;
    groups.each(|group| match mean(group) {
        // ( rᵢ − r̂ ) / r̂
        mean if mean > 0.0 => over(centered(group), mean),
        _ => vec![0.0; group.len()],
    })
}
