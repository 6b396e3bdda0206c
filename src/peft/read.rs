//! `adapter_config.json` from PEFT: every key of 0.21.2 is read or refused.

use super::Strictness;
use super::config::*;
use super::keys::{Keys, Pattern, sorted};
use super::{idle, sizes, starts, tokens, vectors};
use crate::error::{Error, Result, shown};
use crate::in_order::InOrder;
use crate::parameter_efficient::adalora::schedule::RankAllocatorConfig;
use crate::parameter_efficient::adalora::{AdaLoraConfig, AdaLoraScaling};
use crate::parameter_efficient::ia3::Ia3ForModel;
use crate::parameter_efficient::lora::config::{LoraBias, LoraConfig, Scaling};
use crate::parameter_efficient::lora::for_model::LoraForModel;
use crate::parameter_efficient::targets::{ForModel, TargetModules, Targets};
use crate::parameter_efficient::vera::VeraConfig;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

impl PeftConfig {
    /// Reads only an `adapter_config.json`: the settings of an adapter that is yet to be trained. Returned
    /// with them, sorted, are the unknown keys that a lenient reader left out; a strict one leaves none out.
    ///
    /// Files of other releases of PEFT have keys that 0.21.2 does not have and ignores: `enable_lora` and
    /// `merge_weights` are from Alpaca-LoRA's time.
    ///
    /// How a fresh adapter starts is not among the settings, except for `init_lora_weights`; see
    /// [`AdapterMethod`].
    ///
    /// # Errors
    /// [`Error::Argument`] with the path, for a file that cannot be read, a key that is unknown (to a
    /// strict reader) or not supported, and an invalid value; as
    /// [`AdapterFile::read`](crate::peft::AdapterFile::read).
    /// [`AdapterFile::read`](crate::peft::AdapterFile::read).
    pub fn read(path: impl AsRef<Path>, strictness: Strictness) -> Result<(Self, Vec<String>)> {
        let function = "PeftConfig::read";
        let (source, text) = super::bytes(function, path.as_ref())?;
        parse(function, &source, &text, strictness)
    }
}

/// Reads the text of a file; returned with it are the unknown keys that a lenient reader leaves out.
pub(super) fn parse(
    function: &'static str,
    source: &str,
    text: &[u8],
    strictness: Strictness,
) -> Result<(PeftConfig, Vec<String>)> {
    let InOrder(pairs) = serde_json::from_slice(text)
        .map_err(|e| Error::argument(function, source, format!("is not a config: {e}")))?;
    let mut keys = Keys {
        function,
        source,
        left: pairs.into_iter().collect(),
    };
    let name: String = keys.needed("peft_type")?;
    let method = match name.as_str() {
        "LORA" => AdapterMethod::Lora(lora(&mut keys)?),
        "ADALORA" => AdapterMethod::AdaLora(adalora(&mut keys)?),
        "IA3" => AdapterMethod::Ia3(ia3(&mut keys)?),
        "VERA" => AdapterMethod::Vera(vera(&mut keys)?),
        "PROMPT_TUNING" => AdapterMethod::Prompt(vectors::prompt(&mut keys)?),
        "PREFIX_TUNING" => AdapterMethod::Prefix(vectors::prefix(&mut keys)?),
        other => {
            let why = "known are LORA, ADALORA, IA3, VERA, PROMPT_TUNING and PREFIX_TUNING";
            return Err(keys.unsupported("peft_type", &json!(other).to_string(), why));
        }
    };
    sizes::check(&keys, &method)?;
    let config = PeftConfig {
        method,
        base_model: keys.take("base_model_name_or_path")?,
        revision: keys.take("revision")?,
        task: keys.take("task_type")?,
        auto_mapping: keys.take("auto_mapping")?,
    };
    // who wrote it, and whether to train it further, are not properties of the adapter
    keys.take::<String>("peft_version")?;
    keys.take::<bool>("inference_mode")?;
    let unknown: Vec<String> = keys.left.keys().cloned().collect();
    match unknown.first() {
        Some(key) if strictness == Strictness::Strict => Err(keys.problem(format!(
            "holds `{}`, which is no key of {name} in PEFT {PEFT}",
            shown(key)
        ))),
        _ => Ok((config, unknown)),
    }
}

fn lora(keys: &mut Keys) -> Result<LoraFile> {
    idle::read(keys)?;
    let dora = keys.or("use_dora", false)?;
    let word = keys.or("bias", "none".to_string())?;
    let (bias, all_biases) = match (word.as_str(), keys.or("lora_bias", false)?) {
        ("none", false) => (LoraBias::Frozen, false),
        ("none", true) => (LoraBias::Update, false),
        ("lora_only", false) => (LoraBias::Base, false),
        ("all", false) => (LoraBias::Base, true),
        (_, together) => {
            let why = match together {
                true => "beside `lora_bias` only \"none\" is",
                false => "known are \"none\", \"lora_only\" and \"all\"",
            };
            return Err(keys.unsupported("bias", &json!(word).to_string(), why));
        }
    };
    if dora && bias == LoraBias::Update {
        let why = "beside `lora_bias` it is not";
        return Err(keys.unsupported("use_dora", "true", why));
    }
    let init = starts::lora(keys)?;
    let default = LoraConfig::default();
    let config = LoraConfig {
        rank: keys.or("r", default.rank)?,
        alpha: keys.or("lora_alpha", default.alpha)?,
        scaling: match keys.or("use_rslora", false)? {
            true => Scaling::RankSqrt,
            false => Scaling::Rank,
        },
        dropout: keys.or("lora_dropout", 0.0)?,
        init,
        bias,
    };
    let model = LoraForModel {
        config,
        rank_pattern: keys.or("rank_pattern", Pattern(Vec::new()))?.0,
        alpha_pattern: keys.or("alpha_pattern", Pattern(Vec::new()))?.0,
        targets: keys.targets()?,
    };
    Ok(LoraFile {
        model,
        dora,
        all_biases,
        tokens: tokens::read(keys)?,
        fan_in_fan_out: keys.or("fan_in_fan_out", false)?,
    })
}

fn adalora(keys: &mut Keys) -> Result<AdaLoraFile> {
    idle::read(keys)?;
    for (key, idle) in [
        ("alpha_pattern", "{}"),
        ("bias", "\"none\""),
        ("lora_bias", "false"),
        ("use_dora", "false"),
        ("use_rslora", "false"),
        ("trainable_token_indices", "null"),
    ] {
        keys.idle(key, idle, "AdaLoRA has only its default")?;
    }
    starts::adalora(keys)?;
    keys.take::<usize>("r")?; // LoRA's; AdaLoRA does not use it
    let (default, budget) = (AdaLoraConfig::default(), RankAllocatorConfig::default());
    let InOrder(pattern) = keys.or("rank_pattern", InOrder(Vec::new()))?;
    let mut kept = BTreeMap::new();
    for (name, entries) in pattern {
        let Some(path) = name.strip_suffix(".lora_E") else {
            return Err(keys.problem(format!(
                "holds `rank_pattern` with the key `{}`, not a path and `.lora_E`",
                shown(&name)
            )));
        };
        kept.insert(path.to_string(), entries);
    }
    let config = AdaLoraConfig {
        rank: keys.or("init_r", default.rank)?,
        alpha: keys.or("lora_alpha", default.alpha)?,
        scaling: AdaLoraScaling::RankWithEpsilon,
        dropout: keys.or("lora_dropout", 0.0)?,
    };
    Ok(AdaLoraFile {
        allocator: RankAllocatorConfig {
            target_rank: keys.or("target_r", budget.target_rank)?,
            initial_steps: keys.or("tinit", 0)?,
            final_steps: keys.or("tfinal", 0)?,
            interval: keys.or("deltaT", 1)?,
            total_steps: keys.needed("total_step")?,
            beta1: keys.or("beta1", budget.beta1)?,
            beta2: keys.or("beta2", budget.beta2)?,
        },
        orthogonality: keys.or("orth_reg_weight", 0.5)?,
        model: ForModel {
            config,
            targets: keys.targets()?,
        },
        kept,
        fan_in_fan_out: keys.or("fan_in_fan_out", false)?,
    })
}

fn ia3(keys: &mut Keys) -> Result<Ia3File> {
    keys.one_of(
        "init_ia3_weights",
        &["true", "false", "null"],
        "it is true or false",
    )?;
    let inner: Option<TargetModules> = keys.take("feedforward_modules")?;
    let Some(inner) = inner else {
        let why = "it stands for a table of known models; name the modules, or none by `[]`";
        return Err(keys.unsupported("feedforward_modules", "null", why));
    };
    Ok(Ia3File {
        model: Ia3ForModel {
            feedforward_modules: sorted(inner),
            targets: without_layers(keys)?,
        },
        fan_in_fan_out: keys.or("fan_in_fan_out", false)?,
    })
}

/// [`Keys::targets`] for a method that cannot choose layers.
fn without_layers(keys: &mut Keys) -> Result<Targets> {
    for key in ["layers_to_transform", "layers_pattern"] {
        keys.idle(key, "null", "this method does not choose layers")?;
    }
    keys.targets()
}

fn vera(keys: &mut Keys) -> Result<VeraFile> {
    keys.idle("bias", "\"none\"", "VeRA trains none here")?;
    keys.idle("exclude_modules", "null", "VeRA excludes none")?;
    let why = "a file without projections depends on the random numbers of one Python library";
    keys.idle("save_projection", "true", why)?;
    keys.one_of(
        "init_weights",
        &["true", "false", "null"],
        "it is true or false",
    )?;
    let default = VeraConfig::default();
    let config = VeraConfig {
        rank: keys.or("r", default.rank)?,
        d_initial: keys.or("d_initial", default.d_initial)?,
        dropout: keys.or("vera_dropout", 0.0)?,
    };
    Ok(VeraFile {
        seed: keys.or("projection_prng_key", 0)?,
        model: ForModel {
            config,
            targets: keys.targets()?,
        },
        fan_in_fan_out: keys.or("fan_in_fan_out", false)?,
    })
}
