//! One comparison of two answers, and a game between two models.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which of two answers was preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer that stands first.
    First,
    /// The answer that stands second.
    Second,
    /// Neither.
    Tie,
}

impl Outcome {
    /// The same judgment, told of the two answers in the other order.
    pub fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }

    /// What the first answer got: 1 for a win, 0 for a loss, ½ for a tie.
    pub fn score(self) -> f64 {
        match self {
            Self::First => 1.0,
            Self::Second => 0.0,
            Self::Tie => 0.5,
        }
    }
}

/// A comparison of two models that are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[doc(alias = "battle")]
pub struct Game {
    /// The model whose answer stands first.
    pub first: usize,
    /// The model whose answer stands second.
    pub second: usize,
    /// Whose answer was preferred.
    pub outcome: Outcome,
}

/// Requires games, each between two different models below `models`.
pub(super) fn require_games(function: &'static str, games: &[Game], models: usize) -> Result<()> {
    if games.is_empty() {
        return Err(Error::argument(function, "games", "is empty"));
    }
    for (at, game) in games.iter().enumerate() {
        let problem = match (game.first, game.second) {
            (a, b) if a == b => format!("is a game of model {a} against itself"),
            (a, b) if a.max(b) >= models => {
                format!("names model {}, of {models} numbered from 0", a.max(b))
            }
            _ => continue,
        };
        return Err(Error::argument(function, format!("games[{at}]"), problem));
    }
    Ok(())
}
