use crate::common::draws::best_of_formula;
use crate::common::policy::{REFERENCE, REWARDS, descend, descend_free, distance, log};
use crate::common::{matrix, numbers, vector};
use candle_align::{Candidates, Result, RrhfConfig, rrhf_loss};
use candle_core::Tensor;

fn loss(ell: &Tensor, lengths: &[f64], config: &RrhfConfig) -> Result<Tensor> {
    let (lengths, rewards) = (matrix(&[lengths]), matrix(&[&REWARDS]));
    let c = Candidates::new(&ell.unsqueeze(0)?, &lengths, &rewards, None)?;
    Ok(rrhf_loss(&c, config)?.loss.sum_all()?)
}

fn ranking(weight: f64) -> RrhfConfig {
    RrhfConfig {
        rank_weight: weight,
        sft_weight: 0.0,
    }
}

#[test]
fn ranking_alone_stops_when_the_order_is_right() {
    let config = ranking(1.0);
    let p = descend(&log(&REFERENCE), 0.01, 40, |ell| {
        loss(ell, &[1.0; 4], &config)
    });
    let left = loss(&vector(&log(&p)), &[1.0; 4], &config).unwrap();
    assert_eq!(numbers(&left), [0.0]);
    assert!(p[3] > p[1] && p[1] > p[2] && p[2] > p[0], "{p:?}");
    // barely ordered: neighbors are within a few steps of each other
    assert!(p[3] / p[0] < 1.2, "{p:?}");
}

#[test]
fn a_uniform_policy_does_not_move() {
    let config = ranking(1.0);
    let p = descend(&[0.0; 4], 0.1, 10, |ell| loss(ell, &[1.0; 4], &config));
    assert!(distance(&p, &[0.25; 4]) < 1e-15, "{p:?}");
}

/// Lengths that differ, so that a missing division shows.
const LENGTHS: [f64; 4] = [1.0, 2.0, 3.0, 4.0];

fn means(p: &[f64]) -> Vec<f64> {
    p.iter().zip(LENGTHS).map(|(p, n)| p.ln() / n).collect()
}

#[test]
fn answers_of_equal_means_do_not_move_whatever_their_lengths() {
    let config = ranking(1.0);
    // exactly equal: −½ per token
    let start = LENGTHS.map(|n| -0.5 * n);
    let end = descend_free(&start, 0.1, 10, |ell| loss(ell, &LENGTHS, &config));
    assert_eq!(end, start);

    // π = e^{|y| c}, and a hair in the order of the rewards, so that rounding makes no pair
    let total = |c: f64| -> f64 { LENGTHS.iter().map(|n| (n * c).exp()).sum() };
    let (mut low, mut high) = (-1.0, 0.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        match total(middle) > 1.0 {
            true => high = middle,
            false => low = middle,
        }
    }
    let start: [f64; 4] = std::array::from_fn(|i| LENGTHS[i] * (low + 1e-9 * REWARDS[i]));
    let p = descend(&start, 0.1, 10, |ell| loss(ell, &LENGTHS, &config));
    let want = [0.5187900637, 0.2691431302, 0.1396287816, 0.0724380245];
    assert!(distance(&p, &want) < 1e-8, "{p:?}");
    // by their sums the worst answer leads by far
    assert!(p[0] > 5.0 * p[3]);
}

#[test]
fn ranking_alone_orders_means_not_sums() {
    let config = ranking(1.0);
    let p = descend(&log(&REFERENCE), 0.01, 200, |ell| {
        loss(ell, &LENGTHS, &config)
    });
    let left = loss(&vector(&log(&p)), &LENGTHS, &config).unwrap();
    assert_eq!(numbers(&left), [0.0]);
    let m = means(&p);
    assert!(m[3] > m[1] && m[1] > m[2] && m[2] > m[0], "{m:?}");
    assert!(p[0] > p[1] && p[1] > p[2] && p[2] > p[3], "{p:?}");
}

#[test]
fn a_single_best_answer_takes_all_like_one_over_the_steps() {
    // as under SFT alone: 1 − π(best) → (K − 1)/(KαN); what the first steps left uneven among the
    // other answers fades like a small power of N
    let sft_only = RrhfConfig {
        rank_weight: 0.0,
        ..Default::default()
    };
    for (config, tolerance) in [(RrhfConfig::default(), 0.05), (sft_only, 0.01)] {
        let rate = |steps: usize| {
            let p = descend(&log(&REFERENCE), 1.0, steps, |ell| {
                loss(ell, &[1.0; 4], &config)
            });
            (1.0 - p[3]) * steps as f64
        };
        let (half, whole) = (rate(1000), rate(2000));
        assert!((whole - 0.75).abs() < tolerance, "{config:?}: {whole}");
        assert!((whole / half - 1.0).abs() < 0.02, "{half} {whole}");
    }
}

/// Where ranking, at a weight per pair, beside −Σ q(y) log π(y) ends. At a tie the hinge chatters by
/// a share of the step α.
fn beside(q: &[f64], weight: f64, alpha: f64) -> Vec<f64> {
    let config = ranking(weight);
    descend(&log(&REFERENCE), alpha, (100.0 / alpha) as usize, |ell| {
        let sft = (ell * vector(q))?.sum_all()?.neg()?;
        Ok((loss(ell, &[1.0; 4], &config)? + sft)?)
    })
}

#[test]
fn the_best_of_two_draws_are_made_monotone() {
    let q = best_of_formula(&REFERENCE, &REWARDS, 2);
    assert!(distance(&q, &[0.16, 0.45, 0.20, 0.19]) < 1e-12, "{q:?}");

    // only answer 3, the best, is rarer than a worse one; each violated pair moves its weight
    let middle = (q[1] + q[3]) / 2.0;
    let pooled = [q[0], middle, q[2], middle];
    for (weight, alpha, want) in [
        (0.0, 0.1, [q[0], q[1], q[2], q[3]]),
        (
            0.01,
            0.1,
            [q[0], q[1] - 0.01, q[2] - 0.01 + 0.01, q[3] + 0.01],
        ),
        (0.1, 0.1, [q[0], q[1] - 0.1, q[2], q[3] + 0.1]),
        (0.1, 0.05, [q[0], q[1] - 0.1, q[2], q[3] + 0.1]),
        // from 0.13 on the two pool, whatever the weight
        (0.2, 0.1, pooled),
        (0.2, 0.05, pooled),
        (1.0, 0.02, pooled),
    ] {
        let p = beside(&q, weight, alpha);
        assert!(
            distance(&p, &want) < 0.5 * alpha,
            "weight {weight}, α {alpha}: {p:?} against {want:?}"
        );
    }
}

#[test]
fn the_best_of_eight_draws_are_ordered_already() {
    let q = best_of_formula(&REFERENCE, &REWARDS, 8);
    let config = ranking(1.0);
    let p = descend(&log(&REFERENCE), 1.0, 3000, |ell| {
        let sft = (ell * vector(&q))?.sum_all()?.neg()?;
        Ok((loss(ell, &[1.0; 4], &config)? + sft)?)
    });
    // answer 0 is rare in q, and its logit comes down like a small power of the steps
    assert!(distance(&p, &q) < 5e-5, "{p:?} against {q:?}");
}

#[test]
fn the_policys_own_answers_are_made_uniform() {
    for weight in [0.1, 0.2] {
        let p = beside(&REFERENCE, weight, 0.1);
        assert!(distance(&p, &[0.25; 4]) < 0.01, "{weight}: {p:?}");
    }
    // less weight stops short of it: 0 and 1 pool, so do 2 and 3, and only three pairs are left to
    // move 0.05 each from the former to the latter
    let p = beside(&REFERENCE, 0.05, 0.02);
    assert!(distance(&p, &[0.275, 0.275, 0.225, 0.225]) < 0.005, "{p:?}");
}
