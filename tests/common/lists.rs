//! Pairs and lists of answers from literals, and the parts of a loss over lists.

use super::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::{Candidates, ListLoss, Pair};
use candle_core::Tensor;

pub fn pair(chosen: &[f64], rejected: &[f64]) -> Pair<Tensor> {
    Pair {
        chosen: vector(chosen),
        rejected: vector(rejected),
    }
}

/// One list.
pub fn list(sums: &[f64], lengths: &[f64], rewards: &[f64]) -> Candidates {
    lists(&[sums], &[lengths], &[rewards])
}

/// A batch of lists, none of whose answers are masked.
pub fn lists(sums: &[&[f64]], lengths: &[&[f64]], rewards: &[&[f64]]) -> Candidates {
    Candidates::new(&matrix(sums), &matrix(lengths), &matrix(rewards), None).unwrap()
}

/// Both parts, and their sum as the loss.
#[track_caller]
pub fn assert_parts(out: &ListLoss, ranking: &[f64], sft: &[f64], what: &str) {
    assert_close(&numbers(&out.ranking), ranking, EXACT, what);
    assert_close(&numbers(&out.sft), sft, EXACT, what);
    let whole: Vec<f64> = ranking.iter().zip(sft).map(|(r, s)| r + s).collect();
    assert_close(&numbers(&out.loss), &whole, EXACT, what);
}
