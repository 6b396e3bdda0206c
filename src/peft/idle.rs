//! The settings of LoRA and AdaLoRA that this crate does not use.

use super::keys::Keys;
use crate::error::Result;
use serde_json::{Map, Value};

/// Unsupported PEFT options, with their default values.
const IDLE: [(&str, &str); 12] = [
    ("alora_invocation_tokens", "null"),
    ("arrow_config", "null"),
    ("ensure_weight_tying", "false"),
    ("kasa_config", "null"),
    ("layer_replication", "null"),
    ("loftq_config", "{}"),
    ("megatron_config", "null"),
    ("monteclora_config", "null"),
    ("target_parameters", "null"),
    ("use_bdlora", "null"),
    ("use_qalora", "false"),
    ("velora_config", "null"),
];

/// Settings that say how a fresh adapter was made, or belong to one of the options above. They have no
/// effect on an existing adapter and are written at their defaults.
const INERT: [(&str, &str); 5] = [
    ("corda_config", "null"),
    ("eva_config", "null"),
    ("lora_ga_config", "null"),
    ("megatron_core", "\"megatron.core\""),
    ("qalora_group_size", "16"),
];

/// Refuses the options that mean another adapter, and ignores the inert ones.
pub(super) fn read(keys: &mut Keys) -> Result<()> {
    for (key, idle) in IDLE {
        keys.idle(key, idle, "only its default is")?;
    }
    for (key, _) in INERT {
        keys.take::<Value>(key)?;
    }
    Ok(())
}

/// All of them at their defaults.
pub(super) fn written() -> Map<String, Value> {
    let value = |text| serde_json::from_str(text).unwrap_or(Value::Null);
    let idle = IDLE.iter().chain(&INERT);
    idle.map(|(key, text)| (key.to_string(), value(text)))
        .collect()
}
