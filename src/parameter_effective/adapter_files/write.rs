//! `adapter_config.json` in PEFT's words.

use super::config::*;
use crate::error::{non_negative, require};
use crate::{AdaLoraScaling, LoraBias, LoraInit, Result, Scaling, TargetModules, Targets};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The release of PEFT whose files these are.
pub(super) const PEFT: &str = "0.21.2";

/// Settings of LoRA and AdaLoRA that are not supported, at the values at which they do nothing.
pub(super) const IDLE: [(&str, &str); 18] = [
    ("alora_invocation_tokens", "null"),
    ("arrow_config", "null"),
    ("corda_config", "null"),
    ("ensure_weight_tying", "false"),
    ("eva_config", "null"),
    ("kasa_config", "null"),
    ("layer_replication", "null"),
    ("loftq_config", "{}"),
    ("lora_ga_config", "null"),
    ("megatron_config", "null"),
    ("megatron_core", "\"megatron.core\""),
    ("monteclora_config", "null"),
    ("qalora_group_size", "16"),
    ("target_parameters", "null"),
    ("trainable_token_indices", "null"),
    ("use_bdlora", "null"),
    ("use_qalora", "false"),
    ("velora_config", "null"),
];

/// The text of a file, as Python writes it: keys sorted, two spaces.
pub(super) fn text(function: &'static str, config: &AdapterConfig) -> Result<String> {
    let mut map = match &config.method {
        AdapterMethod::Lora(file) => lora_map(function, file)?,
        AdapterMethod::AdaLora(file) => adalora_map(function, file)?,
        AdapterMethod::Ia3(file) => ia3_map(function, file)?,
        AdapterMethod::Vera(file) => vera_map(function, file)?,
        AdapterMethod::Prompt(file) => prompt_map(file),
        AdapterMethod::Prefix(file) => prefix_map(file),
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
    // serde_json keeps a map sorted
    Ok(format!("{:#}", Value::Object(map)))
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

/// A number as Python would write it if it was given a whole one.
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

fn idle_map() -> Map<String, Value> {
    let value = |text| serde_json::from_str(text).unwrap_or(Value::Null);
    let idle = IDLE.iter();
    idle.map(|(key, text)| (key.to_string(), value(text)))
        .collect()
}

fn lora_map(function: &'static str, file: &LoraFile) -> Result<Map<String, Value>> {
    let config = &file.config;
    require(
        !file.dora || config.bias == LoraBias::Frozen,
        function,
        "dora",
        "false where biases are trained",
        file.dora,
    )?;
    let base_biases = config.bias == LoraBias::Base;
    let saved = !config.targets.modules_to_save.is_empty();
    require(
        !file.all_biases || (base_biases && !saved),
        function,
        "all_biases",
        "false unless `bias` is `Base` and `modules_to_save` is empty",
        file.all_biases,
    )?;
    let mut found = targets_map(function, &config.targets)?;
    found.extend(idle_map());
    let alphas: Map<String, Value> = config
        .alpha_pattern
        .iter()
        .map(|(key, alpha)| (key.clone(), number(*alpha)))
        .collect();
    let ranks: BTreeMap<&String, usize> =
        config.rank_pattern.iter().map(|(k, r)| (k, *r)).collect();
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
            "init_lora_weights": match config.init {
                LoraInit::KaimingUniform => json!(true),
                LoraInit::Gaussian => json!("gaussian"),
            },
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "fan_in_fan_out": file.fan_in_fan_out,
        }),
    );
    Ok(found)
}

fn adalora_map(function: &'static str, file: &AdaLoraFile) -> Result<Map<String, Value>> {
    let (config, budget) = (&file.config, &file.allocator);
    require(
        config.scaling == AdaLoraScaling::RankWithEpsilon,
        function,
        "scaling",
        "RankWithEpsilon: a file has no other",
        format!("{:?}", config.scaling),
    )?;
    let phase = budget.initial_steps + budget.final_steps;
    require(
        budget.total_steps > phase,
        function,
        "total_steps",
        "above initial_steps + final_steps",
        budget.total_steps,
    )?;
    non_negative(function, "orthogonality", file.orthogonality)?;
    let mut found = targets_map(function, &file.targets)?;
    found.extend(idle_map());
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
            "init_lora_weights": true,
            "fan_in_fan_out": file.fan_in_fan_out,
        }),
    );
    Ok(found)
}

fn ia3_map(function: &'static str, file: &Ia3File) -> Result<Map<String, Value>> {
    let targets = &file.config.targets;
    no_layers(function, targets)?;
    let mut found = targets_map(function, targets)?;
    found.remove("layers_to_transform");
    found.remove("layers_pattern");
    add(
        &mut found,
        json!({
            "peft_type": "IA3",
            "feedforward_modules": modules(&file.config.feedforward_modules),
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
        file.targets.exclude_modules == TargetModules::default(),
        function,
        "exclude_modules",
        "empty: the file of this method has no such key",
        format!("{:?}", file.targets.exclude_modules),
    )?;
    let mut found = targets_map(function, &file.targets)?;
    found.remove("exclude_modules");
    add(
        &mut found,
        json!({
            "peft_type": "VERA",
            "r": file.config.rank,
            "d_initial": file.config.d_initial,
            "vera_dropout": file.config.dropout,
            "projection_prng_key": file.seed,
            "save_projection": true,
            "bias": "none",
            "init_weights": true,
            "fan_in_fan_out": file.fan_in_fan_out,
        }),
    );
    Ok(found)
}

fn prompt_map(file: &PromptFile) -> Map<String, Value> {
    map(json!({
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": file.length,
        "token_dim": file.dim,
        "num_layers": file.layers,
        "num_attention_heads": file.heads,
        "num_transformer_submodules": 1,
        "modules_to_save": null,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": null,
        "tokenizer_kwargs": null,
        "tokenizer_name_or_path": null,
    }))
}

fn prefix_map(file: &PrefixFile) -> Map<String, Value> {
    map(json!({
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": file.length,
        "token_dim": file.shape.width(),
        "num_layers": file.shape.layers,
        "num_attention_heads": file.shape.heads,
        "num_transformer_submodules": 1,
        "modules_to_save": null,
        "encoder_hidden_size": file.shape.width(),
        "prefix_projection": false,
        "init_weights": null,
    }))
}
