//! Four answers to one prompt, a policy that is a table over them, and gradient descent.
#![allow(dead_code)] // every example is its own crate and uses only a part

use candle_core::{Device, Tensor, Var};
use std::fmt::Display;

pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// π_ref: the best answer is the rarest.
pub const REFERENCE: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
/// r.
pub const REWARDS: [f64; 4] = [0.0, 1.0, 0.5, 2.0];
/// The cost of a nat of KL to the reference.
pub const BETA: f64 = 0.5;

/// π* ∝ π_ref · e^{r/β}: the maximum of E r − β KL(π‖π_ref).
pub fn optimum() -> Vec<f64> {
    let weights = REFERENCE.iter().zip(REWARDS);
    normalized(
        &weights
            .map(|(p, r)| p * (r / BETA).exp())
            .collect::<Vec<_>>(),
    )
}

/// θ ← θ − α ∇L(θ), `steps` times; returns θ.
pub fn descend(
    start: &[f64],
    alpha: f64,
    steps: usize,
    loss: impl Fn(&Tensor) -> candle_align::Result<Tensor>,
) -> Result<Vec<f64>> {
    let theta = Var::new(start, &Device::Cpu)?;
    for _ in 0..steps {
        let grads = loss(&theta)?.backward()?;
        let gradient = grads.get(&theta).ok_or("the gradient does not reach θ")?;
        theta.set(&(theta.as_tensor() - (gradient * alpha)?)?)?;
    }
    Ok(theta.to_vec1()?)
}

pub fn softmax(theta: &[f64]) -> Vec<f64> {
    let highest = theta.iter().copied().fold(f64::MIN, f64::max);
    normalized(
        &theta
            .iter()
            .map(|t| (t - highest).exp())
            .collect::<Vec<_>>(),
    )
}

pub fn normalized(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

pub fn log(p: &[f64]) -> Vec<f64> {
    p.iter().map(|p| p.ln()).collect()
}

/// Σ p · x.
pub fn mean(p: &[f64], x: &[f64]) -> f64 {
    p.iter().zip(x).map(|(p, x)| p * x).sum()
}

/// KL(p‖q), with 0 · log 0 = 0.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    let both = p.iter().zip(q).filter(|(p, _)| **p > 0.0);
    both.map(|(p, q)| p * (p / q).ln()).sum()
}

/// Every pair of different answers in both orders, and how often the first is preferred:
/// P(i over j) = σ(rᵢ − rⱼ), Bradley and Terry's law.
pub fn preferences(answers: &[usize]) -> Vec<(usize, usize, f64)> {
    let pairs = answers
        .iter()
        .flat_map(|&i| answers.iter().map(move |&j| (i, j)));
    pairs
        .filter(|(i, j)| i != j)
        .map(|(i, j)| (i, j, 1.0 / (1.0 + (REWARDS[j] - REWARDS[i]).exp())))
        .collect()
}

/// The elements of `values` that `index` names.
pub fn pick(values: &Tensor, index: impl Iterator<Item = usize>) -> candle_align::Result<Tensor> {
    let index: Vec<u32> = index.map(|i| i as u32).collect();
    Ok(values.index_select(&Tensor::new(index, &Device::Cpu)?, 0)?)
}

/// Policies with their expected reward and their KL to the reference.
pub fn policies(rows: &[(&'static str, Vec<f64>)]) -> String {
    let row = |pi: &[f64]| [pi, &[mean(pi, &REWARDS), kl(pi, &REFERENCE)]].concat();
    let rows: Vec<_> = rows.iter().map(|(name, pi)| (name, row(pi))).collect();
    table(&["", "A", "B", "C", "D", "E r", "KL"], &rows)
}

/// Rows of numbers under a head.
pub fn table<N: Display>(head: &[&str], rows: &[(N, Vec<f64>)]) -> String {
    // + 0: no minus before a zero
    let number = |x: &f64| format!("{:.3}", (x * 1000.0).round() / 1000.0 + 0.0);
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|h| h.to_string()).collect()];
    lines.extend(rows.iter().map(|(name, row)| {
        let numbers = row.iter().map(number);
        [name.to_string()].into_iter().chain(numbers).collect()
    }));
    let names = lines.iter().map(|line| line[0].chars().count());
    let first = names.max().unwrap_or(0);
    let shown = lines.iter().map(|line| {
        let cells: String = line[1..].iter().map(|cell| format!("{cell:>8}")).collect();
        format!("{:first$}{cells}", line[0])
    });
    shown.collect::<Vec<_>>().join("\n")
}
