//! DPO through an adapter: the same loss on the same pairs, with few trained parameters. The second picture has
//! every adapter, in fewer steps: [`crate::parameters`].

use super::Title;
use super::pairs::{DPO_PAIRS, dpo_config, dpo_step};
use crate::Result;
use crate::lab::{Lab, Optimization, Ran, Score, generator};
use crate::report::Entry;
use candle_align::DpoConfig;
use candle_align::parameter_efficient::{LoraConfig, LoraForModel};
use indicatif::MultiProgress;
use serde::Serialize;
use std::time::Instant;
use support::adapters::{AdapterSettings, adapt};

#[derive(Serialize)]
struct Shown<'a> {
    loss: DpoConfig,
    adapter: &'a LoraForModel,
    trained: usize,
    pairs_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// LoRA on every linear map of the blocks, on the same batches as the run without it; embedding, head
/// and norms stay frozen.
pub fn lora(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let start = Instant::now();
    let config = LoraForModel::from(LoraConfig {
        rank: 4,
        alpha: 8.0,
        ..Default::default()
    });
    let mut init = generator(lab.seed, 15);
    let adapted = adapt(
        &lab.reference,
        &AdapterSettings::Lora(config.clone()),
        &mut init,
    )?;
    let plan = lab.plan(1e-2);
    let settings = Shown {
        loss: dpo_config(),
        adapter: &config,
        trained: adapted.parameters(),
        pairs_per_step: lab.sizes.batch,
        plan,
    };
    let policy = &adapted.model;
    let mut rng = generator(lab.seed, DPO_PAIRS);
    let curve = lab.train(
        title.label,
        plan,
        adapted.vars(),
        bars,
        |_| dpo_step(lab, policy, &lab.pair_batch(&mut rng)),
        |lab| lab.place(policy),
    )?;
    let ran = Ran::new(title, &settings, curve, start)?;
    let mut entry = lab.policy_entry(ran, policy, Score::LogRatio)?;
    entry.note = format!(
        "{} trained parameters instead of {}",
        settings.trained,
        lab.reference.parameters()
    );
    Ok(entry)
}
