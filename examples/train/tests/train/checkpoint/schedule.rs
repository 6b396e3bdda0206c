//! Learning rates beside Transformers: `tests/golden/trl_schedules.py` wrote its factors.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use train::checkpoint::schedule::{Kind, Kwargs, Schedule, schedule};

fn plain(kind: Kind, warmup: f64, steps: usize) -> Schedule {
    schedule(kind, None, warmup, steps, 1e-3).unwrap()
}

fn factors(schedule: &Schedule, steps: usize) -> Vec<f64> {
    (0..steps).map(|step| schedule.factor(step)).collect()
}

#[test]
fn schedules_are_those_of_transformers() {
    let of = |kind, warmup, steps| factors(&plain(kind, warmup, steps), steps);
    assert_eq!(of(Kind::Linear, 0.0, 3), [1.0, 2.0 / 3.0, 1.0 / 3.0]);
    assert_eq!(of(Kind::Cosine, 1.0, 3), [0.0, 1.0, 0.5]);
    assert_eq!(of(Kind::Constant, 0.0, 2), [1.0, 1.0]);
    assert_eq!(of(Kind::ConstantWithWarmup, 2.0, 3), [0.0, 0.5, 1.0]);
    // a share is rounded up, a number of steps down
    assert_eq!(plain(Kind::Linear, 0.1, 11).warmup(), 2);
    assert_eq!(plain(Kind::Linear, 2.9, 11).warmup(), 2);
    let message = |kind, warmup| {
        let refused = schedule(kind, None, warmup, 3, 1e-3);
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        message(Kind::Constant, 2.0),
        "`constant` has no warm-up, got `fit.warmup_steps` 2; use `constant_with_warmup`"
    );
    assert_eq!(
        message(Kind::Linear, -0.5),
        "`fit.warmup_steps` must be finite and >= 0, got -0.5"
    );
    // a run may end before its warm-up does
    assert_eq!(of(Kind::Linear, 4.0, 3), [0.0, 0.25, 0.5]);
}

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    lr_scheduler_type: Kind,
    lr_scheduler_kwargs: Option<Kwargs>,
    warmup_steps: f64,
    max_steps: usize,
    learning_rate: f64,
    factors: Vec<f64>,
}

#[test]
fn every_factor_is_that_of_get_scheduler() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/trl_schedules.json");
    let golden: Golden = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(golden.cases.len(), 109);
    for case in &golden.cases {
        let (kind, kwargs) = (case.lr_scheduler_type, case.lr_scheduler_kwargs.as_ref());
        let of = schedule(
            kind,
            kwargs,
            case.warmup_steps,
            case.max_steps,
            case.learning_rate,
        );
        let ours = factors(&of.unwrap(), case.max_steps);
        assert_eq!(ours.len(), case.factors.len());
        for (step, (ours, theirs)) in ours.iter().zip(&case.factors).enumerate() {
            assert!(
                (ours - theirs).abs() <= 1e-12,
                "{kind:?}, {kwargs:?}, warm-up {}, step {step}: {ours} against {theirs}",
                case.warmup_steps
            );
        }
    }
}

/// Each kind with settings that it needs, or that change it.
fn all() -> Vec<(Kind, Value)> {
    vec![
        (Kind::Linear, json!({})),
        (Kind::Cosine, json!({"num_cycles": 1.3})),
        (Kind::CosineWithRestarts, json!({"num_cycles": 3})),
        (Kind::Polynomial, json!({"power": 0.7, "lr_end": 1e-4})),
        (Kind::ConstantWithWarmup, json!({})),
        (Kind::InverseSqrt, json!({"timescale": 5})),
        (Kind::CosineWithMinLr, json!({"min_lr_rate": 0.2})),
        (Kind::CosineWarmupWithMinLr, json!({"min_lr_rate": 0.2})),
        (
            Kind::WarmupStableDecay,
            json!({"num_decay_steps": 2, "warmup_type": "cosine", "min_lr_ratio": 0.1}),
        ),
    ]
}

proptest! {
    /// Rises to the peak without a jump, is never below 0 or above the peak, and stays finite.
    #[test]
    fn every_schedule_rises_to_the_peak(warmup in 0_usize..12, after in 3_usize..20, beyond in 0_usize..9) {
        let steps = warmup + after;
        for (kind, kwargs) in all() {
            let of = schedule(kind, kwargs.as_object(), warmup as f64, steps, 1e-3).unwrap();
            let all = factors(&of, steps + beyond);
            prop_assert!(all.iter().all(|factor| (0.0..=1.0).contains(factor)), "{kind:?}: {all:?}");
            prop_assert!(all[..warmup].windows(2).all(|pair| pair[0] <= pair[1]), "{kind:?}: {all:?}");
            let peak = match kind {
                // a step ahead of the others
                Kind::CosineWarmupWithMinLr => match warmup.checked_sub(1) {
                    Some(last) => all[last],
                    None => continue,
                },
                _ => all[warmup],
            };
            prop_assert!((peak - 1.0).abs() < 1e-12, "{kind:?}: {all:?}");
        }
    }
}

#[test]
fn wrong_settings_of_a_schedule_are_named() {
    let message = |kind, kwargs: Value| {
        let refused = schedule(kind, kwargs.as_object(), 2.0, 10, 1e-3);
        refused.unwrap_err().to_string()
    };
    let of = "`fit.lr_scheduler_kwargs` of";
    for (kind, kwargs, says) in [
        (
            Kind::Linear,
            json!({"power": 2}),
            format!("{of} `linear`: unknown field `power`, there are no fields"),
        ),
        (
            Kind::ConstantWithWarmup,
            json!({"power": 2}),
            format!("{of} `constant_with_warmup`: unknown field `power`, there are no fields"),
        ),
        (
            Kind::CosineWithRestarts,
            json!({"cycles": 2}),
            format!("{of} `cosine_with_restarts`: unknown field `cycles`, expected `num_cycles`"),
        ),
        (
            Kind::Polynomial,
            json!({"end": 0}),
            format!("{of} `polynomial`: unknown field `end`, expected `lr_end` or `power`"),
        ),
        (
            Kind::WarmupStableDecay,
            json!({"decay": 3}),
            format!(
                "{of} `warmup_stable_decay`: unknown field `decay`, expected one of `num_decay_steps`, \
                 `num_stable_steps`, `warmup_type`, `decay_type`, `min_lr_ratio`, `num_cycles`"
            ),
        ),
        (
            Kind::WarmupStableDecay,
            json!({}),
            format!("{of} `warmup_stable_decay`: missing field `num_decay_steps`"),
        ),
        (
            Kind::WarmupStableDecay,
            json!({"num_decay_steps": 3, "decay_type": "exponential"}),
            format!(
                "{of} `warmup_stable_decay`: unknown variant `exponential`, expected one of `linear`, `cosine`, \
                 `1-sqrt`"
            ),
        ),
        (
            Kind::Cosine,
            json!({"num_cycles": "two"}),
            format!("{of} `cosine`: invalid type: string \"two\", expected f64"),
        ),
    ] {
        assert_eq!(message(kind, kwargs), says);
    }
    let of = "of `fit.lr_scheduler_kwargs` must be";
    for (kind, kwargs, says) in [
        (
            Kind::Cosine,
            json!({"num_cycles": -1}),
            format!("`num_cycles` {of} finite and >= 0, got -1"),
        ),
        (
            Kind::Polynomial,
            json!({"power": -1}),
            format!("`power` {of} finite and >= 0, got -1"),
        ),
        (
            Kind::Polynomial,
            json!({"lr_end": 1e-3}),
            format!("`lr_end` {of} >= 0 and below the learning rate, 0.001, got 0.001"),
        ),
        (
            Kind::InverseSqrt,
            json!({"timescale": 0}),
            format!("`timescale` {of} finite and > 0, got 0"),
        ),
        (
            Kind::CosineWithMinLr,
            json!({"min_lr": 0.1}),
            format!("`min_lr` {of} >= 0 and at most the learning rate, 0.001, got 0.1"),
        ),
        (
            Kind::CosineWithMinLr,
            json!({"min_lr_rate": 1.5}),
            format!("`min_lr_rate` {of} in [0, 1], got 1.5"),
        ),
        (
            Kind::CosineWarmupWithMinLr,
            json!({"min_lr_rate": 0.1, "warmup_lr_rate": -0.5}),
            format!("`warmup_lr_rate` {of} in [0, 1], got -0.5"),
        ),
        (
            Kind::WarmupStableDecay,
            json!({"num_decay_steps": 3, "min_lr_ratio": 2}),
            format!("`min_lr_ratio` {of} in [0, 1], got 2"),
        ),
    ] {
        assert_eq!(message(kind, kwargs), says);
    }
    for kwargs in [json!({}), json!({"min_lr": 1e-4, "min_lr_rate": 0.1})] {
        assert_eq!(
            message(Kind::CosineWithMinLr, kwargs),
            "`cosine_with_min_lr` needs one of `min_lr`, a rate, and `min_lr_rate`, a share of the learning rate, in \
             `fit.lr_scheduler_kwargs`"
        );
    }
}
