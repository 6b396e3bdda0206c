#[path = "../../examples/judges.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;
use example::QUALITY;

/// The standard normal's density.
fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Σ f(x) over a fine grid, weighted by a normal's density.
fn expectation(mean: f64, deviation: f64, f: impl Fn(f64) -> f64) -> f64 {
    let step = 0.01;
    let x = |at: i32| f64::from(at) * step;
    let each = |at| density(x(at)) * step * f(mean + deviation * x(at));
    (-800..=800).map(each).sum()
}

/// Φ.
fn normal(x: f64) -> f64 {
    expectation(0.0, 1.0, |y| if y <= x { 1.0 } else { 0.0 })
}

#[test]
fn a_sorted_list_turns_the_ranking_over_and_both_orders_mend_it() {
    let report = example::run().unwrap();
    let rows = &report.rows;
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[1].tau, -1.0, "sorted by name");
    for row in [&rows[0], &rows[2], &rows[3], &rows[4], &rows[5]] {
        assert_eq!(row.tau, 1.0, "{}", row.name);
    }
    let agreement: Vec<f64> = rows.iter().map(|row| row.agreement).collect();
    // a random order does not mend the verdicts, both orders do, more scores do more
    assert!(agreement[2] < agreement[4] - 0.05 && agreement[4] < agreement[5] - 0.03);
    assert!(agreement[3] > agreement[4], "where it speaks, it is right");
    assert!(rows[3].ties > 0.3 && rows[5].ties == 0.0);

    // the judge prefers the first with Φ((d + 1)/0.8√2), d the difference of the answers
    let noise = 0.8 * 2f64.sqrt();
    let table: Vec<f64> = (-1000..=1000)
        .map(|at| normal(f64::from(at) / 100.0))
        .collect();
    let phi = |x: f64| table[((x.clamp(-10.0, 10.0) + 10.0) * 100.0).round() as usize];
    let (mut consistent, mut pairs) = (0.0, 0.0);
    for (at, first) in QUALITY.iter().enumerate() {
        for second in &QUALITY[at + 1..] {
            consistent += expectation(first - second, 2f64.sqrt(), |d| {
                let (forward, backward) = (phi((d + 1.0) / noise), phi((1.0 - d) / noise));
                forward * (1.0 - backward) + (1.0 - forward) * backward
            });
            pairs += 1.0;
        }
    }
    // 2,000 prompts are independent; their pairs are not
    let want: f64 = consistent / pairs;
    let error = (want * (1.0 - want) / 2000.0).sqrt();
    assert!(
        (report.consistent - want).abs() < 4.0 * error,
        "{} {want}",
        report.consistent
    );
    assert!(report.toward_first > 0.4, "{}", report.toward_first);
    assert_header_shows(include_str!("../../examples/judges.rs"), &report.table());
}
