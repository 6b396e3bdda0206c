//! Identities between methods: what each page lists under Properties.

#[path = "../common/mod.rs"]
mod common;

mod dpo;
mod log_probs;
mod lora;
mod ppo;
mod pro;
mod reward_model;
mod rrhf;
mod sft;
mod slic;
mod training;
