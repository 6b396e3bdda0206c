//! §3.2.2, conditional fine-tuning: C-RLFT's class weights cancel if the model is told the class.
//!
//! ```text
//! cargo run --example conditional_sft
//! ```
//! A good author wrote three in ten answers, another author the rest; the data of each are known. The
//! model learns the answers after `? $ +` and `? $ -`, which tell it the author, or after `? $` alone.
//! Each answer has weight 1, or e^{r_c/β} as in C-RLFT, with r_c of 1 and 0.1 and β = ½:
//!
//! ```text
//!                                   A       B       C       D
//! data, the good author         0.100   0.500   0.100   0.300
//! data, the other               0.600   0.100   0.200   0.100
//! told, asked for good          0.100   0.500   0.100   0.300
//! told, C-RLFT, for good        0.100   0.500   0.100   0.300
//! told, C-RLFT, for the other   0.600   0.100   0.200   0.100
//! not told                      0.450   0.220   0.170   0.160
//! not told, C-RLFT              0.239   0.389   0.128   0.244
//! ```
//! What you should see: a model that is told the class learns each class as it is. A weight that is
//! the same for a whole class changes nothing: asked for "good", the model answers like the good author,
//! no better. A model that is not told learns the mixture, and the weights shift it:
//! π ∝ Σ_c p(c) · e^{r_c/β} · π_c. Real models are told the class and share parameters between the
//! classes; only through this sharing can the weights act.
//!
//! Change `CLASS_REWARDS` to `[1.0, 0.5]` and see: the last row moves back toward `not told`, and the
//! rows above it do not change.

#[path = "tabular/policy.rs"]
mod policy;
#[path = "tabular/table.rs"]
mod table;

use candle_align::language::LearnedAnswers;
use candle_align::language::conditional_sft::{ClassPrompt, ClassWeighting, Turn};
use candle_align::{CRlftConfig, SftConfig, c_rlft_loss, sft_loss};
use candle_core::{Device, Tensor};
use policy::{BETA, Result, table as shown};
use table::learn;

/// The share of each class, its distribution of answers, and r_c.
pub const SHARES: [f64; 2] = [0.3, 0.7];
pub const DATA: [[f64; 4]; 2] = [[0.1, 0.5, 0.1, 0.3], [0.6, 0.1, 0.2, 0.1]];
pub const CLASS_REWARDS: [f64; 2] = [1.0, 0.1];

const ANSWERS: [&str; 4] = ["A", "B", "C", "D"];
/// The answers are the first four symbols.
const SYMBOLS: &str = "ABCD$?+-";
const END: u32 = 4;

/// The distribution of answers of each model.
pub struct Report {
    pub policies: Vec<(&'static str, Vec<f64>)>,
}

pub fn run() -> Result<Report> {
    let (told, weighted) = (["+", "-"], true);
    let [good, _] = fine_tuned(told, !weighted)?;
    let [c_rlft_good, c_rlft_other] = fine_tuned(told, weighted)?;
    let not_told = ["", ""];
    let [mixed, _] = fine_tuned(not_told, !weighted)?;
    let [c_rlft_mixed, _] = fine_tuned(not_told, weighted)?;
    let policies = vec![
        ("data, the good author", DATA[0].to_vec()),
        ("data, the other", DATA[1].to_vec()),
        ("told, asked for good", good),
        ("told, C-RLFT, for good", c_rlft_good),
        ("told, C-RLFT, for the other", c_rlft_other),
        ("not told", mixed),
        ("not told, C-RLFT", c_rlft_mixed),
    ];
    Ok(Report { policies })
}

/// A model's answers to `?` after the name of each class, once it has learned all answers.
fn fine_tuned(names: [&str; 2], weighted: bool) -> Result<[Vec<f64>; 2]> {
    let encode = |text: &str| -> candle_align::Result<Vec<u32>> {
        let ids = text.chars().filter_map(|c| SYMBOLS.find(c));
        Ok(ids.map(|id| id as u32).collect())
    };
    let classes = names.map(|name| ClassPrompt {
        user: String::new(),
        assistant: name.to_string(),
    });
    let (mut sequences, mut shares, mut rewards) = (Vec::new(), Vec::new(), Vec::new());
    for (c, y) in (0..8).map(|i| (i / 4, i % 4)) {
        let turn = Turn {
            user: "?",
            assistant: ANSWERS[y],
        };
        sequences.push(classes[c].sequence(&encode, &[turn], END, LearnedAnswers::Every)?);
        shares.push(SHARES[c] * DATA[c][y]);
        rewards.push(CLASS_REWARDS[c] - 1.0); // a constant shift only scales the loss
    }
    let rewards = Tensor::new(rewards, &Device::Cpu)?;
    let config = CRlftConfig {
        weighting: ClassWeighting::Exponential { beta: BETA },
    };
    let learned = learn(&sequences, &shares, 8, (2.0, 500), |log_probs| {
        Ok(match weighted {
            true => c_rlft_loss(log_probs, &rewards, &config)?.tokens.loss,
            false => sft_loss(log_probs, None, &SftConfig::default())?.loss,
        })
    })?;
    let answers = |class: &ClassPrompt| -> Result<Vec<f64>> {
        let next = &learned[&class.prompt(&encode, "?", END)?];
        Ok(next[..4].to_vec())
    };
    Ok([answers(&classes[0])?, answers(&classes[1])?])
}

impl Report {
    pub fn table(&self) -> String {
        shown(&["", "A", "B", "C", "D"], &self.policies)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
