//! Every ranking of a few answers, with its Plackett–Luce probability.

use super::matrix;
use candle_core::Tensor;

/// Every order of 0..k, the best first.
pub fn orders(k: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..k {
        all = all
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..k).filter(|i| !order.contains(i)).map(|i| {
                    let mut longer = order.clone();
                    longer.push(i);
                    longer
                })
            })
            .collect();
    }
    all
}

/// Π over the stages of e^{r of the one taken} / Σ e^{r of those left}.
pub fn probability(order: &[usize], rewards: &[f64]) -> f64 {
    (0..order.len())
        .map(|stage| {
            let left: f64 = order[stage..].iter().map(|&i| rewards[i].exp()).sum();
            rewards[order[stage]].exp() / left
        })
        .product()
}

/// One list per ranking: labels that say it `[k!, k]`, and its probability.
pub fn population(rewards: &[f64]) -> (Tensor, Vec<f64>) {
    let orders = orders(rewards.len());
    let labels: Vec<Vec<f64>> = orders
        .iter()
        .map(|order| {
            let mut labels = vec![0.0; order.len()];
            for (stage, &i) in order.iter().enumerate() {
                labels[i] = -(stage as f64);
            }
            labels
        })
        .collect();
    let rows: Vec<&[f64]> = labels.iter().map(Vec::as_slice).collect();
    let probabilities = orders.iter().map(|o| probability(o, rewards)).collect();
    (matrix(&rows), probabilities)
}
