//! GRPO's advantages: a reward less the group's mean, over the group's deviation (2024, after the survey).
//!
//! In one sentence: an answer is as good as the number of deviations by which it beats the other answers to its
//! prompt.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | rᵢ | `rewards` | `[prompts, answers]` |
//! | mean(r), std(r) | of each row | – |
//! | Âᵢ | the result | `[prompts, answers]` |
//!
//! Read next: [`crate::online::policy_gradient::grpo`].

use super::groups::{Divisor, Groups, centered};
use crate::error::{Result, non_negative};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// What a centered reward is divided by.
#[doc(alias = "scale_rewards")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deviation {
    /// The deviation of the group's rewards. GRPO.
    #[default]
    Group,
    /// The deviation of all rewards that are passed: the batch is the caller's. Lite PPO, ScaleRL.
    Batch,
    /// Nothing. Dr. GRPO.
    None,
}

/// Settings of [`grpo_advantages`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoAdvantageConfig {
    /// Default [`Deviation::Group`], the paper's §4.1.2.
    pub deviation: Deviation,
    /// ε ≥ 0, added to the deviation. Default 10⁻⁴, that of TRL; verl has 10⁻⁶, OpenRLHF 10⁻⁹, the paper none.
    /// Not read without a deviation.
    pub epsilon: f64,
}

impl Default for GrpoAdvantageConfig {
    fn default() -> Self {
        Self {
            deviation: Deviation::default(),
            epsilon: 1e-4,
        }
    }
}

/// The advantage of each answer.
///
/// # Equation
/// ```text
/// Âᵢ = ( rᵢ − r̄ ) / ( s + ε )        s² = Σ (rᵢ − r̄)² / (n − 1)
/// ```
/// r̄ is the mean of the group. s is of the group, of the batch (around the batch's mean), or left out together with ε.
/// # Shapes
/// `rewards` `[prompts, answers]`; `mask` u8 of the same shape, or none where all answers count. The result is
/// `[prompts, answers]`, a constant, 0 where an answer does not count.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts is not finite;
/// [`Error::Parameter`](crate::Error::Parameter) unless ε is finite and not negative. It reads the rewards to the host.
/// # Properties
/// * The advantages of a group sum to 0. A group of one and a group of equal rewards have exactly 0.
/// * With the group's deviation a constant added to a group's rewards or a factor on them changes nothing (but ε). So
///   a group with one success in eight and a group with one failure in eight push equally hard.
/// * For success of probability p the expected gradient is that of 2 arcsin √p as G → ∞. It weighs a prompt by
///   1/√(p(1 − p)): the hardest and the easiest prompts count most, but for groups of G no prompt more than
///   √G · (1 − 1/G) times ∇p.
/// * Without a deviation the expected gradient is ∇p · (1 − 1/G): the own reward is in the baseline, which shrinks the
///   gradient and does not bend it ([`rloo_advantages`](super::rloo_advantages) leaves it out).
/// # Departures
/// * The paper does not say which deviation; n − 1 is that of TRL, verl and OpenRLHF.
/// * A group without variance is exactly 0, where others divide a rounding error by ε.
/// * TRL's `loss_type="dr_grpo"` alone keeps the deviation; its `scale_rewards="none"` is [`Deviation::None`].
/// * NeMo-RL leaves the own answer out of the mean and of the deviation, so that its advantages do not sum to 0.
/// # Examples
/// ```
/// use candle_align::online::group_advantages::{GrpoAdvantageConfig, grpo_advantages};
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[1.0f64, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3]], &Device::Cpu)?;
/// let advantages = grpo_advantages(&rewards, None, &GrpoAdvantageConfig::default())?;
///
/// let advantages = advantages.to_vec2::<f64>()?;
/// let deviation = (1.0f64 / 3.0).sqrt(); // 4 · ½² over 3
/// assert!((advantages[0][0] - 0.5 / (deviation + 1e-4)).abs() < 1e-12);
/// assert_eq!(advantages[1], [0.0; 4]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The share of groups whose advantages are all 0. It is high at the start on hard prompts and at the end on easy ones;
/// those groups cost time and teach nothing.
/// # Try
/// * Where one policy answers two kinds of prompts, which kind does it give up? Solution: `cargo run --example grpo`.
/// * Draw groups at several p and compare the mean gradient of the four utilities. Solution:
///   `tests/identities/group_advantages.rs::four_utilities_of_one_success_probability`.
/// # Source
/// Shao et al. 2024, arXiv:2402.03300v3, §4.1.2; without the deviation: Liu et al. 2025, arXiv:2503.20783v1; the
/// batch's: Liu et al. 2025, arXiv:2508.08221v1; huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0.
#[doc(alias = "GRPO")]
#[doc(alias = "group relative advantage")]
#[doc(alias = "Dr. GRPO")]
pub fn grpo_advantages(
    rewards: &Tensor,
    mask: Option<&Tensor>,
    config: &GrpoAdvantageConfig,
) -> Result<Tensor> {
    let function = "grpo_advantages";
    non_negative(function, "epsilon", config.epsilon)?;
    let groups = Groups::read(&mut Axes::new(function), rewards, mask)?;

    // s of the batch
    let rewards = groups.rewards();
    let all: Vec<f64> = groups.counted().map(|at| rewards[at]).collect();
    let of_batch = Divisor::Sample.deviation(&all);

    // ( rᵢ − r̄ ) / ( s + ε )
    groups.each(|group| {
        let divisor = match config.deviation {
            Deviation::Group => Divisor::Sample.deviation(group) + config.epsilon,
            Deviation::Batch => of_batch + config.epsilon,
            Deviation::None => 1.0,
        };
        over(centered(group), divisor)
    })
}

/// x / divisor, and 0 where x is 0.
pub(super) fn over(x: Vec<f64>, divisor: f64) -> Vec<f64> {
    let share = |x| if x == 0.0 { 0.0 } else { x / divisor };
    x.into_iter().map(share).collect()
}
