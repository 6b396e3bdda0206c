#[path = "../../examples/rankings.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::policy::{REFERENCE, REWARDS, distance, normalized};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

#[test]
fn a_known_ranking_ends_at_the_best_answer_and_drawn_ones_at_an_optimum() {
    let report = example::run().unwrap();
    let rows: Vec<&Vec<f64>> = report.policies.iter().map(|row| &row.1).collect();
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[0], &REFERENCE);

    // in the order of the rewards, and no two far apart
    let barely = rows[1];
    assert!(barely[0] < barely[2] && barely[2] < barely[1] && barely[1] < barely[3]);
    assert!(barely[3] / barely[0] < 1.2, "{barely:?}");

    // RRHF: 1 − π(best) → (K − 1)/(KαN), as under SFT alone
    let steps = example::STEPS as f64;
    let rate = (1.0 - rows[2][3]) * steps;
    assert!((rate - 0.75).abs() < 0.08, "{rate}");
    // PRO: its SFT part has the weight 0.05 · 3², its ranking part pulls too
    assert!(rows[3][3] > 0.99 && rows[3][3] < 1.0, "{:?}", rows[3]);
    assert!(rows[3][1] > rows[3][2] && rows[3][2] > rows[3][0]);

    // π ∝ e^{|y| r}
    for (row, length) in [(4, 1.0), (5, 3.0)] {
        let want = normalized(&REWARDS.map(|r| (length * r).exp()));
        assert!(distance(rows[row], &want) < REACHED, "{:?}", rows[row]);
    }
    assert_header_shows(include_str!("../../examples/rankings.rs"), &report.table());
}
