#[path = "../../examples/hindsight.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::draws::{best_of_formula, kl};
use crate::common::policy::{REFERENCE, REWARDS, distance};
use crate::common::sigma;

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

#[test]
fn chain_of_hindsight_goes_no_further_than_the_best_of_two() {
    let report = example::run().unwrap();
    let rows: Vec<&Vec<f64>> = report.policies.iter().map(|row| &row.1).collect();
    assert_eq!(rows.len(), 5);
    // 2pᵢ Σⱼ pⱼ σ(c(rᵢ − rⱼ))
    for (row, certainty) in [(1, 1.0), (2, 4.0), (3, 1000.0)] {
        let over = |i: usize, j: usize| REFERENCE[j] * sigma(certainty * (REWARDS[i] - REWARDS[j]));
        let wins = |i: usize| -> f64 { (0..4).map(|j| over(i, j)).sum() };
        let want: Vec<f64> = (0..4).map(|i| 2.0 * REFERENCE[i] * wins(i)).collect();
        assert!(
            distance(rows[row], &want) < REACHED,
            "{}",
            report.policies[row].0
        );
    }
    let best = best_of_formula(&REFERENCE, &REWARDS, 2);
    assert!(distance(rows[3], &best) < REACHED && distance(rows[4], &best) < REACHED);

    let reward = |pi: &[f64]| -> f64 { pi.iter().zip(REWARDS).map(|(p, r)| p * r).sum() };
    let bound = 2f64.ln() - 0.5;
    assert!((bound - 0.193).abs() < 5e-4);
    for pi in &rows[1..4] {
        assert!(
            pi.iter()
                .zip(REFERENCE)
                .all(|(p, before)| *p <= 2.0 * before)
        );
        assert!(kl(pi, &REFERENCE) <= bound && reward(pi) <= reward(&best) + REACHED);
    }
    assert_header_shows(include_str!("../../examples/hindsight.rs"), &report.table());
}
