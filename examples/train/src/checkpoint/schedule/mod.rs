//! The learning rate of each step, by the names, settings and rules of Transformers.
//!
//! A rate is the peak times a factor. With `w` steps of warm-up the factor rises as `step / w`; after it, with
//! `p = (step − w) / (steps − w)`, c = `num_cycles` and f = the floor as a share of the peak:
//!
//! | `lr_scheduler_type` | factor after the warm-up | `lr_scheduler_kwargs`, with defaults |
//! |---|---|---|
//! | `linear` | `1 − p` | none |
//! | `constant`, `constant_with_warmup` | 1 | none |
//! | `cosine` | `(1 + cos 2πcp) / 2` | `num_cycles` 0.5 |
//! | `cosine_with_restarts` | `(1 + cos π·frac(cp)) / 2` | `num_cycles` 1 |
//! | `polynomial` | `f + (1 − f)·(1 − p)^power` | `lr_end` 1e-7, a rate; `power` 1 |
//! | `inverse_sqrt` | `1 / √(1 + (step − w) / timescale)` | `timescale`: `w`, or 10000 without a warm-up |
//! | `cosine_with_min_lr` | `f + (1 − f)·(1 + cos 2πcp) / 2` | `min_lr`, a rate, or `min_lr_rate`, a share: one of them; `num_cycles` 0.5 |
//! | `cosine_warmup_with_min_lr` | the same, a step ahead; the warm-up begins at `warmup_lr_rate` | the same; `warmup_lr_rate` `1 / w` |
//! | `warmup_stable_decay` | 1 for `num_stable_steps`, then down to f in `num_decay_steps` | `num_decay_steps`; `num_stable_steps`: what is left; `warmup_type` linear, `decay_type` cosine, each linear, cosine or 1-sqrt; `min_lr_ratio` 0, where the warm-up begins too; `num_cycles` 0.5 |

mod kwargs;

use super::super::error::{Error, Result};
use kwargs::shape;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::f64::consts::PI;

/// The value of `lr_scheduler_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Falls linearly to 0 at the end. The default.
    #[default]
    Linear,
    /// Falls along half a cosine to 0.
    Cosine,
    /// Falls along half a cosine, several times.
    CosineWithRestarts,
    /// Falls along a power to `lr_end`.
    Polynomial,
    /// Stays as it is from the first step on.
    Constant,
    /// Stays as it is after the warm-up.
    ConstantWithWarmup,
    /// Falls with the square root of the steps.
    InverseSqrt,
    /// Falls along half a cosine to a least rate.
    CosineWithMinLr,
    /// The same, with a warm-up that does not begin at 0.
    CosineWarmupWithMinLr,
    /// Stays as it is, then falls.
    WarmupStableDecay,
}

/// The value of `lr_scheduler_kwargs`.
pub type Kwargs = Map<String, Value>;

/// The factor of each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    steps: usize,
    warmup: usize,
    rise: Rise,
    fall: Fall,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rise {
    /// From the floor; the step after the warm-up is the first at the peak.
    Along(Curve, f64),
    /// From a share; the last step of the warm-up is at the peak.
    From(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fall {
    None,
    Cosine {
        cycles: f64,
        floor: f64,
    },
    CosineAhead {
        cycles: f64,
        floor: f64,
    },
    Restarts {
        cycles: f64,
    },
    Polynomial {
        power: f64,
        floor: f64,
    },
    InverseSqrt {
        timescale: f64,
    },
    Stages {
        /// None: what warm-up and decay leave of the run.
        stable: Option<usize>,
        decay: usize,
        curve: Curve,
        cycles: f64,
        floor: f64,
    },
}

/// How a share is left, from 1 to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
enum Curve {
    #[default]
    #[serde(rename = "linear")]
    Linear,
    #[serde(rename = "cosine")]
    Cosine,
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

impl Curve {
    fn risen(self, progress: f64) -> f64 {
        match self {
            Curve::Linear => progress,
            curve => curve.left(1.0 - progress, HALF),
        }
    }

    fn left(self, progress: f64, cycles: f64) -> f64 {
        match self {
            Curve::Linear => 1.0 - progress,
            Curve::Cosine => (1.0 + (2.0 * PI * cycles * progress).cos()) / 2.0,
            Curve::OneMinusSqrt => 1.0 - progress.sqrt(),
        }
    }
}

/// Of a wave: a fall from the peak to the floor, once.
const HALF: f64 = 0.5;

/// The schedule of a run of `steps` steps up to the rate `peak`. `warmup` is the value of `warmup_steps`: a number of
/// steps from 1 on, else a share of the steps, rounded up. It may be longer than the run.
///
/// The rate of the step that is counted from 0 is the peak times [`Schedule::factor`] of it; with a
/// warm-up the first rate is 0, unless the schedule says where it begins.
pub fn schedule(
    kind: Kind,
    kwargs: Option<&Kwargs>,
    warmup: f64,
    steps: usize,
    peak: f64,
) -> Result<Schedule> {
    if !warmup.is_finite() || warmup < 0.0 {
        let problem = format!("`fit.warmup_steps` must be finite and >= 0, got {warmup}");
        return Err(Error::Usage(problem));
    }
    if kind == Kind::Constant && warmup > 0.0 {
        return Err(Error::Usage(format!(
            "`constant` has no warm-up, got `fit.warmup_steps` {warmup}; use `constant_with_warmup`"
        )));
    }
    let warmup = match warmup >= 1.0 {
        true => warmup as usize,
        false => (steps as f64 * warmup).ceil() as usize,
    };
    let (rise, fall) = shape(kind, kwargs, warmup, peak)?;
    Ok(Schedule {
        steps,
        warmup,
        rise,
        fall,
    })
}

impl Schedule {
    /// The number of steps of the warm-up.
    pub fn warmup(&self) -> usize {
        self.warmup
    }

    /// The factor at `step`, counted from 0. After the run it is that of its end.
    pub fn factor(&self, step: usize) -> f64 {
        let step = step.min(self.steps);
        match step < self.warmup {
            true => self.risen(step as f64),
            false => self.fallen((step - self.warmup) as f64),
        }
    }

    fn risen(&self, step: f64) -> f64 {
        let warmup = self.warmup as f64;
        match self.rise {
            Rise::Along(curve, floor) => floor + (1.0 - floor) * curve.risen(step / warmup),
            Rise::From(start) => start + (1.0 - start) * step / (warmup - 1.0).max(1.0),
        }
    }

    /// `since` steps after the warm-up.
    fn fallen(&self, since: f64) -> f64 {
        let span = self.steps as f64 - self.warmup as f64;
        let progress = |since: f64| (since / span.max(1.0)).min(1.0);
        let (left, floor) = match self.fall {
            Fall::None => return 1.0,
            Fall::InverseSqrt { timescale } => {
                return 1.0 / ((since + timescale) / timescale).sqrt();
            }
            // a last restart would be at the very end
            Fall::Restarts { .. } if progress(since) == 1.0 => return 0.0,
            Fall::Restarts { cycles } => {
                let within = (cycles * progress(since)).fract();
                (Curve::Cosine.left(within, HALF), 0.0)
            }
            Fall::Cosine { cycles, floor } => (Curve::Cosine.left(progress(since), cycles), floor),
            Fall::CosineAhead { cycles, floor } => {
                (Curve::Cosine.left(progress(since + 1.0), cycles), floor)
            }
            Fall::Polynomial { power, floor } => {
                let left = (span - since).max(0.0) / span.max(1.0);
                (left.powf(power), floor)
            }
            Fall::Stages {
                stable,
                decay,
                curve,
                cycles,
                floor,
            } => {
                let decay = decay as f64;
                // less than 0 if the warm-up and the decay do not fit into the run
                let stable = stable.map_or(span - decay, |steps| steps as f64);
                match since {
                    _ if since < stable => return 1.0,
                    _ if since >= stable + decay => return floor,
                    _ => (curve.left((since - stable) / decay.max(1.0), cycles), floor),
                }
            }
        };
        floor + (1.0 - floor) * left
    }
}
