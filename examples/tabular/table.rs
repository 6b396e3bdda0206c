//! A tabular model: one free distribution for each beginning in the training data.

use candle_align::{Result, Sequence, SequenceBatch, TokenLogProbs};
use candle_core::{D, Device, Error, Tensor, Var};
use candle_nn::ops::softmax;
use std::collections::BTreeMap;

/// Replaces −∞ at a symbol that never follows: its mass stays below 1e-20.
const NEVER: f64 = -50.0;

/// P(next symbol│beginning).
pub type Table = BTreeMap<Vec<u32>, Vec<f64>>;

/// Fits a table to `sequences`, each as frequent as its `share`, by gradient descent on
/// Σ share · loss; the step of a beginning is `alpha` divided by how often it occurs.
pub fn learn(
    sequences: &[Sequence],
    shares: &[f64],
    symbols: usize,
    (alpha, steps): (f64, usize),
    loss: impl Fn(&TokenLogProbs) -> Result<Tensor>,
) -> Result<Table> {
    // beginnings, how often each occurs, and what follows it
    let mut seen: BTreeMap<&[u32], (f64, Vec<bool>)> = BTreeMap::new();
    for (sequence, share) in sequences.iter().zip(shares) {
        for (t, _) in sequence.mask().iter().enumerate().filter(|(_, m)| **m == 1) {
            let entry = seen.entry(&sequence.tokens()[..t]);
            let entry = entry.or_insert((0.0, vec![false; symbols]));
            entry.0 += share;
            entry.1[sequence.tokens()[t] as usize] = true;
        }
    }
    let beginnings: Vec<&[u32]> = seen.keys().copied().collect();
    let follows = |known: &bool| if *known { 0.0 } else { NEVER };
    let start = seen
        .values()
        .flat_map(|(_, symbols)| symbols.iter().map(follows));
    let step: Vec<f64> = seen.values().map(|(often, _)| alpha / often).collect();

    // which row of the table predicts each position's next symbol; any, where nothing is learned
    let batch = SequenceBatch::new(sequences, 0, &Device::Cpu)?;
    let (rows, time) = batch.tokens.dims2()?;
    let row = |sequence: &Sequence, t: usize| {
        let beginning = sequence.tokens().get(..=t);
        let found = beginning.and_then(|b| beginnings.binary_search(&b).ok());
        found.unwrap_or(0) as u32
    };
    let index: Vec<u32> = sequences
        .iter()
        .flat_map(|s| (0..time).map(move |t| row(s, t)))
        .collect();

    let size = (beginnings.len(), symbols);
    let column = |data: Vec<f64>, shape| Tensor::from_vec(data, shape, &Device::Cpu);
    let index = Tensor::new(index, &Device::Cpu)?;
    let shares = column(shares.to_vec(), (rows, 1))?;
    let step = column(step, (size.0, 1))?;
    let theta = Var::from_tensor(&column(start.collect(), size)?)?;
    for _ in 0..steps {
        let logits = theta.index_select(&index, 0)?;
        let logits = logits.reshape((rows, time, symbols))?;
        let log_probs = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask)?;
        let total = loss(&log_probs)?.broadcast_mul(&shares)?.sum_all()?;
        let grads = total.backward()?;
        let missing = || Error::Msg("the gradient does not reach the table".into());
        let gradient = grads.get(&theta).ok_or_else(missing)?;
        theta.set(&(theta.as_tensor() - gradient.broadcast_mul(&step)?)?)?;
    }
    let learned = softmax(&theta, D::Minus1)?.to_vec2::<f64>()?;
    Ok(beginnings.iter().map(|b| b.to_vec()).zip(learned).collect())
}
