use crate::common::policy::{REFERENCE, REWARDS, descend, distance, log};
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
    // barely ordered: neighbours are within a few steps of each other
    assert!(p[3] / p[0] < 1.2, "{p:?}");
}

#[test]
fn a_uniform_policy_does_not_move() {
    let config = ranking(1.0);
    let p = descend(&[0.0; 4], 0.1, 10, |ell| loss(ell, &[1.0; 4], &config));
    assert!(distance(&p, &[0.25; 4]) < 1e-15, "{p:?}");
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

#[test]
fn the_best_of_two_draws_are_made_monotone() {
    // P(y is the better of two draws from ρ) = F(r)² − F(r⁻)²
    let mut q = [0.0; 4];
    for (i, r) in REWARDS.iter().enumerate() {
        let below: f64 = (0..4)
            .filter(|&j| REWARDS[j] < *r)
            .map(|j| REFERENCE[j])
            .sum();
        q[i] = (below + REFERENCE[i]).powi(2) - below.powi(2);
    }
    assert!(distance(&q, &[0.16, 0.45, 0.20, 0.19]) < 1e-12, "{q:?}");

    // only answer 3, the best, is rarer than a worse one; each violated pair moves its weight
    let middle = (q[1] + q[3]) / 2.0;
    for (weight, want) in [
        (0.0, q),
        (0.01, [q[0], q[1] - 0.01, q[2] - 0.01 + 0.01, q[3] + 0.01]),
        (0.1, [q[0], q[1] - 0.1, q[2], q[3] + 0.1]),
        (0.2, [q[0], middle, q[2], middle]),
    ] {
        for alpha in [0.1, 0.05] {
            let config = ranking(weight);
            let p = descend(&log(&REFERENCE), alpha, (100.0 / alpha) as usize, |ell| {
                let sft = (ell * vector(&q))?.sum_all()?.neg()?;
                Ok((loss(ell, &[1.0; 4], &config)? + sft)?)
            });
            // at a tie the hinge chatters by a share of the step
            assert!(
                distance(&p, &want) < 0.5 * alpha,
                "weight {weight}, α {alpha}: {p:?} against {want:?}"
            );
        }
    }
}
