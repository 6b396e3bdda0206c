//! AdaLoRA's schedule: at which steps triplets are pruned, and how many remain.

use crate::error::{Result, require};
use serde::{Deserialize, Serialize};

/// Settings of [`RankAllocator`](crate::parameter_efficient::RankAllocator): when it prunes, and to how many triplets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankAllocatorConfig {
    /// The average rank at the end: b⁽ᵀ⁾ is this times the number of layers. PEFT's `target_r`.
    /// Default 8, PEFT's.
    pub target_rank: usize,
    /// tᵢ: steps before the first pruning. PEFT's `tinit`. Default 0; the paper warms up.
    pub initial_steps: usize,
    /// t_f: final steps in which the ranks stay. PEFT's `tfinal`. Default 0; the paper has some.
    pub final_steps: usize,
    /// Δ_T ≥ 1: the number of steps between two prunings. PEFT's `deltaT`. Default 1; the paper uses 1 to
    /// 100.
    pub interval: usize,
    /// T, above tᵢ + t_f: the number of training steps. PEFT's `total_step`. There is no default: 0 is an error.
    pub total_steps: usize,
    /// β₁ in (0, 1), the decay of the smoothed sensitivity. Default 0.85, the paper's.
    pub beta1: f64,
    /// β₂ in (0, 1), the decay of the smoothed uncertainty. Default 0.85, the paper's.
    pub beta2: f64,
}

impl Default for RankAllocatorConfig {
    fn default() -> Self {
        Self {
            target_rank: 8,
            initial_steps: 0,
            final_steps: 0,
            interval: 1,
            total_steps: 0,
            beta1: 0.85,
            beta2: 0.85,
        }
    }
}

impl RankAllocatorConfig {
    pub(crate) fn check(&self, function: &'static str) -> Result<()> {
        require(
            self.interval >= 1,
            function,
            "interval",
            ">= 1",
            self.interval,
        )?;
        require(
            self.total_steps > self.initial_steps.saturating_add(self.final_steps),
            function,
            "total_steps",
            "> `initial_steps` + `final_steps`",
            self.total_steps,
        )?;
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            require(beta > 0.0 && beta < 1.0, function, name, "in (0, 1)", beta)?;
        }
        Ok(())
    }

    /// T − t_f
    fn last(&self) -> usize {
        self.total_steps - self.final_steps
    }

    /// Whether the ranks are final at step t.
    pub(crate) fn settles(&self, step: usize) -> bool {
        step >= self.last()
    }

    /// Whether step t prunes.
    pub(crate) fn prunes(&self, step: usize) -> bool {
        step > self.initial_steps && (step.is_multiple_of(self.interval) || self.settles(step))
    }

    /// b⁽ᵗ⁾, from b⁽⁰⁾ = `start` to b⁽ᵀ⁾ = `target`.
    pub(crate) fn budget(&self, step: usize, start: usize, target: usize) -> usize {
        let (from, to) = (self.initial_steps, self.last());
        if step <= from {
            return start;
        }
        // ⌊ (b⁽⁰⁾ − b⁽ᵀ⁾)·( (T − t_f − t)/(T − t_f − tᵢ) )³ ⌋, in whole numbers
        let (left, whole) = (to.saturating_sub(step) as u128, (to - from) as u128);
        let more = (start - target) as u128;
        let exact = left
            .checked_pow(3)
            .and_then(|cube| Some(more.checked_mul(cube)? / whole.checked_pow(3)?));
        // beyond that, which no training reaches, in the precision of f64
        let rounded = || (more as f64 * (left as f64 / whole as f64).powi(3)) as u128;
        target + exact.unwrap_or_else(rounded).min(more) as usize
    }
}
