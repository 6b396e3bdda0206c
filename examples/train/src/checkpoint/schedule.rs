//! The learning rate of each step, by the names and rules of Transformers.

use super::super::error::{Error, Result};
use candle_align::training::{Decay, Schedule};
use serde::{Deserialize, Serialize};

/// The value of `lr_scheduler_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Falls linearly to 0 at the end. The default.
    #[default]
    Linear,
    /// Falls along half a cosine to 0.
    Cosine,
    /// Stays as it is from the first step on.
    Constant,
    /// Stays as it is after the warm-up.
    ConstantWithWarmup,
}

/// The schedule of a run of `steps` steps. `warmup` is the value of `warmup_steps`: a number of steps
/// from 1 on, else a share of the steps, rounded up.
///
/// The rate of the step that is counted from 0 is the peak times [`Schedule::factor`] of it; with a
/// warm-up the first rate is 0.
pub fn schedule(kind: Kind, warmup: f64, steps: usize) -> Result<Schedule> {
    if !warmup.is_finite() || warmup < 0.0 {
        let problem = format!("`fit.warmup_steps` must be finite and >= 0, got {warmup}");
        return Err(Error::Usage(problem));
    }
    let decay = match kind {
        Kind::Linear => Decay::Linear,
        Kind::Cosine => Decay::Cosine,
        Kind::ConstantWithWarmup => Decay::Constant,
        Kind::Constant if warmup > 0.0 => {
            return Err(Error::Usage(format!(
                "`constant` has no warm-up, got `warmup_steps` {warmup}; use `constant_with_warmup`"
            )));
        }
        Kind::Constant => Decay::Constant,
    };
    let warmup = match warmup >= 1.0 {
        true => warmup as usize,
        false => (steps as f64 * warmup).ceil() as usize,
    };
    Ok(Schedule::transformers(steps, warmup, decay, 0.0)?)
}
