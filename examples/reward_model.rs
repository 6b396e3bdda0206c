//! §3.1, reward models: a reward is learned up to one constant for each set of connected answers.
//!
//! ```text
//! cargo run --example reward_model
//! ```
//! Four answers A, B, C, D have known rewards. A label prefers i to j with P = σ(rᵢ − rⱼ). One score
//! per answer is trained on all labels at once, each weighted by its probability, so nothing is random.
//! The score of A is subtracted from all scores:
//!
//! ```text
//! compared                        A       B       C       D  excess
//! the rewards                 0.000   1.000   0.500   2.000   0.000
//! all pairs                   0.000   1.000   0.500   2.000   0.000
//! pairs as π_ref draws them   0.000   1.000   0.500   2.000   0.000
//! A with B, C with D          0.000   1.000  -0.250   1.250   0.000
//! margin 1, all pairs         0.000   1.610   0.811   3.121   0.028
//! margin 1, as π_ref draws    0.000   1.647   0.833   3.127   0.027
//! margin (r_w − r_l)/2        0.000   1.500   0.750   3.000   0.023
//! ```
//! What you should see: if the comparisons connect all answers, neither the frequency of a pair nor
//! the starting point matters. If only A is compared with B, and C with D, the scores put C below A
//! although its reward is higher. The labels do not show the mistake: no scores have a lower loss on
//! them (excess 0). A margin of 1 stretches the scores by an amount that depends on the pairs; a margin
//! of (r_w − r_l)/2 multiplies them by 1½.
//!
//! Change the condition in `islands` to `i.abs_diff(j) == 1` and see: the comparisons A–B, B–C, C–D
//! connect all answers, and the row `A with B, C with D` becomes the rewards.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::{Pair, PairwiseRewardConfig, pairwise_reward_loss};
use candle_core::{Device, Tensor};
use policy::{REFERENCE, REWARDS, Result, descend, normalized, pick, preferences, table};

/// One set of comparisons, and the trained scores.
pub struct Trained {
    pub name: &'static str,
    pub scores: Vec<f64>,
    /// The loss on the labels without margins, above the lowest loss of any scores.
    pub excess: f64,
}

pub struct Report {
    pub rows: Vec<Trained>,
}

/// How often a pair is compared, and the margin by which the first should win.
type Comparison = fn(usize, usize) -> f64;

pub fn run() -> Result<Report> {
    let even: Comparison = |_, _| 1.0;
    let drawn: Comparison = |i, j| REFERENCE[i] * REFERENCE[j];
    let islands: Comparison = |i, j| if i / 2 == j / 2 { 1.0 } else { 0.0 };
    let none: Comparison = |_, _| 0.0;
    let half: Comparison = |i, j| (REWARDS[i] - REWARDS[j]) / 2.0;
    let (zero, other) = ([0.0; 4], [3.0, 1.0, 4.0, 1.0]);
    let rows = vec![
        train("all pairs", zero, even, none)?,
        train("pairs as π_ref draws them", other, drawn, none)?,
        train("A with B, C with D", zero, islands, none)?,
        train("margin 1, all pairs", zero, even, even)?,
        train("margin 1, as π_ref draws", zero, drawn, even)?,
        train("margin (r_w − r_l)/2", zero, even, half)?,
    ];
    Ok(Report { rows })
}

fn train(
    name: &'static str,
    start: [f64; 4],
    how_often: Comparison,
    margin: Comparison,
) -> Result<Trained> {
    let pairs = preferences(&[0, 1, 2, 3]);
    let often: Vec<f64> = pairs.iter().map(|&(i, j, p)| p * how_often(i, j)).collect();
    let shares = normalized(&often);
    let weights = Tensor::new(shares.as_slice(), &Device::Cpu)?;
    let margins: Vec<f64> = pairs.iter().map(|&(i, j, _)| margin(i, j)).collect();
    let margins = Tensor::new(margins, &Device::Cpu)?;
    // Σ over labels of share · −log σ(s_w − s_l − m)
    let loss = |scores: &Tensor, margins: Option<&Tensor>| {
        let scores = Pair {
            chosen: pick(scores, pairs.iter().map(|pair| pair.0))?,
            rejected: pick(scores, pairs.iter().map(|pair| pair.1))?,
        };
        let losses = pairwise_reward_loss(&scores, margins, &PairwiseRewardConfig::default())?.loss;
        Ok((losses * &weights)?.sum_all()?)
    };
    let scores = descend(&start, 5.0, 300, |scores| loss(scores, Some(&margins)))?;
    let reached = loss(&Tensor::new(scores.as_slice(), &Device::Cpu)?, None)?.to_scalar::<f64>()?;
    // scores with σ(s_i − s_j) = P explain the labels best; the remaining loss is the labels' entropy
    let entropy = pairs
        .iter()
        .zip(&shares)
        .map(|(pair, share)| -share * pair.2.ln());
    let excess = reached - entropy.sum::<f64>();
    Ok(Trained {
        name,
        scores,
        excess,
    })
}

impl Report {
    pub fn table(&self) -> String {
        let row = |name, scores: &[f64], excess: f64| {
            let differences = scores.iter().map(|s| s - scores[0]);
            (name, differences.chain([excess]).collect::<Vec<_>>())
        };
        let mut rows = vec![row("the rewards", &REWARDS, 0.0)];
        rows.extend(self.rows.iter().map(|t| row(t.name, &t.scores, t.excess)));
        table(&["compared", "A", "B", "C", "D", "excess"], &rows)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
