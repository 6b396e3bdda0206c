//! Weights for what the program that drew an answer thinks of it and the trainer does not.
//!
//! The answers of a run are drawn by the trained model itself, token by token; the trainer reads them whole. The two agree
//! to rounding. Answers of `completions_file` may come from another program or an older model, with their `log_probs`.

use super::super::super::error::{Error, Result};
use super::super::objective::Text;
use super::super::objective::text::log_probs;
use super::fit::Learner;
use super::rollout::{Answer, of_tokens};
use candle_align::decoder::{Decoder, Mode};
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

impl Learner<'_> {
    /// Keeps the sampler's log-probabilities beside the trainer's, where weights come from their difference.
    pub(super) fn correct(&self, decoder: &Decoder, answers: &mut [Answer]) -> Result<()> {
        let (online, most) = (&self.settings.online, self.settings.fit.max_tokens);
        if online.importance_sampling_mode.is_none() {
            return Ok(());
        }
        if self.given.is_some() {
            return match answers.iter().all(|answer| answer.sampler.is_some()) {
                true => Ok(()),
                false => Err(Error::Usage(
                    "`online.importance_sampling_mode` needs `log_probs` beside the `completions` of each line of \
                     `online.completions_file`"
                        .to_string(),
                )),
            };
        }
        let quiet = decoder.without_gradients();
        let compute = |texts: &[&Text]| {
            let of = log_probs(&quiet, texts, Mode::Evaluation)?;
            Ok(of.values().clone())
        };
        let trainer = of_tokens(&compute, self.prompts, answers, most)?;
        for (answer, trainer) in answers.iter_mut().zip(trainer) {
            answer.sampler = Some(std::mem::replace(&mut answer.old, trainer));
        }
        Ok(())
    }
}
