//! DPO through adapters: the same loss on the same pairs, but only an adapter learns.

use super::Title;
use super::pairs::{dpo_config, dpo_step};
use crate::support::transformer::{Projection, Transformer};
use crate::tour::Result;
use crate::tour::lab::{Lab, Optimisation, Ran, Score, generator};
use crate::tour::report::Entry;
use candle_align::{DpoConfig, LoraConfig, LoraLinear};
use candle_core::Var;
use candle_nn::Linear;
use indicatif::MultiProgress;
use serde::Serialize;
use std::time::Instant;

/// The reference with something added to it that learns.
pub struct Adapted {
    pub policy: Transformer,
    /// All that learns.
    pub vars: Vec<(String, Var)>,
}

/// An adapter on every linear map of the blocks; embedding, head and norms stay as they are.
pub fn lora(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = LoraConfig {
        rank: 4,
        alpha: 8.0,
        ..Default::default()
    };
    let mut init = generator(lab.seed, 15);
    let mut vars = Vec::new();
    let policy = lab.reference.map_linears(|name, weight| {
        let layer = LoraLinear::new(&Linear::new(weight, None), &config, &mut init)?;
        vars.extend(layer.trainable(name));
        Ok(Box::new(layer) as Projection)
    })?;
    dpo_through(lab, title, &config, Adapted { policy, vars }, 1e-2, bars)
}

#[derive(Serialize)]
struct AdapterSettings<'a, A> {
    loss: DpoConfig,
    adapter: &'a A,
    trained: usize,
    pairs_per_step: usize,
    #[serde(flatten)]
    plan: Optimisation,
}

/// DPO where only the adapter learns, on the very batches of the run without one.
pub fn dpo_through(
    lab: &Lab,
    title: Title,
    adapter: &impl Serialize,
    Adapted { policy, mut vars }: Adapted,
    learning_rate: f64,
    bars: &MultiProgress,
) -> Result<Entry> {
    let start = Instant::now();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    let plan = lab.plan(learning_rate);
    let settings = AdapterSettings {
        loss: dpo_config(),
        adapter,
        trained: vars.iter().map(|(_, v)| v.elem_count()).sum(),
        pairs_per_step: lab.sizes.batch,
        plan,
    };
    let mut rng = generator(lab.seed, super::pairs::DPO_PAIRS);
    let curve = lab.train(
        title.label,
        plan,
        vars,
        bars,
        |_| dpo_step(lab, &policy, &lab.pair_batch(&mut rng)),
        |lab| lab.place(&policy),
    )?;
    let ran = Ran::new(title, &settings, curve, start)?;
    let mut entry = lab.policy_entry(ran, &policy, Score::LogRatio)?;
    entry.note = format!(
        "{} numbers learn instead of {}",
        settings.trained,
        lab.reference.parameters()
    );
    Ok(entry)
}
