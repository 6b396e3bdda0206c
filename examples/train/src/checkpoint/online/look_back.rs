//! The log-probabilities of answers under the model at the start, where they are a part of the loss.
//!
//! They are computed for the rows of each pass through the trained model, in the same shape. Before the first step both
//! models then agree to the last bit, and the KL has a gradient of 0. In another shape its gradient is the rounding between
//! the two, of which AdamW makes a full step wherever the loss has no other gradient.

use super::super::super::error::Result;
use super::super::objective::text::log_probs;
use super::super::objective::{Reference, Text};
use super::super::settings::Settings;
use super::loss::{Round, rows_of};
use super::prompts::Prompt;
use super::rollout::of_answers;
use candle_align::decoder::{Decoder, Mode};

/// Asks for the answers of these passes that no earlier step has asked for.
pub fn look_back(
    settings: &Settings,
    decoder: &Decoder,
    reference: &Reference,
    prompts: &[Prompt],
    round: &mut Round,
    passes: &[Vec<Vec<usize>>],
) -> Result<()> {
    let Some(known) = &mut round.reference else {
        return Ok(());
    };
    let quiet = decoder.without_gradients();
    for units in passes {
        let (rows, texts) = rows_of(settings, prompts, &round.answers, units);
        if rows.iter().all(|row| !known[*row].is_empty()) {
            continue;
        }
        let texts: Vec<&Text> = texts.iter().collect();
        let of = |model: &Decoder, mode: Mode| log_probs(model, &texts, mode);
        let found = reference.compute(&quiet, &of)?;
        let lengths = rows.iter().map(|row| round.answers[*row].ids.len());
        let found = of_answers(found.values(), &texts, lengths)?;
        for (row, numbers) in rows.iter().zip(found) {
            known[*row] = numbers;
        }
    }
    Ok(())
}
