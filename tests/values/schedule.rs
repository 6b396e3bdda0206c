use crate::common::{EXACT, assert_close};
use candle_align::training::{Convention, Decay, Schedule};
use std::f64::consts::PI;

const DECAYS: [Decay; 3] = [Decay::Constant, Decay::Linear, Decay::Cosine];

#[test]
fn schedules_rise_then_fall() {
    let at = |decay, steps: &[usize]| -> Vec<f64> {
        let schedule = Schedule::new(11, 4, decay, 0.1).unwrap();
        steps.iter().map(|&s| schedule.factor(s)).collect()
    };
    for decay in DECAYS {
        assert_close(
            &at(decay, &[0, 1, 2, 3, 4]),
            &[0.25, 0.5, 0.75, 1.0, 1.0],
            EXACT,
            "rise",
        );
    }
    // steps 4..=10 are the fall: 7 is half way, 10 the last, 99 past the end
    let half = 0.1 + 0.9 * 0.5;
    assert_close(
        &at(Decay::Constant, &[7, 10, 99]),
        &[1.0, 1.0, 1.0],
        EXACT,
        "constant",
    );
    assert_close(
        &at(Decay::Linear, &[7, 10, 99]),
        &[half, 0.1, 0.1],
        EXACT,
        "linear",
    );
    assert_close(
        &at(Decay::Cosine, &[7, 10, 99]),
        &[half, 0.1, 0.1],
        EXACT,
        "cosine",
    );
    let third = 0.1 + 0.9 * (1.0 + (PI / 3.0).cos()) / 2.0;
    assert_close(
        &at(Decay::Cosine, &[6]),
        &[third],
        EXACT,
        "cosine at a third",
    );
    assert_eq!(
        Schedule::new(1, 0, Decay::Linear, 0.0).unwrap().factor(0),
        1.0
    );
}

/// "Past the end it stays where it was", however few steps follow the warm-up.
#[test]
fn past_the_end_a_schedule_stays_where_it_was() {
    for decay in DECAYS {
        for steps in 1..6 {
            for warmup in 0..=steps {
                for make in [Schedule::new, Schedule::transformers] {
                    let schedule = make(steps, warmup, decay, 0.0).unwrap();
                    let last = match schedule.convention {
                        Convention::Inclusive => steps - 1,
                        Convention::Transformers => steps,
                    };
                    for step in [last, last + 1, last + 2, 99, usize::MAX] {
                        let (got, want) = (schedule.factor(step), schedule.factor(last));
                        assert_eq!(got, want, "{schedule:?} at {step}");
                    }
                }
            }
        }
        // all warm-up, or one step after it: the peak
        for warmup in [2, 3] {
            let schedule = Schedule::new(3, warmup, decay, 0.0).unwrap();
            for step in [2, 3, 4, 5] {
                assert_eq!(schedule.factor(step), 1.0, "{schedule:?} at {step}");
            }
        }
    }
}

/// The formulas of Transformers' `optimization.py` with numbers in them.
#[test]
fn the_schedules_of_transformers() {
    let (steps, warmup) = (10, 4);
    for step in 0..=10 {
        let s = step as f64;
        let rise = s / 4.0;
        let p = (s - 4.0) / 6.0;
        for (decay, floor, want) in [
            (Decay::Constant, 0.0, 1.0),
            (Decay::Linear, 0.0, (10.0 - s) / 6.0),
            (Decay::Cosine, 0.0, 0.5 * (1.0 + (PI * p).cos())),
            (Decay::Cosine, 0.2, 0.8 * 0.5 * (1.0 + (PI * p).cos()) + 0.2),
        ] {
            let schedule = Schedule::transformers(steps, warmup, decay, floor).unwrap();
            let want = if step < 4 { rise } else { want };
            let what = format!("{decay:?} {step}");
            assert_close(&[schedule.factor(step)], &[want], EXACT, &what);
        }
    }
    // no warm-up: the first step is at the peak
    let schedule = Schedule::transformers(10, 0, Decay::Linear, 0.0).unwrap();
    assert_close(
        &[schedule.factor(0), schedule.factor(9)],
        &[1.0, 0.1],
        EXACT,
        "no warm-up",
    );
}

#[test]
fn a_schedule_is_read_from_json_as_it_was_written() {
    for make in [Schedule::new, Schedule::transformers] {
        let schedule = make(10, 3, Decay::Linear, 0.25).unwrap();
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }
    // a file from before there were two conventions
    let text = r#"{"steps":10,"warmup":3,"decay":"linear","floor":0.25}"#;
    let schedule: Schedule = serde_json::from_str(text).unwrap();
    assert_eq!(schedule, Schedule::new(10, 3, Decay::Linear, 0.25).unwrap());
}
