//! Judgments of language models (survey §4.2.2), and what is done about their biases.
//!
//! | method | a judge returns | calls of the judge | against | here |
//! |---|---|---|---|---|
//! | pairwise, both orders (MT-bench) | a preference | 2 | position | [`both_orders`], [`BothOrders::verdict`], [`position_bias`] |
//! | single scores (MT-bench) | a score | 1 for each answer | position | [`compare_scores`] |
//! | evidence and position calibration (FairEval) | two scores | 2k | position, noise | [`calibrated_scores`] |
//! | people where the judge is unsure (FairEval) | two scores | 2k | both, at a price | [`position_entropy`], [`least_certain`] |
//! | G-Eval | probabilities of scores | 1 | ties of whole scores | [`expected_score`] |
//! | GPTScore | log-probabilities | 1 | prompts that ask for a number | [`gpt_score`] |
//! | AlpacaEval | a preference in \[1, 2\] | 1 | chance of the order | [`alpaca_win_rate`] |
//! | AlpacaEval 2 | the same | 1 | length | [`length_controlled_win_rate`] |
//! | FActScore | which facts are supported | 1 for each fact | vague answers, by a penalty | [`fact_score`] |
//! | several references (Tang et al.) | nothing: a metric with a reference | 0 | one wording | [`multi_reference`] |
//!
//! A judge is a closure: it may call a model, read a file or be a rule, and nothing here calls a network.
//! Whether a judge is any good is asked by [`meta`](super::meta), with people's judgments beside it.
//!
//! Read next: [`both_orders`], [`calibrated_scores`], [`length_controlled_win_rate`].

mod alpaca;
mod calibration;
mod fact_score;
mod g_eval;
mod gpt_score;
mod lasso;
mod length_control;
mod pairwise;
mod references;
mod single;

pub use alpaca::{AlpacaWinRate, alpaca_win_rate};
pub use calibration::{calibrated_scores, least_certain, position_entropy};
pub use fact_score::{FactScore, fact_score};
pub use g_eval::{ScoreMass, expected_score};
pub use gpt_score::gpt_score;
pub use length_control::{
    LengthControlConfig, LengthControlled, LengthRow, length_controlled_win_rate,
    length_differences,
};
pub use pairwise::{BothOrders, PositionBias, both_orders, position_bias};
pub use references::{References, multi_reference};
pub use single::compare_scores;
