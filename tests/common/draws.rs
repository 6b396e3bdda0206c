//! Every possible draw, and a model whose next token depends on all before it.

use super::dot;
use candle_align::Result;
use candle_align::online::raft::best_of_k;
use candle_core::{Device, Tensor};

/// The symbols of [`history`].
pub const SYMBOLS: usize = 5;

/// A causal model: logits at t depend on every token up to t and on its place.
pub fn history(tokens: &Tensor) -> Result<Tensor> {
    let rows = tokens.to_vec2::<u32>()?;
    let mut logits = Vec::new();
    for row in &rows {
        let mut state = 0.4;
        for (t, token) in row.iter().enumerate() {
            state += 0.7 * (t + 1) as f64 * (*token as f64 + 1.0);
            logits.extend((0..SYMBOLS).map(|v| 1.5 * (state * (v as f64 + 0.3)).sin()));
        }
    }
    let shape = (rows.len(), tokens.dim(1)?, SYMBOLS);
    Ok(Tensor::from_vec(logits, shape, &Device::Cpu)?)
}

/// All kⁿ ways to draw n of k answers.
pub fn draws(k: usize, n: usize) -> Vec<Vec<usize>> {
    (0..k.pow(n as u32))
        .map(|mut code| {
            let digits = (0..n).map(|_| {
                let digit = code % k;
                code /= k;
                digit
            });
            digits.collect()
        })
        .collect()
}

/// The law of the answer that `best_of_k` keeps of n draws from p, by enumeration of all draws.
pub fn best_of(p: &[f64], rewards: &[f64], n: usize) -> Vec<f64> {
    let draws = draws(p.len(), n);
    let drawn: Vec<f64> = draws.iter().flatten().map(|&y| rewards[y]).collect();
    let drawn = Tensor::from_vec(drawn, (draws.len(), n), &Device::Cpu).unwrap();
    let rows = best_of_k(&drawn, None).unwrap();
    assert_eq!(rows.len(), draws.len());
    let mut law = vec![0.0; p.len()];
    for (prompt, (row, draw)) in rows.iter().zip(&draws).enumerate() {
        assert_eq!(row / n, prompt, "one row of each prompt");
        law[draw[row % n]] += draw.iter().map(|&y| p[y]).product::<f64>();
    }
    law
}

/// B_n(y) = (F(r_y)ⁿ − F(r_y⁻)ⁿ) · p(y) / p(those that tie with y).
pub fn best_of_formula(p: &[f64], rewards: &[f64], n: usize) -> Vec<f64> {
    let mass = |keep: &dyn Fn(f64) -> bool| -> f64 {
        let kept = p.iter().zip(rewards).filter(|(_, r)| keep(**r));
        kept.map(|(p, _)| p).sum()
    };
    let n = n as i32;
    p.iter()
        .zip(rewards)
        .map(|(p, &r)| {
            let (up_to, below, tied) = (mass(&|s| s <= r), mass(&|s| s < r), mass(&|s| s == r));
            (up_to.powi(n) - below.powi(n)) * p / tied
        })
        .collect()
}

/// KL(p‖q); what p does not do costs nothing.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter()
        .zip(q)
        .filter(|(p, _)| **p > 0.0)
        .map(|(p, q)| p * (p / q).ln())
        .sum()
}

/// Σ p·x.
pub fn expectation(p: &[f64], x: &[f64]) -> f64 {
    dot(p, x)
}
