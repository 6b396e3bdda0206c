#[path = "../../examples/conditional_sft.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::policy::{BETA, distance, normalized};
use example::{CLASS_REWARDS, DATA, SHARES};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

#[test]
fn weights_of_classes_cancel_where_the_class_is_told() {
    let report = example::run().unwrap();
    let mixture = |weight: &dyn Fn(usize) -> f64| {
        let of = |y: usize| weight(0) * DATA[0][y] + weight(1) * DATA[1][y];
        normalized(&[0, 1, 2, 3].map(of))
    };
    let want = [
        DATA[0].to_vec(),
        DATA[1].to_vec(),
        DATA[0].to_vec(),
        DATA[0].to_vec(),
        DATA[1].to_vec(),
        mixture(&|c| SHARES[c]),
        mixture(&|c| SHARES[c] * (CLASS_REWARDS[c] / BETA).exp()),
    ];
    assert_eq!(report.policies.len(), want.len());
    for ((name, got), want) in report.policies.iter().zip(&want) {
        assert!(distance(got, want) < REACHED, "{name}: {got:?} {want:?}");
    }
    assert!(distance(&want[5], &want[6]) > 0.2);
    let source = include_str!("../../examples/conditional_sft.rs");
    assert_header_shows(source, &report.table());
}
