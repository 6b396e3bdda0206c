//! Drawn answers with their log-probabilities (survey §3.1).
//!
//! In one sentence: each prompt and its answer form one training sequence, with the log-probability that
//! the policy gave to every token of the answer when it wrote it.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x, y | [`Sample::sequence`]: x is given, y is learned | tokens |
//! | log p_w(yₜ│x, y₍<t₎), log π_old | [`Sample::log_probs`] | one per token of the answer |
//! | a batch of them | [`Samples::batch`], [`Samples::log_probs`] | `[batch, time]`, `[batch, time − 1]` |
//!
//! Read next: [`super::raft`], which selects rows; [`super::ppo`], which needs the old
//! log-probabilities.

use crate::error::{Error, Result};
use crate::log_probs::TokenLogProbs;
use crate::sequence::{Sequence, SequenceBatch};
use candle_core::{DType, Device, Tensor};

/// One answer that was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The prompt, which is given, and the answer, which is learned. The end token belongs to the answer.
    pub sequence: Sequence,
    /// Whether the answer reached its end token. One that did not was cut off.
    pub ended: bool,
    /// log p(yₜ│x, y₍<t₎) of each token of the answer under the model itself: temperature 1, nothing
    /// cut off. PPO's ratio and RAFT's KL use these.
    pub log_probs: Vec<f64>,
    /// log q(yₜ│x, y₍<t₎) of each token of the answer under the distribution it was drawn from.
    pub proposal_log_probs: Vec<f64>,
}

impl Sample {
    /// The tokens of the answer, with its end token if it has one: all tokens of the sequence after the
    /// last given one.
    pub fn answer(&self) -> &[u32] {
        let last_given = self
            .sequence
            .mask()
            .iter()
            .rposition(|&learned| learned == 0);
        &self.sequence.tokens()[last_given.map_or(0, |at| at + 1)..]
    }
}

/// The answers that [`sample`](crate::sample) drew. Row `prompt · answers + i` is answer i to that prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// One row per answer.
    pub rows: Vec<Sample>,
}

impl Samples {
    /// These rows in this order. A row may be named twice.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such row.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let chosen = rows.iter().map(|&row| match self.rows.get(row) {
            Some(sample) => Ok(sample.clone()),
            None => Err(Error::argument(
                "Samples::select",
                "rows",
                format!("holds {row}, and there are {}", self.rows.len()),
            )),
        });
        Ok(Self {
            rows: chosen.collect::<Result<_>>()?,
        })
    }

    /// The sequences as one batch for training, padded on the right.
    ///
    /// # Errors
    /// As [`SequenceBatch::new`].
    pub fn batch(&self, padding: u32, device: &Device) -> Result<SequenceBatch> {
        let sequences: Vec<Sequence> = self.rows.iter().map(|s| s.sequence.clone()).collect();
        SequenceBatch::new(&sequences, padding, device)
    }

    /// [`Sample::log_probs`] as constants: PPO's old policy. They are at the positions where
    /// [`TokenLogProbs::next_token`] puts the log-probabilities of [`Samples::batch`].
    ///
    /// # Shapes
    /// `[batch, time − 1]`, in `dtype`.
    ///
    /// # Errors
    /// [`Error::DType`] unless `dtype` is f32 or f64; [`Error::Argument`] if a row does not hold one
    /// log-probability for each token that its sequence learns after the first.
    pub fn log_probs(&self, dtype: DType, device: &Device) -> Result<TokenLogProbs> {
        let longest = self.rows.iter().map(|s| s.sequence.len()).max();
        let time = longest.unwrap_or(0).saturating_sub(1);
        let mut values = vec![0.0; self.rows.len() * time];
        let mut mask = vec![0u8; values.len()];
        for (row, sample) in self.rows.iter().enumerate() {
            // nothing predicts the first token
            let learned = sample.sequence.mask().iter().skip(1).enumerate();
            let places: Vec<usize> = learned.filter(|(_, m)| **m == 1).map(|(t, _)| t).collect();
            if places.len() != sample.log_probs.len() {
                return Err(Error::argument(
                    "Samples::log_probs",
                    format!("rows[{row}].log_probs"),
                    format!(
                        "holds {}, but the sequence learns {} token(s) after its first",
                        sample.log_probs.len(),
                        places.len()
                    ),
                ));
            }
            for (t, log_prob) in places.into_iter().zip(&sample.log_probs) {
                values[row * time + t] = *log_prob;
                mask[row * time + t] = 1;
            }
        }
        let shape = (self.rows.len(), time);
        TokenLogProbs::new(
            &Tensor::from_vec(values, shape, &Device::Cpu)?
                .to_dtype(dtype)?
                .to_device(device)?,
            &Tensor::from_vec(mask, shape, device)?,
        )
    }
}
