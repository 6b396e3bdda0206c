//! How often a model's answer is preferred to another's.

use crate::error::{Error, Result};
use crate::evaluation::outcome::Outcome;
use crate::evaluation::statistics::Estimate;
use serde::{Deserialize, Serialize};

/// What a tie counts. Papers differ, and rarely say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// Half a win: AlpacaEval, and MT-bench's `win_rate_adjusted`.
    #[default]
    Half,
    /// Nothing, but it is a game: MT-bench's `win_rate`.
    Loss,
    /// It is no game: the win rates of Chatbot Arena's heat maps.
    Dropped,
}

/// Wins, losses and ties of the first answer, and its win rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WinRate {
    /// How often the first answer was preferred.
    pub wins: usize,
    /// How often the second was.
    pub losses: usize,
    /// How often neither was.
    pub ties: usize,
    /// The win rate in [0, 1], with its standard error over games.
    pub rate: Estimate,
}

/// The win rate of the first answers.
///
/// # Equation
/// ```text
/// half      (wins + ½ ties) / (wins + losses + ties)
/// loss      wins / (wins + losses + ties)
/// dropped   wins / (wins + losses)
/// error     s/√n of the scores of the games that count
/// ```
/// # Shapes
/// `outcomes` `[n]`, one for each comparison, with the model of interest first.
/// # Errors
/// [`Error::Argument`] if no game is left.
/// # Properties
/// * Swapping all outcomes gives one minus the rate, and the same error, for half and dropped; with ties as
///   losses the two rates add up to less than 1.
/// * Without ties the three conventions agree. The order of the games does not matter.
/// * s has n − 1 below: the error of one game is NaN.
/// # Departures
/// None from AlpacaEval (half, in percent there) and FastChat (half and loss). The error assumes independent
/// games: several votes on one prompt make it too small.
/// # Examples
/// ```
/// use candle_align::evaluation::Outcome::{First, Second, Tie};
/// use candle_align::evaluation::human::{Ties, win_rate};
///
/// let games = [First, First, Tie, Second];
/// assert_eq!(win_rate(&games, Ties::Half)?.rate.value, 2.5 / 4.0);
/// assert_eq!(win_rate(&games, Ties::Loss)?.rate.value, 2.0 / 4.0);
/// assert_eq!(win_rate(&games, Ties::Dropped)?.rate.value, 2.0 / 3.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4; authors' code lm-sys/FastChat 0.2.36, `llm_judge/show_result.py`;
/// Dubois et al. 2023, arXiv:2305.14387v4.
pub fn win_rate(outcomes: &[Outcome], ties: Ties) -> Result<WinRate> {
    let score = |outcome: &Outcome| match (outcome, ties) {
        (Outcome::Tie, Ties::Loss) => Some(0.0),
        (Outcome::Tie, Ties::Dropped) => None,
        _ => Some(outcome.score()),
    };
    let scores: Vec<f64> = outcomes.iter().filter_map(score).collect();
    if scores.is_empty() {
        return Err(Error::argument(
            "win_rate",
            "outcomes",
            "has no game that counts",
        ));
    }
    let count = |of| outcomes.iter().filter(|outcome| **outcome == of).count();
    Ok(WinRate {
        wins: count(Outcome::First),
        losses: count(Outcome::Second),
        ties: count(Outcome::Tie),
        rate: Estimate::of_mean(&scores),
    })
}
