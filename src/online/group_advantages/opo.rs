//! OPO's advantages: a reward less the group's mean weighted by length (2025, after the survey).
//!
//! In one sentence: where the gradient's size grows with the answer's length, the baseline of least variance weighs
//! answers by their lengths.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | rᵢ, lᵢ | `rewards`, `lengths` | `[prompts, answers]` |
//! | b* | the baseline of a row | – |
//!
//! Read next: [`crate::online::group_advantages::rloo`].

use super::super::advantages::on_host;
use super::groups::Groups;
use crate::error::{Error, Result};
use crate::math::masked;
use crate::shape::Axes;
use candle_core::Tensor;

/// The advantage of each answer.
///
/// # Equation
/// ```text
/// b* = Σⱼ lⱼ rⱼ / Σⱼ lⱼ
/// Âᵢ = rᵢ − b*
/// ```
/// # Shapes
/// `rewards` `[prompts, answers]`; `lengths` the same, the tokens of each answer that count
/// ([`TokenLogProbs::lengths`](crate::TokenLogProbs::lengths)); `mask` u8, or none. The result is `[prompts, answers]`, a
/// constant, 0 where an answer does not count.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if shapes or types differ;
/// [`Error::Argument`] if a reward that counts is not finite or a length is not finite or is
/// negative. It reads both to the host.
/// # Properties
/// * Answers of one length: the advantages of Dr. GRPO.
/// * The length-weighted sum of a group's advantages is 0: summed over its tokens, a group pushes up as much as down.
/// * A group of one, a group of equal rewards and a group without tokens have exactly 0.
/// # Departures
/// The optimal baseline leaves the own answer out; the authors' practical form, verl's and this one keep it in.
/// # Examples
/// ```
/// use candle_align::online::group_advantages::opo_advantages;
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[1.0f64, 0.0]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[3.0f64, 1.0]], &Device::Cpu)?;
/// let advantages = opo_advantages(&rewards, &lengths, None)?.to_vec2::<f64>()?;
/// assert_eq!(advantages, [[1.0 - 0.75, -0.75]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Hao et al. 2025, arXiv:2505.23585v1; volcengine/verl, `trainer/ppo/core_algos.py`, `compute_opo_outcome_advantage`.
#[doc(alias = "OPO")]
pub fn opo_advantages(rewards: &Tensor, lengths: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let mut axes = Axes::new("opo_advantages");
    let groups = Groups::read(&mut axes, rewards, mask)?;
    let lengths = lengths_of(&mut axes, lengths, mask)?;

    // rᵢ − Σ l r / Σ l, as a sum of differences: 0 where all are equal
    groups.each_with(&lengths, |rewards, lengths| {
        let total: f64 = lengths.iter().sum();
        let advantage = |r: &f64| {
            let sum: f64 = rewards.iter().zip(lengths).map(|(x, l)| l * (r - x)).sum();
            if total > 0.0 { sum / total } else { 0.0 }
        };
        rewards.iter().map(advantage).collect()
    })
}

/// Lengths `[prompts, answers]` that are finite and not negative where an answer counts.
pub(super) fn lengths_of(
    axes: &mut Axes,
    lengths: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let lengths = axes.float("lengths", lengths, &["prompts", "answers"])?;
    let lengths = match mask {
        Some(mask) => masked(&lengths, mask)?,
        None => lengths,
    };
    let all = on_host(&lengths)?;
    match all.iter().find(|n| !(n.is_finite() && **n >= 0.0)) {
        None => Ok(lengths),
        Some(n) => Err(Error::argument(
            axes.function(),
            "lengths",
            format!("holds {n}; it must count tokens where an answer counts"),
        )),
    }
}
