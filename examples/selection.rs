//! §2.3, selection: a filter decides what fine-tuning learns, and it can only reweight what is there.
//!
//! ```text
//! cargo run --example selection
//! ```
//! A dataset has 40 answers to one prompt: 16 times a guess, 12 times a rule, 8 times a hint, 4 times a proof,
//! with rewards 0, 1, 0.5 and 2. A judge gives them 3.5, 4.5, 4 and 5 of 5 points, in half of the cases; in a
//! quarter half a point less, in a quarter half a point more, if there is more. Columns: the rows that a filter
//! keeps, what `sft_loss` learns from them for the four answers, and the mean reward.
//!
//! ```text
//! everything                40    0.400   0.300   0.200   0.100    0.600
//! AlpaGasus, 4.5 points     15    0.000   0.600   0.133   0.267    1.200
//! AlpaGasus, 5 points        6    0.000   0.500   0.000   0.500    1.500
//! Self-Instruct's pool       4    0.250   0.250   0.250   0.250    0.875
//! ```
//! What you should see: a filter on grades learns π ∝ d(y) · P(y passes). The rule stays ahead of the better
//! proof, because it was three times as frequent, until fewer of its copies pass. A higher threshold raises the
//! reward and leaves less to learn from. The pool knows no grades: it keeps one of each answer and forgets how
//! frequent they were, which here helps by chance.
//!
//! Change `4.0` to `4.5` in `GRADES` and see: the judge takes hints for rules, and the reward under the filters
//! falls to 1.053 and 1.250.

#[path = "tabular/policy.rs"]
mod policy;
#[path = "tabular/table.rs"]
mod table;

use candle_align::data::selection::AlpaGasusConfig;
use candle_align::data::self_instruct::pool::{InstructionPool, Offer, PoolConfig};
use candle_align::{Sequence, SftConfig, sft_loss};
use policy::{REWARDS, Result};
use table::learn;

/// The answers and how often the dataset has each.
pub const ANSWERS: [(&str, usize); 4] = [
    ("a guess", 16),
    ("a rule", 12),
    ("a hint", 8),
    ("a proof", 4),
];
/// The judge's grade of each answer, before its noise.
pub const GRADES: [f64; 4] = [3.5, 4.5, 4.0, 5.0];
/// The noise, and its frequency in quarters.
pub const NOISE: [(f64, usize); 3] = [(-0.5, 1), (0.0, 2), (0.5, 1)];
const PROMPT: u32 = 4;

/// What is learned from the rows that a filter keeps.
pub struct Filtered {
    pub name: &'static str,
    pub kept: usize,
    pub learned: [f64; 4],
    pub reward: f64,
}

pub struct Report {
    pub filters: Vec<Filtered>,
}

/// The rows of the dataset: an answer and its grade.
fn rows() -> Vec<(usize, f64)> {
    let mut rows = Vec::new();
    for (answer, (_, count)) in ANSWERS.iter().enumerate() {
        for (noise, quarters) in NOISE {
            let grade = (GRADES[answer] + noise).min(5.0);
            rows.extend(vec![(answer, grade); count * quarters / 4]);
        }
    }
    rows
}

/// Fine-tunes on the kept rows alone.
fn filtered(name: &'static str, kept: &[usize]) -> Result<Filtered> {
    let rows = rows();
    let sequence = |&i: &usize| {
        Sequence::new()
            .given(&[PROMPT])
            .learned(&[rows[i].0 as u32])
    };
    let sequences: Vec<Sequence> = kept.iter().map(sequence).collect();
    let shares = vec![1.0 / kept.len() as f64; kept.len()];
    let table = learn(&sequences, &shares, 5, (2.0, 300), |log_probs| {
        Ok(sft_loss(log_probs, None, &SftConfig::default())?.loss)
    })?;
    let row = table.get(&[PROMPT][..]).ok_or("nothing was learned")?;
    let mut learned = [0.0; 4];
    learned.copy_from_slice(&row[..4]);
    let reward = learned.iter().zip(REWARDS).map(|(p, r)| p * r).sum();
    Ok(Filtered {
        name,
        kept: kept.len(),
        learned,
        reward,
    })
}

pub fn run() -> Result<Report> {
    let rows = rows();
    let grades: Vec<f64> = rows.iter().map(|(_, grade)| *grade).collect();
    let graded = |threshold| AlpaGasusConfig { threshold }.keep(&grades);
    let mut pool = InstructionPool::new(&PoolConfig::default())?;
    let mut is_kept = |i: &usize| matches!(pool.offer(ANSWERS[rows[*i].0].0), Offer::Kept(_));
    let everything: Vec<usize> = (0..rows.len()).collect();
    let distinct: Vec<usize> = everything.iter().copied().filter(|i| is_kept(i)).collect();
    let filters = vec![
        filtered("everything", &everything)?,
        filtered("AlpaGasus, 4.5 points", &graded(4.5)?)?,
        filtered("AlpaGasus, 5 points", &graded(5.0)?)?,
        filtered("Self-Instruct's pool", &distinct)?,
    ];
    Ok(Report { filters })
}

impl Report {
    pub fn table(&self) -> String {
        let line = |f: &Filtered| {
            let numbers: String = f.learned.iter().map(|p| format!("{p:>8.3}")).collect();
            format!("{:<24}{:>4} {numbers} {:>8.3}", f.name, f.kept, f.reward)
        };
        let lines: Vec<String> = self.filters.iter().map(line).collect();
        lines.join("\n")
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
