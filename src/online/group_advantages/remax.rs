//! ReMax's advantages: a return less the reward of the greedy answer (2023, after the survey).
//!
//! In one sentence: the baseline is what the policy would have got by always taking its likeliest token.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r(x, a₁..ₜ) | `rewards` | `[batch, time]` |
//! | r(x, ā), of the greedy answer | `baseline` | `[batch]` |
//!
//! Read next: [`crate::online::group_advantages::rloo`], a baseline of drawn answers.

use super::super::advantages::on_host;
use super::groups::back;
use super::reinforce_plus_plus::{returns, tokens};
use crate::error::Result;
use crate::math::require_finite;
use crate::shape::Axes;
use candle_core::Tensor;

/// The advantage of each token.
///
/// # Equation
/// ```text
/// Aₜ = Σ_{s≥t} r_s − b
/// ```
/// # Shapes
/// `rewards` and `mask` (u8) `[batch, time]`; `baseline` `[batch]`, the reward of the greedy answer to each row's prompt.
/// The result is `[batch, time]`, a constant, 0 where the mask does not count.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts or a baseline is not finite. It reads them to the
/// host.
/// # Properties
/// * The baseline does not depend on the drawn answer, so the expected gradient is that of E r, from one answer a
///   prompt.
/// * With a reward on the last token alone, all tokens of an answer share one advantage, r − b.
/// * The advantages of a batch need not sum to 0: a policy whose draws are worse than its greedy answer pushes all of
///   them down.
/// # Departures
/// None. The greedy answer must be of the policy that drew the others: of the same snapshot, not of the current
/// weights.
/// # Examples
/// ```
/// use candle_align::online::group_advantages::remax_advantages;
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[-0.1f64, 1.0]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let greedy = Tensor::new(&[0.5f64], &Device::Cpu)?;
/// let advantages = remax_advantages(&rewards, &mask, &greedy)?.to_vec2::<f64>()?;
/// assert_eq!(advantages, [[0.9 - 0.5, 0.5]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Li et al. 2023, arXiv:2310.10505; volcengine/verl, `trainer/ppo/core_algos.py`,
/// `compute_remax_outcome_advantage`.
#[doc(alias = "ReMax")]
pub fn remax_advantages(rewards: &Tensor, mask: &Tensor, baseline: &Tensor) -> Result<Tensor> {
    let mut axes = Axes::new("remax_advantages");
    let (rewards, counts) = tokens(&mut axes, rewards, mask)?;
    let baseline = axes.float("baseline", baseline, &["batch"])?.detach();
    let all = Tensor::ones(baseline.shape(), candle_core::DType::U8, baseline.device())?;
    require_finite(axes.function(), "baseline", &baseline, &all)?;

    // Σ_{s≥t} r_s − b
    let (baseline, time) = (on_host(&baseline)?, rewards.dim(1)?);
    let returns = returns(&rewards, &counts, 1.0)?;
    let less = |(at, x): (usize, &f64)| match counts[at] {
        0 => 0.0,
        _ => x - baseline[at / time],
    };
    let advantages: Vec<f64> = returns.iter().enumerate().map(less).collect();
    back(&advantages, &rewards)
}
