//! Preferences and feedback written in words (survey §3.2.2).
//!
//! Read next: [`sequence`].

pub mod chain_of_hindsight;
pub mod conditional_sft;
pub mod edits;
pub mod revision;
pub mod second_thoughts;
pub mod sequence;
pub mod stable_alignment;

pub use sequence::{Encode, Sequence, SequenceBatch};
