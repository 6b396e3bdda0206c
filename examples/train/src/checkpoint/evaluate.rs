//! The evaluation on held-out rows.

use super::super::error::Result;
use super::objective::{Objective, Reference};
use super::order::parts;
use super::prepare::HeldOut;
use candle_align::decoder::Decoder;
use candle_core::DType;
use serde::Serialize;
use std::collections::BTreeMap;

/// Means over all held-out rows, without dropout. Errors are standard errors over prompts: rows of one
/// prompt are not independent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// SFT: the mean over tokens. Others: over pairs.
    pub loss: f64,
    /// The share of pairs whose chosen answer has the higher reward; a tie counts ½.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_error: Option<f64>,
    /// The reward of the chosen answer less that of the rejected one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin_error: Option<f64>,
}

/// The most tokens that go through the model at a time where the settings have no limit.
const TOKENS: usize = 2048;

/// The rows that go through the model together.
pub fn batches(objective: &Objective, max_tokens: Option<usize>) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..objective.len()).collect();
    let most = Some(max_tokens.unwrap_or(TOKENS));
    let parts = parts(&all, most, |row| objective.tokens(row));
    parts.into_iter().map(<[usize]>::to_vec).collect()
}

/// The scores of all held-out rows, so many tokens at a time.
pub fn scores(
    held_out: &HeldOut,
    decoder: &Decoder,
    reference: &Reference,
    max_tokens: Option<usize>,
) -> Result<Scores> {
    let objective: &Objective = &held_out.rows;
    let quiet = &mut decoder.without_gradients();
    let (mut loss, mut weight, mut each) = (0.0, 0.0, Vec::new());
    for rows in &batches(objective, max_tokens) {
        let window = std::slice::from_ref(rows);
        let measured = objective.loss(quiet, reference, rows, window, None)?;
        let of_rows: f64 = rows.iter().map(|row| objective.weight(*row)).sum();
        let mean = measured
            .loss
            .detach()
            .to_dtype(DType::F64)?
            .to_scalar::<f64>()?;
        loss += mean * of_rows;
        weight += of_rows;
        each.extend(measured.each);
    }
    let right: Vec<f64> = each
        .iter()
        .map(|[chosen, rejected]| match chosen.total_cmp(rejected) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
        .collect();
    let margins: Vec<f64> = each
        .iter()
        .map(|[chosen, rejected]| chosen - rejected)
        .collect();
    let (accuracy, accuracy_error) = mean_and_error(&right, &held_out.groups);
    let (margin, margin_error) = mean_and_error(&margins, &held_out.groups);
    Ok(Scores {
        loss: loss / weight,
        accuracy,
        accuracy_error,
        margin,
        margin_error,
    })
}

/// The mean of numbers, and its standard error if the numbers of one group move together.
fn mean_and_error(values: &[f64], groups: &[u64]) -> (Option<f64>, Option<f64>) {
    if values.is_empty() {
        return (None, None);
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let mut sums: BTreeMap<u64, f64> = BTreeMap::new();
    for (value, group) in values.iter().zip(groups) {
        *sums.entry(*group).or_default() += value - mean;
    }
    let g = sums.len() as f64;
    let squares: f64 = sums.values().map(|sum| sum * sum).sum();
    let error = (g > 1.0).then(|| (squares * g / (g - 1.0)).sqrt() / n);
    (Some(mean), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_counts_prompts() {
        let (mean, error) = mean_and_error(&[1.0, 0.0, 1.0, 0.0], &[1, 2, 3, 4]);
        // the textbook's: √(¼·4/3 / 4)
        assert_eq!(mean, Some(0.5));
        assert!((error.unwrap() - (1.0f64 / 12.0).sqrt()).abs() < 1e-15);
        // every row twice: the same knowledge
        let twice = mean_and_error(
            &[1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0],
            &[1, 1, 2, 2, 3, 3, 4, 4],
        );
        assert_eq!(twice.0, mean);
        assert!((twice.1.unwrap() - error.unwrap()).abs() < 1e-15);
        assert_eq!(mean_and_error(&[1.0], &[1]), (Some(1.0), None));
        assert_eq!(mean_and_error(&[], &[]), (None, None));
    }
}
