use crate::common::policy::{REFERENCE, REWARDS, descend, distance, log};
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::{
    Candidates, ListLoss, Result, StableAlignmentConfig, StableAlignmentForm, stable_alignment_loss,
};
use candle_core::{Tensor, Var};

/// Lengths that differ, so that a missing division shows.
const LENGTHS: [f64; 4] = [3.0, 2.0, 4.0, 5.0];

fn config(form: StableAlignmentForm) -> StableAlignmentConfig {
    StableAlignmentConfig {
        margin: 1.0,
        rating_scale: 1.0,
        form,
        ..Default::default()
    }
}

fn loss(ell: &Tensor, lengths: &[f64], config: &StableAlignmentConfig) -> Result<ListLoss> {
    let (lengths, rewards) = (matrix(&[lengths]), matrix(&[&REWARDS]));
    let c = Candidates::new(&ell.unsqueeze(0)?, &lengths, &rewards, None)?;
    stable_alignment_loss(&c, config)
}

fn hinge(p: &[f64], config: &StableAlignmentConfig) -> f64 {
    let out = loss(&vector(&log(p)), &LENGTHS, config).unwrap();
    numbers(&out.ranking)[0]
}

#[test]
fn the_first_step() {
    let start = Var::from_tensor(&vector(&log(&REFERENCE))).unwrap();
    let out = loss(&start, &LENGTHS, &config(StableAlignmentForm::Mean)).unwrap();
    let grads = out.loss.backward().unwrap();
    assert_close(
        &numbers(grads.get(&start).unwrap()),
        &[
            0.2 / (3.0 * 3.0),
            0.2 / (3.0 * 2.0),
            0.2 / (3.0 * 4.0),
            -1.2 / 5.0,
        ],
        EXACT,
        "first step",
    );
}

#[test]
fn one_answer_driven_away_pays_for_all() {
    let mean = config(StableAlignmentForm::Mean);
    // mean CEᵢ − CE_b = 1.5, the mean gap, where the first answer has
    // CE₀ = 3 (1.5 + ln 3 / 5) − ln 3 / 2 − ln 3 / 4
    let third = 3.0f64.ln();
    let edge = (-3.0 * (3.0 * (1.5 + third / 5.0) - third / 2.0 - third / 4.0)).exp();
    assert!((edge - 2.247e-6).abs() < 1e-9, "{edge:e}");
    let at = |first: f64| {
        let rest = (1.0 - first) / 3.0;
        [first, rest, rest, rest]
    };
    // the best answer is as likely as two worse ones, and nothing is left to say against it
    assert_eq!(hinge(&at(2.247e-6 - 1e-9), &mean), 0.0);
    assert!(hinge(&at(2.3e-6), &mean) > 0.0);
    assert!(hinge(&at(2.247e-6), &config(StableAlignmentForm::Max)) > 0.2);

    // a half-space: what lies between two policies of hinge 0, in cross-entropy, has hinge 0
    let one = log(&at(1e-6));
    let other = log(&[0.1, 1e-5, 0.1, 0.8]);
    let of = |ell: &[f64]| numbers(&loss(&vector(ell), &LENGTHS, &mean).unwrap().ranking)[0];
    assert_eq!((of(&one), of(&other)), (0.0, 0.0));
    for share in [0.25, 0.5, 0.75] {
        let between: Vec<f64> = one
            .iter()
            .zip(&other)
            .map(|(a, b)| share * a + (1.0 - share) * b)
            .collect();
        assert_eq!(of(&between), 0.0, "{share}");
    }
}

#[test]
fn the_hinge_alone_stops_at_its_edge() {
    // the loss less its imitation term
    let config = StableAlignmentConfig {
        ratio: 1.0,
        ..config(StableAlignmentForm::Mean)
    };
    let p = descend(&log(&REFERENCE), 0.1, 200, |ell| {
        let imitation = (ell.get(3)? / LENGTHS[3])?;
        Ok((loss(ell, &LENGTHS, &config)?.loss.sum_all()? + imitation)?)
    });
    assert_eq!(hinge(&p, &config), 0.0);
    // within a step of where mean CEᵢ − CE_b is the mean gap
    let cross_entropy: Vec<f64> = p.iter().zip(LENGTHS).map(|(p, n)| -p.ln() / n).collect();
    let lead = (cross_entropy[0] + cross_entropy[1] + cross_entropy[2]) / 3.0 - cross_entropy[3];
    assert!((1.5..1.51).contains(&lead), "{lead}");
}

#[test]
fn the_best_answer_takes_all_like_one_over_the_steps() {
    // 1 − π(best) → n_b (K − 1)/(KαN), as under imitation alone; the first steps left the others
    // uneven, which fades like a small power of N
    for (form, length) in [
        (StableAlignmentForm::Mean, 1.0),
        (StableAlignmentForm::Max, 1.0),
        (StableAlignmentForm::Mean, 2.0),
    ] {
        let config = config(form);
        let reach = |steps: usize| {
            descend(&log(&REFERENCE), length, steps, |ell| {
                loss(ell, &[length; 4], &config)?
                    .loss
                    .sum_all()
                    .map_err(Into::into)
            })
        };
        let (half, whole) = (reach(600), reach(1200));
        // α = n_b: the two cancel
        let rate = (1.0 - whole[3]) * 1200.0;
        assert!((rate - 0.75).abs() < 0.05, "{form:?}, {length}: {rate}");
        let ratio = rate / ((1.0 - half[3]) * 600.0);
        assert!((ratio - 1.0).abs() < 0.03, "{form:?}: {ratio}");
        assert!(distance(&whole, &[0.0, 0.0, 0.0, 1.0]) < 1e-3);
        // the hinge has gone off, for good: half way too
        for p in [half, whole] {
            let out = loss(&vector(&log(&p)), &[length; 4], &config).unwrap();
            assert_eq!(numbers(&out.ranking), [0.0], "{form:?}, {length}");
        }
    }
}
