//! Policy losses without a critic, since the survey: what becomes of the ratio.
//!
//! All take the log-probabilities of the policy and of the one that wrote the answers, and an advantage for each answer or
//! token, as [`ppo_policy_loss`](crate::ppo_policy_loss) does. They return a loss per token; the reduction is the
//! caller's. Some of the names below differ in nothing else.
//!
//! | loss | of which ratio | beyond its bounds | reduction of the paper |
//! |---|---|---|---|
//! | [`reinforce_loss`] | none | – | `SequenceMean` |
//! | [`grpo_loss`] | token (or any level) | the gradient stops | `MeanOfSequenceMeans` |
//! | … DAPO | token | stops; the upper bound is wider | `TokenMean` |
//! | … Dr. GRPO | token | stops | `SumOver { count: answers · constant }` |
//! | … RLOO | answer, sum | stops | `MeanOfSequenceMeans` |
//! | [`gspo_loss`] | answer, geometric mean | stops for all of its tokens | `MeanOfSequenceMeans` |
//! | … LUSPO | answer, geometric mean | the same | `SequenceMean` |
//! | [`gmpo_loss`] | answer, geometric mean of clipped ratios | a token stops | `MeanOfSequenceMeans` |
//! | [`cispo_loss`] | token, a constant | the weight stays | `TokenMean` |
//! | [`sapo_loss`] | token | the gradient fades | `MeanOfSequenceMeans` |
//! | [`vespo_loss`] | answer, sum, a constant | the weight fades on both sides | `TokenMean` |
//! | [`dppo_loss`] | token, a constant | stops by the probability's change | `TokenMean` |
//! | [`kl_cov_loss`] | token | few tokens pay | `TokenMean` |
//! | [`clip_cov_tokens`] | beside GRPO | few tokens stop | `TokenMean` |
//! | [`token_dro_loss`] | none | a square pulls back | `TokenMean` |
//! | [`added_nll_loss`] | none | – | `TokenMean` of its own tokens |
//!
//! Each slope at ratio ρ, with Â = 1 and Â = −1; loss and slope are drawn by the library's own functions:
//!
#![doc = include_str!("ratios.svg")]
//!
//! The utilities of one success probability p that advantages of a group ascend, and their slopes, which weigh prompts:
//!
#![doc = include_str!("utilities.svg")]
//!
//! `cargo run --example losses` draws both pictures.
//!
//! # Windows
//!
//! A window is what one optimizer step learns from: a group, a micro-batch, the accumulation window or the batch of all
//! processes. No loss here looks beyond its own token or answer, so micro-batches are one batch as soon as the divisor is
//! the window's: add up [`Reduction::count`](crate::Reduction::count) over the window, on all processes, and reduce by
//! [`Reduction::over`](crate::Reduction::over). What is chosen by comparison (advantages, the entropy mask, the tokens of
//! Clip-Cov and KL-Cov) is computed on the whole window first and cut with it.
//!
//! # Numbers
//!
//! Ratios follow their tangent beyond e²⁰ and never overflow; where a clip stops a token, its ratio is selected away before
//! the product, so that its gradient is 0 and not 0 · ∞. [`crate::since`] says which call is which setting of TRL, verl,
//! OpenRLHF and NeMo-RL.

pub mod added;
pub mod cispo;
pub mod covariance;
pub mod dppo;
pub mod gmpo;
pub mod grpo;
pub mod gspo;
mod inputs;
pub mod reinforce;
pub mod sapo;
pub mod token_dro;
pub mod vespo;

pub use added::{AddedNllConfig, added_nll_loss};
pub use cispo::{CispoClip, CispoConfig, cispo_loss};
pub use covariance::{ClipCovConfig, KlCovConfig, clip_cov_tokens, kl_cov_loss, kl_cov_tokens};
pub use dppo::{BinaryDivergence, DppoConfig, dppo_loss};
pub use gmpo::{GmpoConfig, gmpo_loss};
pub use grpo::{GrpoConfig, grpo_loss};
pub use gspo::{GspoConfig, GspoForm, gspo_loss};
pub use reinforce::reinforce_loss;
pub use sapo::{SapoConfig, sapo_loss};
pub use token_dro::{TokenDroConfig, token_dro_loss};
pub use vespo::{VespoConfig, vespo_loss};
