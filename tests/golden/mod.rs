//! Golden numbers: the crate against independent originals.
//!
//! The `.json` files beside this one hold what TRL, Transformers, PEFT and bitsandbytes
//! compute, or the sums of a paper written out in scalars, with gradients by automatic
//! differentiation in float64; `make.py` writes them. Each case says which. Here they are only read.

mod adapter_files;
mod adapters;
mod adapters_more;
mod alignment;
mod auxiliary;
mod builders;
mod calibration;
mod data_instructions;
mod data_management;
mod decoder;
mod distillation;
mod evaluation;
mod expressions;
mod language;
mod online;
mod optimizer;
mod policy_gradient;
mod preference;
mod prompts;
mod quantized;
mod raft;
mod ranking;
mod reader;
mod rollout;
mod since;
mod since_whole;
mod supervised;

/// Difference allowed between two f64 computations of one number, relative above 1.
const EXACT: f64 = 1e-12;
