//! The optimizer of a phase.

use super::adapter::budget::Budget;
use super::error::Result;
use super::trainer::Phase;
use candle_align::lora_plus_groups;
use candle_core::Var;
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

/// AdamW with its learning rates relative to the schedule: two of them under LoRA+.
pub fn optimisers(phase: &Phase, vars: &[(String, Var)]) -> Result<Vec<(AdamW, f64)>> {
    let settings = phase.task.settings;
    let peak = phase.task.objective.peak(settings);
    let one = |vars: Vec<(String, Var)>, faster: f64| -> Result<(AdamW, f64)> {
        let params = ParamsAdamW {
            lr: peak * faster,
            weight_decay: settings.weight_decay,
            ..Default::default()
        };
        let vars = vars.into_iter().map(|(_, var)| var).collect();
        Ok((AdamW::new(vars, params)?, faster))
    };
    let ratio = match (phase.model.adapted(), &settings.adapter) {
        (Some(_), Some(adapter)) => adapter.lora_plus,
        _ => None,
    };
    Ok(match ratio {
        None => vec![one(vars.to_vec(), 1.0)?],
        Some(ratio) => {
            let groups = lora_plus_groups(vars.to_vec(), peak, ratio)?;
            vec![one(groups.a, 1.0)?, one(groups.b, ratio)?]
        }
    })
}

/// AdaLoRA's, of a model under it.
pub fn budget(phase: &Phase) -> Result<Option<Budget>> {
    match (phase.model.adapted(), &phase.task.settings.adapter) {
        (Some(adapted), Some(adapter)) => Ok(Budget::new(adapter, adapted, phase.steps)?),
        _ => Ok(None),
    }
}
