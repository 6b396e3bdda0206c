//! Pass@k advantages: only the best answer of a group, by its lead over the second (2025, after the survey).
//!
//! In one sentence: if a group is judged by its best answer, that answer is worth what would be lost without it.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | rᵢ | `rewards` | `[prompts, answers]` |
//! | r₍₁₎, r₍₂₎ | the best two of a row | – |
//!
//! Read next: [`crate::online::group_advantages::rloo`], the same idea for the group's mean.

use super::groups::{Divisor, Groups};
use super::grpo::over;
use crate::error::{Result, non_negative};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`pass_at_k_advantages`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassAtKConfig {
    /// Whether the lead is divided by the group's deviation. Default yes, as in verl.
    pub divide_by_deviation: bool,
    /// ε ≥ 0, added to the deviation. Default 10⁻⁶, that of verl. Not read without a deviation.
    pub epsilon: f64,
}

impl Default for PassAtKConfig {
    fn default() -> Self {
        Self {
            divide_by_deviation: true,
            epsilon: 1e-6,
        }
    }
}

/// The advantage of each answer.
///
/// # Equation
/// ```text
/// Âᵢ = r₍₁₎ − r₍₂₎ for the best answer (over s + ε), 0 for all others
/// ```
/// # Shapes
/// `rewards` `[prompts, answers]`; `mask` u8 of the same shape, or none where all answers count. The result is
/// `[prompts, answers]`, a constant, 0 where an answer does not count.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts is not finite;
/// [`Error::Parameter`](crate::Error::Parameter) unless ε is finite and not negative. It reads the rewards to the host.
/// # Properties
/// * Without the deviation, r₍₁₎ − r₍₂₎ is max r less the max without that answer: leave-one-out for the maximum, and
///   for every other answer that difference is 0. So the expected gradient, summed over the group, is that of E max r:
///   for rewards of 0 and 1 the pass@k of the whole group. A mean over the group has 1/G of it.
/// * A tie at the top gives 0 to all, and so does a group of one: with two successes no answer was needed.
/// * No advantage is negative: failures are not pushed down.
/// # Departures
/// The lead is verl's form (`grpo_passk`). A group of one is an error there and 0 here.
/// # Examples
/// ```
/// use candle_align::online::group_advantages::{PassAtKConfig, pass_at_k_advantages};
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[0.2f64, 0.9, 0.4], [1.0, 0.0, 1.0]], &Device::Cpu)?;
/// let config = PassAtKConfig { divide_by_deviation: false, ..Default::default() };
/// let advantages = pass_at_k_advantages(&rewards, None, &config)?.to_vec2::<f64>()?;
/// assert_eq!(advantages, [[0.0, 0.5, 0.0], [0.0; 3]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Tang et al. 2025, arXiv:2503.19595v1; volcengine/verl, `trainer/ppo/core_algos.py`,
/// `compute_grpo_passk_outcome_advantage`.
#[doc(alias = "pass@k")]
pub fn pass_at_k_advantages(
    rewards: &Tensor,
    mask: Option<&Tensor>,
    config: &PassAtKConfig,
) -> Result<Tensor> {
    let function = "pass_at_k_advantages";
    non_negative(function, "epsilon", config.epsilon)?;
    let groups = Groups::read(&mut Axes::new(function), rewards, mask)?;
    groups.each(|group| {
        let mut leads = vec![0.0; group.len()];
        let mut order: Vec<usize> = (0..group.len()).collect();
        order.sort_by(|i, j| group[*j].total_cmp(&group[*i]));
        // r₍₁₎ − r₍₂₎
        if let [first, second, ..] = order[..] {
            leads[first] = group[first] - group[second];
        }
        match config.divide_by_deviation {
            true => over(leads, Divisor::Sample.deviation(group) + config.epsilon),
            false => leads,
        }
    })
}
