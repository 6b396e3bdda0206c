//! Learning rate schedules: warmup and decay over the steps of a run.

use crate::error::{Error, Result, non_negative, require};
use serde::{Deserialize, Serialize};

/// The shape of the learning rate after the warmup.
#[doc(alias = "cosine decay")]
#[doc(alias = "linear decay")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Stays at the peak, whatever the floor.
    Constant,
    /// Falls linearly to the floor at the last step, if at least two steps follow the warmup.
    Linear,
    /// Falls along half a cosine, likewise.
    #[default]
    Cosine,
}

/// At which steps the rise and the fall end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// The first step already changes the variables, and the last step is at the floor.
    #[default]
    Inclusive,
    /// As in Transformers: the first step of a warmup has a rate of 0, and the floor is reached one
    /// step after the last.
    Transformers,
}

/// A learning rate that rises linearly, then decays, as a factor between 0 and 1 on the peak.
///
/// ```text
/// step < warmup:   (step + 1) / warmup
/// after:           p = (step − warmup) / max(1, steps − 1 − warmup)
///                  constant 1,  linear floor + (1 − floor)·(1 − p),  cosine floor + (1 − floor)·(1 + cos πp)/2
/// ```
/// Transformers counts both ends differently. Its schedules are [`Schedule::transformers`]:
///
/// ```text
/// step < warmup:   step / warmup
/// after:           p = (step − warmup) / max(1, steps − warmup)
/// ```
/// | Transformers | [`Decay`] | `floor` |
/// |---|---|---|
/// | `get_constant_schedule_with_warmup` | `Constant` | any |
/// | `get_linear_schedule_with_warmup` | `Linear` | 0 |
/// | `get_cosine_schedule_with_warmup` | `Cosine` | 0 |
/// | `get_cosine_with_min_lr_schedule_with_warmup` | `Cosine` | its `min_lr_rate` |
///
/// They are equal up to rounding for every step up to `steps`. After that, Transformers' cosine rises
/// again, and this one stays constant.
#[doc(alias = "warmup")]
#[doc(alias = "learning rate schedule")]
#[doc(alias = "lr_scheduler")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Schedule {
    /// The number of steps of the whole run.
    pub steps: usize,
    /// The number of warmup steps, at most `steps`.
    pub warmup: usize,
    /// The shape after the warmup.
    pub decay: Decay,
    /// The share of the peak that remains at the last step, in [0, 1].
    pub floor: f64,
    /// How the ends are counted. May be omitted in JSON.
    pub convention: Convention,
}

/// The content of a file, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    steps: usize,
    warmup: usize,
    decay: Decay,
    floor: f64,
    #[serde(default)]
    convention: Convention,
}

impl TryFrom<Fields> for Schedule {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        let schedule = Self {
            steps: fields.steps,
            warmup: fields.warmup,
            decay: fields.decay,
            floor: fields.floor,
            convention: fields.convention,
        };
        schedule.checked("Schedule")
    }
}

impl Schedule {
    /// A schedule with checked settings; one that is read from JSON is checked in the same way.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `warmup` ≤ `steps` and `floor` is in [0, 1].
    pub fn new(steps: usize, warmup: usize, decay: Decay, floor: f64) -> Result<Self> {
        let schedule = Self {
            steps,
            warmup,
            decay,
            floor,
            convention: Convention::Inclusive,
        };
        schedule.checked("Schedule::new")
    }

    /// The same with Transformers' ends: `steps` is its `num_training_steps`, `warmup` its
    /// `num_warmup_steps`.
    ///
    /// # Errors
    /// As [`Schedule::new`].
    ///
    /// ```
    /// use candle_align::training::{Decay, Schedule};
    ///
    /// // get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=6)
    /// let schedule = Schedule::transformers(6, 2, Decay::Linear, 0.0)?;
    /// let factors: Vec<f64> = (0..6).map(|step| schedule.factor(step)).collect();
    /// assert_eq!(factors, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]);
    ///
    /// let here = Schedule::new(6, 2, Decay::Linear, 0.0)?;
    /// let ends = [here.factor(0), here.factor(5)];
    /// assert_eq!(ends, [0.5, 0.0]);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    pub fn transformers(steps: usize, warmup: usize, decay: Decay, floor: f64) -> Result<Self> {
        let schedule = Self {
            steps,
            warmup,
            decay,
            floor,
            convention: Convention::Transformers,
        };
        schedule.checked("Schedule::transformers")
    }

    fn checked(self, function: &'static str) -> Result<Self> {
        let (warmup, floor) = (self.warmup, self.floor);
        let holds = warmup <= self.steps;
        require(holds, function, "warmup", "at most `steps`", warmup)?;
        non_negative(function, "floor", floor)?;
        require(floor <= 1.0, function, "floor", "at most 1", floor)?;
        Ok(self)
    }

    /// The factor at `step`, counted from 0. After the end it stays constant: at the factor of the last
    /// step, or in Transformers' convention at that of step `steps`.
    pub fn factor(&self, step: usize) -> f64 {
        // where the fall ends
        let end = match self.convention {
            Convention::Inclusive => self.steps.saturating_sub(1),
            Convention::Transformers => self.steps,
        };
        let step = step.min(end);
        if step < self.warmup {
            let risen = match self.convention {
                Convention::Inclusive => step + 1,
                Convention::Transformers => step,
            };
            return risen as f64 / self.warmup as f64;
        }
        let span = end.saturating_sub(self.warmup).max(1) as f64;
        let progress = (step - self.warmup) as f64 / span;
        let left = match (self.decay, self.convention) {
            (Decay::Constant, _) => return 1.0,
            (Decay::Linear, Convention::Inclusive) => 1.0 - progress,
            // 0 at the end even for a run that is all warmup
            (Decay::Linear, Convention::Transformers) => (end - step) as f64 / span,
            (Decay::Cosine, _) => (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0,
        };
        self.floor + (1.0 - self.floor) * left
    }
}
