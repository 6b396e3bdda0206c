//! What a training loop over candle needs and candle does not have.
//!
//! Functions here take named variables, sorted by name ([`named_vars`]): a map's own order changes
//! from run to run, and a sum of floats with it.

mod accumulate;
mod adamw;
mod clip;
mod coverage;
mod schedule;
mod state;
mod step;

pub use accumulate::GradAccumulator;
pub use adamw::{AdamW, AdamWConfig, NonFinite, ParameterGroup};
pub use clip::clip_grad_norm;
pub use coverage::{GradCoverage, grad_coverage};
pub use schedule::{Decay, Schedule};

use crate::Result;
use candle_core::Var;
use candle_nn::VarMap;

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
