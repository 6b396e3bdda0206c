//! Advantages of a group: several answers to one prompt judge each other (2023 to 2026, after the survey).
//!
//! PPO asks a critic how good an answer was expected to be. Here the other answers to the prompt say so. Rewards are
//! `[prompts, answers]`; groups may be ragged, and a mask leaves answers out: those that do not exist, were not scored or
//! were cut off. An answer without a reward is masked out, not given a reward of NaN.
//!
//! | function | baseline | divided by | ascends, for success of probability p |
//! |---|---|---|---|
//! | [`grpo_advantages`] | the group's mean | the group's deviation | 2 arcsin √p |
//! | … with [`Deviation::None`] (Dr. GRPO) | the group's mean | – | p (1 − 1/G) |
//! | … with [`Deviation::Batch`] | the group's mean | the batch's deviation | p, scaled by the batch |
//! | [`rloo_advantages`] | the mean of the others | – | p |
//! | [`max_rl_advantages`] | the group's mean | the group's mean | log p, to order G − 1 |
//! | [`opo_advantages`] | the group's mean, weighted by length | – | – |
//! | [`pass_at_k_advantages`] | the second best | the group's deviation | – |
//! | [`gdpo_advantages`] | the mean of each reward | the deviation of each, then of the batch | – |
//! | [`reinforce_plus_plus_advantages`] | the mean over all tokens of the batch | their deviation | – |
//! | [`reinforce_plus_plus_baseline_advantages`] | the group's mean, then that of the batch's tokens | their deviation | – |
//! | [`remax_advantages`] | the reward of the greedy answer | – | p |
//!
//! Flattened to `[batch]`, the advantages of answers enter a loss of [`policy_gradient`](super::policy_gradient). The last
//! column is tested in
//! `tests/identities/group_advantages.rs::four_utilities_of_one_success_probability` and drawn on the page of `policy_gradient`.
//!
//! # A group of one, and a group without variance
//!
//! A group teaches by comparison. Where there is nothing to compare, every function that compares within a group gives
//! exactly 0: for one answer, and for equal rewards, whatever their rounding. (REINFORCE++ shifts by the batch.) Such answers still feel a KL in the loss, and they still count
//! in its divisor; [`informative_groups`](super::shaping::informative_groups) leaves them out.
//!
//! | | a group of one | equal rewards |
//! |---|---|---|
//! | here | 0 | 0 |
//! | TRL 1.16 GRPO, RLOO | 0 | rounding / 10⁻⁴ (trl#7068) |
//! | verl GRPO | **the raw reward**: mean 0, deviation 1 | rounding / 10⁻⁶ |
//! | verl RLOO; `rloo_vectorized` | **the raw reward**; 0 | 0 |
//! | NeMo-RL GRPO | 0 | 0, not divided; by default its mean and deviation leave the own answer out |
//!
//! # Windows
//!
//! A group is whole or its baseline is another one: compute advantages before a batch is cut into micro-batches. The
//! deviation of a batch and the whitening of REINFORCE++ and GDPO take what is passed as the batch: the rollout, of all
//! processes if there are several. Everything runs on the host, in f64.

pub mod gdpo;
mod groups;
pub mod grpo;
pub mod max_rl;
pub mod opo;
pub mod pass_at_k;
pub mod reinforce_plus_plus;
pub mod remax;
pub mod rloo;

pub use gdpo::{GdpoConfig, gdpo_advantages};
pub use groups::Divisor;
pub use grpo::{Deviation, GrpoAdvantageConfig, grpo_advantages};
pub use max_rl::max_rl_advantages;
pub use opo::opo_advantages;
pub use pass_at_k::{PassAtKConfig, pass_at_k_advantages};
pub use reinforce_plus_plus::{
    ReinforcePlusPlusConfig, reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
};
pub use remax::remax_advantages;
pub use rloo::rloo_advantages;
