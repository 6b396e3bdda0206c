//! Preferences about answers that the policy drew itself: since the survey.
//!
//! | loss | answers from | ordered by | reference | fixed point or step |
//! |---|---|---|---|---|
//! | [`online_dpo_loss`] | two of the policy | scores | fixed | DPO's, over the policy's own answers |
//! | [`xpo_loss`] | policy and reference | preferences | fixed | the same, with a bonus for leaving the reference |
//! | [`nash_md_loss`] | one of the policy, one of a mixture | win probability | fixed | a Nash equilibrium of the preferences |
//! | [`spin_loss`] | the data and the previous iterate | their origin | the previous iterate | the distribution of the data |
//! | [`rebel_loss`] | two of the previous iterate | rewards | the previous iterate | π · e^(η r) |
//!
//! Drawing and judging are the caller's. [`crate::online`] has what draws answers and what scores them.

pub mod nash_md;
pub mod online_dpo;
pub mod rebel;
pub mod spin;
pub mod xpo;

pub use nash_md::{KlCredit, NashMdConfig, geometric_mixture, nash_md_loss};
pub use online_dpo::{OnlineDpoConfig, TiedScores, online_dpo_loss};
pub use rebel::{RebelConfig, rebel_loss};
pub use spin::{SpinConfig, spin_loss};
pub use xpo::{XpoConfig, xpo_loss};
