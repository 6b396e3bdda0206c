//! Objectives that learn texts one by one: a mean over all learned tokens of a step.

use super::super::super::error::Result;
use super::measured::Measured;
use super::text::{Pass, Text};
use candle_align::distillation::divergence::DivergenceConfig;
use candle_align::sft::dft::dft_loss;
use candle_align::sft::eaft::{EaftConfig, eaft_loss};
use candle_align::{HindsightConfig, SftConfig, chain_of_hindsight_loss, sft_loss};

/// Texts, and the loss of their tokens.
#[derive(Clone, Debug)]
pub struct Texts {
    pub rows: Vec<Text>,
    pub loss: TextLoss,
}

/// The loss of a token.
#[derive(Clone, Debug)]
pub enum TextLoss {
    /// Cross-entropy: `sft`, `conditional_sft`, `second_thoughts`, `selfee`, `self_debug`.
    Sft(SftConfig),
    /// The same, where each token weighs its own probability.
    Dft,
    /// The same, where each token weighs the entropy at its place.
    Eaft(EaftConfig),
    /// The divergence from the distributions of the reference, a teacher.
    Gkd(DivergenceConfig),
    /// The same on two answers in one text, without pretraining text.
    ChainOfHindsight,
}

impl Texts {
    /// `window` holds all rows of the step: one mean over their tokens, whatever the micro-batches.
    pub fn measure(&self, pass: &Pass, rows: &[usize], window: &[Vec<usize>]) -> Result<Measured> {
        let covered = window.iter().flatten().map(|row| self.rows[*row].covered());
        let count = covered.sum::<usize>().max(1);
        let texts: Vec<&Text> = rows.iter().map(|row| &self.rows[*row]).collect();
        let nothing = texts.iter().all(|text| text.covered() == 0);
        let tokens = match &self.loss {
            TextLoss::Gkd(_) | TextLoss::Eaft(_) if nothing => {
                sft_loss(&pass.log_probs(&texts)?, None, &SftConfig::default())?.loss
            }
            TextLoss::Sft(config) => {
                let log_probs = pass.smoothed(&texts, config.label_smoothing)?;
                sft_loss(&log_probs, None, config)?.loss
            }
            TextLoss::Gkd(config) => pass.divergence(&texts, config)?.loss,
            TextLoss::Dft => dft_loss(&pass.log_probs(&texts)?)?.loss,
            TextLoss::Eaft(config) => {
                let (log_probs, logits) = pass.with_logits(&texts)?;
                eaft_loss(&log_probs, &logits, config)?.loss
            }
            TextLoss::ChainOfHindsight => {
                let log_probs = pass.log_probs(&texts)?;
                let answers_alone = HindsightConfig::default();
                chain_of_hindsight_loss(&log_probs, None, &answers_alone)?
                    .hindsight
                    .loss
            }
        };
        Ok(Measured::alone((tokens.sum_all()? / count as f64)?))
    }
}
