//! Pairs without a reference, since the survey.
//!
//! | loss | an answer's score | required lead | held back by |
//! |---|---|---|---|
//! | [`simpo_loss`] | β · mean log-probability | γ | nothing |
//! | [`alpha_po_loss`] | β · (1 − e^(−α·mean))/α | γ | nothing |
//! | [`simper_loss`] | e^mean, the inverse perplexity | – | its own bounds |
//! | [`cpo_loss`] | β · sum of log-probabilities | – | the likelihood of the chosen answer |
//! | [`orpo_loss`], [`odds_ratio_loss`] | log-odds of e^mean | – | the same, in the first |
//! | [`tpo_loss`] | β · sum or mean | γ | the likelihood of a gold answer |

pub mod alpha_po;
pub mod cpo;
pub mod orpo;
pub mod simper;
pub mod simpo;
pub mod tpo;

pub use alpha_po::{AlphaPoConfig, alpha_po_loss};
pub use cpo::{CpoConfig, cpo_loss};
pub use orpo::{OrpoConfig, odds_ratio_loss, orpo_loss};
pub use simper::simper_loss;
pub use simpo::{RequiredLead, SimpoConfig, simpo_loss};
pub use tpo::{TpoConfig, tpo_loss};
