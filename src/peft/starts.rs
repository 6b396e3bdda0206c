//! `init_lora_weights`: how an adapter started, and which starts changed the base model too.

use super::config::PEFT;
use super::keys::Keys;
use crate::error::Result;
use crate::parameter_efficient::lora::config::LoraInit;
use serde_json::Value;

const KEY: &str = "init_lora_weights";

/// What to do with a file whose training moved a part of the base's weights.
const CONVERT: &str = "out of the base's weights, so that the file means nothing on the base as it \
    was; save it again in PEFT, by `save_pretrained` with `path_initial_model_for_weight_conversion` \
    (the adapter as it was before training), and read that: it is plain LoRA";

/// The start of LoRA, DoRA included.
pub(super) fn lora(keys: &mut Keys) -> Result<LoraInit> {
    let Some(found) = keys.left.get(KEY).map(|raw| raw.get().to_string()) else {
        return Ok(LoraInit::default());
    };
    let value: Option<Value> = keys.take(KEY)?;
    let word = match value {
        None | Some(Value::Bool(_)) => return Ok(LoraInit::KaimingUniform),
        Some(Value::String(word)) => word.to_lowercase(),
        Some(_) => String::new(),
    };
    let why = match word.as_str() {
        "gaussian" => return Ok(LoraInit::Gaussian),
        // starts that change only A and B and leave the base as it is
        "orthogonal" | "eva" | "mica" => return Ok(LoraInit::KaimingUniform),
        "olora" => format!("OLoRA took the first columns of a QR decomposition {CONVERT}"),
        "corda" => format!("CorDA took the directions of its sample {CONVERT}"),
        "lora_ga" => format!("LoRA-GA took the directions of a first gradient {CONVERT}"),
        "loftq" => {
            "LoftQ put quantized weights in the place of the base's, so that the file means \
                    nothing on the base as it was; save that base too, put the file on it, and set \
                    the key to true"
                .to_string()
        }
        word if word.starts_with("pissa") => {
            format!("PiSSA took the first singular directions {CONVERT}")
        }
        _ => format!(
            "it is no start in PEFT {PEFT}; known are true, false, \"gaussian\", \"orthogonal\", \
             \"eva\" and \"mica\""
        ),
    };
    Err(keys.unsupported(KEY, &found, &why))
}

/// The start of AdaLoRA: PEFT accepts any value as true or false.
pub(super) fn adalora(keys: &mut Keys) -> Result<()> {
    let why = "AdaLoRA starts in one way, whatever stands here; set it to true";
    keys.one_of(KEY, &["true", "false", "null"], why)
}
