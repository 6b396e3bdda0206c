//! The evaluation on held-out rows.

use super::super::error::Result;
use super::super::world::World;
use super::super::world::parts::{gather, part};
use super::fit::Fit;
use super::objective::measured::{Judged, Scored, ordered};
use super::objective::text::log_probs;
use super::objective::{Objective, Reference, Text};
use super::order::parts;
use super::prepare::HeldOut;
use candle_align::decoder::{Decoder, Mode};
use candle_align::ranking::RewardShift;
use candle_core::DType;
use serde::Serialize;
use std::collections::BTreeMap;

/// Means over all held-out rows, without dropout. Errors are standard errors over prompts: rows of one
/// prompt are not independent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// The mean over tokens, where the loss is one of tokens; else over pairs or lists.
    pub loss: f64,
    /// The share of pairs that the objective's score of an answer orders right; a tie counts ½.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_error: Option<f64>,
    /// The score of the better answer less that of the other one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin_error: Option<f64>,
}

/// Texts that ask about each answer to a prompt, where the loss compares none. With one text for each answer
/// its score is log P per token; with two it is log P of the first less that of the second.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Those of the first answer, then of the next.
    pub texts: Vec<Text>,
    pub rewards: Vec<f32>,
    /// The prompt, as a number.
    pub group: u64,
}

/// The most tokens that go through the model at a time where the settings have no limit.
const TOKENS: usize = 2048;

/// The rows whose loss is computed together: micro-batches as in training, where the loss of a row depends on the
/// others, else as many as go through the model at a time.
fn batches(objective: &Objective, fit: &Fit) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..objective.len()).collect();
    let batches: Vec<&[usize]> = match objective.compares_rows() {
        true => all.chunks(fit.batch.max(1)).collect(),
        false => pieces(objective, &all, fit),
    };
    batches.into_iter().map(<[usize]>::to_vec).collect()
}

/// The rows of one of these batches that go through the model together.
fn pieces<'a>(objective: &Objective, batch: &'a [usize], fit: &Fit) -> Vec<&'a [usize]> {
    let most = match objective.sorts_rows() {
        true => None,
        false => Some(fit.max_tokens.unwrap_or(TOKENS)),
    };
    parts(batch, most, |row| objective.tokens(row))
}

/// All rows, as they go through the model in [`scores`].
pub fn passes(objective: &Objective, fit: &Fit) -> Vec<Vec<usize>> {
    let batches = batches(objective, fit).into_iter();
    let of = |batch: Vec<usize>| {
        let pieces = pieces(objective, &batch, fit).into_iter();
        pieces.map(<[usize]>::to_vec).collect::<Vec<_>>()
    };
    batches.flat_map(of).collect()
}

/// The scores of all held-out rows: each rank takes some of the batches. `shift` is the mean reward so far.
pub fn scores(
    held_out: &HeldOut,
    decoder: &Decoder,
    reference: &Reference,
    fit: &Fit,
    shift: &RewardShift,
    world: &dyn World,
) -> Result<Scores> {
    let objective: &Objective = &held_out.rows;
    let quiet = &decoder.without_gradients();
    let batches = batches(objective, fit);
    let tokens = |rows: &Vec<usize>| rows.iter().map(|row| objective.tokens(*row)).sum();
    let tokens: Vec<usize> = batches.iter().map(tokens).collect();
    let own = part(&tokens, world.rank(), world.size());
    let (mut losses, mut of_pairs, mut of_labels) = (Vec::new(), Vec::new(), Vec::new());
    for batch in &batches[own] {
        let window = std::slice::from_ref(batch);
        let most = Some(fit.max_tokens.unwrap_or(TOKENS));
        let given = objective.given(quiet, reference, batch, most, shift)?;
        let (mut mean, mut of_batch) = (0.0, 0.0);
        for row in batch {
            of_batch += objective.weight(*row)?;
        }
        for rows in pieces(objective, batch, fit) {
            let measured = objective.loss_with(quiet, reference, rows, window, None, given)?;
            let part = measured.loss.detach().to_dtype(DType::F64)?;
            mean += part.to_scalar::<f64>()?;
            for pair in &measured.pairs {
                of_pairs.extend([pair.row as f64, pair.scores[0], pair.scores[1]]);
            }
            for one in &measured.judged {
                let desirable = f64::from(u8::from(one.desirable));
                of_labels.extend([one.row as f64, one.reward, desirable]);
            }
        }
        losses.extend([mean * of_batch, of_batch]);
    }
    let (mut loss, mut weight, mut pairs) = (0.0, 0.0, Vec::new());
    for both in gather(world, losses)?.concat().chunks_exact(2) {
        loss += both[0];
        weight += both[1];
    }
    for three in gather(world, of_pairs)?.concat().chunks_exact(3) {
        let (row, scores) = (three[0] as usize, [three[1], three[2]]);
        pairs.push((held_out.groups[row], Scored { row, scores }));
    }
    let mut labels: BTreeMap<u64, [Vec<Judged>; 2]> = BTreeMap::new();
    for three in gather(world, of_labels)?.concat().chunks_exact(3) {
        let (row, reward, desirable) = (three[0] as usize, three[1], three[2] > 0.0);
        let one = Judged {
            row,
            reward,
            desirable,
        };
        let of_prompt = labels.entry(held_out.groups[row]).or_default();
        of_prompt[usize::from(!desirable)].push(one);
    }
    // the first answers of both labels to a prompt, then the second ones
    for (group, [desirable, others]) in &labels {
        let both = desirable.iter().zip(others);
        pairs.extend(both.map(|(one, other)| {
            let scores = [one.reward, other.reward];
            (
                *group,
                Scored {
                    row: one.row,
                    scores,
                },
            )
        }));
    }
    pairs.extend(probed(held_out, quiet, fit.max_tokens, world)?);
    let groups: Vec<u64> = pairs.iter().map(|(group, _)| *group).collect();
    let right = |(_, pair): &(u64, Scored)| match pair.scores[0].total_cmp(&pair.scores[1]) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let right: Vec<f64> = pairs.iter().map(right).collect();
    let ahead = pairs
        .iter()
        .map(|(_, pair)| pair.scores[0] - pair.scores[1]);
    let margins: Vec<f64> = ahead.collect();
    let (accuracy, accuracy_error) = mean_and_error(&right, &groups);
    let (margin, margin_error) = mean_and_error(&margins, &groups);
    Ok(Scores {
        loss: loss / weight,
        accuracy,
        accuracy_error,
        margin,
        margin_error,
    })
}

/// The probes that go through the model together.
fn together(probes: &[Probe], max_tokens: Option<usize>) -> Vec<&[Probe]> {
    let all: Vec<usize> = (0..probes.len()).collect();
    let of = |text: &Text| text.ids.len();
    let tokens = |probe: usize| probes[probe].texts.iter().map(of).sum();
    let parts = parts(&all, Some(max_tokens.unwrap_or(TOKENS)), tokens);
    let of_part = |part: &[usize]| Some(&probes[*part.first()?..*part.last()? + 1]);
    parts.into_iter().filter_map(of_part).collect()
}

/// The pairs of answers that all probes ask about: each rank takes some.
fn probed(
    held_out: &HeldOut,
    decoder: &Decoder,
    max_tokens: Option<usize>,
    world: &dyn World,
) -> Result<Vec<(u64, Scored)>> {
    let batches = together(&held_out.probes, max_tokens);
    let sizes: Vec<usize> = batches.iter().map(|probes| probes.len()).collect();
    let own = part(&sizes, world.rank(), world.size());
    let mut probe: usize = sizes[..own.start].iter().sum();
    let mut found = Vec::new();
    for probes in &batches[own] {
        for (at, pair) in asked(probes, decoder)? {
            found.extend([(probe + at) as f64, pair.scores[0], pair.scores[1]]);
        }
        probe += probes.len();
    }
    let found = gather(world, found)?.concat();
    let pairs = found.chunks_exact(3).map(|three| {
        let scores = [three[1], three[2]];
        let group = held_out.probes[three[0] as usize].group;
        (group, Scored { row: 0, scores })
    });
    Ok(pairs.collect())
}

/// The pairs of answers that some probes ask about, each with the number of its probe.
fn asked(probes: &[Probe], decoder: &Decoder) -> Result<Vec<(usize, Scored)>> {
    let texts: Vec<&Text> = probes.iter().flat_map(|probe| &probe.texts).collect();
    let log_probs = log_probs(decoder, &texts, Mode::Evaluation)?;
    let numbers = |t: candle_core::Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
    let (sums, means) = (numbers(log_probs.sum()?)?, numbers(log_probs.mean()?)?);
    let (mut pairs, mut start) = (Vec::new(), 0);
    for (at, probe) in probes.iter().enumerate() {
        let (count, width) = (probe.rewards.len(), probe.texts.len() / probe.rewards.len());
        let score = |answer: usize| match width {
            1 => means[start + answer],
            _ => sums[start + width * answer] - sums[start + width * answer + 1],
        };
        let scores: Vec<f64> = (0..count).map(score).collect();
        let own = ordered(0, &scores, &probe.rewards).into_iter();
        pairs.extend(own.map(|pair| (at, pair)));
        start += probe.texts.len();
    }
    Ok(pairs)
}

/// The mean of numbers, and its standard error if the numbers of one group move together.
pub fn mean_and_error(values: &[f64], groups: &[u64]) -> (Option<f64>, Option<f64>) {
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
