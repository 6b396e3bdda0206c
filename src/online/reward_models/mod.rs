//! Reward models since the survey: other labels than comparisons, and what is learned beside them.
//!
//! | loss | the label | fixes the constant of the score | an answer's reward is |
//! |---|---|---|---|
//! | [`pairwise_reward_loss`](crate::pairwise_reward_loss) | the better of two, with a margin | no | its score |
//! | [`smoothed_reward_loss`] | the same, wrong at a rate | no | its score |
//! | [`grm_loss`] | the same, beside a language-model term | no | its score |
//! | [`outcome_reward_loss`] | right or wrong | yes, log-odds | its score |
//! | [`process_reward_loss`] | right or wrong at each step | yes, log-odds | the scores of its steps |
//! | [`implicit_reward_loss`] | right or wrong | yes, log-odds | β·ρₜ of its tokens |
//! | [`verdict_score`] | a word, learned by [`sft_loss`](crate::sft_loss) | yes, a probability | p(Yes) |
//!
//! A margin *stretches* scores beyond the log-odds: the law is on the page of
//! [`pairwise_reward_loss`](crate::pairwise_reward_loss), and
//! [`simpo_loss`](crate::ranking::simpo_loss) obeys the same.

pub mod grm;
pub mod implicit;
pub mod outcome;
pub mod process;
pub mod smoothed;
pub mod verdict;

pub use grm::{GrmAuxiliary, GrmConfig, grm_loss};
pub use implicit::{ImplicitReward, ImplicitRewardConfig, implicit_reward_loss};
pub use outcome::outcome_reward_loss;
pub use process::process_reward_loss;
pub use smoothed::{SmoothedRewardConfig, smoothed_reward_loss};
pub use verdict::{VerdictShare, verdict_score};
