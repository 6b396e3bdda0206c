//! Weights for the difference between the trained policy and what an answer was drawn from.
//!
//! The answers of a run are drawn by the trained model itself: the two differ by `temperature`, `top_p` and `top_k`, and
//! agree where these change nothing. Answers of `completions_file` may come from another program or an older model, with
//! their `log_probs`.

use candle_align::online::ratio::RatioLevel;
use candle_align::online::rollout_correction::{Beyond, RolloutWeightConfig};
use serde::{Deserialize, Serialize};

/// TRL's modes: the weight of a token or of a whole answer, at its bound or 0 beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    TokenTruncate,
    TokenMask,
    SequenceTruncate,
    SequenceMask,
}

impl Correction {
    pub fn of_tokens(self) -> bool {
        matches!(self, Self::TokenTruncate | Self::TokenMask)
    }

    pub fn config(self, low: Option<f64>, high: Option<f64>) -> RolloutWeightConfig {
        RolloutWeightConfig {
            level: match self.of_tokens() {
                true => RatioLevel::Token,
                false => RatioLevel::SequenceSum,
            },
            low,
            high,
            beyond: match self {
                Self::TokenTruncate | Self::SequenceTruncate => Beyond::Truncate,
                Self::TokenMask | Self::SequenceMask => Beyond::Drop,
            },
        }
    }
}
