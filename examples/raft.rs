//! §3.1, RAFT: t rounds of best-of-n equal one best-of-nᵗ; a low temperature alone collapses the policy.
//!
//! ```text
//! cargo run --example raft
//! ```
//! A round draws n answers, keeps the one with the highest reward, and fine-tunes on what was kept.
//! Here a round is exact: it sums over all 4ⁿ draws with their probabilities, and fine-tuning runs to
//! its optimum, the distribution of the kept answers (example `sft`). The rewards of A, B, C, D are 0,
//! 1, ½, 2:
//!
//! ```text
//!                                           A       B       C       D      KL
//! π_ref                                 0.400   0.300   0.200   0.100   0.000
//! best of 2, one round                  0.160   0.450   0.200   0.190   0.158
//! best of 2, three rounds               0.001   0.414   0.016   0.570   1.079
//! best of 8, one round                  0.001   0.414   0.016   0.570   1.079
//! equal rewards, λ = 0.85, ten rounds   0.792   0.184   0.023   0.001   0.397
//! ```
//! What you should see: three rounds of best-of-2 equal one round of best-of-8, with six draws instead
//! of eight. More rounds end at the best answer alone, because no KL term holds the policy back. In the
//! last row all rewards are equal and nothing is selected. But drawing at temperature λ = 0.85 sharpens
//! the policy in each round, p ← p^{1/λ}, and after ten rounds the likeliest answer has 79 % instead of
//! 40 %.
//!
//! Change the temperature `0.85` in `run` to `1.0` and see: the last row stays at π_ref. At `1.2` it
//! flattens instead.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::SamplingConfig;
use candle_align::online::raft::best_of_k;
use candle_core::{Device, Tensor};
use policy::{REFERENCE, REWARDS, Result, kl, log, table};

/// The policies at the end of each run.
pub struct Report {
    pub policies: Vec<(&'static str, Vec<f64>)>,
}

pub fn run() -> Result<Report> {
    let best_of_2 = |p: &[f64]| round(p, &REWARDS, 2, 1.0);
    let once = best_of_2(&REFERENCE)?;
    let thrice = best_of_2(&best_of_2(&once)?)?;
    let at_once = round(&REFERENCE, &REWARDS, 8, 1.0)?;
    let mut sharpened = REFERENCE.to_vec();
    for _ in 0..10 {
        sharpened = round(&sharpened, &[7.0; 4], 2, 0.85)?;
    }
    let policies = vec![
        ("π_ref", REFERENCE.to_vec()),
        ("best of 2, one round", once),
        ("best of 2, three rounds", thrice),
        ("best of 8, one round", at_once),
        ("equal rewards, λ = 0.85, ten rounds", sharpened),
    ];
    Ok(Report { policies })
}

/// The distribution of the best of n draws from the policy at a temperature.
pub fn round(policy: &[f64], rewards: &[f64], n: u32, temperature: f64) -> Result<Vec<f64>> {
    let logits = Tensor::new(log(policy), &Device::Cpu)?.unsqueeze(0)?;
    let config = SamplingConfig {
        temperature,
        ..Default::default()
    };
    let p: Vec<f64> = config.probabilities(&logits)?.squeeze(0)?.to_vec1()?;

    // every way to draw n of the four: draw i of list l is digit i of l in base 4
    let lists = 4usize.pow(n);
    let draws: Vec<usize> = (0..lists)
        .flat_map(|list| (0..n).map(move |i| list / 4usize.pow(i) % 4))
        .collect();
    let scores: Vec<f64> = draws.iter().map(|&y| rewards[y]).collect();
    let kept = best_of_k(
        &Tensor::from_vec(scores, (lists, n as usize), &Device::Cpu)?,
        None,
    )?;

    let mut law = vec![0.0; policy.len()];
    for (list, row) in draws.chunks(n as usize).zip(kept) {
        law[draws[row]] += list.iter().map(|&y| p[y]).product::<f64>();
    }
    Ok(law)
}

impl Report {
    pub fn table(&self) -> String {
        let row = |p: &[f64]| [p, &[kl(p, &REFERENCE)]].concat();
        let rows: Vec<_> = self
            .policies
            .iter()
            .map(|(name, p)| (*name, row(p)))
            .collect();
        table(&["", "A", "B", "C", "D", "KL"], &rows)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
