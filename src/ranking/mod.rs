//! Learning from ranked answers without reinforcement learning (survey §3.2.1).

pub mod dpo;

use crate::Pair;
use candle_core::Tensor;

/// What a loss over pairs returns.
#[derive(Clone, Debug)]
pub struct PreferenceLoss {
    /// One loss per pair `[batch]`.
    pub loss: Tensor,
    /// The implicit reward of each answer `[batch]`, detached: for accuracy and margin.
    pub rewards: Pair<Tensor>,
}

/// What a loss over lists returns.
#[derive(Clone, Debug)]
pub struct ListLoss {
    /// The whole objective, one number per list `[batch]`.
    pub loss: Tensor,
    /// Its ranking part `[batch]`, detached.
    pub ranking: Tensor,
    /// Its supervised part `[batch]`, already weighted, detached: `loss = ranking + sft`.
    pub sft: Tensor,
}
