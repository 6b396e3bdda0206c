//! AlpacaEval: a model's win rate against a baseline, from preferences that may be fractions.

use crate::error::{Error, Result};
use crate::evaluation::statistics::Estimate;

/// AlpacaEval's win rate, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlpacaWinRate {
    /// `win_rate` and `standard_error`, in percent.
    pub win_rate: Estimate,
    /// `discrete_win_rate`: every preference is rounded to a win, a loss or a draw first.
    pub discrete_win_rate: f64,
    /// `n_wins`: preferences above 1.5.
    pub wins: usize,
    /// `n_wins_base`: preferences below 1.5.
    pub losses: usize,
    /// `n_draws`: preferences of exactly 1.5.
    pub draws: usize,
}

/// AlpacaEval's win rate of a model against the baseline.
///
/// # Equation
/// ```text
/// win rate = 100 · mean(preference − 1),     standard error = 100 · s/√n
/// ```
/// # Shapes
/// `preferences` `[n]` in \[1, 2\]: 1 for the baseline, 2 for the model, 1.5 for a draw; a weighted annotator
/// gives 1 + P(model). 0 is a draw as well, AlpacaEval's older code for it. Leave out what has no preference.
/// # Errors
/// [`Error::Argument`] if there is no preference, or one is neither in \[1, 2\] nor 0.
/// # Properties
/// * 3 − preference for all gives 100 minus the rate, and the same error. The order does not matter.
/// * Preferences 1, 1.5, 2 alone: the discrete rate is the rate, and both are 100 times
///   [`win_rate`](crate::evaluation::human::win_rate) with ties as half.
/// # Departures
/// None from alpaca_eval 0.6.6, `get_winrate`, which drops missing preferences and logs their number; here they
/// cannot be passed. Draws are counted as there, and rounding a preference of a weighted annotator for the
/// discrete rate takes 1.5 as a draw.
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::alpaca_win_rate;
///
/// let rate = alpaca_win_rate(&[1.0, 2.0, 1.5, 1.9])?;
/// assert!((rate.win_rate.value - 100.0 * (0.0 + 1.0 + 0.5 + 0.9) / 4.0).abs() < 1e-12);
/// assert_eq!(rate.discrete_win_rate, 100.0 * (0.0 + 1.0 + 0.5 + 1.0) / 4.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Dubois et al. 2023, arXiv:2305.14387v4; code tatsu-lab/alpaca_eval 0.6.6, `metrics/winrate.py` and
/// `metrics/helpers.py`.
#[doc(alias = "AlpacaEval")]
pub fn alpaca_win_rate(preferences: &[f64]) -> Result<AlpacaWinRate> {
    let function = "alpaca_win_rate";
    if preferences.is_empty() {
        return Err(Error::argument(function, "preferences", "is empty"));
    }
    let mut shares = Vec::with_capacity(preferences.len());
    for (at, preference) in preferences.iter().enumerate() {
        shares.push(share(
            function,
            || format!("preferences[{at}]"),
            *preference,
        )?);
    }
    let percent: Vec<f64> = shares.iter().map(|share| 100.0 * share).collect();
    let count = |holds: fn(f64) -> bool| shares.iter().filter(|share| holds(**share)).count();
    let (wins, losses) = (count(|share| share > 0.5), count(|share| share < 0.5));
    let draws = count(|share| share == 0.5);
    Ok(AlpacaWinRate {
        win_rate: Estimate::of_mean(&percent),
        discrete_win_rate: 100.0 * (wins as f64 + 0.5 * draws as f64) / shares.len() as f64,
        wins,
        losses,
        draws,
    })
}

/// A preference as the model's share, in [0, 1].
pub(super) fn share(
    function: &'static str,
    argument: impl FnOnce() -> String,
    preference: f64,
) -> Result<f64> {
    match preference {
        0.0 => Ok(0.5),
        p if (1.0..=2.0).contains(&p) => Ok(p - 1.0),
        p => {
            let problem = format!("has the preference {p}; it must be in [1, 2], or 0 for a draw");
            Err(Error::argument(function, argument(), problem))
        }
    }
}
