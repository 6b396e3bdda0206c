//! Answers with a label of their own, without pairs: since the survey.
//!
//! | loss | takes | an answer's score against | slope far on the wrong side | optimum |
//! |---|---|---|---|---|
//! | [`kto_loss`] | answers, desirable or not | z₀, from mismatched answers | dies | none that is finite |
//! | [`apo_zero_unpaired_loss`] | the same | 0 | dies | none that is finite |
//! | [`bco_loss`] | the same | δ, the running mean of all rewards | β | log-odds of the label |
//! | [`bco_pair_loss`] | pairs | δ | β | as above |
//!
//! z₀ and δ are values that the caller passes, so an answer's loss depends on it alone and micro-batches are
//! one batch. [`kto_baseline`] and [`RewardShift`] compute them for a
//! whole window.

pub mod bco;
pub mod kto;

pub use bco::{BcoConfig, RewardShift, bco_loss, bco_pair_loss};
pub use kto::{ApoUnpairedConfig, KtoConfig, apo_zero_unpaired_loss, kto_baseline, kto_loss};

use crate::error::Result;
use candle_core::Tensor;

/// What a loss over single answers returns.
#[derive(Clone, Debug)]
pub struct UnpairedLoss {
    /// One loss per answer `[batch]`.
    pub loss: Tensor,
    /// The implicit reward of each answer, β·ρ `[batch]`, detached.
    pub rewards: Tensor,
}

/// `desirable` where the label is not 0, else `other`.
fn by_label(labels: &Tensor, desirable: &Tensor, other: &Tensor) -> Result<Tensor> {
    Ok(labels.ne(0u8)?.where_cond(desirable, other)?)
}
