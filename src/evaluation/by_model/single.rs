//! Single answers, each with a score of its own.

use crate::error::{Error, Result, non_negative};
use crate::evaluation::outcome::Outcome;

/// Which of two scores is higher, with a gap within which they tie.
///
/// # Equation
/// ```text
/// tie if │s_a − s_b│ ≤ gap, else the higher one
/// ```
/// # Shapes
/// Two scores on one scale: MT-bench's go from 1 to 10, and its gap is 0.1.
/// # Errors
/// [`Error::Argument`] if a score is not finite, [`Error::Parameter`] unless the gap is finite and at least 0.
/// # Properties
/// * Exchanging the scores swaps the outcome. A score is given without the other answer in sight, so no order
///   can matter; but scores of a judge cluster, and close answers tie.
/// * A gap is no equivalence: a may tie with b and b with c, while a beats c.
/// # Departures
/// FastChat writes −1 for a score that could not be read, and leaves it out of every mean; do so before you
/// call. None from FastChat, whose `TIE_DELTA` is 0.1. Decimal scores that are 0.1 apart may tie or not by
/// their rounding, there and here: 1.1 − 1.0 is above 0.1 in binary, 0.9 − 0.8 below.
/// # Examples
/// ```
/// use candle_align::evaluation::Outcome;
/// use candle_align::evaluation::by_model::compare_scores;
///
/// assert_eq!(compare_scores(8.0, 7.0, 0.1)?, Outcome::First);
/// assert_eq!(compare_scores(8.0, 8.05, 0.1)?, Outcome::Tie);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4, §3.1; authors' code lm-sys/FastChat 0.2.36, `llm_judge/common.py`,
/// `TIE_DELTA`.
///
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn compare_scores(first: f64, second: f64, gap: f64) -> Result<Outcome> {
    let function = "compare_scores";
    non_negative(function, "gap", gap)?;
    for (argument, score) in [("first", first), ("second", second)] {
        if !score.is_finite() {
            let problem = format!("is {score}; it must be finite");
            return Err(Error::argument(function, argument, problem));
        }
    }
    Ok(match first - second {
        d if d.abs() <= gap => Outcome::Tie,
        d if d > 0.0 => Outcome::First,
        _ => Outcome::Second,
    })
}
