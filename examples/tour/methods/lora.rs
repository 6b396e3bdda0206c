//! DPO through LoRA: the same loss on the same pairs, but only the adapters learn.

use super::pairs::{dpo_config, dpo_step};
use crate::support::transformer::Projection;
use crate::tour::Result;
use crate::tour::lab::{Lab, Optimisation, Ran, Score, generator};
use crate::tour::report::Entry;
use candle_align::{LoraConfig, LoraLinear};
use candle_nn::Linear;
use indicatif::MultiProgress;
use serde_json::json;
use std::time::Instant;

pub fn run(lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
    let start = Instant::now();
    let config = LoraConfig {
        rank: 4,
        alpha: 8.0,
        ..Default::default()
    };
    // An adapter on every linear map of the blocks; embedding, head and norms stay as they are.
    let mut init = generator(lab.seed, 15);
    let mut vars = Vec::new();
    let policy = lab.reference.map_linears(|name, weight| {
        let layer = LoraLinear::new(&Linear::new(weight, None), &config, &mut init)?;
        vars.extend(layer.trainable(name));
        Ok(Box::new(layer) as Projection)
    })?;
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    let trained: usize = vars.iter().map(|(_, v)| v.elem_count()).sum();
    let plan = Optimisation {
        steps: lab.steps,
        learning_rate: 1e-2,
    };
    // The very batches of the run without an adapter.
    let mut rng = generator(lab.seed, 10);
    let curve = lab.train(
        "DPO, LoRA",
        plan,
        vars,
        bars,
        |_| dpo_step(lab, &policy, &lab.pair_batch(&mut rng)),
        |lab| lab.place(&policy),
    )?;
    let settings = json!({
        "loss": dpo_config(), "adapter": config, "steps": plan.steps,
        "learning_rate": plan.learning_rate, "pairs per step": lab.sizes.batch,
    });
    let mut entry = lab.policy_entry(
        Ran {
            name: "dpo-lora",
            label: "DPO, LoRA",
            settings,
            curve,
            start,
        },
        &policy,
        Score::LogRatio,
    )?;
    entry.note = format!(
        "{trained} numbers learn instead of {}",
        lab.reference.parameters()
    );
    Ok(entry)
}
