//! Fields of a `config.json` whose meaning takes more than a line.

use super::family::{Family, Gate};
use super::keys::Keys;
use crate::error::Result;
use candle_core::DType;
use serde_json::{Map, Value};

/// Keys that mean nothing for training: notes, settings of generation, and what Transformers' code itself
/// no longer reads.
pub(super) const IDLE: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_model_name_or_path",
    "_name_or_path",
    "_sliding_window_pattern",
    "add_cross_attention",
    "architectures",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "is_decoder",
    "is_encoder_decoder",
    "is_llama_config",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

pub(super) fn gate(keys: &mut Keys, family: Family) -> Result<Gate> {
    let (key, default) = match family {
        Family::Gemma2 | Family::Gemma3 => ("hidden_activation", "gelu_pytorch_tanh"),
        _ => ("hidden_act", "silu"),
    };
    if family.is_gemma() {
        // Transformers does not read it here
        keys.ignore(&["hidden_act"]);
    }
    let name: String = keys.or(key, default.to_string())?;
    match name.as_str() {
        "silu" | "swish" => Ok(Gate::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Gate::GeluTanh),
        other => Err(keys.refused(key, other, "it can be silu or gelu_pytorch_tanh")),
    }
}

/// The bounds of the attention scores and of the logits.
pub(super) fn softcaps(keys: &mut Keys, family: Family) -> Result<(Option<f64>, Option<f64>)> {
    let names = ["attn_logit_softcapping", "final_logit_softcapping"];
    match family {
        Family::Gemma2 => {
            let missing = names.map(|name| !keys.said(name));
            let [scores, logits] = [keys.positive(names[0])?, keys.positive(names[1])?];
            let default = |missing: bool, cap| missing.then_some(cap);
            Ok((
                scores.or(default(missing[0], 50.0)),
                logits.or(default(missing[1], 30.0)),
            ))
        }
        Family::Gemma3 => {
            // Transformers reads the bound of the scores here and does not use it
            keys.ignore(&names[..1]);
            Ok((None, keys.positive(names[1])?))
        }
        _ => {
            for name in names {
                keys.only(name, 0.0, "this family has no such setting")?;
            }
            Ok((None, None))
        }
    }
}

/// The window of each layer.
pub(super) fn windows(
    keys: &mut Keys,
    family: Family,
    layers: usize,
) -> Result<Vec<Option<usize>>> {
    let said = keys.said("sliding_window");
    let window = keys.whole("sliding_window")?;
    // 0 is no window
    let window = window.filter(|&window| window > 0);
    let uses: Option<bool> = keys.take("use_sliding_window")?;
    let first_sliding = keys.whole("max_window_layers")?;
    let every: Option<usize> = keys.count("sliding_window_pattern")?;
    if family == Family::Gemma2 {
        // the same number under its first name
        keys.ignore(&["sliding_window_size"]);
    }
    let kinds: Option<Vec<String>> = keys.take("layer_types")?;
    let window = match family {
        // this family's code does not know the key
        Family::Llama => None,
        Family::Phi3 => window,
        _ if !said => Some(4096),
        _ => window,
    };
    let window = match family {
        Family::Qwen2 | Family::Qwen3 => window.filter(|_| uses.unwrap_or(false)),
        _ => window,
    };
    // this family's code takes one window for all layers, whatever their kinds are called
    let alike = family == Family::Phi3;
    if let Some(kinds) = kinds {
        if kinds.len() != layers {
            let why = format!("it must name `num_hidden_layers` = {layers} layers");
            return Err(keys.refused("layer_types", format!("{} names", kinds.len()), &why));
        }
        return kinds
            .iter()
            .map(|kind| match kind.as_str() {
                "full_attention" | "sliding_attention" if alike => Ok(window),
                "full_attention" => Ok(None),
                "sliding_attention" => Ok(window),
                other => Err(keys.refused(
                    "layer_types",
                    other,
                    "it can be full_attention or sliding_attention",
                )),
            })
            .collect();
    }
    let slides = |layer: usize| match family {
        Family::Llama | Family::Mistral | Family::Phi3 => true,
        Family::Qwen2 | Family::Qwen3 => layer >= first_sliding.unwrap_or(28),
        Family::Gemma2 => layer.is_multiple_of(2),
        Family::Gemma3 => !(layer + 1).is_multiple_of(every.unwrap_or(6)),
    };
    Ok((0..layers)
        .map(|layer| window.filter(|_| slides(layer)))
        .collect())
}

/// The special tokens of a file that does not name them.
pub(super) struct Special {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
}

/// The defaults of Transformers' classes.
pub(super) fn special(family: Family) -> Special {
    let (bos, eos, pad) = match family {
        Family::Llama | Family::Mistral => (Some(1), Some(2), None),
        Family::Qwen2 | Family::Qwen3 => (None, None, None),
        Family::Gemma2 | Family::Gemma3 => (Some(2), Some(1), Some(0)),
        Family::Phi3 => (Some(1), Some(32_000), Some(32_000)),
    };
    Special { bos, eos, pad }
}

/// The end tokens: one or several.
pub(super) fn ends(keys: &mut Keys, default: Option<u32>) -> Result<Vec<u32>> {
    if !keys.said("eos_token_id") {
        return Ok(default.into_iter().collect());
    }
    match keys.take::<Value>("eos_token_id")? {
        None => Ok(Vec::new()),
        Some(value) => {
            let list = if value.is_array() {
                value.clone()
            } else {
                Value::Array(vec![value.clone()])
            };
            serde_json::from_value(list)
                .map_err(|e| keys.refused("eos_token_id", value, &e.to_string()))
        }
    }
}

pub(super) fn dtype(keys: &mut Keys) -> Result<Option<DType>> {
    let old: Option<String> = keys.take("torch_dtype")?;
    let name = keys.take("dtype")?.or(old);
    match name.as_deref() {
        None | Some("auto") => Ok(None),
        Some("float32") => Ok(Some(DType::F32)),
        Some("bfloat16") => Ok(Some(DType::BF16)),
        Some("float16") => Ok(Some(DType::F16)),
        Some("float64") => Ok(Some(DType::F64)),
        Some(other) => Err(keys.refused(
            "dtype",
            other,
            "it can be float32, bfloat16, float16 or float64",
        )),
    }
}

pub(super) fn labels(keys: &mut Keys) -> Result<Option<usize>> {
    let names: Option<Map<String, Value>> = keys.take("id2label")?;
    keys.ignore(&["label2id"]);
    let count: Option<usize> = keys.count("num_labels")?;
    Ok(count.or(names.map(|names| names.len())))
}
