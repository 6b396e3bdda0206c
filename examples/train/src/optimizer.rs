//! The optimizer of a phase.

use super::adapter::budget::Budget;
use super::error::Result;
use super::trainer::Phase;
use candle_align::parameter_efficient::lora_plus_groups;
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_core::Var;

/// AdamW at the objective's peak rate: one group, or two under LoRA+.
pub fn optimizer(phase: &Phase, vars: &[(String, Var)]) -> Result<AdamW> {
    let settings = phase.task.settings;
    let ratio = match (phase.model.adapted(), &settings.adapter) {
        (Some(_), Some(adapter)) => adapter.lora_plus,
        _ => None,
    };
    let groups = match ratio {
        None => vec![ParameterGroup::new(vars.to_vec(), settings.weight_decay)],
        Some(ratio) => lora_plus_groups(vars.to_vec(), ratio, settings.weight_decay)?,
    };
    let config = AdamWConfig {
        learning_rate: phase.task.objective.peak(settings),
        ..Default::default()
    };
    Ok(AdamW::new(groups, config)?)
}

/// AdaLoRA's, of a model under it.
pub fn budget(phase: &Phase) -> Result<Option<Budget>> {
    match (phase.model.adapted(), &phase.task.settings.adapter) {
        (Some(adapted), Some(adapter)) => Ok(Budget::new(adapter, adapted, phase.steps)?),
        _ => Ok(None),
    }
}
