#[path = "../../examples/lora.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::assert_close;
use example::{CHANGE, SIZES};

/// What the steps of the example reach of the learned change; the error is its square.
const REACHED: f64 = 1e-4;

#[test]
fn lora_finds_the_truncated_decomposition_in_the_metric_of_the_data() {
    let report = example::run().unwrap();
    assert_eq!(report.ranks.len(), 4);
    let weighted: Vec<f64> = (0..4).map(|i| CHANGE[i] * SIZES[i]).collect();
    assert!(
        weighted.is_sorted(),
        "the order of the data reverses that of the matrix"
    );
    assert!(CHANGE.iter().rev().is_sorted());
    for (adapted, rank) in report.ranks.iter().zip(1..) {
        assert_eq!(adapted.rank, rank);
        let left = 4 - rank;
        let kept: Vec<f64> = (0..4)
            .map(|i| if i < left { 0.0 } else { CHANGE[i] })
            .collect();
        assert_close(&adapted.learned, &kept, REACHED, "the largest of Δ Σ^½");
        let half = |values: &[f64]| 0.5 * values.iter().map(|w| w * w).sum::<f64>();
        assert_close(
            &[adapted.error],
            &[half(&weighted[..left])],
            REACHED * REACHED,
            "error",
        );
        assert_close(
            &[adapted.cut],
            &[half(&weighted[rank..])],
            1e-12,
            "of Δ cut",
        );
        if rank < 4 {
            let times = adapted.cut / adapted.error;
            assert!(
                (1.55..4.0 + REACHED).contains(&times),
                "1.6 to 4 times: {times}"
            );
        }
    }
    assert_header_shows(include_str!("../../examples/lora.rs"), &report.table());
}
