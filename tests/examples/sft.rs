#[path = "../../examples/sft.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::assert_close;
use crate::common::policy::normalized;

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

#[test]
fn the_mean_over_each_answers_tokens_divides_the_data_by_the_length() {
    let report = example::run().unwrap();
    let divided = normalized(&[0.25 / 1.0, 0.25 / 2.0, 0.25 / 3.0, 0.25 / 3.0]);
    assert_close(
        &divided,
        &[6.0 / 13.0, 3.0 / 13.0, 2.0 / 13.0, 2.0 / 13.0],
        1e-15,
        "d/|y|",
    );
    let want = [
        ("the data", vec![0.25; 4]),
        ("sum per answer", vec![0.25; 4]),
        ("mean over the tokens", vec![0.25; 4]),
        ("mean of answers' means", divided.clone()),
        ("tokens, one answer each", divided),
    ];
    assert_eq!(report.learned.len(), want.len());
    for ((name, got), (expected, want)) in report.learned.iter().zip(&want) {
        assert_eq!(name, expected);
        assert_close(got, want, REACHED, name);
    }
    assert_header_shows(include_str!("../../examples/sft.rs"), &report.table());
}
