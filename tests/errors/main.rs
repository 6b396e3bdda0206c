//! Bad input: every message word for word.

#[path = "../common/mod.rs"]
mod common;

mod adamw;
mod dpo;
mod log_probs;
mod lora;
mod ppo;
mod pro;
mod reward_head;
mod reward_model;
mod rrhf;
mod sft;
mod slic;
mod training;
