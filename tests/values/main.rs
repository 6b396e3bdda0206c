//! Values: every expectation is a formula with the numbers in it, in f64.

#[path = "../common/mod.rs"]
mod common;

mod adalora;
mod adamw;
mod adapter;
mod agreement;
mod brio;
mod chain_of_hindsight;
mod conditional_sft;
mod design_space;
mod dora;
mod dpo;
mod expected_risk;
mod forgetful;
mod ia3;
mod log_probs;
mod lora;
mod math;
mod pairs;
mod ppo;
mod prefix;
mod pro;
mod prompt;
mod qlora;
mod quantise;
mod raft;
mod reduction;
mod revision;
mod reward_head;
mod reward_model;
mod rollout;
mod rrhf;
mod sampling;
mod schedule;
mod second_thoughts;
mod sequence;
mod sft;
mod slic;
mod stable_alignment;
mod targets;
mod training;
mod vera;
