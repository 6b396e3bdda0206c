#[path = "../../examples/reward_model.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use crate::common::assert_close;
use crate::common::policy::REWARDS;

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;
/// For numbers that another solver gave to four digits.
const DIGITS: f64 = 2e-4;

#[test]
fn scores_are_the_rewards_up_to_a_constant_for_each_set_of_answers_compared() {
    let report = example::run().unwrap();
    let scores = |name: &str| {
        let mut rows = report.rows.iter();
        let row = rows
            .find(|row| row.name == name)
            .unwrap_or_else(|| panic!("no {name}"));
        let differences: Vec<f64> = row.scores.iter().map(|s| s - row.scores[0]).collect();
        (differences, row.excess, row.scores.iter().sum::<f64>())
    };
    // r up to a constant, which is that of the start: descent does not move the sum
    for (name, start) in [("all pairs", 0.0), ("pairs as π_ref draws them", 9.0)] {
        let (differences, excess, sum) = scores(name);
        assert_close(&differences, &REWARDS, REACHED, name);
        assert_close(&[excess, sum], &[0.0, start], REACHED, name);
    }
    // (−½, ½) and (−¾, ¾): each set around the 0 of its start
    let (differences, excess, _) = scores("A with B, C with D");
    assert_close(
        &differences,
        &[0.0, 1.0, 0.5 - 0.75, 0.5 + 0.75],
        REACHED,
        "two sets",
    );
    assert_close(&[excess], &[0.0], REACHED, "two sets");
    assert!(
        differences[2] < differences[0] && REWARDS[2] > REWARDS[0],
        "C below A"
    );

    let margins = [
        ("margin 1, all pairs", [-1.3854, 0.2244, -0.5747, 1.7357]),
        (
            "margin 1, as π_ref draws",
            [-1.4018, 0.2453, -0.5686, 1.7252],
        ),
    ];
    for (name, want) in margins {
        let (differences, excess, _) = scores(name);
        assert_close(&differences, &want.map(|w| w - want[0]), DIGITS, name);
        assert!(
            differences[3] > 1.5 * REWARDS[3] && excess > 0.02,
            "stretched"
        );
    }
    let (differences, ..) = scores("margin (r_w − r_l)/2");
    assert_close(&differences, &REWARDS.map(|r| 1.5 * r), REACHED, "1½ r");
    assert_header_shows(
        include_str!("../../examples/reward_model.rs"),
        &report.table(),
    );
}
