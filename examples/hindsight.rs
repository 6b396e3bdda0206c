//! §3.2.2, language-based: one round of Chain of Hindsight is never stronger than best-of-two.
//!
//! ```text
//! cargo run --example hindsight
//! ```
//! Two answers are drawn from π_ref, and a person prefers i to j with P = σ(c·(rᵢ − rⱼ)). The model
//! learns `? + winner $ - loser $` and is then asked for a good answer by `? +`:
//!
//! ```text
//!                                A       B       C       D     E r      KL
//! π_ref                      0.400   0.300   0.200   0.100   0.600   0.000
//! asked for good, c = 1      0.294   0.356   0.192   0.157   0.766   0.034
//! asked for good, c = 4      0.183   0.432   0.195   0.189   0.908   0.131
//! asked for good, c = 1000   0.160   0.450   0.200   0.190   0.930   0.158
//! best of two                0.160   0.450   0.200   0.190   0.930   0.158
//! ```
//! What you should see: however certain the preferences are, the model that is asked for a good answer
//! goes no further than the best of two draws. Cross-entropy learns the answers labeled good, and each
//! becomes at most twice as likely as before: KL ≤ log 2 − ½ = 0.193. Going further takes more rounds,
//! or more answers per comparison.
//!
//! Change `hindsight(4.0)` to `hindsight(0.0)` and see: with random labels its row stays at
//! π_ref.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder, HindsightPair, hindsight_sequence,
};
use candle_align::{HindsightConfig, SequenceBatch, TokenLogProbs, chain_of_hindsight_loss};
use candle_core::{DType, Device, Tensor};
use policy::{REFERENCE, REWARDS, Result, descend, log, policies, softmax};

const ANSWERS: [&str; 4] = ["A", "B", "C", "D"];
/// The answers are the first four symbols.
const SYMBOLS: &str = "ABCD$?+-";

/// The distributions of answers: of π_ref, of the model asked for a good one, of the best of two.
pub struct Report {
    pub policies: Vec<(&'static str, Vec<f64>)>,
}

pub fn run() -> Result<Report> {
    let reached = vec![
        ("π_ref", REFERENCE.to_vec()),
        ("asked for good, c = 1", hindsight(1.0)?),
        ("asked for good, c = 4", hindsight(4.0)?),
        ("asked for good, c = 1000", hindsight(1000.0)?),
        ("best of two", best_of_two()),
    ];
    Ok(Report { policies: reached })
}

/// What the model answers when it is asked for a good answer.
fn hindsight(certainty: f64) -> Result<Vec<f64>> {
    let encode = |text: &str| -> candle_align::Result<Vec<u32>> {
        let ids = text.chars().filter_map(|c| SYMBOLS.find(c));
        Ok(ids.map(|id| id as u32).collect())
    };
    let format = HindsightFormat {
        feedback: HindsightFeedback {
            good: "+".into(),
            bad: "-".into(),
        },
        order: HindsightOrder::GoodThenBad,
        learned: LearnedAnswers::Every,
    };
    // all possible comparisons, and their frequencies
    let (mut sequences, mut shares) = (Vec::new(), Vec::new());
    for (i, j) in (0..16).map(|pair| (pair / 4, pair % 4)) {
        let pair = HindsightPair {
            prompt: "?",
            good: ANSWERS[i],
            bad: ANSWERS[j],
        };
        sequences.push(hindsight_sequence(&encode, &pair, &format, 4)?);
        let wins = 1.0 / (1.0 + (certainty * (REWARDS[j] - REWARDS[i])).exp());
        shares.push(2.0 * REFERENCE[i] * REFERENCE[j] * wins);
    }
    let batch = SequenceBatch::new(&sequences, 4, &Device::Cpu)?;
    let shares = Tensor::from_vec(shares, (16, 1), &Device::Cpu)?;

    // The model knows only its position in the sequence. That is enough, because a likelihood fits each
    // part of a sequence to the data of that part.
    let loss = |theta: &Tensor| {
        // an answer always follows + and -
        let never = Tensor::full(-50.0, (2, 4), &Device::Cpu)?;
        let answer = Tensor::cat(&[&theta.reshape((2, 4))?, &never], 1)?;
        let other = Tensor::zeros((2, 8), DType::F64, &Device::Cpu)?;
        let (good, bad) = (answer.narrow(0, 0, 1)?, answer.narrow(0, 1, 1)?);
        let model = Tensor::cat(&[&other.narrow(0, 0, 1)?, &good, &other, &bad, &other], 0)?;
        let logits = model.unsqueeze(0)?.repeat((16, 1, 1))?;
        let log_probs = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask)?;
        let answers_alone = HindsightConfig::default();
        let loss = chain_of_hindsight_loss(&log_probs, None, &answers_alone)?;
        Ok(loss.hindsight.loss.broadcast_mul(&shares)?.sum_all()?)
    };
    let start = [log(&REFERENCE), log(&REFERENCE)].concat();
    let theta = descend(&start, 2.0, 400, loss)?;
    Ok(softmax(&theta[..4]))
}

/// P(both draws ≤ r) − P(both draws < r).
fn best_of_two() -> Vec<f64> {
    let mass = |counts: &dyn Fn(f64) -> bool| -> f64 {
        let draws = REFERENCE.iter().zip(REWARDS);
        draws.filter(|(_, r)| counts(*r)).map(|(p, _)| p).sum()
    };
    let best = |r: &f64| mass(&|other| other <= *r).powi(2) - mass(&|other| other < *r).powi(2);
    REWARDS.iter().map(best).collect()
}

impl Report {
    pub fn table(&self) -> String {
        policies(&self.policies)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
