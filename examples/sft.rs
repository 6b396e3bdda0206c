//! §3, supervised fine-tuning: averaging over each answer's tokens learns a different distribution from the data's.
//!
//! ```text
//! cargo run --example sft
//! ```
//! Four answers are equally frequent in the data: nothing, `ha`, `ha ha`, `ha ha ha`. They have 1, 2, 3
//! and 3 tokens, because the end token counts too (the last answer is cut off before it). Only the
//! divisor of the loss differs between the rows:
//!
//! ```text
//! after training on             0      1×      2×      3×  tokens
//! the data                  0.250   0.250   0.250   0.250   2.250
//! sum per answer            0.250   0.250   0.250   0.250   2.250
//! mean over the tokens      0.250   0.250   0.250   0.250   2.250
//! mean of answers' means    0.462   0.231   0.154   0.154   1.846
//! tokens, one answer each   0.462   0.231   0.154   0.154   1.846
//! ```
//! What you should see: dividing each answer's loss by its own length gives the answer a weight of
//! 1/|y|, and the optimum is π(y) ∝ d(y)/|y|: 6/13, 3/13, 2/13, 2/13. The model stops earlier than its
//! data do. The last row averages over the tokens of the batch with one answer per batch: accumulated
//! this way, the harmless divisor becomes the harmful one.
//!
//! Change `&[0, 1, 2, 3]` in `run` to `&[0, 1, 2, 3, 3]` and see: `ha ha ha` is twice as frequent, the
//! sum learns 0.400 for it, and the mean of means learns 0.267.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::{Reduction, SftConfig, Statistics, TokenLogProbs, sft_loss};
use candle_core::{Device, Tensor};
use policy::{Result, descend, mean, table};

/// The tokens of each answer.
pub const LENGTHS: [f64; 4] = [1.0, 2.0, 3.0, 3.0];
/// d(y).
pub const DATA: [f64; 4] = [0.25; 4];

/// The optimum of each reduction of the loss: π over the four answers.
pub struct Report {
    pub learned: Vec<(&'static str, Vec<f64>)>,
}

pub fn run() -> Result<Report> {
    let all = |reduction| move |theta: &Tensor| fine_tuning(theta, &[0, 1, 2, 3], reduction);
    let one_at_a_time = |theta: &Tensor| {
        let each = (0..4).map(|y| fine_tuning(theta, &[y], Reduction::TokenMean));
        let each = each.collect::<candle_align::Result<Vec<_>>>()?;
        Ok(Tensor::stack(&each, 0)?.mean_all()?)
    };
    let sum = learn(2.0, all(Reduction::SequenceMean))?;
    // the loss is divided by 2¼ tokens per answer, so the steps are longer by this factor
    let tokens = learn(4.5, all(Reduction::TokenMean))?;
    let means = learn(4.0, all(Reduction::MeanOfSequenceMeans))?;
    let learned = vec![
        ("the data", DATA.to_vec()),
        ("sum per answer", sum),
        ("mean over the tokens", tokens),
        ("mean of answers' means", means),
        ("tokens, one answer each", learn(4.0, one_at_a_time)?),
    ];
    Ok(Report { learned })
}

/// θ is the logit of another `ha` against the end, after zero, one and two of them.
fn learn(alpha: f64, loss: impl Fn(&Tensor) -> candle_align::Result<Tensor>) -> Result<Vec<f64>> {
    let theta = descend(&[0.0; 3], alpha, 400, loss)?;
    let mut reached = 1.0;
    let mut answers = Vec::new();
    for logit in theta {
        let goes_on = 1.0 / (1.0 + (-logit).exp());
        answers.push(reached * (1.0 - goes_on));
        reached *= goes_on;
    }
    answers.push(reached);
    Ok(answers)
}

/// The loss of some of the answers; token 0 is the end, 1 is `ha`.
fn fine_tuning(
    theta: &Tensor,
    answers: &[u32],
    reduction: Reduction,
) -> candle_align::Result<Tensor> {
    let answers = Tensor::new(answers, &Device::Cpu)?;
    let tokens = [[0u32, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]];
    let tokens = Tensor::new(&tokens, &Device::Cpu)?.index_select(&answers, 0)?;
    let mask = [[1u8, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]];
    let mask = Tensor::new(&mask, &Device::Cpu)?.index_select(&answers, 0)?;
    let logits = Tensor::stack(&[&theta.zeros_like()?, theta], 1)?; // [time, 2]
    let logits = logits.unsqueeze(0)?.repeat((answers.dim(0)?, 1, 1))?;
    let log_probs = TokenLogProbs::aligned(&logits, &tokens, &mask, Statistics::default())?;
    sft_loss(&log_probs, None, &SftConfig::default())?.reduce(reduction)
}

impl Report {
    pub fn table(&self) -> String {
        let row = |pi: &[f64]| [pi, &[mean(pi, &LENGTHS)]].concat();
        let rows: Vec<_> = self
            .learned
            .iter()
            .map(|(name, pi)| (name, row(pi)))
            .collect();
        let head = ["after training on", "0", "1×", "2×", "3×", "tokens"];
        table(&head, &rows)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
