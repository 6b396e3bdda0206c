//! `lr_scheduler_kwargs`: what each schedule knows, by Transformers' names.

use super::super::super::error::{Error, Result, cut};
use super::{Curve, Fall, HALF, Kind, Kwargs, Rise};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cycles {
    num_cycles: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Polynomial {
    lr_end: Option<f64>,
    power: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InverseSqrt {
    timescale: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Least {
    num_cycles: Option<f64>,
    min_lr: Option<f64>,
    min_lr_rate: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeastWarm {
    num_cycles: Option<f64>,
    min_lr: Option<f64>,
    min_lr_rate: Option<f64>,
    warmup_lr_rate: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stages {
    num_decay_steps: usize,
    num_stable_steps: Option<usize>,
    #[serde(default)]
    warmup_type: Curve,
    #[serde(default = "cosine")]
    decay_type: Curve,
    min_lr_ratio: Option<f64>,
    num_cycles: Option<f64>,
}

fn cosine() -> Curve {
    Curve::Cosine
}

/// How the factor rises and falls.
pub(super) fn shape(
    kind: Kind,
    kwargs: Option<&Kwargs>,
    warmup: usize,
    peak: f64,
) -> Result<(Rise, Fall)> {
    let mut rise = Rise::Along(Curve::Linear, 0.0);
    let fall = match kind {
        Kind::Constant | Kind::ConstantWithWarmup => {
            let Nothing {} = read(kind, kwargs)?;
            Fall::None
        }
        Kind::Linear => {
            let Nothing {} = read(kind, kwargs)?;
            Fall::Polynomial {
                power: 1.0,
                floor: 0.0,
            }
        }
        Kind::Cosine => Fall::Cosine {
            cycles: cycles(read::<Cycles>(kind, kwargs)?.num_cycles, HALF)?,
            floor: 0.0,
        },
        Kind::CosineWithRestarts => Fall::Restarts {
            cycles: cycles(read::<Cycles>(kind, kwargs)?.num_cycles, 1.0)?,
        },
        Kind::Polynomial => {
            let given: Polynomial = read(kind, kwargs)?;
            let (end, power) = (given.lr_end.unwrap_or(1e-7), given.power.unwrap_or(1.0));
            let below = format!(">= 0 and below the learning rate, {peak}");
            require("lr_end", &below, end, end >= 0.0 && end < peak)?;
            require("power", "finite and >= 0", power, power >= 0.0)?;
            let floor = end / peak;
            Fall::Polynomial { power, floor }
        }
        Kind::InverseSqrt => {
            let given: InverseSqrt = read(kind, kwargs)?;
            let default = if warmup > 0 { warmup as f64 } else { 10_000.0 };
            let timescale = given.timescale.unwrap_or(default);
            require("timescale", "finite and > 0", timescale, timescale > 0.0)?;
            Fall::InverseSqrt { timescale }
        }
        Kind::CosineWithMinLr => {
            let given: Least = read(kind, kwargs)?;
            Fall::Cosine {
                cycles: cycles(given.num_cycles, HALF)?,
                floor: floor(kind, given.min_lr, given.min_lr_rate, peak)?,
            }
        }
        Kind::CosineWarmupWithMinLr => {
            let given: LeastWarm = read(kind, kwargs)?;
            let from = given.warmup_lr_rate;
            rise = Rise::From(share(
                "warmup_lr_rate",
                from.unwrap_or(1.0 / warmup.max(1) as f64),
            )?);
            Fall::CosineAhead {
                cycles: cycles(given.num_cycles, HALF)?,
                floor: floor(kind, given.min_lr, given.min_lr_rate, peak)?,
            }
        }
        Kind::WarmupStableDecay => {
            let given: Stages = read(kind, kwargs)?;
            let floor = share("min_lr_ratio", given.min_lr_ratio.unwrap_or(0.0))?;
            rise = Rise::Along(given.warmup_type, floor);
            Fall::Stages {
                stable: given.num_stable_steps,
                decay: given.num_decay_steps,
                curve: given.decay_type,
                cycles: cycles(given.num_cycles, HALF)?,
                floor,
            }
        }
    };
    Ok((rise, fall))
}

/// The settings of a schedule, each by its name.
fn read<T: DeserializeOwned>(kind: Kind, kwargs: Option<&Kwargs>) -> Result<T> {
    let given = Value::Object(kwargs.cloned().unwrap_or_default());
    serde_json::from_value(given).map_err(|error| {
        let problem = cut(&error.to_string(), 1_000);
        Error::Usage(format!(
            "`fit.lr_scheduler_kwargs` of `{}`: {problem}",
            name(kind)
        ))
    })
}

/// The name in the settings.
fn name(kind: Kind) -> String {
    let value = serde_json::to_value(kind).unwrap_or_default();
    value.as_str().unwrap_or_default().to_string()
}

fn require(name: &str, must: &str, found: f64, holds: bool) -> Result<()> {
    match holds && found.is_finite() {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "`{name}` of `fit.lr_scheduler_kwargs` must be {must}, got {found}"
        ))),
    }
}

fn cycles(given: Option<f64>, default: f64) -> Result<f64> {
    let cycles = given.unwrap_or(default);
    require("num_cycles", "finite and >= 0", cycles, cycles >= 0.0)?;
    Ok(cycles)
}

fn share(name: &str, found: f64) -> Result<f64> {
    require(name, "in [0, 1]", found, (0.0..=1.0).contains(&found))?;
    Ok(found)
}

/// The least rate, as a share of the peak.
fn floor(kind: Kind, rate: Option<f64>, given: Option<f64>, peak: f64) -> Result<f64> {
    match (rate, given) {
        (None, Some(found)) => share("min_lr_rate", found),
        (Some(rate), None) => {
            let most = format!(">= 0 and at most the learning rate, {peak}");
            require("min_lr", &most, rate, rate >= 0.0 && rate <= peak)?;
            Ok(rate / peak)
        }
        _ => Err(Error::Usage(format!(
            "`{}` needs one of `min_lr`, a rate, and `min_lr_rate`, a share of the learning rate, in \
             `fit.lr_scheduler_kwargs`",
            name(kind)
        ))),
    }
}
