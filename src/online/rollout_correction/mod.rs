//! Between the program that draws answers and the one that learns from them (2025, after the survey).
//!
//! The sampler computes log-probabilities with other kernels, in another type, and often some updates late. So answers
//! are drawn from a policy that is not quite the one whose ratio starts at 1. This module corrects for the difference:
//! weights, masks, and a KL whose gradient is right on old answers.
//!
//! | function | reads | gives |
//! |---|---|---|
//! | [`rollout_weights`] | training engine against sampler | a weight for each token, truncated or dropped beyond its bounds |
//! | [`sequence_band`] | the same, the mean over an answer | 0 for answers outside a band |
//! | [`off_policy_mask`] | the sampler against the policy now, and advantages | 0 for bad answers that went stale |
//! | [`unbiased_kl_loss`] | policy, old policy, reference | a KL in the loss that is right on old answers |
//! | [`straight_through_kl_loss`] | policy, reference | the value of one estimator, the gradient of KL(π‖π_ref) |
//! | [`corrected`] | a loss and any of these weights | the loss, with the same divisor |
//!
//! Weights multiply the policy's loss and not the KL, as in TRL and verl. A token of weight 0 loses its term and stays in
//! the divisor. [`vespo_loss`](super::policy_gradient::vespo_loss) takes the weights inside.
//!
//! The names of the field: TIS truncates tokens; IcePop drops tokens outside [0.5, 5]; seq-mask-TIS uses both, weights of
//! tokens and the band of answers. A ratio of whole answers, e^Σ, leaves any band soon: at 1000 tokens a mean difference of 0.003
//! is a weight of 20 (NeMo-RL#2269).

pub mod band;
pub mod kl;
pub mod off_policy;
pub mod weights;

pub use band::sequence_band;
pub use kl::{UnbiasedKlConfig, straight_through_kl_loss, unbiased_kl_loss};
pub use off_policy::off_policy_mask;
pub use weights::{Beyond, RolloutWeightConfig, corrected, rollout_weights};
