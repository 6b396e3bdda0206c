//! The training objectives of "Aligning Large Language Models with Human: A Survey"
//! (arXiv:2307.12966) as small functions over candle tensors.

#![deny(unsafe_code, missing_docs, missing_debug_implementations)]
#![deny(rustdoc::broken_intra_doc_links)]
#![doc(test(attr(deny(warnings))))]

mod error;
pub mod log_probs;
pub mod math;
pub mod online;
pub mod parameter_effective;
pub mod ranking;
pub mod reduction;
pub mod sft;
mod shape;
pub mod training;

pub use error::{Error, Result};
pub use log_probs::{Candidates, Pair, Statistics, TokenLogProbs};
pub use math::Whiten;
pub use ranking::dpo::{DpoConfig, dpo_loss};
pub use ranking::{ListLoss, PreferenceLoss};
pub use reduction::Reduction;
pub use sft::{SftConfig, TokenLoss, sft_loss};
