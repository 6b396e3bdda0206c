//! What a `config.json` means where Transformers has a rule or a default of its own.

use super::changed;
use candle_align::decoder::DecoderConfig;
use serde_json::{Map, Value, json};

fn read(name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> DecoderConfig {
    DecoderConfig::read(changed(name, change).path()).unwrap()
}

fn without(name: &str, keys: &[&str]) -> DecoderConfig {
    read(name, |config| {
        keys.iter().for_each(|key| drop(config.remove(*key)))
    })
}

fn with(name: &str, key: &str, value: Value) -> DecoderConfig {
    read(name, |config| drop(config.insert(key.into(), value)))
}

#[test]
fn a_missing_token_is_the_default_of_the_family_and_null_is_none() {
    let keys = ["bos_token_id", "eos_token_id", "pad_token_id"];
    for (name, bos, eos, pad) in [
        ("llama", Some(1), vec![2], None),
        ("mistral", Some(1), vec![2], None),
        ("qwen2", None, vec![], None),
        ("qwen3", None, vec![], None),
        ("gemma2", Some(2), vec![1], Some(0)),
        ("gemma3", Some(2), vec![1], Some(0)),
    ] {
        let found = without(name, &keys);
        let found = (found.bos_token_id, found.eos_token_id, found.pad_token_id);
        assert_eq!(found, (bos, eos, pad), "{name}");
        let null = read(name, |config| {
            for key in keys {
                config.insert(key.into(), Value::Null);
            }
        });
        let null = (null.bos_token_id, null.eos_token_id, null.pad_token_id);
        assert_eq!(null, (None, vec![], None), "{name}");
    }
    // Phi-3's are beyond this vocabulary
    let phi = read("phi3", |config| {
        config.insert("vocab_size".into(), json!(32_064));
        keys.iter().for_each(|key| drop(config.remove(*key)));
    });
    assert_eq!(
        (phi.bos_token_id, phi.eos_token_id, phi.pad_token_id),
        (Some(1), vec![32_000], Some(32_000))
    );
}

#[test]
fn a_missing_number_of_key_heads_is_not_a_null_one() {
    let heads = "num_key_value_heads";
    for name in ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3"] {
        let null = with(name, heads, Value::Null);
        assert_eq!(null.num_key_value_heads, 4, "{name}");
    }
    for (name, attention_heads, found) in [("llama", 4, 4), ("mistral", 16, 8), ("qwen2", 64, 32)] {
        let missing = read(name, |config| {
            config.remove(heads);
            config.insert("num_attention_heads".into(), json!(attention_heads));
            config.insert("head_dim".into(), json!(4));
        });
        assert_eq!(missing.num_key_value_heads, found, "{name}");
    }
    assert_eq!(without("gemma2", &[heads]).num_key_value_heads, 4);
}

#[test]
fn only_gemma_2_bounds_its_scores() {
    let caps = ["attn_logit_softcapping", "final_logit_softcapping"];
    let of = |config: DecoderConfig| {
        (
            config.attn_logit_softcapping,
            config.final_logit_softcapping,
        )
    };
    assert_eq!(of(without("gemma2", &caps)), (Some(50.0), Some(30.0)));
    let null = read("gemma2", |config| {
        for key in caps {
            config.insert(key.into(), Value::Null);
        }
    });
    assert_eq!(of(null), (None, None));
    // Transformers' Gemma 3 reads both and uses one
    let both = read("gemma3", |config| {
        for key in caps {
            config.insert(key.into(), json!(2.5));
        }
    });
    assert_eq!(of(both), (None, Some(2.5)));
}

#[test]
fn windows_are_where_transformers_has_them() {
    let types = json!(["full_attention", "sliding_attention"]);
    // every second layer, the first one too
    assert_eq!(without("gemma2", &["layer_types"]).windows, [Some(4), None]);
    assert_eq!(
        with("gemma2", "layer_types", types.clone()).windows,
        [None, Some(4)]
    );
    // AutoModel reads a Mistral with kinds of layers as a Ministral
    assert_eq!(
        with("mistral", "layer_types", types.clone()).windows,
        [None, Some(4)]
    );
    // Phi-3's code takes one window for all
    assert_eq!(with("phi3", "layer_types", types).windows, [Some(6); 2]);
    // a missing number is the class's, a null is none
    let key = "sliding_window";
    assert_eq!(without("mistral", &[key]).windows, [Some(4096); 2]);
    assert_eq!(with("mistral", key, Value::Null).windows, [None; 2]);
    let qwen = read("qwen2", |config| {
        config.remove(key);
        config.remove("layer_types");
    });
    assert_eq!(qwen.windows, [None, Some(4096)]);
}

#[test]
fn an_empty_scaling_says_nothing() {
    let parameters = json!({"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0});
    let one = with("llama", "rope_parameters", parameters);
    let both = read("llama", |config| {
        let parameters = json!({"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0});
        config.insert("rope_parameters".into(), parameters);
        config.insert("rope_scaling".into(), json!({}));
    });
    assert_eq!(one.rope, both.rope);
}

#[test]
fn phi_3_has_an_original_length_of_its_own() {
    let long = json!({"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "short_factor": [1.0, 1.1],
                      "long_factor": [1.5, 2.0], "original_max_position_embeddings": 16});
    let config = read("phi3", |config| {
        config.insert("rope_parameters".into(), long);
        config.remove("original_max_position_embeddings");
    });
    // √(1 + ln 4 / ln 4096)
    let scale = (1.0 + 4f64.ln() / 4096f64.ln()).sqrt() as f32;
    assert!(
        (config.rope.scale - scale).abs() < 1e-6,
        "{}",
        config.rope.scale
    );
}
