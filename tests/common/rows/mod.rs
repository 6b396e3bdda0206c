//! The table of losses. A new loss is a new file here with a few rows: its default, a setting off
//! the default, the point where training starts, a tie or a kink's neighborhood.

use super::{Input, Row, constant, mask, trained};
use candle_align::{Candidates, Result, TokenLoss};
use candle_core::Tensor;

mod brio;
mod distillation;
mod dpo;
mod expected_risk;
mod language;
pub mod policy_gradient;
mod ppo;
mod pro;
mod reward_model;
mod rlhf;
mod rrhf;
mod sft;
mod since;
mod slic;
mod stable_alignment;

/// Every row.
pub fn all() -> Vec<Row> {
    let mut rows = smooth();
    rows.extend(policy_gradient::surrogates().into_iter().map(|s| s.row));
    rows
}

/// The rows whose gradient is the slope of their value.
pub fn smooth() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(sft::rows());
    rows.extend(reward_model::rows());
    rows.extend(ppo::rows());
    rows.extend(rlhf::rows());
    rows.extend(dpo::rows());
    rows.extend(pro::rows());
    rows.extend(slic::rows());
    rows.extend(rrhf::rows());
    rows.extend(stable_alignment::rows());
    rows.extend(language::rows());
    rows.extend(brio::rows());
    rows.extend(expected_risk::rows());
    rows.extend(since::rows());
    rows.extend(distillation::rows());
    rows.extend(policy_gradient::rows());
    rows
}

/// Three lists of up to four answers: all four, the last left out, the first two left out.
fn lists_of(sums: &[f64; 12], lengths: &[f64; 12]) -> Vec<Input> {
    #[rustfmt::skip]
    let (rewards, counted) = (
        [0.2, 1.5, -0.3, 0.8,   2.0, -1.0, 0.5, 9.0,   7.0, 8.0, -0.5, 1.1],
        [  1,   1,    1,   1,     1,    1,   1,   0,     0,   0,    1,   1],
    );
    vec![
        trained("sums", &[3, 4], sums),
        constant("lengths", &[3, 4], lengths),
        constant("rewards", &[3, 4], &rewards),
        mask("mask", &[3, 4], &counted),
    ]
}

/// The answers of [`lists_of`].
fn candidates(x: &[Tensor]) -> Result<Candidates> {
    Candidates::new(&x[0], &x[1], &x[2], Some(&x[3]))
}

/// The losses of three reference answers of up to `time` tokens: whole, all but the first, one token.
fn reference_of(time: usize) -> Vec<Input> {
    let losses: Vec<f64> = (0..3 * time).map(|i| 0.3 + 0.17 * i as f64).collect();
    let counted: Vec<u8> = (0..3 * time)
        .map(|i| match (i / time, i % time) {
            (0, _) => 1,
            (1, t) => (t > 0) as u8,
            (_, t) => (t == 1) as u8,
        })
        .collect();
    vec![
        trained("reference.loss", &[3, time], &losses),
        mask("reference.mask", &[3, time], &counted),
    ]
}

/// The reference answers of [`reference_of`], if the row has them.
fn reference(x: &[Tensor]) -> Option<TokenLoss> {
    let [loss, mask] = x else { return None };
    Some(TokenLoss {
        loss: loss.clone(),
        mask: mask.clone(),
    })
}
