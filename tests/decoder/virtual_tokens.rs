//! Prompt tuning and prefix tuning on the decoder, beside PEFT: `golden/virtual_tokens.py`.

use super::{apart, load, logits, rows};
use candle_align::decoder::{Decoder, LanguageModel, Mode, Save};
use candle_align::ops::Segments;
use candle_align::parameter_efficient::PrefixShape;
use candle_align::peft::{AdapterMethod, PeftConfig, PrefixFile, PromptFile, Strictness, TaskType};
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_align::{SamplingConfig, Statistics, TokenLogProbs};
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Without a window, with one, and with one in every second layer beside scaled embeddings.
const BASES: [&str; 3] = ["llama", "mistral", "gemma2"];
const KINDS: [&str; 2] = ["prompt", "prefix"];
const VIRTUAL: usize = 3;

fn golden(name: &str, kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/virtual_tokens")
        .join(format!("{name}.{kind}"))
}

fn computed_by_peft(name: &str, kind: &str) -> HashMap<String, Tensor> {
    let path = golden(name, kind).join("expected.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn adapted(name: &str, kind: &str) -> Decoder {
    let mut model = load(name, false).unwrap();
    let left_out = model.load_adapter("default", golden(name, kind), Strictness::Strict);
    assert!(left_out.unwrap().is_empty());
    model
}

fn cases() -> impl Iterator<Item = (&'static str, &'static str)> {
    BASES
        .into_iter()
        .flat_map(|name| KINDS.into_iter().map(move |kind| (name, kind)))
}

fn lengths(rows: &[Vec<u32>]) -> Vec<usize> {
    rows.iter().map(Vec::len).collect()
}

fn largest(x: &Tensor) -> f32 {
    apart(x, &x.zeros_like().unwrap())
}

/// The mean cross-entropy of all next tokens.
fn loss(model: &Decoder, rows: &[Vec<u32>], seed: u64) -> Tensor {
    let segments = Segments::from_lengths(&lengths(rows)).unwrap();
    let tokens = Tensor::new(rows.concat(), &Device::Cpu).unwrap();
    let hidden = model.hidden_train(&rows.concat(), &segments, seed).unwrap();
    let (hidden, tokens) = (
        segments.to_rows(&hidden).unwrap(),
        segments.to_rows(&tokens).unwrap(),
    );
    let (head, mask) = (model.head().unwrap(), segments.mask(&Device::Cpu).unwrap());
    let log_probs =
        TokenLogProbs::from_hidden(&hidden, &head, &tokens, &mask, Statistics::default()).unwrap();
    let count: usize = lengths(rows).iter().map(|length| length - 1).sum();
    let sum = log_probs.sum().unwrap().sum_all().unwrap();
    (sum / -(count as f64)).unwrap()
}

#[test]
fn logits_and_gradients_are_those_of_peft() {
    for (name, kind) in cases() {
        let (mut model, expected) = (adapted(name, kind), computed_by_peft(name, kind));
        let rows = rows(&expected);
        let segments = Segments::from_lengths(&lengths(&rows)).unwrap();
        let ours = segments.to_rows(&logits(&model, &rows)).unwrap();
        let off = apart(&ours, &expected["logits"]) / largest(&expected["logits"]);
        assert!(off < 1e-5, "{name} {kind}: {off:e}");
        for recompute in [false, true] {
            model.set_recompute(recompute);
            let loss = loss(&model, &rows, 0);
            let theirs = expected["loss"].to_scalar::<f32>().unwrap();
            let off = (loss.to_scalar::<f32>().unwrap() / theirs - 1.0).abs();
            assert!(off < 1e-5, "{name} {kind}: loss {off:e}");
            let vars = model.vars();
            assert_eq!(vars.len(), 1);
            assert_eq!(vars[0].0, "prompt_embeddings");
            let gradients = loss.backward().unwrap();
            let ours = gradients.get(&vars[0].1).unwrap();
            let off = apart(ours, &expected["gradient"]) / largest(&expected["gradient"]);
            assert!(off < 1e-5, "{name} {kind}: gradient {off:e}");
        }
    }
}

#[test]
fn sampling_with_a_cache_continues_as_whole_passes_of_peft() {
    for (name, kind) in cases() {
        let (model, expected) = (adapted(name, kind), computed_by_peft(name, kind));
        let config = SamplingConfig {
            top_k: Some(1),
            max_new_tokens: 12,
            ..Default::default()
        };
        let mut rng = StdRng::seed_from_u64(0);
        let drawn = model.sample(&rows(&expected), &config, &mut rng).unwrap();
        let theirs = expected["greedy"].to_vec2::<i64>().unwrap();
        for (row, theirs) in drawn.rows.iter().zip(theirs) {
            let ours: Vec<i64> = row.answer().iter().map(|token| i64::from(*token)).collect();
            // an end token ends a row here
            let end = ours.len();
            assert_eq!(ours, theirs[..end], "{name} {kind}");
            let ended = theirs[..end].last() == Some(&2) || end == 12;
            assert!(ended, "{name} {kind}: {ours:?}");
        }
    }
}

#[test]
fn a_shared_prompt_of_tokens_sees_the_virtual_ones_once() {
    for (name, kind) in cases() {
        let model = adapted(name, kind);
        let separate = [vec![1u32, 7, 9, 4, 11, 5], vec![1, 7, 9, 4, 12], vec![3, 8]];
        let (segments, tokens) = Segments::from_tokens(&separate).unwrap();
        assert!(segments.tokens() < separate.concat().len());
        let hidden = model.hidden(&tokens, &segments).unwrap();
        assert_eq!(hidden.dims(), [segments.tokens(), 16]);
        let shared = segments.to_rows(&model.logits(&hidden).unwrap()).unwrap();
        let apart_from = |other: &Tensor| apart(&shared, other);
        let alone = Segments::from_lengths(&lengths(&separate)).unwrap();
        let alone = alone.to_rows(&logits(&model, &separate)).unwrap();
        let off = apart_from(&alone);
        assert!(off < 2e-5, "{name} {kind}: {off:e}");
    }
}

#[test]
fn switched_off_nothing_is_before_a_row() {
    for (name, kind) in cases() {
        let base = load(name, false).unwrap();
        let rows = rows(&computed_by_peft(name, kind));
        let plain = logits(&base, &rows);
        let mut model = adapted(name, kind);
        assert!(apart(&logits(&model, &rows), &plain) > 0.01);
        let segments = Segments::from_lengths(&lengths(&rows)).unwrap();
        let reference = model.forward(&rows.concat(), &segments, Mode::Reference);
        let reference = model.logits(&reference.unwrap()).unwrap();
        assert_eq!(apart(&reference, &plain), 0.0, "{name} {kind}");
        model.set_adapter(None).unwrap();
        assert_eq!(apart(&logits(&model, &rows), &plain), 0.0, "{name} {kind}");
        assert!(model.vars().is_empty());
    }
}

#[test]
fn what_is_saved_is_read_back_bit_for_bit() {
    let out = tempfile::tempdir().unwrap();
    for (name, kind) in cases() {
        let (model, at) = (
            adapted(name, kind),
            out.path().join(format!("{name}.{kind}")),
        );
        model.save_adapter("default", &at).unwrap();
        let mut again = load(name, false).unwrap();
        again
            .load_adapter("again", &at, Strictness::Strict)
            .unwrap();
        let rows = rows(&computed_by_peft(name, kind));
        let off = apart(&logits(&again, &rows), &logits(&model, &rows));
        assert_eq!(off, 0.0, "{name} {kind}");
    }
}

fn prompt(length: usize, dim: usize) -> PeftConfig {
    AdapterMethod::Prompt(PromptFile {
        length,
        dim,
        layers: None,
        heads: None,
    })
    .into()
}

fn prefix(length: usize, layers: usize, heads: usize, head_dim: usize) -> PeftConfig {
    let shape = PrefixShape {
        layers,
        heads,
        head_dim,
    };
    AdapterMethod::Prefix(PrefixFile { length, shape }).into()
}

#[test]
fn fresh_ones_learn_and_the_base_does_not() {
    let rows = [vec![1u32, 5, 9, 5, 9, 5], vec![1, 6, 8, 6, 8]];
    for (name, config) in [
        ("llama", prompt(VIRTUAL, 16)),
        ("gemma2", prompt(VIRTUAL, 16)),
        ("llama", prefix(VIRTUAL, 2, 2, 4)),
        ("mistral", prefix(VIRTUAL, 2, 2, 6)),
    ] {
        let mut model = load(name, false).unwrap();
        let before = model.state_dict();
        let mut rng = StdRng::seed_from_u64(4);
        model.add_adapter("new", &config, &mut rng).unwrap();
        let settings = AdamWConfig {
            learning_rate: 0.03,
            ..Default::default()
        };
        let group = ParameterGroup::new(model.vars(), 0.0);
        let mut optimizer = AdamW::new(vec![group], settings).unwrap();
        let mut losses = Vec::new();
        for seed in 0..12 {
            let loss = loss(&model, &rows, seed);
            optimizer.step(&loss.backward().unwrap()).unwrap();
            losses.push(loss.to_scalar::<f32>().unwrap());
        }
        assert!(
            losses[11] < losses[0] - 0.05,
            "{name} {config:?}: {losses:?}"
        );
        for (name, weight) in model.state_dict() {
            assert_eq!(apart(&weight, &before[&name]), 0.0, "{name}");
        }
    }
}

#[test]
fn what_does_not_fit_or_cannot_be_done_is_named() {
    let mut model = load("llama", false).unwrap();
    let mut rng = StdRng::seed_from_u64(4);
    let mut add = |config: &PeftConfig| {
        let error = model.add_adapter("new", config, &mut rng).unwrap_err();
        error.to_string().replace("Decoder::add_adapter: ", "")
    };
    assert_eq!(
        add(&prompt(2, 15)),
        "`token_dim` is 15, and the model's `hidden_size` is 16"
    );
    assert_eq!(
        add(&prefix(2, 3, 2, 4)),
        "`num_layers` is 3, and the keys of this model ask for 2"
    );
    assert_eq!(
        add(&prefix(2, 2, 4, 4)),
        "`num_attention_heads` is 4, and the keys of this model ask for 2"
    );
    assert_eq!(
        add(&prefix(2, 2, 2, 8)),
        "`token_dim` is 16, and the keys of this model ask for 8"
    );
    let head = "`config` is a prompt or a prefix for a classifier, whose head it does not train: choose an adapter \
                of linear maps";
    let mut classifies = prompt(2, 16);
    classifies.task = Some(TaskType::SequenceClassification);
    assert_eq!(
        add(&classifies),
        "`config` trains `score`, and the model has none: see `Decoder::into_classifier`"
    );
    assert!(model.adapters().is_empty());
    let mut classifier = load("llama", false)
        .unwrap()
        .into_classifier(1, &mut StdRng::seed_from_u64(0))
        .unwrap();
    let error = classifier.load_adapter("a", golden("llama", "prefix"), Strictness::Strict);
    assert_eq!(
        error.unwrap_err().to_string(),
        format!("Decoder::load_adapter: {head}")
    );
    // a prompt of another base
    for kind in KINDS {
        let error = load("mistral", false).unwrap().load_adapter(
            "a",
            golden("llama", "prefix"),
            Strictness::Strict,
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`token_dim` is 8"), "{kind}: {error}");
    }

    for kind in KINDS {
        let model = adapted("llama", kind);
        let error = model.clone().merge_adapter("default").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Decoder::merge_adapter: `name` is `default`, a prompt or a prefix, which no weights can hold"
        );
        // the virtual ones take positions of the context, whose length is 64
        let segments = Segments::from_lengths(&[62]).unwrap();
        let error = model.hidden(&[1; 62], &segments).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Decoder::hidden: `segments` has 62 tokens in row 0 behind 3 virtual ones, and the model was made for \
             64; cut it"
        );
        let segments = Segments::from_lengths(&[61]).unwrap();
        model.hidden(&[1; 61], &segments).unwrap();
        let reference = model.forward(&[1; 61], &segments, Mode::Reference);
        reference.unwrap();
        // the model itself is still the base
        let out = tempfile::tempdir().unwrap();
        model
            .save(out.path().join("base"), &Save::default())
            .unwrap();
    }
}
