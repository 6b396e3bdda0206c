//! Values: every expectation is a formula with the numbers in it, in f64.

#[path = "../common/mod.rs"]
mod common;

mod adamw;
mod dpo;
mod log_probs;
mod lora;
mod math;
mod ppo;
mod pro;
mod reduction;
mod reward_head;
mod reward_model;
mod rrhf;
mod sft;
mod slic;
mod training;
