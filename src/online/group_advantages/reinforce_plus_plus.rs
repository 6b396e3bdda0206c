//! REINFORCE++: returns of tokens, whitened over the whole batch (2025, after the survey).
//!
//! In one sentence: neither a critic nor a group is the baseline, but the mean over all tokens of the batch.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | rₜ, with the KL inside | `rewards`, of [`shaped_rewards`](crate::shaped_rewards) | `[batch, time]` |
//! | γ | [`ReinforcePlusPlusConfig::gamma`] | number |
//! | Aₜ | the result | `[batch, time]`; the baseline form `[prompts, answers]` |
//!
//! Read next: [`crate::online::rewards`], which makes the rewards of tokens.

use super::super::advantages::on_host;
use super::groups::{Divisor, Groups, back, centered};
use super::opo::lengths_of;
use crate::error::{Result, require};
use crate::math::{require_finite, to_host};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Added to a variance, or its least value.
const FLOOR: f64 = 1e-8;

/// Settings of [`reinforce_plus_plus_advantages`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforcePlusPlusConfig {
    /// γ in [0, 1], the discount per token. Default 1, as in the authors' code.
    pub gamma: f64,
    /// How the variance is divided. Default [`Divisor::Sample`], as in verl.
    pub divisor: Divisor,
}

impl Default for ReinforcePlusPlusConfig {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            divisor: Divisor::default(),
        }
    }
}

/// The advantage of each token.
///
/// # Equation
/// ```text
/// Gₜ = rₜ + γ Gₜ₊₁
/// Aₜ = ( Gₜ − μ ) / √( σ² + 10⁻⁸ )
/// ```
/// μ and σ² are over all tokens of the batch that count. Divided by n, the root is of max(σ², 10⁻⁸), as in OpenRLHF.
/// # Shapes
/// `rewards` `[batch, time]`, `mask` u8 `[batch, time]`. The result is `[batch, time]`, a constant, 0 where the mask does
/// not count.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts is not finite;
/// [`Error::Parameter`](crate::Error::Parameter) unless γ is in [0, 1]. It reads the rewards to the host.
/// # Properties
/// * The returns are those of [`gae`](crate::gae) with λ = 1 and values of 0; positions that do not count take no step.
/// * The batch is what is passed. Whitened group by group it would be GRPO (OpenRLHF#830, OpenRLHF#924), and whitened
///   in micro-batches it is another advantage: whiten the rollout, then cut it.
/// * The baseline is one number for all prompts, so an easy prompt pushes all its answers up and a hard one all down;
///   [`reinforce_plus_plus_baseline_advantages`] takes that part out.
/// * Equal returns have exactly 0.
/// # Departures
/// verl divides by n − 1 and OpenRLHF by n: [`Divisor`] says which. The KL is in the rewards, by k₁:
/// [`shaped_rewards`](crate::shaped_rewards).
/// # Examples
/// ```
/// use candle_align::online::group_advantages::{
///     ReinforcePlusPlusConfig, reinforce_plus_plus_advantages,
/// };
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[0.0f64, 1.0], [0.0, 3.0]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1], [1, 1]], &Device::Cpu)?;
/// let config = ReinforcePlusPlusConfig::default();
/// let advantages = reinforce_plus_plus_advantages(&rewards, &mask, &config)?;
/// // returns 1, 1, 3, 3: mean 2, variance 4/3
/// let got = advantages.to_vec2::<f64>()?;
/// assert!((got[0][0] - -1.0 / (4.0f64 / 3.0 + 1e-8).sqrt()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Hu et al. 2025, arXiv:2501.03262; volcengine/verl, `trainer/ppo/core_algos.py`,
/// `compute_reinforce_plus_plus_outcome_advantage`; OpenRLHF/OpenRLHF, `trainer/ppo_utils/experience_maker.py`.
#[doc(alias = "REINFORCE++")]
pub fn reinforce_plus_plus_advantages(
    rewards: &Tensor,
    mask: &Tensor,
    config: &ReinforcePlusPlusConfig,
) -> Result<Tensor> {
    let function = "reinforce_plus_plus_advantages";
    let gamma = config.gamma;
    require(
        (0.0..=1.0).contains(&gamma),
        function,
        "gamma",
        "in [0, 1]",
        gamma,
    )?;
    let mut axes = Axes::new(function);
    let (rewards, counts) = tokens(&mut axes, rewards, mask)?;

    // Gₜ = rₜ + γ Gₜ₊₁
    let returns = returns(&rewards, &counts, gamma)?;

    // ( Gₜ − μ ) / √( σ² + 10⁻⁸ )
    let weights: Vec<f64> = counts.iter().map(|m| f64::from(*m != 0)).collect();
    back(&whitened(&returns, &weights, config.divisor), &rewards)
}

/// The advantage of each answer, the same for all of its tokens.
///
/// # Equation
/// ```text
/// Dᵢ = rᵢ − r̄                             in each group
/// Âᵢ = ( Dᵢ − μ ) / √( σ² + 10⁻⁸ )        μ, σ² over the tokens of the batch: answer i counts lᵢ times
/// ```
/// # Shapes
/// `rewards` `[prompts, answers]`; `lengths` the same, the tokens of each answer that count; `mask` u8, or none where all
/// answers count. The result is `[prompts, answers]`, a constant, 0 where an answer does not count.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Argument`](crate::Error::Argument) if a reward that counts is not finite, or a length is not finite or is
/// negative. It reads both to the host.
/// # Properties
/// * The group's deviation is not used: a group of small differences pushes less than one of large differences. Under
///   GRPO both push alike.
/// * Long answers dominate μ and σ. So the advantages of a group need not sum to 0, and a group of one or of equal
///   rewards, whose Dᵢ is exactly 0, gets −μ/σ. Where all answers have one length, μ is 0.
/// # Departures
/// [`Divisor::Sample`] as in verl and [`Divisor::Population`] as in OpenRLHF, which bounds the variance from below by 10⁻⁸
/// instead of adding it.
/// # Examples
/// ```
/// use candle_align::online::group_advantages::{
///     Divisor, reinforce_plus_plus_baseline_advantages,
/// };
/// use candle_core::{Device, Tensor};
///
/// let rewards = Tensor::new(&[[1.0f64, 0.0]], &Device::Cpu)?;
/// let lengths = Tensor::new(&[[1.0f64, 3.0]], &Device::Cpu)?;
/// let advantages =
///     reinforce_plus_plus_baseline_advantages(&rewards, &lengths, None, Divisor::Population)?;
/// // ½ once and −½ three times: mean −¼, variance 3/16
/// let got = advantages.to_vec2::<f64>()?;
/// assert!((got[0][0] - 0.75 / (3.0f64 / 16.0).sqrt()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Hu et al. 2025, arXiv:2501.03262; volcengine/verl, `trainer/ppo/core_algos.py`,
/// `compute_reinforce_plus_plus_baseline_outcome_advantage`.
#[doc(alias = "REINFORCE++-baseline")]
pub fn reinforce_plus_plus_baseline_advantages(
    rewards: &Tensor,
    lengths: &Tensor,
    mask: Option<&Tensor>,
    divisor: Divisor,
) -> Result<Tensor> {
    let mut axes = Axes::new("reinforce_plus_plus_baseline_advantages");
    let groups = Groups::read(&mut axes, rewards, mask)?;
    let lengths = on_host(&lengths_of(&mut axes, lengths, mask)?)?;

    // rᵢ − r̄
    let differences = groups.flat(centered);

    // ( Dᵢ − μ ) / √( σ² + 10⁻⁸ )
    let counted: Vec<usize> = groups.counted().collect();
    let of = |x: &[f64]| -> Vec<f64> { counted.iter().map(|at| x[*at]).collect() };
    let mut out = vec![0.0; differences.len()];
    let scaled = whitened(&of(&differences), &of(&lengths), divisor);
    for (at, advantage) in counted.iter().zip(scaled) {
        out[*at] = advantage;
    }
    groups.back(&out)
}

/// Rewards `[batch, time]`, finite where the mask counts, and the mask on the host.
pub(super) fn tokens(
    axes: &mut Axes,
    rewards: &Tensor,
    mask: &Tensor,
) -> Result<(Tensor, Vec<u8>)> {
    let names = ["batch", "time"];
    let rewards = axes.float("rewards", rewards, &names)?.detach();
    let mask = axes.mask("mask", mask, &names)?;
    require_finite(axes.function(), "rewards", &rewards, &mask)?;
    Ok((rewards, to_host::<u8>(&mask)?))
}

/// Σ_{s≥t} γ^{s−t} r_s over the positions that count, 0 at the others.
pub(super) fn returns(rewards: &Tensor, counts: &[u8], gamma: f64) -> Result<Vec<f64>> {
    let (batch, time) = rewards.dims2()?;
    let rewards = on_host(rewards)?;
    let mut returns = vec![0.0; rewards.len()];
    for row in 0..batch {
        let mut next = 0.0;
        for at in (row * time..(row + 1) * time).rev() {
            if counts[at] != 0 {
                next = rewards[at] + gamma * next;
                returns[at] = next;
            }
        }
    }
    Ok(returns)
}

/// (x − μ)/σ under weights that count tokens; 0 where the weight is 0.
fn whitened(x: &[f64], weights: &[f64], divisor: Divisor) -> Vec<f64> {
    // the first that counts, so that equal numbers have exactly their own mean
    let first = x.iter().zip(weights).find(|(_, w)| **w > 0.0);
    let first = first.map_or(0.0, |(x, _)| *x);
    let moved: Vec<f64> = x.iter().map(|x| x - first).collect();
    let counted = |(x, w): (&f64, &f64)| if *w > 0.0 { *x } else { 0.0 };
    let moved: Vec<f64> = moved.iter().zip(weights).map(counted).collect();
    let (variance, mean) = divisor.variance(&moved, weights);
    let deviation = match divisor {
        Divisor::Sample => (variance + FLOOR).sqrt(),
        Divisor::Population => variance.max(FLOOR).sqrt(),
    };
    let scaled = |(x, w): (&f64, &f64)| match *w > 0.0 {
        true => (x - mean) / deviation,
        false => 0.0,
    };
    moved.iter().zip(weights).map(scaled).collect()
}
