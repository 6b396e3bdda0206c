//! What a decoder refuses, word for word. `DIR` stands for the folder.

use super::{adapted, changed, folder, load, lora, with_tensors};
use candle_align::SamplingConfig;
use candle_align::decoder::{Decoder, DecoderConfig, Load};
use candle_align::ops::Segments;
use candle_align::parameter_efficient::LoraBias;
use candle_align::peft::{AdapterMethod, Strictness, TaskType};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The error of loading a folder.
fn error(folder: &Path) -> String {
    let found = Decoder::load(folder, &Load::default());
    let text = found.expect_err("it was loaded").to_string();
    text.replace(&folder.display().to_string(), "DIR")
}

fn with(name: &str, key: &str, value: Value) -> String {
    let folder = changed(name, |config| {
        config.insert(key.into(), value);
    });
    error(folder.path())
}

/// What is said about `config.json`.
fn config(text: &str) -> String {
    format!("DecoderConfig::read: `DIR/config.json` {text}")
}

#[test]
fn settings_that_are_not_supported_are_named() {
    for (key, value, text) in [
        (
            "model_type",
            json!("gpt2"),
            "holds `model_type` = gpt2: the families that can be read are llama, mistral, qwen2, qwen3, \
             gemma2, gemma3_text and phi3",
        ),
        (
            "quantization_config",
            json!({"quant_method": "awq"}),
            "holds `quantization_config` = …: quantized weights are not read; load the unquantized model and \
             quantize here",
        ),
        (
            "attention_dropout",
            json!(0.1),
            "holds `attention_dropout` = 0.1: dropout inside the model is not supported; set it to 0 (adapters \
             have their own)",
        ),
        (
            "rope_interleaved",
            json!(true),
            "holds `rope_interleaved` = true: pairs of neighbors are not supported",
        ),
        (
            "hidden_act",
            json!("gelu"),
            "holds `hidden_act` = gelu: it can be silu or gelu_pytorch_tanh",
        ),
        (
            "layer_types",
            json!(["full_attention"]),
            "holds `layer_types` = 1 names: it must name `num_hidden_layers` = 2 layers",
        ),
        (
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
            "holds `layer_types` = chunked_attention: it can be full_attention or sliding_attention",
        ),
        (
            "num_key_value_heads",
            json!(3),
            "holds `num_key_value_heads` = 3: it does not divide `num_attention_heads` = 4",
        ),
        (
            "head_dim",
            json!(3),
            "holds `head_dim` = 3: rotary positions need an even number",
        ),
        (
            "num_hidden_layers",
            json!(0),
            "holds `num_hidden_layers` = 0: it must be at least 1",
        ),
        (
            "hidden_size",
            json!(1u64 << 60),
            "holds `hidden_size` = 1152921504606846976: it must be at most 16777216",
        ),
        (
            "rms_norm_eps",
            json!(-1.0),
            "holds `rms_norm_eps` = -1: it must be finite and not negative",
        ),
        (
            "pad_token_id",
            json!(40),
            "holds `pad_token_id` = 40: the vocabulary has no such token",
        ),
        (
            "dtype",
            json!("float8"),
            "holds `dtype` = float8: it can be float32, bfloat16, float16 or float64",
        ),
        (
            "residual_multiplier",
            json!(0.5),
            "holds `residual_multiplier` = 0.5: this key is unknown, so that the model could be another than \
             the file means",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "linear", "factor": 0.5}),
            "holds `rope_parameters.factor` = 0.5: it must be finite and at least 1",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "linear"}),
            "holds no `rope_parameters.factor`",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "default", "ramp": 1}),
            "holds `rope_parameters.ramp` = 1: this key is unknown, so that the model could be another than \
             the file means",
        ),
    ] {
        assert_eq!(with("llama", key, value), config(text));
    }
    let endless = json!({"rope_type": "longrope", "short_factor": [0.0, 1.0]});
    assert_eq!(
        with("phi3", "rope_parameters", endless),
        config(
            "holds `rope_parameters.rope_type` = longrope: with these numbers the angles are not finite"
        )
    );
    let short = json!({"rope_type": "longrope", "short_factor": [1.0]});
    assert_eq!(
        with("phi3", "rope_parameters", short),
        config("holds `rope_parameters.short_factor` = 1 numbers: it must hold 2 numbers")
    );
    let without = changed("llama", |config| {
        config.remove("hidden_size");
    });
    assert_eq!(error(without.path()), config("holds no `hidden_size`"));
    let odd = changed("llama", |config| {
        config.remove("head_dim");
        config.insert("hidden_size".into(), json!(18));
    });
    assert_eq!(
        error(odd.path()),
        config(
            "holds `hidden_size` = 18: `num_attention_heads` = 4 does not divide it, and there is no `head_dim`"
        )
    );
    // only Gemma has bounds
    assert_eq!(
        with("llama", "attn_logit_softcapping", json!(50.0)),
        config("holds `attn_logit_softcapping` = 50: this family has no such setting")
    );
    assert_eq!(
        with("gemma2", "attn_logit_softcapping", json!(0.0)),
        config("holds `attn_logit_softcapping` = 0: it must be finite and above 0")
    );
}

/// Every number of a file replaced by a value that makes no sense, one after another.
#[test]
fn no_config_makes_a_panic() {
    let values = [
        json!(0),
        json!(-1),
        json!(1),
        json!(7),
        json!(16_777_216),
        json!(u64::MAX),
        json!(1e300),
        json!(-1e300),
        json!("text"),
        json!([]),
        json!([1, 2]),
        json!({}),
        json!(true),
        json!(null),
    ];
    for name in [
        "llama_yarn",
        "llama_tied",
        "llama_dynamic",
        "qwen2",
        "gemma3",
        "phi3",
    ] {
        let copy = changed(name, |_| {});
        let at = copy.path().join("config.json");
        let json: serde_json::Map<String, Value> =
            serde_json::from_slice(&fs::read(&at).unwrap()).unwrap();
        let inner = json["rope_parameters"].as_object().unwrap().keys().cloned();
        let keys = json.keys().map(|key| (key.clone(), None));
        let keys: Vec<_> = keys
            .chain(inner.map(|key| ("rope_parameters".to_string(), Some(key))))
            .collect();
        for (key, inner) in keys {
            for value in &values {
                let mut json = json.clone();
                match &inner {
                    Some(inner) => json[&key][inner] = value.clone(),
                    None => drop(json.insert(key.clone(), value.clone())),
                }
                fs::write(&at, serde_json::to_vec(&json).unwrap()).unwrap();
                if let Ok(config) = DecoderConfig::read(copy.path()) {
                    let mut angles = config.rope.inv_freq.iter().chain([&config.rope.scale]);
                    assert!(
                        angles.all(|f| f.is_finite()),
                        "{name} {key} {inner:?} {value}"
                    );
                    assert!(config.score_scale.is_finite(), "{name} {key} {value}");
                }
            }
        }
    }
}

#[test]
fn weights_that_are_missing_misshapen_or_unexpected_are_named() {
    const DOWN: &str = "model.layers.1.mlp.down_proj.weight";
    let missing = with_tensors("llama", |tensors| drop(tensors.remove(DOWN)));
    assert_eq!(
        error(missing.path()),
        format!("Decoder::load: `DIR` holds no tensor `{DOWN}`, of shape [16, 24]")
    );
    let misshapen = with_tensors("llama", |tensors| {
        let turned = tensors[DOWN].t().unwrap().contiguous().unwrap();
        tensors.insert(DOWN.to_string(), turned);
    });
    assert_eq!(
        error(misshapen.path()),
        format!(
            "Decoder::load: `DIR` holds `{DOWN}` of shape [24, 16], and `config.json` asks for [16, 24]"
        )
    );
    let more = with_tensors("llama", |tensors| {
        for name in ["model.layers.2.mlp.up_proj.weight", "vision.weight"] {
            let any = tensors[DOWN].clone();
            tensors.insert(name.into(), any);
        }
    });
    assert_eq!(
        error(more.path()),
        "Decoder::load: `DIR` holds `model.layers.2.mlp.up_proj.weight` and 1 more, which a model of this \
         `config.json` does not have"
    );
    // a config of another model
    assert_eq!(
        with("llama", "vocab_size", json!(41)),
        "Decoder::load: `DIR` holds `model.embed_tokens.weight` of shape [40, 16], and `config.json` asks for \
         [41, 16]"
    );
    assert_eq!(
        with("llama", "num_hidden_layers", json!(3)),
        "Decoder::load: `DIR` holds no tensor `model.layers.2.self_attn.q_proj.weight`, of shape [16, 16]"
    );
    // not tied, and no output layer
    let untied = with_tensors("llama", |tensors| drop(tensors.remove("lm_head.weight")));
    assert_eq!(
        error(untied.path()),
        "Decoder::load: `DIR` holds no tensor `lm_head.weight`, of shape [40, 16]"
    );
    // old files hold what is computed
    let old = with_tensors("llama", |tensors| {
        let any = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), any);
    });
    Decoder::load(old.path(), &Load::default()).unwrap();
}

#[test]
fn files_that_are_not_weights_are_named() {
    const FILE: &str = "model.safetensors";
    let whole = fs::read(folder("llama").join(FILE)).unwrap();
    let copy = changed("llama", |_| {});
    let at = copy.path().join(FILE);
    let said = |bytes: &[u8]| {
        fs::write(&at, bytes).unwrap();
        let text = error(copy.path());
        let text = text.strip_prefix("Decoder::load: `DIR/model.safetensors` ");
        text.map(str::to_string).unwrap_or_default()
    };
    // cut at every kind of place
    for length in [0, 7, 8, 100, 2000, whole.len() - 1] {
        let text = said(&whole[..length]);
        assert!(
            text.contains("is cut short") || text.contains("are cut short"),
            "{length}: {text}"
        );
    }
    assert_eq!(
        said(&[&whole[..], &[0]].concat()),
        "has 1 bytes that belong to no tensor"
    );
    assert!(
        said(b"version https://git-lfs.github.com/spec/v1\noid")
            .starts_with("is a pointer of Git LFS")
    );
    assert!(said(b"PK\x03\x04 archive/data.pkl").starts_with("holds pickled weights"));
    assert!(said(b"<!DOCTYPE html><html>").starts_with("is a web page"));
    assert!(said(b"GGUF....").starts_with("is a GGUF file"));
    assert!(said(b"{\"a\": 1}         ").starts_with("is JSON text"));
    fs::remove_file(&at).unwrap();
    let text = error(copy.path());
    assert!(
        text.starts_with("Decoder::load: `DIR/model.safetensors` cannot be read: "),
        "{text}"
    );
    fs::create_dir(&at).unwrap();
    assert_eq!(
        error(copy.path()),
        "Decoder::load: `DIR/model.safetensors` cannot be read: it is a folder, not a file"
    );
    let copy = changed("llama", |_| {});
    for (bytes, text) in [
        (
            &whole[..],
            "holds tensors (safetensors), not JSON: another file was saved under this name",
        ),
        (
            b"{\"model_type\": \"llama\"",
            "is no JSON object: EOF while parsing an object at line 1 column 22",
        ),
    ] {
        fs::write(copy.path().join("config.json"), bytes).unwrap();
        assert_eq!(error(copy.path()), config(text));
    }
    fs::remove_file(copy.path().join("config.json")).unwrap();
    assert!(error(copy.path()).starts_with(&config("cannot be read: ")));
    let nowhere = copy.path().join("nowhere");
    assert!(error(&nowhere).starts_with(&config("cannot be read: ")));
}

#[test]
fn shards_whose_index_lies_are_named() {
    const INDEX: &str = "model.safetensors.index.json";
    const NORM: &str = "model.norm.weight";
    let said = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let copy = changed("llama_tied", |_| {});
        let at = copy.path().join(INDEX);
        let mut index: Value = serde_json::from_slice(&fs::read(&at).unwrap()).unwrap();
        change(index["weight_map"].as_object_mut().unwrap());
        fs::write(&at, serde_json::to_vec(&index).unwrap()).unwrap();
        error(copy.path())
    };
    let about = |text: &str| format!("Decoder::load: `DIR/{INDEX}` {text}");
    let copy = changed("llama_tied", |_| {});
    let index: Value = serde_json::from_slice(&fs::read(copy.path().join(INDEX)).unwrap()).unwrap();
    let holder = index["weight_map"][NORM].as_str().unwrap().to_string();
    let other = match holder.contains("00001-of") {
        true => holder.replace("00001-of", "00002-of"),
        false => holder
            .replace("00003-of", "00001-of")
            .replace("00002-of", "00001-of"),
    };
    assert_eq!(
        said(&|map| drop(map.insert(NORM.into(), json!(other)))),
        about(&format!(
            "says that `{other}` holds `{NORM}`, which it does not"
        ))
    );
    assert_eq!(
        said(&|map| drop(map.remove(NORM))),
        about(&format!(
            "does not say that `{holder}` holds `{NORM}`, which it does"
        ))
    );
    assert_eq!(
        said(&|map| drop(map.insert("x".into(), json!(holder)))),
        about(&format!(
            "says that `{holder}` holds `x`, which it does not"
        ))
    );
    for outside in [
        "../other.safetensors",
        "/etc/passwd",
        "/",
        "..",
        ".",
        "a/b.safetensors",
    ] {
        assert_eq!(
            said(&|map| drop(map.insert(NORM.into(), json!(outside)))),
            about(&format!(
                "names the file `{outside}`, which is not in its folder"
            ))
        );
    }
    let text = said(&|map| drop(map.insert(NORM.into(), json!("gone.safetensors"))));
    assert!(
        text.starts_with("Decoder::load: `DIR/gone.safetensors` cannot be read: "),
        "{text}"
    );
    fs::write(copy.path().join(INDEX), "{}").unwrap();
    assert_eq!(
        error(copy.path()),
        about("is not an index: missing field `weight_map` at line 1 column 2")
    );
    // one whole file is read without the index
    let whole = folder("llama").join("model.safetensors");
    fs::copy(whole, copy.path().join("model.safetensors")).unwrap();
    Decoder::load(copy.path(), &Load::default()).unwrap();
}

#[test]
fn types_that_cannot_be_trained_or_held_are_named() {
    let said = |dtype: DType, trained: bool| {
        let load = Load {
            dtype,
            trained,
            ..Load::default()
        };
        Decoder::load(folder("llama"), &load)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let half = "Decoder::load: `load.dtype` is a half type, in which the steps of an optimizer are lost: train \
                in f32";
    assert_eq!(said(DType::BF16, true), Err(half.to_string()));
    assert_eq!(said(DType::F16, true), Err(half.to_string()));
    let other = "Decoder::load: `load.dtype` is u8, and weights are f32, f64, bf16 or f16";
    assert_eq!(said(DType::U8, false), Err(other.to_string()));
    for dtype in [DType::F32, DType::F64] {
        assert_eq!(said(dtype, true), Ok(()));
    }
}

#[test]
fn batches_that_the_model_cannot_take_are_named() {
    let model = load("llama", false).unwrap();
    let mut rng = StdRng::seed_from_u64(0);
    let segments = |lengths: &[usize]| Segments::from_lengths(lengths).unwrap();
    let said = |tokens: &[u32], lengths: &[usize]| {
        model
            .hidden(tokens, &segments(lengths))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        said(&[1, 2, 40], &[3]),
        "Decoder::hidden: `tokens` holds 40 at 2, and the vocabulary has 40"
    );
    assert_eq!(
        said(&[1, 2], &[3]),
        "Decoder::hidden: `tokens` has 2 tokens for the 3 of `segments`"
    );
    assert_eq!(
        said(&[1; 67], &[2, 65]),
        "Decoder::hidden: `segments` has 65 tokens in row 1, and the model was made for 64; cut it"
    );
    let config = SamplingConfig {
        max_new_tokens: 8,
        top_k: Some(1),
        ..Default::default()
    };
    let mut sampled = |prompt: Vec<u32>| {
        model
            .sample(&[prompt], &config, &mut rng)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        sampled(vec![1, 99]),
        "Decoder::sample: `tokens` holds 99 at 1, and the vocabulary has 40"
    );
    assert_eq!(
        sampled(vec![1; 60]),
        "Decoder::sample: `segments` has 65 tokens in row 0, and the model was made for 64; cut it"
    );
    assert!(sampled(vec![]).starts_with("Decoder::sample: `prompts"));
    // none at all, and states of other shapes, are answers or errors
    let _ = model.hidden(&[], &segments(&[]));
    let _ = model.hidden(&[], &segments(&[0]));
    for shape in [&[][..], &[16], &[3, 16], &[0, 16], &[2, 3, 16], &[3, 15]] {
        let _ = model.logits(&Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    }
    // long rows are refused where the scaling of positions would change
    let phi = changed("phi3", |config| {
        let long =
            json!({"rope_type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [1.5, 2.0]});
        config.insert("rope_parameters".into(), long);
        config.insert("original_max_position_embeddings".into(), json!(16));
    });
    let phi = Decoder::load(phi.path(), &Load::default()).unwrap();
    assert_eq!(
        (phi.config().longest_row(), model.config().longest_row()),
        (16, 64)
    );
    phi.hidden(&[5; 16], &segments(&[16])).unwrap();
    assert_eq!(
        phi.hidden(&[5; 17], &segments(&[17]))
            .unwrap_err()
            .to_string(),
        "Rope::tables: `positions` hold position 16, and rows may have 16 tokens: `longrope` takes other \
         factors for all rows of a batch beyond it"
    );
}

#[test]
fn classifiers_are_asked_for_scores_and_others_for_logits() {
    let mut rng = StdRng::seed_from_u64(0);
    let (segments, tokens) = (Segments::from_lengths(&[3]).unwrap(), [1u32, 5, 6]);
    let model = load("llama", false).unwrap();
    let hidden = model.hidden(&tokens, &segments).unwrap();
    assert_eq!(
        model
            .scores(&hidden, &tokens, &segments)
            .unwrap_err()
            .to_string(),
        "Decoder::scores: `self` has no `score.weight`: see `Decoder::into_classifier`"
    );
    assert_eq!(
        model
            .clone()
            .into_classifier(0, &mut rng)
            .unwrap_err()
            .to_string(),
        "Decoder::into_classifier: `labels` is 0"
    );
    // nor has one whose output layer would have been its embedding
    for name in ["llama", "llama_tied", "gemma3"] {
        let model = load(name, false).unwrap();
        let model = model.into_classifier(2, &mut rng).unwrap();
        let text = "`self` is a classifier, which has no output layer over the vocabulary";
        let head = model.head().unwrap_err().to_string();
        assert_eq!(head, format!("Decoder::head: {text}"), "{name}");
        let drawn = model.sample(&[[1u32]], &SamplingConfig::default(), &mut rng);
        assert!(drawn.unwrap_err().to_string().ends_with(text), "{name}");
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), &Default::default()).unwrap();
        let again = Decoder::load(dir.path(), &Load::default()).unwrap();
        assert!(again.head().is_err(), "{name}");
    }
    let model = model.into_classifier(2, &mut rng).unwrap();
    assert_eq!(
        model
            .clone()
            .into_classifier(1, &mut rng)
            .unwrap_err()
            .to_string(),
        "Decoder::into_classifier: `self` has `score.weight` already"
    );
    let said = |tokens: &[u32], hidden: &Tensor| {
        model
            .scores(hidden, tokens, &segments)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        said(&[1, 5], &hidden),
        "Decoder::scores: `tokens` has 2 tokens for the 3 of `segments`"
    );
    assert_eq!(
        said(&tokens, &hidden.narrow(0, 0, 2).unwrap()),
        "Decoder::scores: `hidden` has shape [2, 16], and not [3, 16]: one state per token"
    );
}

#[test]
fn adapters_that_do_not_fit_are_named_and_change_nothing() {
    let out = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(0);
    let mut model = adapted(load("llama", false).unwrap(), &lora(r#"["q_proj"]"#));
    model.save_adapter("default", out.path()).unwrap();
    let before = model.vars().len();
    let mut add = |model: &mut Decoder, name: &str, config| {
        model
            .add_adapter(name, &config, &mut rng)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        add(&mut model, "default", lora(r#"["q_proj"]"#)),
        "Decoder::add_adapter: `name` is `default`, which is taken"
    );
    let text = add(&mut model, "new", lora(r#"["query"]"#));
    assert!(text.contains("query"), "{text}");
    let mut whole = lora(r#"["q_proj"]"#);
    whole.method.targets_mut().unwrap().modules_to_save = vec!["lm_head".to_string()];
    assert_eq!(
        add(&mut model, "new", whole.clone()),
        "Decoder::add_adapter: `modules_to_save` trains `lm_head` whole, which the decoder cannot: only `score`"
    );
    let no_score = "Decoder::add_adapter: `config` trains `score`, and the model has none: see \
                    `Decoder::into_classifier`";
    whole.method.targets_mut().unwrap().modules_to_save = vec!["score".to_string()];
    assert_eq!(add(&mut model, "new", whole), no_score);
    let mut classifies = lora(r#"["q_proj"]"#);
    classifies.task = Some(TaskType::SequenceClassification);
    assert_eq!(add(&mut model, "new", classifies), no_score);
    let mut biases = lora(r#"["q_proj"]"#);
    if let AdapterMethod::Lora(file) = &mut biases.method {
        file.all_biases = true;
        file.model.config.bias = LoraBias::Base;
    }
    assert_eq!(
        add(&mut model, "new", biases),
        "Decoder::add_adapter: `config` trains all biases or rows of the embedding, which the decoder cannot: \
         only the chosen linear maps"
    );
    let unknown = "`name` is `other`, and the adapters are default";
    for text in [
        model.set_adapter(Some("other")).unwrap_err().to_string(),
        model
            .save_adapter("other", out.path())
            .unwrap_err()
            .to_string(),
        model
            .adapter_layers("other")
            .map(drop)
            .unwrap_err()
            .to_string(),
        model
            .clone()
            .merge_adapter("other")
            .unwrap_err()
            .to_string(),
    ] {
        assert!(text.ends_with(unknown), "{text}");
    }
    assert_eq!(
        (model.adapters(), model.vars().len()),
        (vec!["default"], before)
    );

    // of another base: other sizes, other modules, more layers
    for name in ["phi3", "mistral"] {
        let mut other = load(name, false).unwrap();
        let text = other
            .load_adapter("a", out.path(), Strictness::Strict)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("model.layers.0.self_attn.q_proj"),
            "{name}: {text}"
        );
        assert!(other.adapters().is_empty() && other.adapter().is_none());
    }
    let mut trained = load("llama", true).unwrap();
    let text = "`weights` are trained, and an adapter goes on frozen ones: load the model with `trained` = false";
    let loaded = trained
        .load_adapter("a", out.path(), Strictness::Strict)
        .unwrap_err()
        .to_string();
    assert_eq!(loaded, format!("Decoder::load_adapter: {text}"));
    assert_eq!(
        add(&mut trained, "a", lora(r#"["q_proj"]"#)),
        format!("Decoder::add_adapter: {text}")
    );
    // two adapters cannot both be merged
    let mut rng = StdRng::seed_from_u64(0);
    model
        .add_adapter("second", &lora(r#"["q_proj"]"#), &mut rng)
        .unwrap();
    assert_eq!(
        model.merge_adapter("second").unwrap_err().to_string(),
        "Decoder::merge_adapter: `self` has the adapters default, second: the others were made for the weights \
         before"
    );
}
