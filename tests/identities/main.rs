//! Identities between methods: what each page lists under Properties.

#[path = "../common/mod.rs"]
mod common;

mod adalora;
mod adapted;
mod adapter;
mod adapter_layer;
mod adapter_trait;
mod brio;
mod chain_of_hindsight;
mod conditional_sft;
mod design_space;
mod dora;
mod dpo;
mod expected_risk;
mod ia3;
mod lists;
mod log_probs;
mod lora;
mod positions;
mod ppo;
mod prefix;
mod pro;
mod prompt;
mod qlora;
mod quantise;
mod raft;
mod revision;
mod reward_model;
mod rollout;
mod rrhf;
mod sampling;
mod second_thoughts;
mod sequence;
mod sft;
mod slic;
mod stable_alignment;
mod training;
mod vera;
