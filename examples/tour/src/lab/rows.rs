//! Answers as rows of a model, and as entries of a table.

use crate::Result;
use crate::world::{Answer, PerAnswer, SYMBOLS};
use candle_align::{Statistics, TokenLogProbs};
use candle_core::{Device, Tensor};
use support::transformer::Transformer;

/// A model's logits for the symbols of answers; the softmax excludes all other symbols.
pub fn answer_logits(model: &Transformer, tokens: &Tensor) -> Result<Tensor> {
    Ok(model.forward(tokens)?.logits.narrow(2, 0, SYMBOLS)?)
}

/// Token log-probabilities of rows of one length, and their logits. Nothing follows the last token,
/// so the model does not read it.
pub fn rows(
    model: &Transformer,
    tokens: &Tensor,
    mask: &Tensor,
) -> Result<(Tensor, TokenLogProbs)> {
    let time = tokens.dim(1)? - 1;
    let logits = answer_logits(model, &tokens.narrow(1, 0, time)?)?;
    let (targets, mask) = (tokens.narrow(1, 1, time)?, mask.narrow(1, 1, time)?);
    let log_probs = TokenLogProbs::aligned(&logits, &targets, &mask, Statistics::default())?;
    Ok((logits, log_probs))
}

/// Numbers of some answers from a table, f32 `[answers]`.
pub fn look_up(table: &PerAnswer, answers: &[Answer]) -> Result<Tensor> {
    let values: Vec<f32> = answers
        .iter()
        .map(|a| table[a.prompt][a.outcome] as f32)
        .collect();
    Ok(Tensor::from_vec(values, answers.len(), &Device::Cpu)?)
}
