//! GDPO's advantages: each of several rewards is normalized before they are added (2026, after the survey).
//!
//! In one sentence: a reward with a small spread is not drowned by one with a large spread.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r₁ … r_n | `rewards` | n × `[prompts, answers]` |
//! | w₁ … w_n | [`GdpoConfig::weights`] | n numbers |
//! | Â_sum | the result | `[prompts, answers]` |
//!
//! Read next: [`crate::online::group_advantages::grpo`].

use super::groups::{Divisor, Groups, centered};
use super::grpo::over;
use crate::error::{Error, Result, non_negative, require};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Settings of [`gdpo_advantages`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GdpoConfig {
    /// w: a finite weight for each reward. Default empty: all are 1.
    pub weights: Vec<f64>,
    /// ε ≥ 0, added to every deviation. Default 10⁻⁴, that of TRL.
    pub epsilon: f64,
}

impl Default for GdpoConfig {
    fn default() -> Self {
        Self {
            weights: Vec::new(),
            epsilon: 1e-4,
        }
    }
}

/// The advantage of each answer.
///
/// # Equation
/// ```text
/// Âₖᵢ = ( rₖᵢ − r̄ₖ ) / ( sₖ + ε )             in each group
/// Sᵢ  = Σₖ wₖ Âₖᵢ
/// Âᵢ  = ( Sᵢ − mean S ) / ( std S + ε )        over the batch
/// ```
/// All deviations divide by n − 1.
/// # Shapes
/// `rewards` holds one tensor `[prompts, answers]` for each reward. `mask` is u8: of that shape if all rewards judge the
/// same answers, `[rewards, prompts, answers]` if not, or none where all answers count. An answer that a reward does not
/// judge has Âₖᵢ = 0 and no part in r̄ₖ and sₖ. The result is `[prompts, answers]`, a constant, 0 where no reward judges an
/// answer.
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] if shapes or types differ;
/// [`Error::Argument`] if there is no reward, or one that counts is not finite;
/// [`Error::Parameter`] unless there is a finite weight for each, or none, and ε is finite and
/// not negative. It reads the rewards to the host.
/// # Properties
/// * A factor above 0 on one reward changes nothing but ε's share. The sum before normalization
///   ([`grpo_advantages`](super::grpo_advantages) of Σ wₖ rₖ) follows the reward of the largest spread.
/// * Groups that agree in one reward still learn from the others. A group that agrees in all has S = 0 and
///   stays there up to rounding, because the S of every group sum to 0.
/// * One reward: GRPO's advantages, scaled over the batch once more.
/// # Departures
/// The batch is the answers, as in TRL's `normalize_then_sum`. verl whitens over tokens, so that long answers weigh more.
/// # Examples
/// ```
/// use candle_align::online::group_advantages::{GdpoConfig, gdpo_advantages};
/// use candle_core::{Device, Tensor};
///
/// let correct = Tensor::new(&[[1.0f64, 0.0, 1.0, 0.0]], &Device::Cpu)?;
/// let style = Tensor::new(&[[100.0f64, 100.0, 0.0, 0.0]], &Device::Cpu)?;
/// let advantages = gdpo_advantages(&[&correct, &style], None, &GdpoConfig::default())?;
/// let advantages = advantages.to_vec2::<f64>()?;
/// // both count equally, though one is a hundred times larger
/// assert!(advantages[0][1].abs() < 1e-3 && advantages[0][2].abs() < 1e-3);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// arXiv:2601.05242; huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0.
#[doc(alias = "GDPO")]
#[doc(alias = "multi-objective")]
pub fn gdpo_advantages(
    rewards: &[&Tensor],
    mask: Option<&Tensor>,
    config: &GdpoConfig,
) -> Result<Tensor> {
    let function = "gdpo_advantages";
    non_negative(function, "epsilon", config.epsilon)?;
    let weights = match config.weights.is_empty() {
        true => vec![1.0; rewards.len()],
        false => config.weights.clone(),
    };
    let fit = weights.len() == rewards.len() && weights.iter().all(|w| w.is_finite());
    let expected = "empty, or one finite weight for each reward";
    require(
        fit,
        function,
        "weights",
        expected,
        format!("{:?}", config.weights),
    )?;

    // Σₖ wₖ ( rₖᵢ − r̄ₖ ) / ( sₖ + ε )
    let mut axes = Axes::new(function);
    let masks = of_rewards(function, mask, rewards.len())?;
    let (mut sum, mut last) = (Vec::new(), None);
    let mut counted = BTreeSet::new();
    for (k, (reward, weight)) in rewards.iter().zip(&weights).enumerate() {
        let mask = masks.get(k);
        let groups = Groups::named(&mut axes, &format!("rewards[{k}]"), reward, mask)?;
        counted.extend(groups.counted());
        let scaled = groups.flat(|group| {
            let deviation = Divisor::Sample.deviation(group);
            over(centered(group), deviation + config.epsilon)
        });
        sum.resize(scaled.len(), 0.0);
        let added = sum.iter_mut().zip(scaled);
        added.for_each(|(sum, scaled): (&mut f64, f64)| *sum += weight * scaled);
        last = Some(groups);
    }
    let Some(groups) = last else {
        return Err(Error::argument(function, "rewards", "holds no reward"));
    };

    // ( S − mean S ) / ( std S + ε )
    let of_batch: Vec<f64> = counted.iter().map(|at| sum[*at]).collect();
    let deviation = Divisor::Sample.deviation(&of_batch);
    let mut out = vec![0.0; sum.len()];
    let whitened = over(centered(&of_batch), deviation + config.epsilon);
    for (at, advantage) in counted.into_iter().zip(whitened) {
        out[at] = advantage;
    }
    groups.back(&out)
}

/// The mask of each reward; none where all answers count.
fn of_rewards(
    function: &'static str,
    mask: Option<&Tensor>,
    rewards: usize,
) -> Result<Vec<Tensor>> {
    match mask {
        None => Ok(Vec::new()),
        Some(mask) if mask.rank() != 3 => Ok(vec![mask.clone(); rewards]),
        Some(mask) if mask.dim(0)? == rewards => (0..rewards).map(|k| Ok(mask.get(k)?)).collect(),
        Some(mask) => {
            let text = format!("has shape {:?} for {rewards} rewards", mask.dims());
            Err(Error::argument(function, "mask", text))
        }
    }
}
