//! Saved models: what the folder holds, and that it is read back as the same model. `load_models.py` loads
//! the same folders in Python.

use super::{
    NAMES, adapted, apart, changed, expected, folder, load, logits, lora, rows, tensors,
    with_tensors,
};
use candle_align::decoder::{Decoder, Load, Save};
use candle_align::ops::Segments;
use candle_align::peft::{Strictness, TaskType};
use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

fn config(folder: &Path) -> Map<String, Value> {
    serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

fn again(folder: &Path) -> Decoder {
    Decoder::load(folder, &Load::default()).unwrap()
}

#[test]
fn a_saved_model_is_read_back_as_the_same_model() {
    let out = tempfile::tempdir().unwrap();
    for name in NAMES {
        for trained in [false, true] {
            let at = out.path().join(format!("{name} {trained}"));
            let model = load(name, trained).unwrap();
            model.save(&at, &Save::default()).unwrap();
            let mut files: Vec<_> = fs::read_dir(&at)
                .unwrap()
                .map(|f| f.unwrap().file_name())
                .collect();
            files.sort();
            assert_eq!(files, ["config.json", "model.safetensors"]);
            let rows = rows(&expected(name));
            assert_eq!(
                apart(&logits(&again(&at), &rows), &logits(&model, &rows)),
                0.0,
                "{name}"
            );
            // nothing is said anew but the type in memory
            let (mut before, mut after) = (config(&folder(name)), config(&at));
            assert_eq!(after["dtype"], json!("float32"), "{name}");
            before.remove("dtype");
            after.remove("dtype");
            assert_eq!(after, before, "{name}");
            let tied = before["tie_word_embeddings"] == json!(true);
            assert_eq!(tensors(&at).contains_key("lm_head.weight"), !tied, "{name}");
        }
    }
}

#[test]
fn the_stored_type_is_that_in_memory_or_the_one_asked_for() {
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    let half = Load {
        dtype: DType::BF16,
        ..Load::default()
    };
    // stored in bf16: nothing is lost
    let model = Decoder::load(folder("qwen3"), &half).unwrap();
    model.save(at("as it is"), &Save::default()).unwrap();
    let (found, stored) = (tensors(&at("as it is")), tensors(&folder("qwen3")));
    assert_eq!(found.len(), stored.len());
    for (name, tensor) in &found {
        assert_eq!(tensor.dtype(), DType::BF16, "{name}");
        assert_eq!(apart(tensor, &stored[name]), 0.0, "{name}");
    }
    assert_eq!(config(&at("as it is"))["dtype"], json!("bfloat16"));
    for (dtype, name) in [
        (DType::F16, "float16"),
        (DType::F64, "float64"),
        (DType::F32, "float32"),
    ] {
        let save = Save {
            dtype: Some(dtype),
            ..Save::default()
        };
        model.save(at(name), &save).unwrap();
        assert!(
            tensors(&at(name))
                .values()
                .all(|tensor| tensor.dtype() == dtype)
        );
        assert_eq!(config(&at(name))["dtype"], json!(name));
    }
    // the key of Transformers 4 stays the key
    let old = changed("llama", |config| {
        config.remove("dtype");
        config.insert("torch_dtype".into(), json!("bfloat16"));
    });
    again(old.path()).save(at("old"), &Save::default()).unwrap();
    let old = config(&at("old"));
    assert_eq!(
        (&old["torch_dtype"], old.get("dtype")),
        (&json!("float32"), None)
    );
}

/// A table that says it is tied, with another head beside it.
fn with_own_head() -> tempfile::TempDir {
    with_tensors("qwen2", |tensors| {
        let head = (&tensors["model.embed_tokens.weight"] * 0.5).unwrap();
        tensors.insert("lm_head.weight".into(), head);
    })
}

#[test]
fn a_head_that_is_no_longer_the_embedding_is_saved_as_untied() {
    let (own, out) = (with_own_head(), tempfile::tempdir().unwrap());
    let model = again(own.path());
    let at = out.path().join("model");
    model.save(&at, &Save::default()).unwrap();
    assert_eq!(config(&at)["tie_word_embeddings"], json!(false));
    assert!(tensors(&at).contains_key("lm_head.weight"));
    let rows = rows(&expected("qwen2"));
    assert_eq!(
        apart(&logits(&again(&at), &rows), &logits(&model, &rows)),
        0.0
    );
}

#[test]
fn a_saved_classifier_names_its_scores() {
    let out = tempfile::tempdir().unwrap();
    for (labels, pad) in [(1, None), (2, Some(2)), (3, Some(5))] {
        let at = out.path().join(labels.to_string());
        let mut rng = StdRng::seed_from_u64(1);
        let model = load("llama", false)
            .unwrap()
            .into_classifier(labels, &mut rng)
            .unwrap();
        let save = Save {
            pad_token_id: pad,
            ..Save::default()
        };
        model.save(&at, &save).unwrap();
        let found = config(&at);
        assert_eq!(
            found["architectures"],
            json!(["LlamaForSequenceClassification"])
        );
        assert_eq!(found["id2label"].as_object().unwrap().len(), labels);
        assert_eq!(
            found["label2id"][format!("LABEL_{}", labels - 1)],
            json!(labels - 1)
        );
        assert_eq!(found["pad_token_id"], json!(pad.unwrap_or(0)));
        // what the caller names for scores is written, unless the save names another
        let mut named = model.clone();
        named.set_pad_token(7).unwrap();
        assert_eq!(
            named.set_pad_token(40).unwrap_err().to_string(),
            "Decoder::set_pad_token: `id` is 40, and the vocabulary has 40 tokens"
        );
        named.save(at.join("named"), &save).unwrap();
        let found = config(&at.join("named"));
        assert_eq!(found["pad_token_id"], json!(pad.unwrap_or(7)));
        let held = tensors(&at);
        assert_eq!(held["score.weight"].dims(), [labels, 16]);
        assert!(!held.contains_key("lm_head.weight"));
        let again = again(&at);
        assert_eq!(again.config().num_labels, Some(labels));
        assert_eq!(again.state_dict().len(), model.state_dict().len());
        // names that fit stay
        let named = changed("llama", |config| {
            config.insert("id2label".into(), json!({"0": "good"}));
            config.insert("label2id".into(), json!({"good": 0}));
        });
        let model = Decoder::load(named.path(), &Load::default()).unwrap();
        let at = out.path().join(format!("named {labels}"));
        model
            .into_classifier(labels, &mut rng)
            .unwrap()
            .save(&at, &Save::default())
            .unwrap();
        assert_eq!(
            config(&at)["id2label"]["0"],
            json!(if labels == 1 { "good" } else { "LABEL_0" })
        );
    }
    // Transformers writes no number where there are two
    let two = with_tensors("llama", |tensors| {
        let head = tensors.remove("lm_head.weight").unwrap();
        tensors.insert("score.weight".into(), head.narrow(0, 0, 2).unwrap());
    });
    let scores = again(two.path()).state_dict()["score.weight"].clone();
    assert_eq!(scores.dims(), [2, 16]);
}

#[test]
fn tokenizer_template_and_generation_settings_are_copied_if_told() {
    let (source, out) = (changed("llama", |_| {}), tempfile::tempdir().unwrap());
    for name in ["tokenizer.json", "chat_template.jinja", "notes.txt"] {
        fs::write(source.path().join(name), name).unwrap();
    }
    let at = out.path().join("deep").join("model");
    let save = Save {
        beside: Some(source.path().to_path_buf()),
        ..Save::default()
    };
    again(source.path()).save(&at, &save).unwrap();
    for name in [
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    ] {
        assert_eq!(
            fs::read(at.join(name)).unwrap(),
            fs::read(source.path().join(name)).unwrap()
        );
    }
    assert!(!at.join("notes.txt").exists() && !at.join("expected.safetensors").exists());
}

#[test]
fn a_failed_save_leaves_nothing_and_an_old_folder_as_it_was() {
    let out = tempfile::tempdir().unwrap();
    let model = load("llama", false).unwrap();
    let message = |at: &Path, save: &Save| model.save(at, save).unwrap_err().to_string();
    let old = out.path().join("old");
    model.save(&old, &Save::default()).unwrap();
    let before = fs::read(old.join("model.safetensors")).unwrap();
    let text = message(&old, &Save::default());
    assert_eq!(
        text,
        format!(
            "Decoder::save: `{}` cannot be written: it is there already and is not empty: name a new folder",
            old.display()
        )
    );
    assert_eq!(fs::read(old.join("model.safetensors")).unwrap(), before);
    // a folder without a file is as good as none
    fs::create_dir(out.path().join("empty")).unwrap();
    model
        .save(out.path().join("empty"), &Save::default())
        .unwrap();
    let file = out.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(message(&file, &Save::default()).ends_with("it is there already and is not a folder"));
    let below = file.join("model");
    assert!(message(&below, &Save::default()).contains("cannot be written"));
    let save = Save {
        beside: Some(out.path().join("nowhere")),
        ..Save::default()
    };
    let text = message(&out.path().join("new"), &save);
    assert!(
        text.contains("`save.beside` is ") && text.ends_with("which is no folder"),
        "{text}"
    );
    let mut left: Vec<_> = fs::read_dir(out.path())
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["empty", "file", "old"]);
    let save = Save {
        dtype: Some(DType::U8),
        ..Save::default()
    };
    let text = "Decoder::save: `save.dtype` is u8, and weights are f32, f64, bf16 or f16";
    assert_eq!(message(&out.path().join("new"), &save), text);
    let save = Save {
        pad_token_id: Some(40),
        ..Save::default()
    };
    let text = "Decoder::save: `save.pad_token_id` is 40, and the vocabulary has 40 tokens";
    assert_eq!(message(&out.path().join("new"), &save), text);
}

/// Models as they are written here, with their own logits or scores beside them, for `load_models.py`: into
/// the folder that `WRITTEN_MODELS` names, else into one that is deleted.
#[test]
fn models_written_here_and_their_logits() {
    let temporary = tempfile::tempdir().unwrap();
    let out = match std::env::var_os("WRITTEN_MODELS") {
        Some(out) => PathBuf::from(out),
        None => temporary.path().to_path_buf(),
    };
    let mut rng = StdRng::seed_from_u64(2);
    for name in NAMES {
        let expected = expected(name);
        let rows = rows(&expected);
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let segments = Segments::from_lengths(&lengths).unwrap();
        let write = |kind: &str, outputs: Tensor| {
            let ids = ["tokens", "mask"].map(|key| (key.to_string(), expected[key].clone()));
            let mut all = HashMap::from(ids);
            all.insert("outputs".to_string(), outputs);
            let at = out
                .join(format!("{name}.{kind}"))
                .join("outputs.safetensors");
            candle_core::safetensors::save(&all, at).unwrap();
        };
        let save = Save {
            beside: Some(folder(name)),
            ..Save::default()
        };
        let at = |kind: &str| out.join(format!("{name}.{kind}"));
        let of = |model: &Decoder| segments.to_rows(&logits(model, &rows)).unwrap();

        let model = load(name, true).unwrap();
        model.save(at("full"), &save).unwrap();
        write("full", of(&model));

        let model = adapted(load(name, false).unwrap(), &lora(r#""all-linear""#));
        model.save_adapter("default", at("adapter")).unwrap();
        write("adapter", of(&model));
        let before = of(&model);
        model
            .merge_adapter("default")
            .unwrap()
            .save(at("merged"), &save)
            .unwrap();
        write("merged", before);

        let scores = |model: &Decoder| {
            let tokens = rows.concat();
            let hidden = model.hidden(&tokens, &segments).unwrap();
            model.scores(&hidden, &tokens, &segments).unwrap()
        };
        let model = load(name, false)
            .unwrap()
            .into_classifier(1, &mut rng)
            .unwrap();
        model.save(at("classifier"), &save).unwrap();
        write("classifier", scores(&model));
        let mut config = lora(r#"["o_proj", "down_proj"]"#);
        config.task = Some(TaskType::SequenceClassification);
        let model = adapted(model, &config);
        model
            .save_adapter("default", at("classifier_adapter"))
            .unwrap();
        write("classifier_adapter", scores(&model));
        for kind in ["prompt", "prefix"] {
            let golden = folder(&format!("../virtual_tokens/{name}.{kind}"));
            if golden.exists() {
                let mut model = load(name, false).unwrap();
                let read = model.load_adapter("default", golden, Strictness::Strict);
                read.unwrap();
                model.save_adapter("default", at(kind)).unwrap();
                write(kind, of(&model));
            }
        }
        if name == "qwen2" {
            let own = with_own_head();
            let model = again(own.path());
            model.save(at("untied"), &save).unwrap();
            write("untied", of(&model));
        }
    }
}
