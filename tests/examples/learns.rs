#[path = "../../examples/learns.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;

#[test]
fn one_use_line_decides_what_learns() {
    let report = example::run().unwrap();
    let [candle, but_for_the_norm, here] = &report.models[..] else {
        panic!("three models")
    };
    // the same model, whatever its operations
    assert!((candle.before - here.before).abs() < 1e-5);
    assert!((but_for_the_norm.before - here.before).abs() < 1e-5);

    // the last norm cuts all but the output matrix
    assert_eq!(candle.reached, ["output"]);
    assert_eq!(candle.right, ["output"]);
    // attention's own cuts: queries and keys miss their gradient, what is below attention misses a part
    let missing = |name: &&str| !but_for_the_norm.reached.iter().any(|r| r == name);
    let names: Vec<&str> = here.reached.iter().map(String::as_str).collect();
    assert_eq!(names.len(), 11);
    let cut: Vec<&str> = names.iter().copied().filter(missing).collect();
    assert_eq!(cut, ["key", "query"]);
    for name in ["key", "query", "norm1", "embedding"] {
        assert!(!but_for_the_norm.right.iter().any(|r| r == name), "{name}");
    }
    for name in [
        "value", "mix", "norm2", "gate_up", "down", "norm3", "output",
    ] {
        assert!(but_for_the_norm.right.iter().any(|r| r == name), "{name}");
    }
    // every gradient is there and right
    assert_eq!(here.right, here.reached);

    // only one of the three learns the task; the losses of the others fall, too
    let guess = 8f64.ln();
    assert!(
        candle.after < candle.before && candle.after > 0.7 * guess,
        "{}",
        candle.after
    );
    assert!(but_for_the_norm.after < but_for_the_norm.before);
    assert!(
        but_for_the_norm.after > 0.3 * guess,
        "{}",
        but_for_the_norm.after
    );
    assert!(here.after < 0.02 * guess, "{}", here.after);
    assert_header_shows(include_str!("../../examples/learns.rs"), &report.table());
}
