//! RLOO's advantages: a reward less the mean of the others (2024, after the survey).
//!
//! In one sentence: the other answers to the prompt are the baseline, and the own answer is not in it.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | R(yᵢ, x) | `rewards` | `[prompts, answers]` |
//! | k | the answers of a row that count | – |
//!
//! Read next: [`crate::online::group_advantages::grpo`].

use super::groups::{Groups, centered};
use crate::error::Result;
use crate::shape::Axes;
use candle_core::Tensor;

/// The advantage of each answer.
///
/// # Equation
/// ```text
/// Âᵢ = rᵢ − (1/(k − 1)) Σ_{j≠i} rⱼ  =  k/(k − 1) · ( rᵢ − r̄ )
/// ```
/// # Shapes
/// `rewards` `[prompts, answers]`; `mask` u8 of the same shape, or none where all answers count. The result is
/// `[prompts, answers]`, a constant, 0 where an answer does not count.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts is not finite. It reads the rewards to the host.
/// # Properties
/// * The baseline does not depend on the own answer, so the expected gradient is that of E r exactly, for every k ≥ 2.
/// * It is k/(k − 1) times the advantage of Dr. GRPO ([`Deviation::None`](super::Deviation::None)).
/// * The advantages of a group sum to 0. A group of one and a group of equal rewards have exactly 0.
/// # Departures
/// A group of one has 0, as in TRL. verl's `rloo` returns the reward itself there, and its `rloo_vectorized` 0. A KL in
/// the reward, which the paper has, is subtracted by the caller:
/// [`kl_adjusted_rewards`](crate::online::raft::kl_adjusted_rewards) (TRL's `beta`, 0.05).
/// # Examples
/// ```
/// use candle_align::online::group_advantages::rloo_advantages;
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[1.0f64, 0.0, 0.5]], &Device::Cpu)?;
/// let advantages = rloo_advantages(&rewards, None)?.to_vec2::<f64>()?;
/// assert_eq!(advantages, [[1.0 - 0.25, 0.0 - 0.75, 0.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Ahmadian et al. 2024, arXiv:2402.14740v2, §3.2; Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for
/// Free!"; huggingface/trl, `trainer/rloo_trainer.py` of release 1.16.0.
#[doc(alias = "RLOO")]
#[doc(alias = "leave-one-out")]
pub fn rloo_advantages(rewards: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let groups = Groups::read(&mut Axes::new("rloo_advantages"), rewards, mask)?;

    // k/(k − 1) · ( rᵢ − r̄ )
    groups.each(|group| {
        let k = group.len() as f64;
        let factor = k / (k - 1.0).max(1.0);
        centered(group).iter().map(|x| x * factor).collect()
    })
}
