//! Objectives that learn answers one by one, each with a number: its class's reward, or whether it is right.

use super::super::super::error::Result;
use super::measured::Measured;
use super::text::{Pass, Text};
use candle_align::{CRlftConfig, TokenLogProbs, c_rlft_loss};
use candle_core::{DType, Device, Tensor};

/// An answer and its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: Text,
    pub reward: f32,
}

/// Answers, and their loss.
#[derive(Clone, Debug)]
pub struct Answers {
    pub rows: Vec<Answer>,
    pub loss: AnswerLoss,
}

/// The loss of answers with a number each.
#[derive(Clone, Debug)]
pub enum AnswerLoss {
    /// Cross-entropy with a weight for each class.
    CRlft(CRlftConfig),
}

impl Answers {
    pub fn measure(&self, pass: &Pass, rows: &[usize], window: &[Vec<usize>]) -> Result<Measured> {
        let answers: Vec<&Answer> = rows.iter().map(|row| &self.rows[*row]).collect();
        let texts: Vec<&Text> = answers.iter().map(|answer| &answer.text).collect();
        match &self.loss {
            AnswerLoss::CRlft(config) => {
                // one weighted mean over all tokens of the step, whatever the micro-batches
                let mut weight = 0.0;
                for row in window.iter().flatten() {
                    weight += self.weight(*row)?;
                }
                let rewards: Vec<f32> = answers.iter().map(|answer| answer.reward).collect();
                let log_probs = pass.log_probs(&texts)?;
                let rewards = Tensor::new(rewards, &Device::Cpu)?;
                let rewards = rewards.to_dtype(log_probs.values().dtype())?;
                let out = c_rlft_loss(&log_probs, &rewards, config)?;
                Ok(Measured::alone((out.tokens.loss.sum_all()? / weight)?))
            }
        }
    }

    /// What a row adds to the divisor: the weight of its tokens.
    pub fn weight(&self, row: usize) -> Result<f64> {
        let answer = &self.rows[row];
        match &self.loss {
            AnswerLoss::CRlft(config) => {
                let shape = (1, answer.text.covered());
                let mask = Tensor::ones(shape, DType::U8, &Device::Cpu)?;
                let nothing = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
                let rewards = Tensor::new(&[answer.reward], &Device::Cpu)?;
                let out = c_rlft_loss(&TokenLogProbs::new(&nothing, &mask)?, &rewards, config)?;
                Ok(out.token_weight()?)
            }
        }
    }
}
