//! Answers that are right or wrong (survey §4.1.1): knowledge, reasoning, code.
//!
//! | benchmark | the answer | how it is scored here |
//! |---|---|---|
//! | MMLU, C-Eval, AGIEval, CommonsenseQA | one of a few options | the likeliest option: [`choice_scores`], [`choose`]; or the letter that was written: [`choice_letter`] |
//! | GSM8K, MATH | a number after a chain of thought | [`gsm8k_answer`], [`last_number`], then [`exact_match`] |
//! | StrategyQA, BBH | a word | [`exact_match`] |
//! | last letters, coin flips | computed with the question | [`last_letters`], [`coin_flips`], then [`exact_match`] |
//! | HumanEval, MBPP, DS-1000 | a program that passes the tests | [`pass_at_k`], [`mean_pass_at_k`] |
//!
//! What runs the model or the tests is the caller's; these functions take what came out.
//!
//! Read next: [`choice_scores`], [`pass_at_k`].

mod answers;
mod multiple_choice;
mod pass_at_k;
mod tasks;

pub use answers::{ExactMatchConfig, choice_letter, exact_match, gsm8k_answer, last_number};
pub use multiple_choice::{ChoiceScore, accuracy, choice_scores, choose};
pub use pass_at_k::{mean_pass_at_k, pass_at_k};
pub use tasks::{Question, coin_flips, last_letters};
