//! What a training loop on candle needs and candle does not provide.
//!
//! Functions here take named variables, sorted by name ([`named_vars`]): a map's own order changes
//! from run to run, and with it the rounding of a sum.
//!
//! Import from here: `use candle_align::training::{AdamW, grad_coverage};`.
//!
//! # Tied variables
//!
//! One variable under two names, such as an embedding that is also the output layer, is one variable:
//! [`GradAccumulator::add`], [`clip_grad_norm`], [`grad_coverage`], [`gradient_agreement`] and
//! [`lora_plus_groups`](crate::parameter_efficient::lora_plus_groups) use it once, under the first of its names.
//! [`AdamW::new`] refuses it, since the name is also the name of its moments in a file: list it once.

mod accumulate;
mod adamw;
mod agreement;
mod checkpoint;
mod clip;
mod coverage;
mod differences;
mod groups;
mod points;
mod recompute;
mod schedule;
mod state;
mod state_file;
mod step;
mod update;

pub use accumulate::GradAccumulator;
pub use adamw::AdamW;
pub use agreement::{Agreement, GradientAgreement, VariableAgreement, gradient_agreement};
pub use clip::clip_grad_norm;
pub use coverage::{GradCoverage, grad_coverage};
pub use groups::{AdamWConfig, NonFinite, ParameterGroup};
pub use recompute::recompute;
pub use schedule::{Convention, Decay, Schedule};

use crate::error::Result;
use candle_core::Var;
use candle_nn::VarMap;
use std::collections::HashSet;

/// A model's variables with their names, sorted by name.
///
/// # Errors
/// Candle's own, if another thread panicked while it held the map.
pub fn named_vars(map: &VarMap) -> Result<Vec<(String, Var)>> {
    let data = map
        .data()
        .lock()
        .map_err(|_| candle_core::Error::Msg("the variable map's lock is poisoned".into()))?;
    let mut vars: Vec<_> = data
        .iter()
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(vars)
}

/// Each variable once; one that is listed under several names has the first of them.
pub(crate) fn distinct(vars: &[(String, Var)]) -> impl Iterator<Item = &(String, Var)> {
    let mut seen = HashSet::new();
    vars.iter().filter(move |(_, var)| seen.insert(var.id()))
}
