//! Optima: on a policy small enough to enumerate, training arrives where theory says it must.

#[path = "../common/mod.rs"]
mod common;

mod adalora;
mod adapter;
mod brio;
mod chain_of_hindsight;
mod conditional_sft;
mod design_space;
mod dora;
mod dpo;
mod expected_risk;
mod ia3;
mod lora;
mod ppo;
mod prefix;
mod pro;
mod prompt;
mod qlora;
mod raft;
mod revision;
mod reward_model;
mod rollout;
mod rrhf;
mod second_thoughts;
mod sft;
mod slic;
mod stable_alignment;
mod training;
mod vera;
