//! A policy over a few answers, small enough to know its optimum: instance S4 and gradient descent.

use super::{bits, numbers, vector};
use candle_align::{Result, TokenLogProbs};
use candle_core::{D, Tensor, Var};
use candle_nn::ops::log_softmax;

/// Four answers: the reference is not uniform and the best answer is its rarest, so that a dropped
/// reference, a dropped sign and β → 1 all move the optimum by more than 0.1.
pub const REFERENCE: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
/// Their rewards.
pub const REWARDS: [f64; 4] = [0.0, 1.0, 0.5, 2.0];
/// The strength of the KL penalty.
pub const BETA: f64 = 0.5;

/// The four answers, of one token each.
pub fn answers(log_policy: &Tensor) -> Result<TokenLogProbs> {
    TokenLogProbs::new(&log_policy.unsqueeze(1)?, &bits(&[&[1], &[1], &[1], &[1]]))
}

/// The log-probabilities of [`REFERENCE`] `[4, 1]`.
pub fn reference() -> Tensor {
    vector(&log(&REFERENCE)).unsqueeze(1).unwrap()
}

/// π* ∝ ρ · e^{r/β}.
pub fn tilted(reference: &[f64], rewards: &[f64], beta: f64) -> Vec<f64> {
    normalized(
        &reference
            .iter()
            .zip(rewards)
            .map(|(p, r)| p * (r / beta).exp())
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

/// Every ordered pair (i, j), i ≠ j, of k answers.
pub fn ordered_pairs(k: usize) -> Vec<(usize, usize)> {
    (0..k)
        .flat_map(|i| (0..k).map(move |j| (i, j)))
        .filter(|(i, j)| i != j)
        .collect()
}

/// θ ← θ − α ∇L(log softmax θ), `steps` times from `start`; the probabilities at the end.
pub fn descend(
    start: &[f64],
    alpha: f64,
    steps: usize,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Vec<f64> {
    let theta = descend_free(start, alpha, steps, |theta| {
        loss(&log_softmax(theta, D::Minus1)?)
    });
    let highest = theta.iter().fold(f64::MIN, |a, &b| a.max(b));
    normalized(
        &theta
            .iter()
            .map(|t| (t - highest).exp())
            .collect::<Vec<_>>(),
    )
}

/// θ ← θ − α ∇L(θ), `steps` times from `start`; the parameters at the end.
pub fn descend_free(
    start: &[f64],
    alpha: f64,
    steps: usize,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Vec<f64> {
    let theta = Var::new(start, &candle_core::Device::Cpu).expect("a vector");
    for _ in 0..steps {
        let grads = loss(&theta).expect("loss").backward().expect("backward");
        let step = (grads.get(&theta).expect("a gradient") * alpha).expect("scaled");
        theta
            .set(&(theta.as_tensor() - step).expect("same shape"))
            .expect("set");
    }
    numbers(&theta)
}

/// max |a − b|.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}
