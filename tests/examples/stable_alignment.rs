#[path = "../../examples/stable_alignment.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::assert_close;
use crate::common::policy::{REFERENCE, REWARDS, distance, normalized};

/// Of a hinge that is shut within its last step, of size 0.002.
const STEP: f64 = 5e-3;

#[test]
fn the_mean_asks_for_a_lead_in_sum_and_the_largest_for_each_answers_own() {
    let report = example::run().unwrap();
    let policies: Vec<&Vec<f64>> = report.policies.iter().map(|row| &row.1).collect();
    assert_eq!(policies.len(), 6);
    for (name, pi, hinges) in &report.policies {
        assert!((pi.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{name}");
        // CE_D − CEᵢ + (2 − rᵢ) M of the three worse answers
        let missing = [0, 1, 2].map(|i| (pi[i] / pi[3]).ln() + 2.0 - REWARDS[i]);
        let mean: f64 = missing.iter().sum::<f64>() / 3.0;
        let largest = missing.iter().fold(f64::MIN, |a, &b| a.max(b));
        assert_close(hinges, &[mean.max(0.0), largest.max(0.0)], 1e-12, name);
    }
    // content with B and C as likely as D
    let (driven, hinges) = (policies[1], report.policies[1].2);
    assert!((driven[1] - driven[3]).abs() < 1e-9 && hinges[0] == 0.0 && hinges[1] > 1.4);

    // among the worse as before, and by 1.5 behind on average
    let mean = policies[2];
    assert!(distance(&normalized(&mean[..3]), &normalized(&REFERENCE[..3])) < 1e-9);
    let lead: f64 = (0..3).map(|i| (mean[3] / mean[i]).ln() / 3.0).sum();
    assert!((1.5..1.5 + STEP).contains(&lead), "{lead}");
    // the ratings themselves
    let want = normalized(&REWARDS.map(f64::exp));
    assert!(distance(policies[3], &want) < STEP, "{:?}", policies[3]);

    // 1 − π(best) → (K − 1)/(KαN) in both forms
    for pi in &policies[4..] {
        let rate = (1.0 - pi[3]) * example::STEPS as f64;
        assert!((rate - 0.75).abs() < 0.05, "{rate}");
    }
    let source = include_str!("../../examples/stable_alignment.rs");
    assert_header_shows(source, &report.table());
}
