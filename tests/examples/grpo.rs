#[path = "../../examples/grpo.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use example::{METHODS, PROMPTS, SHARES, STEPS, kept};

/// Sums over all groups in f64, written in two ways.
const EXACT: f64 = 1e-10;
/// That of the library's default, beside a deviation.
const EPSILON: f64 = 1e-4;

/// P(k of n succeed), by Pascal's triangle.
fn binomial(n: usize, k: usize, p: f64) -> f64 {
    let mut row = vec![1.0];
    for _ in 0..n {
        let at = |i: usize| row.get(i).copied().unwrap_or(0.0);
        let before = |i: usize| i.checked_sub(1).map_or(0.0, at);
        row = (0..=row.len())
            .map(|i| at(i) * (1.0 - p) + before(i) * p)
            .collect();
    }
    row[k]
}

/// Σ_k P(k) · m (1 − m) / d(m) / (p (1 − p)), with m = k/n the mean of the group and d what its rewards are divided by.
fn weight(n: usize, p: f64, divisor: impl Fn(f64) -> f64) -> f64 {
    let of = |k: usize| {
        let m = k as f64 / n as f64;
        binomial(n, k, p) * m * (1.0 - m) / divisor(m)
    };
    (1..n).map(of).sum::<f64>() / (p * (1.0 - p))
}

/// The same of a method: by which function it divides.
fn weight_of(name: &str, n: usize, p: f64) -> f64 {
    let size = n as f64;
    weight(n, p, |m| match name {
        "RLOO" => 1.0 - 1.0 / size,
        "Dr. GRPO" => 1.0,
        "MaxRL" => m,
        _ => (m * (1.0 - m) * size / (size - 1.0)).sqrt() + EPSILON,
    })
}

#[test]
fn grpo_weighs_hard_and_easy_prompts_alike_and_gives_up_the_rarer_kind() {
    let report = example::run().unwrap();
    for (row, (name, n, _)) in report.rows.iter().zip(METHODS) {
        for (got, p) in row.weights.iter().zip(PROMPTS) {
            let want = weight_of(name, n, p);
            assert!((got - want).abs() < EXACT * want, "{name}: {got} {want}");
        }
    }
    let [rloo, dr, small, grpo, max] = &report.rows[..] else {
        panic!("five methods");
    };
    let n = example::GROUP as f64;

    // p and p (1 − 1/G): all alike
    let alike = |row: &example::Row, w: f64| row.weights.iter().all(|x| (x - w).abs() < EXACT);
    assert!(alike(rloo, 1.0) && alike(dr, 1.0 - 1.0 / n));
    // 2 arcsin √p: the same weight at p and 1 − p, most at the ends, and no more than its limit and the group allow
    for row in [small, grpo] {
        let w = &row.weights;
        assert!((w[0] - w[4]).abs() < 1e-9 && (w[1] - w[3]).abs() < 1e-9);
        assert!(w[0] > w[1] && w[1] > w[2], "{w:?}");
    }
    assert!(grpo.weights[0] > 1.8 * grpo.weights[2] && small.weights[0] < 1.1 * small.weights[2]);
    let most = n.sqrt() * (1.0 - 1.0 / n);
    for (w, p) in grpo.weights.iter().zip(PROMPTS) {
        assert!(*w < most.min(1.0 / (p * (1.0 - p)).sqrt()), "{p}: {w}");
    }
    // log p: falling, below its limit
    for (w, p) in max.weights.iter().zip(PROMPTS) {
        assert!(*w < 1.0 / p + EXACT, "{p}: {w}");
    }
    assert!(max.weights.is_sorted_by(|a, b| a > b));

    // the rarer kind: 1 − π(A) is 1/(2 α t (0.6 − 0.4) u′(1)) after t steps, and MaxRL has 0.6 u′(π) = 0.4 u′(1 − π)
    for row in [rloo, dr, small, grpo] {
        assert!(row.kept > 0.995, "{}: {}", row.name, row.kept);
    }
    assert!(grpo.kept > rloo.kept);
    let end = |p: f64| {
        SHARES[0] * weight_of("MaxRL", example::GROUP, p)
            - SHARES[1] * weight_of("MaxRL", example::GROUP, 1.0 - p)
    };
    let (mut low, mut high) = (0.3, 0.9);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        *(if end(middle) > 0.0 {
            &mut low
        } else {
            &mut high
        }) = middle;
    }
    assert!((max.kept - low).abs() < 1e-9, "{} {low}", max.kept);
    assert!((max.kept - SHARES[0]).abs() < 1e-3, "{}", max.kept);
    assert_header_shows(include_str!("../../examples/grpo.rs"), &report.table());
}

/// However long it trains: what is left of the other answer goes like one over the number of steps.
#[test]
fn nothing_of_the_rarer_kind_is_kept() {
    let (name, n, advantages) = METHODS[3];
    let left = |steps| 1.0 - kept(n, advantages, steps).unwrap();
    let rate = 2.0 * STEPS.0 * (SHARES[0] - SHARES[1]) * weight_of(name, n, 1.0 - 1e-9);
    let got = 1.0 / (left(2 * STEPS.1) * rate) - 1.0 / (left(STEPS.1) * rate);
    let want = STEPS.1 as f64;
    assert!((got / want - 1.0).abs() < 0.02, "{got} steps of {want}");
}
