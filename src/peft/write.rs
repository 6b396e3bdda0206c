//! Writes `adapter_config.json` in PEFT's format.

use super::config::*;
use super::{idle, pair, tokens, vectors};
use crate::error::{Result, non_negative, require};
use crate::in_order;
use crate::parameter_efficient::adalora::AdaLoraScaling;
use crate::parameter_efficient::lora::config::{LoraBias, LoraInit, Scaling};
use crate::parameter_efficient::targets::{TargetModules, Targets};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The text of a file, as Python writes it: keys sorted, two spaces. The keys of a pattern keep their
/// order, which Python preserves too when it reads them. The version is followed by the mark of these
/// settings.
pub(super) fn text(function: &'static str, config: &PeftConfig) -> Result<String> {
    let mut map = match &config.method {
        AdapterMethod::Lora(file) => lora_map(function, file)?,
        AdapterMethod::AdaLora(file) => adalora_map(function, file)?,
        AdapterMethod::Ia3(file) => ia3_map(function, file)?,
        AdapterMethod::Vera(file) => vera_map(function, file)?,
        AdapterMethod::Prompt(file) => map(vectors::prompt_map(file)),
        AdapterMethod::Prefix(file) => map(vectors::prefix_map(file)),
    };
    add(
        &mut map,
        json!({
            "auto_mapping": config.auto_mapping,
            "base_model_name_or_path": config.base_model,
            "inference_mode": true,
            "peft_version": PEFT,
            "revision": config.revision,
            "task_type": config.task,
        }),
    );
    let entries = map
        .into_iter()
        .map(|(key, value)| (key, Entry::Value(value)));
    let mut entries: BTreeMap<String, Entry> = entries.collect();
    if let AdapterMethod::Lora(file) = &config.method {
        let (ranks, alphas) = (&file.model.rank_pattern, &file.model.alpha_pattern);
        let ranks = ranks.iter().map(|(key, r)| (key.clone(), json!(r)));
        let alphas = alphas
            .iter()
            .map(|(key, alpha)| (key.clone(), number(*alpha)));
        entries.insert("rank_pattern".to_string(), Entry::Pattern(ranks.collect()));
        entries.insert(
            "alpha_pattern".to_string(),
            Entry::Pattern(alphas.collect()),
        );
    }
    let text = |entries: &BTreeMap<String, Entry>| {
        serde_json::to_string_pretty(entries).map_err(candle_core::Error::wrap)
    };
    let written_by = format!("{PEFT}{}", pair::mark(&text(&entries)?));
    entries.insert("peft_version".to_string(), Entry::Value(json!(written_by)));
    Ok(text(&entries)?)
}

/// A value of the file, sorted as Python sorts it, except for a pattern, whose order matters.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Value(Value),
    Pattern(#[serde(serialize_with = "in_order::serialize")] Vec<(String, Value)>),
}

fn add(map: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        map.extend(more);
    }
}

fn map(value: Value) -> Map<String, Value> {
    let mut map = Map::new();
    add(&mut map, value);
    map
}

/// A number as Python would write it: a whole number without a fraction.
fn number(x: f64) -> Value {
    match x.fract() == 0.0 && x.abs() < 1e15 {
        true => json!(x as i64),
        false => json!(x),
    }
}

fn listed<T: serde::Serialize>(list: &[T]) -> Value {
    match list.is_empty() {
        true => Value::Null,
        false => json!(list),
    }
}

fn modules(modules: &TargetModules) -> Value {
    match modules {
        TargetModules::Names(names) => listed(names),
        other => json!(other),
    }
}

fn targets_map(function: &'static str, targets: &Targets) -> Result<Map<String, Value>> {
    require(
        targets.target_modules != TargetModules::default(),
        function,
        "target_modules",
        "a choice of modules: an empty one stands for another thing in the file",
        "[]",
    )?;
    Ok(map(json!({
        "target_modules": modules(&targets.target_modules),
        "exclude_modules": modules(&targets.exclude_modules),
        "modules_to_save": listed(&targets.modules_to_save),
        "layers_to_transform": listed(&targets.layers_to_transform),
        "layers_pattern": listed(&targets.layers_pattern),
    })))
}

fn lora_map(function: &'static str, file: &LoraFile) -> Result<Map<String, Value>> {
    let config = &file.model.config;
    require(
        !file.dora || config.bias != LoraBias::Update,
        function,
        "dora",
        "false where B has a bias",
        file.dora,
    )?;
    let base_biases = config.bias == LoraBias::Base;
    require(
        !file.all_biases || base_biases,
        function,
        "all_biases",
        "false unless `bias` is `Base`",
        file.all_biases,
    )?;
    let mut found = targets_map(function, &file.model.targets)?;
    found.extend(idle::written());
    add(
        &mut found,
        json!({
            "peft_type": "LORA",
            "r": config.rank,
            "lora_alpha": number(config.alpha),
            "lora_dropout": config.dropout,
            "use_rslora": config.scaling == Scaling::RankSqrt,
            "use_dora": file.dora,
            "lora_bias": config.bias == LoraBias::Update,
            "bias": match (base_biases, file.all_biases) {
                (_, true) => "all",
                (true, false) => "lora_only",
                (false, false) => "none",
            },
            "init_lora_weights": match (config.init, config.bias) {
                // PEFT accepts no other start together with `lora_bias`
                (LoraInit::KaimingUniform, _) | (_, LoraBias::Update) => json!(true),
                (LoraInit::Gaussian, _) => json!("gaussian"),
            },
            "trainable_token_indices": tokens::written(&file.tokens),
            "fan_in_fan_out": file.fan_in_fan_out,
        }),
    );
    Ok(found)
}

fn adalora_map(function: &'static str, file: &AdaLoraFile) -> Result<Map<String, Value>> {
    let (config, budget) = (&file.model.config, &file.allocator);
    require(
        config.scaling == AdaLoraScaling::RankWithEpsilon,
        function,
        "scaling",
        "RankWithEpsilon: a file has no other",
        format!("{:?}", config.scaling),
    )?;
    let phase = budget.initial_steps.saturating_add(budget.final_steps);
    require(
        budget.total_steps > phase,
        function,
        "total_steps",
        "above initial_steps + final_steps",
        budget.total_steps,
    )?;
    non_negative(function, "orthogonality", file.orthogonality)?;
    let mut found = targets_map(function, &file.model.targets)?;
    found.extend(idle::written());
    let pattern: Map<String, Value> = file
        .kept
        .iter()
        .map(|(path, kept)| (format!("{path}.lora_E"), json!(kept)))
        .collect();
    add(
        &mut found,
        json!({
            "peft_type": "ADALORA",
            "r": 8,
            "init_r": config.rank,
            "lora_alpha": number(config.alpha),
            "lora_dropout": config.dropout,
            "target_r": budget.target_rank,
            "tinit": budget.initial_steps,
            "tfinal": budget.final_steps,
            "deltaT": budget.interval,
            "total_step": budget.total_steps,
            "beta1": budget.beta1,
            "beta2": budget.beta2,
            "orth_reg_weight": file.orthogonality,
            "rank_pattern": if pattern.is_empty() { Value::Null } else { json!(pattern) },
            "alpha_pattern": {},
            "bias": "none",
            "lora_bias": false,
            "use_dora": false,
            "use_rslora": false,
            "trainable_token_indices": null,
            "init_lora_weights": true,
            "fan_in_fan_out": file.fan_in_fan_out,
        }),
    );
    Ok(found)
}

fn ia3_map(function: &'static str, file: &Ia3File) -> Result<Map<String, Value>> {
    let targets = &file.model.targets;
    no_layers(function, targets)?;
    let inner = &file.model.feedforward_modules;
    if let (TargetModules::Names(inner), TargetModules::Names(names)) =
        (inner, &targets.target_modules)
        && let Some(name) = inner.iter().find(|name| !names.contains(name))
    {
        let needed = "names that `target_modules` has too: Python takes no others";
        require(false, function, "feedforward_modules", needed, name)?;
    }
    let mut found = targets_map(function, targets)?;
    found.remove("layers_to_transform");
    found.remove("layers_pattern");
    add(
        &mut found,
        json!({
            "peft_type": "IA3",
            // an empty list, since null means a table of known models
            "feedforward_modules": inner,
            "init_ia3_weights": true,
            "fan_in_fan_out": file.fan_in_fan_out,
        }),
    );
    Ok(found)
}

fn no_layers(function: &'static str, targets: &Targets) -> Result<()> {
    require(
        targets.layers_to_transform.is_empty(),
        function,
        "layers_to_transform",
        "empty: the file of this method has no such key",
        format!("{:?}", targets.layers_to_transform),
    )
}

fn vera_map(function: &'static str, file: &VeraFile) -> Result<Map<String, Value>> {
    require(
        file.model.targets.exclude_modules == TargetModules::default(),
        function,
        "exclude_modules",
        "empty: the file of this method has no such key",
        format!("{:?}", file.model.targets.exclude_modules),
    )?;
    let mut found = targets_map(function, &file.model.targets)?;
    found.remove("exclude_modules");
    add(
        &mut found,
        json!({
            "peft_type": "VERA",
            "r": file.model.config.rank,
            "d_initial": file.model.config.d_initial,
            "vera_dropout": file.model.config.dropout,
            "projection_prng_key": file.seed,
            "save_projection": true,
            "bias": "none",
            "init_weights": true,
            "fan_in_fan_out": file.fan_in_fan_out,
        }),
    );
    Ok(found)
}
