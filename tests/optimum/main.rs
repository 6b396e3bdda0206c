//! Optima: on a policy small enough to enumerate, training arrives where theory says it must.

#[path = "../common/mod.rs"]
mod common;

mod dpo;
mod lora;
mod ppo;
mod pro;
mod reward_model;
mod rrhf;
mod sft;
mod slic;
mod training;
