#[path = "../../examples/raft.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::draws::best_of_formula;
use crate::common::policy::{REFERENCE, REWARDS, distance, normalized};

/// Two exact computations of one law in f64.
const EXACT: f64 = 1e-12;

#[test]
fn rounds_multiply_and_a_low_temperature_sharpens() {
    let report = example::run().unwrap();
    let policies: Vec<&Vec<f64>> = report.policies.iter().map(|row| &row.1).collect();
    assert_eq!(policies.len(), 5);
    for (row, n) in [(1, 2), (2, 8), (3, 8)] {
        let want = best_of_formula(&REFERENCE, &REWARDS, n);
        assert!(
            distance(policies[row], &want) < EXACT,
            "{}",
            report.policies[row].0
        );
    }
    // p^{1/λ} ten times
    let power = 0.85f64.powi(-10);
    let want = normalized(&REFERENCE.map(|p| p.powf(power)));
    assert!(distance(policies[4], &want) < EXACT);
    assert!(
        (policies[4][0] - 0.79).abs() < 5e-3,
        "79 %: {}",
        policies[4][0]
    );

    // nothing holds the policy back
    let mut policy = REFERENCE.to_vec();
    for _ in 0..8 {
        policy = example::round(&policy, &REWARDS, 2, 1.0).unwrap();
    }
    assert!(policy[3] > 1.0 - 1e-9, "{policy:?}");
    assert_header_shows(include_str!("../../examples/raft.rs"), &report.table());
}
