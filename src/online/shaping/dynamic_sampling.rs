//! Dynamic sampling: groups that teach nothing are replaced (2025, after the survey).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | 0 < │{ right answers }│ < G | the rewards of a row differ | `[prompts, answers]` |
//!
//! Read next: [`crate::online::group_advantages`], what such groups get.

use super::super::advantages::on_host;
use crate::error::Result;
use crate::math::{require_finite, to_host};
use crate::shape::Axes;
use candle_core::{DType, Tensor};

/// Which groups have answers to compare.
///
/// # Equation
/// ```text
/// keep = [ max r > min r ]       over the answers of the group that count
/// ```
/// # Shapes
/// `rewards` `[prompts, answers]`; `mask` u8 of the same shape, or none where all answers count. The result is u8
/// `[prompts]`.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts is not finite. It reads the rewards to the host.
/// # Properties
/// * A group that is left out has advantages of exactly 0 under
///   [`grpo_advantages`](crate::online::group_advantages::grpo_advantages) and
///   [`rloo_advantages`](crate::online::group_advantages::rloo_advantages) of the same rewards. So leaving it out changes
///   the divisor and the KL of the loss, not the direction of the policy's gradient. REINFORCE++ with a baseline then
///   subtracts the mean of the batch, and GDPO compares each reward by itself where only the sums tie: there such a group
///   may still teach.
/// * A group of one is left out.
/// # Departures
/// The paper draws new prompts until the batch is full. That loop is the caller's; this says which groups to keep.
/// # Examples
/// ```
/// use candle_align::online::shaping::informative_groups;
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[1.0f64, 0.0], [1.0, 1.0], [0.0, 0.0]], &Device::Cpu)?;
/// assert_eq!(informative_groups(&rewards, None)?.to_vec1::<u8>()?, [1, 0, 0]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// DAPO: Yu et al. 2025, arXiv:2503.14476v2, §3.2.
#[doc(alias = "dynamic sampling")]
pub fn informative_groups(rewards: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let mut axes = Axes::new("informative_groups");
    let names = ["prompts", "answers"];
    let rewards = axes.float("rewards", rewards, &names)?.detach();
    let mask = match mask {
        Some(mask) => axes.mask("mask", mask, &names)?,
        None => Tensor::ones(rewards.shape(), DType::U8, rewards.device())?,
    };
    require_finite(axes.function(), "rewards", &rewards, &mask)?;
    let (values, counts) = (on_host(&rewards)?, to_host::<u8>(&mask)?);
    let (prompts, answers) = rewards.dims2()?;
    let differ = |prompt: usize| {
        let group = prompt * answers..(prompt + 1) * answers;
        let mut counted = group.filter(|at| counts[*at] != 0).map(|at| values[at]);
        let first = counted.next();
        u8::from(counted.any(|x| Some(x) != first))
    };
    let keep: Vec<u8> = (0..prompts).map(differ).collect();
    Ok(Tensor::from_vec(keep, prompts, rewards.device())?)
}
