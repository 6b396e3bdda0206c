#[path = "../../examples/rlhf.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::draws::kl;
use crate::common::policy::{BETA, REFERENCE, REWARDS, distance, tilted};

/// What gradient descent reaches where the objective is smooth at its optimum.
const REACHED: f64 = 1e-9;
/// Of the rate at which the best answer is approached, which is one of the limit.
const RATE: f64 = 0.05;

#[test]
fn where_the_kl_stands_decides_where_training_ends() {
    let report = example::run().unwrap();
    let policy = |name: &str| {
        let mut rows = report.policies.iter();
        &rows
            .find(|row| row.0 == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .1
    };
    let star = tilted(&REFERENCE, &REWARDS, BETA);
    for name in ["π*", "k₁ in the reward", "k₂ as a loss"] {
        assert!(distance(policy(name), &star) < REACHED, "{name}");
    }

    // π (λ − r) / π_ref is β for every answer, with one λ
    let k3 = policy("k₃ as a loss");
    let lambda: Vec<f64> = (0..4)
        .map(|i| BETA * REFERENCE[i] / k3[i] + REWARDS[i])
        .collect();
    assert!(
        distance(&lambda, &[lambda[0]; 4]) < 10.0 * REACHED,
        "{lambda:?}"
    );
    let away = distance(k3, &star);
    assert!((away - 0.117).abs() < 5e-4, "{away}");

    // without a penalty: max r − E r → (K − 1)/(KαN), in nats of reward
    let k1 = policy("k₁ as a loss");
    let gap: f64 = (0..4).map(|i| k1[i] * (2.0 - REWARDS[i])).sum();
    assert!((gap * 4.0 * 2.0 * 2000.0 / 3.0 - 1.0).abs() < RATE, "{gap}");

    // the best policy at its KL, by another solver
    let held = policy("k₁ in the reward, KL ½");
    assert!((kl(held, &REFERENCE) - 0.5).abs() < REACHED);
    assert!(distance(held, &tilted(&REFERENCE, &REWARDS, 0.7143512638)) < REACHED);
    assert_header_shows(include_str!("../../examples/rlhf.rs"), &report.table());
}
