//! The counted rewards of each group, on the host in f64.

use super::super::advantages::on_host;
use crate::error::Result;
use crate::math::{require_finite, to_host};
use crate::shape::Axes;
use candle_core::{DType, Device, Tensor};

/// What one function of this folder reads. Groups may be ragged: an answer that does not count is in no group.
pub(super) struct Groups {
    /// The positions of each group's counted answers in the flat tensor.
    groups: Vec<Vec<usize>>,
    rewards: Vec<f64>,
    like: Tensor,
}

impl Groups {
    /// Checks `rewards` and the optional mask, both `[prompts, answers]`.
    pub(super) fn read(axes: &mut Axes, rewards: &Tensor, mask: Option<&Tensor>) -> Result<Self> {
        Self::named(axes, "rewards", rewards, mask)
    }

    /// The same under another name of the argument.
    pub(super) fn named(
        axes: &mut Axes,
        argument: &str,
        rewards: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Self> {
        let names = ["prompts", "answers"];
        let rewards = axes.float(argument, rewards, &names)?.detach();
        let mask = match mask {
            Some(mask) => axes.mask("mask", mask, &names)?,
            None => Tensor::ones(rewards.shape(), DType::U8, rewards.device())?,
        };
        require_finite(axes.function(), argument, &rewards, &mask)?;
        let counts = to_host::<u8>(&mask)?;
        let (prompts, answers) = rewards.dims2()?;
        let of_prompt = |prompt: usize| {
            let positions = prompt * answers..(prompt + 1) * answers;
            positions.filter(|at| counts[*at] != 0).collect()
        };
        Ok(Self {
            groups: (0..prompts).map(of_prompt).collect(),
            rewards: on_host(&rewards)?,
            like: rewards,
        })
    }

    /// Each group's rewards become its advantages.
    pub(super) fn each(&self, of: impl Fn(&[f64]) -> Vec<f64>) -> Result<Tensor> {
        self.back(&self.mapped(&self.rewards, |x, _| of(x)))
    }

    /// The same beside another number of each answer, such as its length.
    pub(super) fn each_with(
        &self,
        other: &Tensor,
        of: impl Fn(&[f64], &[f64]) -> Vec<f64>,
    ) -> Result<Tensor> {
        let other = on_host(other)?;
        self.back(&self.mapped(&self.rewards, |x, positions| {
            let other: Vec<f64> = positions.iter().map(|at| other[*at]).collect();
            of(x, &other)
        }))
    }

    /// As [`Groups::each`], flat, 0 where an answer does not count.
    pub(super) fn flat(&self, of: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
        self.mapped(&self.rewards, |x, _| of(x))
    }

    fn mapped(&self, x: &[f64], of: impl Fn(&[f64], &[usize]) -> Vec<f64>) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        for positions in &self.groups {
            let group: Vec<f64> = positions.iter().map(|at| x[*at]).collect();
            for (at, advantage) in positions.iter().zip(of(&group, positions)) {
                out[*at] = advantage;
            }
        }
        out
    }

    /// The flat positions that count, over all groups.
    pub(super) fn counted(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().flatten().copied()
    }

    /// The rewards, flat; those that do not count may be anything.
    pub(super) fn rewards(&self) -> &[f64] {
        &self.rewards
    }

    /// `[prompts, answers]` in the type and on the device of the rewards.
    pub(super) fn back(&self, x: &[f64]) -> Result<Tensor> {
        back(x, &self.like)
    }
}

/// In the shape, in the type and on the device of another tensor.
pub(super) fn back(x: &[f64], like: &Tensor) -> Result<Tensor> {
    let x = Tensor::from_slice(x, like.shape(), &Device::Cpu)?;
    Ok(x.to_dtype(like.dtype())?.to_device(like.device())?)
}

/// The mean, exact where all are equal.
pub(super) fn mean(x: &[f64]) -> f64 {
    let first = x.first().copied().unwrap_or_default();
    let rest: f64 = x.iter().map(|x| x - first).sum();
    first + rest / x.len().max(1) as f64
}

/// x − mean x: exactly 0 where all are equal.
pub(super) fn centered(x: &[f64]) -> Vec<f64> {
    let mean = mean(x);
    x.iter().map(|x| x - mean).collect()
}

/// How a variance is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divisor {
    /// n − 1: the deviation of a sample. TRL, verl.
    #[default]
    Sample,
    /// n: the deviation of these numbers alone. OpenRLHF's REINFORCE++.
    Population,
}

impl Divisor {
    /// Σ w (x − μ)² over its divisor, with weights that count tokens, and μ; 0 for fewer than two.
    pub(super) fn variance(self, x: &[f64], weights: &[f64]) -> (f64, f64) {
        let total: f64 = weights.iter().sum();
        let first = x.first().copied().unwrap_or_default();
        let moved = |x: &f64| x - first;
        let sum: f64 = x.iter().zip(weights).map(|(x, w)| w * moved(x)).sum();
        let mean = first + sum / total.max(1.0);
        let squares: f64 = x
            .iter()
            .zip(weights)
            .map(|(x, w)| w * (x - mean).powi(2))
            .sum();
        let divisor = match self {
            Self::Sample => total - 1.0,
            Self::Population => total,
        };
        let variance = if divisor > 0.0 {
            squares / divisor
        } else {
            0.0
        };
        (variance, mean)
    }

    /// The deviation of unweighted numbers.
    pub(super) fn deviation(self, x: &[f64]) -> f64 {
        self.variance(x, &vec![1.0; x.len()]).0.sqrt()
    }
}
