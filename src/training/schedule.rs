//! Learning rates over the steps of a run.

use crate::Result;
use crate::error::{non_negative, require};
use serde::{Deserialize, Serialize};

/// The shape of the learning rate after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Stays at its peak.
    Constant,
    /// Falls on a line to the floor at the last step, if at least two steps follow the warm-up.
    Linear,
    /// Falls on half a cosine, likewise.
    #[default]
    Cosine,
}

/// A learning rate that rises linearly, then decays: a number between 0 and 1 to multiply the peak by.
///
/// ```text
/// step < warmup:   (step + 1) / warmup
/// after:           p = (step − warmup) / max(1, steps − 1 − warmup), at most 1
///                  constant 1,  linear 1 − (1 − floor)·p,  cosine floor + (1 − floor)·(1 + cos πp)/2
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The steps of the whole run.
    pub steps: usize,
    /// The steps of the rise, at most `steps`.
    pub warmup: usize,
    /// What follows it.
    pub decay: Decay,
    /// The share of the peak that is left at the last step, in [0, 1].
    pub floor: f64,
}

impl Schedule {
    /// A schedule whose settings have been checked. One that was read from JSON has not been: pass its
    /// fields through here.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless `warmup` ≤ `steps` and `floor` is in [0, 1].
    pub fn new(steps: usize, warmup: usize, decay: Decay, floor: f64) -> Result<Self> {
        require(
            warmup <= steps,
            "Schedule::new",
            "warmup",
            "at most `steps`",
            warmup,
        )?;
        non_negative("Schedule::new", "floor", floor)?;
        require(floor <= 1.0, "Schedule::new", "floor", "at most 1", floor)?;
        Ok(Self {
            steps,
            warmup,
            decay,
            floor,
        })
    }

    /// The factor at `step`, counted from 0; past the end it stays where it was.
    pub fn factor(&self, step: usize) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(1 + self.warmup).max(1);
        let progress = ((step - self.warmup) as f64 / span as f64).min(1.0);
        let fall = match self.decay {
            Decay::Constant => return 1.0,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0,
        };
        self.floor + (1.0 - self.floor) * fall
    }
}
