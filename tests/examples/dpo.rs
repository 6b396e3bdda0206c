#[path = "../../examples/dpo.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::policy::{BETA, REFERENCE, REWARDS, distance, normalized, tilted};

/// What gradient descent reaches where the objective is smooth at its optimum.
const REACHED: f64 = 1e-9;

#[test]
fn dpo_and_rlhf_reach_one_policy_and_an_answer_never_compared_pays() {
    let report = example::run().unwrap();
    let star = tilted(&REFERENCE, &REWARDS, BETA);
    let (names, policies): (Vec<_>, Vec<_>) = report.policies.iter().cloned().unzip();
    let told = [
        "π_ref",
        "π*",
        "RLHF, told the rewards",
        "DPO on all pairs",
        "DPO, D never compared",
    ];
    assert_eq!(names, told);
    for pi in &policies[1..4] {
        assert!(distance(pi, &star) < REACHED, "{pi:?}");
    }

    // those compared keep the sum of their logits, and D keeps its logit
    let partial = &policies[4];
    let mean = (REWARDS[0] + REWARDS[1] + REWARDS[2]) / 3.0;
    let mut weights: Vec<f64> = (0..3)
        .map(|i| REFERENCE[i] * ((REWARDS[i] - mean) / BETA).exp())
        .collect();
    weights.push(REFERENCE[3]);
    assert!(
        distance(partial, &normalized(&weights)) < REACHED,
        "{partial:?}"
    );
    assert!(distance(&normalized(&partial[..3]), &normalized(&star[..3])) < REACHED);
    assert!((partial[3] - 0.079).abs() < 5e-4 && (star[3] - 0.633).abs() < 5e-4);
    assert_header_shows(include_str!("../../examples/dpo.rs"), &report.table());
}
