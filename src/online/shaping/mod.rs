//! What is done to rewards, masks and batches around a policy loss (2025, after the survey).
//!
//! | function | changes | gives |
//! |---|---|---|
//! | [`overlong_penalty`] | the reward of answers near the limit | a penalty to add, `[batch]` |
//! | [`without_truncated`] | which answers count | a mask: out of the loss and out of its divisor |
//! | [`informative_groups`] | which prompts are used | 1 for groups whose rewards differ |
//! | [`high_entropy_mask`] | which tokens teach | 1 for the least certain tokens |
//! | [`EntropyController`] | the weight of the entropy bonus | a coefficient for the next step |
//!
//! The bonus itself is [`entropy_loss`](crate::entropy_loss). An answer without its end token has a penalty of its own in
//! [`missing_eos_penalty`](super::rewards::missing_eos_penalty).

pub mod dynamic_sampling;
pub mod entropy;
pub mod overlong;

pub use dynamic_sampling::informative_groups;
pub use entropy::{EntropyController, EntropyControllerConfig, high_entropy_mask};
pub use overlong::{OverlongConfig, overlong_penalty, without_truncated};
