//! An `adapter_config.json` of PEFT as the settings of a new adapter.
//!
//! The library reads the file and ignores the initialization, because an adapter file is already
//! trained. Here it matters: an initialization that this crate does not have is an error.
//!
//! Two keys of PEFT's first releases, found in Alpaca-LoRA's files, are ignored with a note.
//!
//! | key | here |
//! |---|---|
//! | `target_modules` and other choices | names of this model's maps: `attention.qkv`, not `q_proj` |
//! | `prompt_tuning_init` `RANDOM` | uniform in ± ½; PEFT draws N(0, 1) |
//! | `TEXT` with `prompt_tuning_init_text` | the bytes of the text, which are the tokens |
//! | `total_step` | must be the run's `--steps` |
//! | `modules_to_save` | `reward_head` under the objective reward; the model trains no other module whole |
//! | `projection_prng_key` | for Python's generator; here `--seed` draws VeRA's A and B |
//! | `base_model_name_or_path`, `revision`, `task_type` | about another model, not read |

use super::super::batch::VOCABULARY;
use super::super::error::{Error, Result, cut};
use super::super::objectives::Objective;
use super::super::settings::Settings;
use super::files::HEAD;
use super::{AdaLora, Adapter};
use candle_align::parameter_efficient::{
    PrefixConfig, PrefixShape, PromptConfig, PromptInit, Reparametrization, Targets,
};
use candle_align::peft::{AdapterMethod, Strictness};
use serde_json::{Value, json};
use std::path::Path;
use support::adapters::AdapterSettings;

/// Keys that PEFT once wrote and now ignores, with the values that do not concern the layers: which of
/// the maps in one matrix are adapted, and when an adapter is merged.
const FORMER: [(&str, &[Value]); 2] = [
    ("enable_lora", &[Value::Null]),
    (
        "merge_weights",
        &[Value::Null, Value::Bool(false), Value::Bool(true)],
    ),
];

/// `found` is what `path` holds.
pub fn adapter(path: &Path, found: &Value, settings: &Settings) -> Result<Adapter> {
    let (mut config, left_out) = candle_align::peft::PeftConfig::read(path, Strictness::Lenient)?;
    let mut notes = Vec::new();
    for key in left_out {
        let value = cut(&found[&key].to_string(), 80);
        let former = FORMER.iter().find(|(name, _)| *name == key);
        let Some((_, idle)) = former else {
            let problem = format!("holds `{}`, which is no key of PEFT", cut(&key, 80));
            return Err(Error::file(path, problem));
        };
        if !idle.contains(&found[&key]) {
            let problem =
                format!("`{key}` is {value}, but LoRA here is on a whole map, not on parts of one");
            return Err(Error::file(path, problem));
        }
        notes.push(format!(
            "{}: `{key}` = {value} is of an earlier PEFT and of no effect",
            path.display()
        ));
    }
    if let Some(targets) = config.method.targets_mut()
        && settings.objective == Objective::Reward
    {
        // the head is trained in any case
        targets.modules_to_save.retain(|module| module != HEAD);
    }
    let refuse = |key: &str, why: String| {
        let value = cut(&found[key].to_string(), 80);
        Err(Error::file(path, format!("`{key}` is {value}, {why}")))
    };
    let starts = [
        ("init_lora_weights", vec![json!(true), json!("gaussian")]),
        ("init_ia3_weights", vec![json!(true)]),
        ("init_weights", vec![json!(true)]),
    ];
    for (key, known) in starts {
        if !found[key].is_null() && !known.contains(&found[key]) {
            let known: Vec<String> = known.iter().map(Value::to_string).collect();
            let why = match found[key].as_str() {
                Some("orthogonal") => ": A and B both start away from 0, with B·A = 0",
                Some("eva") => ": A starts from what the layers are given",
                Some("mica") => ": B is made of the weights and not trained",
                _ => "",
            };
            let known = known.join(" and ");
            let why = format!("which is no start of a fresh adapter here{why}; known: {known}");
            return refuse(key, why);
        }
    }
    if config.method.fan_in_fan_out() {
        let why = "but the model keeps its weights as [out, in]".to_string();
        return refuse("fan_in_fan_out", why);
    }
    let size = [
        ("token_dim", settings.width),
        ("num_layers", settings.layers),
        ("num_attention_heads", settings.heads),
    ];
    for (key, own) in size {
        if !found[key].is_null() && found[key] != json!(own) {
            return refuse(key, format!("and the model has {own}"));
        }
    }
    let (mut targets, mut ada_lora) = (Targets::default(), AdaLora::default());
    let method = match config.method {
        AdapterMethod::Lora(file) if file.all_biases => {
            return refuse("bias", "but the model has no biases".to_string());
        }
        AdapterMethod::Lora(file) if !file.tokens.is_empty() => {
            let why = "but rows of the embedding are not trained here".to_string();
            return refuse("trainable_token_indices", why);
        }
        AdapterMethod::Lora(file) if file.dora => AdapterSettings::Dora(file.model),
        AdapterMethod::Lora(file) => AdapterSettings::Lora(file.model),
        AdapterMethod::AdaLora(file) => {
            if !file.kept.is_empty() {
                let why = "what a run has left: a fresh adapter has all".to_string();
                return refuse("rank_pattern", why);
            }
            let (steps, budget) = (settings.steps, file.allocator);
            if budget.total_steps != steps {
                return refuse("total_step", format!("and the run has {steps} --steps"));
            }
            ada_lora = AdaLora {
                target_rank: budget.target_rank,
                initial_steps: budget.initial_steps,
                final_steps: budget.final_steps,
                interval: budget.interval,
                beta1: budget.beta1,
                beta2: budget.beta2,
                orthogonality: file.orthogonality,
            };
            targets = file.model.targets;
            AdapterSettings::AdaLora(file.model.config)
        }
        AdapterMethod::Ia3(file) => AdapterSettings::Ia3(file.model),
        AdapterMethod::Vera(file) => {
            targets = file.model.targets;
            AdapterSettings::Vera(file.model.config)
        }
        AdapterMethod::Prompt(file) => AdapterSettings::Prompt(PromptConfig {
            length: file.length,
            init: match found["prompt_tuning_init"].as_str() {
                Some("TEXT") => {
                    let text = found["prompt_tuning_init_text"]
                        .as_str()
                        .unwrap_or_default();
                    PromptInit::Text {
                        tokens: text.bytes().map(u32::from).collect(),
                    }
                }
                Some("SAMPLE_VOCAB") => PromptInit::Vocabulary { common: VOCABULARY },
                _ => PromptInit::Uniform,
            },
        }),
        AdapterMethod::Prefix(file) => {
            let PrefixShape {
                heads, head_dim, ..
            } = file.shape;
            AdapterSettings::Prefix(PrefixConfig {
                length: file.length,
                reparametrization: match (
                    found["prefix_projection"].as_bool(),
                    found["encoder_hidden_size"].as_u64(),
                ) {
                    (Some(true), inner) => Reparametrization::Mlp {
                        inner: inner.map_or(heads * head_dim, |inner| inner as usize),
                    },
                    _ => Reparametrization::Direct,
                },
            })
        }
    };
    Ok(Adapter {
        targets,
        ada_lora,
        notes,
        ..Adapter::from(method)
    })
}
