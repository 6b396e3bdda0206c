//! The files of a run under an adapter: PEFT's two files if PEFT has the method, else the trained
//! parameters as plain safetensors.
//!
//! | method | in `adapter/` | read by |
//! |---|---|---|
//! | lora, qlora, dora, ada_lora, ia3, vera, prompt, prefix | `adapter_config.json`, `adapter_model.safetensors` | `AdapterFile::read`, Python's PEFT |
//! | bit_fit, adapter, mam, design_space | `adapter.json`, `adapter.safetensors` | your own code: PEFT has no format for them |
//!
//! A reward head goes into PEFT's file as a module of `modules_to_save`, if the method has them, and
//! always into `reward_head.safetensors`. QLoRA's file has LoRA's format. It needs the base in four
//! bits, which `Nf4Linear::quantize` reproduces from `base.safetensors` bit for bit.

use super::super::error::{Error, Result};
use super::super::output::Folder;
use super::Adapter;
use super::budget::Kept;
use candle_align::online::reward_head::RewardHead;
use candle_align::parameter_efficient::{ForModel, LoraForModel, TargetModules, Targets};
use candle_align::peft::{
    AdaLoraFile, AdapterFile, AdapterMethod, Ia3File, LoraFile, ModelAdapters, PrefixFile,
    PromptFile, TaskType, VeraFile,
};
use std::path::Path;
use support::adapters::{Adapted, AdapterSettings};

/// The reward head's path as a module.
pub const HEAD: &str = "reward_head";

/// PEFT's file of the trained adapter after this many steps; none if PEFT does not have the method.
pub fn peft(
    adapter: &Adapter,
    adapted: &Adapted,
    steps: usize,
    kept: &Kept,
    head: Option<&RewardHead>,
) -> candle_align::Result<Option<AdapterFile>> {
    let targets = |chosen: &Targets| {
        let mut targets = chosen.clone();
        if targets.target_modules == TargetModules::default() {
            targets.target_modules = TargetModules::AllLinear;
        }
        if head.is_some() {
            targets.modules_to_save.push(HEAD.to_string());
        }
        targets
    };
    let lora = |config: &LoraForModel, dora| {
        let model = LoraForModel {
            targets: targets(&config.targets),
            ..config.clone()
        };
        AdapterMethod::Lora(LoraFile {
            model,
            dora,
            ..Default::default()
        })
    };
    let beside = adapted.model.adapters();
    let size = adapted.model.config();
    let method = match &adapter.method {
        AdapterSettings::Lora(config) | AdapterSettings::Qlora(config) => lora(config, false),
        AdapterSettings::Dora(config) => lora(config, true),
        AdapterSettings::AdaLora(config) => AdapterMethod::AdaLora(AdaLoraFile {
            model: ForModel {
                config: config.clone(),
                targets: targets(&adapter.targets),
            },
            allocator: adapter.ada_lora.schedule(config.rank, steps),
            orthogonality: adapter.ada_lora.orthogonality,
            kept: kept.clone(),
            fan_in_fan_out: false,
        }),
        AdapterSettings::Ia3(config) => {
            let mut model = config.clone();
            model.targets = targets(&model.targets);
            AdapterMethod::Ia3(Ia3File {
                model,
                fan_in_fan_out: false,
            })
        }
        AdapterSettings::Vera(config) => AdapterMethod::Vera(VeraFile {
            model: ForModel {
                config: config.clone(),
                targets: targets(&adapter.targets),
            },
            ..Default::default()
        }),
        AdapterSettings::Prompt(_) => {
            let Some(prompt) = beside.prompt() else {
                return Ok(None);
            };
            let method = AdapterMethod::Prompt(PromptFile {
                length: prompt.virtual_positions(),
                dim: size.dim,
                layers: Some(size.layers),
                heads: Some(size.heads),
            });
            return AdapterFile::from_prompt(of_a_model(method), prompt).map(Some);
        }
        AdapterSettings::Prefix(_) => {
            let Some(prefix) = beside.prefix() else {
                return Ok(None);
            };
            let method = AdapterMethod::Prefix(PrefixFile {
                length: prefix.length(),
                shape: prefix.shape(),
            });
            return AdapterFile::from_prefix(of_a_model(method), prefix).map(Some);
        }
        AdapterSettings::BitFit {}
        | AdapterSettings::Adapter { .. }
        | AdapterSettings::Mam(_)
        | AdapterSettings::DesignSpace { .. } => return Ok(None),
    };
    let mut layers = ModelAdapters {
        layers: adapted.layers().clone(),
        projections: adapted.projections().cloned(),
        ..Default::default()
    };
    for (name, var) in head.iter().flat_map(|head| head.trainable()) {
        layers.weights.insert(name, var.as_detached_tensor());
    }
    AdapterFile::from_layers(method.into(), &layers).map(Some)
}

/// Prompts and prefixes need a task before Python can wrap a model with them.
fn of_a_model(method: AdapterMethod) -> candle_align::peft::PeftConfig {
    candle_align::peft::PeftConfig {
        task: Some(TaskType::CausalLanguageModel),
        ..method.into()
    }
}

/// What [`write()`] writes, in words.
pub fn described(adapter: &Adapter, file: Option<&AdapterFile>) -> String {
    match file {
        Some(_) => "adapter/ for Python's PEFT, on base.safetensors".to_string(),
        None => format!(
            "adapter/ as plain safetensors (PEFT has no file for {}), on base.safetensors",
            adapter.method.name()
        ),
    }
}

/// Writes the trained adapter into the folder `adapter` of the results.
pub fn write(
    out: &Path,
    adapter: &Adapter,
    adapted: &Adapted,
    file: Option<&AdapterFile>,
) -> Result<()> {
    let path = out.join("adapter");
    let folder = Folder::open(&path)?;
    match file {
        Some(file) => file
            .write(&path)
            .map_err(|error| Error::file(&path, format!("cannot be written: {error}"))),
        None => {
            folder.vars("adapter.safetensors", &adapted.vars())?;
            folder.json("adapter.json", &adapter.method)
        }
    }
}
