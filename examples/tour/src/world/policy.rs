//! A policy as a table, and sums over all of its answers.

use super::{PerAnswer, SYMBOLS, World};
use rand::Rng;
use rand::rngs::StdRng;

/// log π(next symbol | context, prefix) for every prefix: a complete description of a policy.
///
/// The contexts are the prompts, in their order, unless stated otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `[context][prefix][symbol]`, flat.
    pub(super) log_next: Vec<f64>,
    pub(super) prefixes: usize,
}

impl Policy {
    /// How many contexts it answers to.
    pub(super) fn contexts(&self) -> usize {
        self.log_next.len() / (self.prefixes * SYMBOLS)
    }

    /// The policy restricted to answers: each next symbol is a symbol of answers.
    pub fn within_answers(&self) -> Self {
        let rows = self.log_next.chunks(SYMBOLS);
        Self {
            log_next: rows.flat_map(log_softmax).collect(),
            prefixes: self.prefixes,
        }
    }

    /// The probability that a text is no answer because it contains one of the other symbols; the mean
    /// over contexts.
    pub fn escaped(&self, world: &World) -> f64 {
        let log_p = world.log_probs(self);
        let inside: f64 = log_p.iter().flatten().map(|l| l.exp()).sum();
        1.0 - inside / log_p.len() as f64
    }

    /// log π(symbol | prompt, prefix) of all symbols.
    pub fn next(&self, prompt: usize, prefix: usize) -> &[f64] {
        let at = (prompt * self.prefixes + prefix) * SYMBOLS;
        &self.log_next[at..at + SYMBOLS]
    }
}

/// E over prompts and a policy's answers of some number.
pub fn expectation(log_p: &PerAnswer, value: &PerAnswer) -> f64 {
    let per_prompt = log_p.iter().zip(value).map(|(log_p, value)| {
        let terms = log_p.iter().zip(value).map(|(l, v)| l.exp() * v);
        terms.sum::<f64>()
    });
    per_prompt.sum::<f64>() / log_p.len() as f64
}

/// KL(p‖q), the mean over prompts.
pub fn kl(log_p: &PerAnswer, log_q: &PerAnswer) -> f64 {
    let per_prompt = log_p.iter().zip(log_q).map(|(p, q)| {
        let terms = p.iter().zip(q).map(|(p, q)| p.exp() * (p - q));
        terms.sum::<f64>()
    });
    per_prompt.sum::<f64>() / log_p.len() as f64
}

/// A symbol by its log-probabilities.
pub fn choose(log_p: &[f64], rng: &mut StdRng) -> u32 {
    let mut left: f64 = rng.random();
    for (symbol, l) in log_p.iter().enumerate() {
        left -= l.exp();
        if left < 0.0 {
            return symbol as u32;
        }
    }
    log_p.len() as u32 - 1
}

pub fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    let shift = max + total.ln();
    logits.iter().map(|l| l - shift).collect()
}
