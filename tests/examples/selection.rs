#[path = "../../examples/selection.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use example::{ANSWERS, GRADES, NOISE};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

#[test]
fn a_filter_multiplies_each_share_by_the_chance_to_pass() {
    let report = example::run().unwrap();
    let passes = |answer: usize, threshold: f64| -> f64 {
        let of = NOISE
            .iter()
            .filter(|(noise, _)| (GRADES[answer] + noise).min(5.0) >= threshold);
        of.map(|(_, quarters)| *quarters as f64 / 4.0).sum()
    };
    let graded = |threshold: f64| -> [f64; 4] {
        std::array::from_fn(|y| ANSWERS[y].1 as f64 * passes(y, threshold))
    };
    let weights = [graded(0.0), graded(4.5), graded(5.0), [1.0; 4]];
    assert_eq!(report.filters.len(), weights.len());
    for (filter, weights) in report.filters.iter().zip(weights) {
        let total: f64 = weights.iter().sum();
        assert_eq!(filter.kept as f64, total, "{}", filter.name);
        for (got, weight) in filter.learned.iter().zip(weights) {
            assert!(
                (got - weight / total).abs() < REACHED,
                "{}: {got}",
                filter.name
            );
        }
    }
    // the better answer is behind the more frequent one, until the threshold parts them
    let learned = |i: usize| report.filters[i].learned;
    assert!(learned(1)[1] > 2.0 * learned(1)[3]);
    assert!((learned(2)[1] - learned(2)[3]).abs() < REACHED);
    assert_header_shows(include_str!("../../examples/selection.rs"), &report.table());
}
