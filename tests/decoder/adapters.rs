//! Adapters on a decoder: which modules they change, switching, merging, and going on from a file.

use super::{adapted, apart, expected, folder, load, logits, lora, rows};
use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::ops::Segments;
use candle_align::parameter_efficient::LoraBias;
use candle_align::peft::{AdapterMethod, Strictness, TaskType};
use candle_align::{DpoConfig, Pair, SamplingConfig, dpo_loss};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[test]
fn switched_off_an_adapter_leaves_the_base_model_bit_for_bit() {
    for name in ["llama", "qwen3", "phi3", "gemma3"] {
        let base = load(name, false).unwrap();
        let rows = rows(&expected(name));
        let plain = logits(&base, &rows);
        let mut model = adapted(base, &lora(r#""all-linear""#));
        let one = logits(&model, &rows);
        assert!(apart(&one, &plain) > 0.01, "{name}");
        model.set_adapter(None).unwrap();
        assert_eq!(apart(&logits(&model, &rows), &plain), 0.0, "{name}");
        assert!(model.vars().is_empty(), "{name}");
        model.set_adapter(Some("default")).unwrap();
        assert_eq!(apart(&logits(&model, &rows), &one), 0.0, "{name}");
        // a pass of the reference does not switch
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let segments = Segments::from_lengths(&lengths).unwrap();
        let reference = model
            .forward(&rows.concat(), &segments, Mode::Reference)
            .unwrap();
        assert_eq!(
            apart(&model.logits(&reference).unwrap(), &plain),
            0.0,
            "{name}"
        );
        assert_eq!(model.adapter(), Some("default"));
    }
}

#[test]
fn several_adapters_do_not_touch_each_other() {
    let mut model = adapted(load("llama", false).unwrap(), &lora(r#"["q_proj"]"#));
    let rows = rows(&expected("llama"));
    let one = logits(&model, &rows);
    let mut rng = StdRng::seed_from_u64(5);
    model
        .add_adapter("fresh", &lora(r#"["q_proj", "down_proj"]"#), &mut rng)
        .unwrap();
    assert_eq!(
        (model.adapters(), model.adapter()),
        (vec!["default", "fresh"], Some("fresh"))
    );
    // a fresh adapter changes nothing
    let plain = logits(&load("llama", false).unwrap(), &rows);
    assert!(apart(&logits(&model, &rows), &plain) < 1e-5);
    model.set_adapter(Some("default")).unwrap();
    assert_eq!(apart(&logits(&model, &rows), &one), 0.0);
}

#[test]
fn the_merged_model_computes_what_the_adapter_does() {
    for name in ["llama", "qwen2", "phi3", "gemma3"] {
        let model = adapted(load(name, false).unwrap(), &lora(r#""all-linear""#));
        let rows = rows(&expected(name));
        let before = logits(&model, &rows);
        let merged = model.merge_adapter("default").unwrap();
        assert!(merged.adapters().is_empty() && merged.vars().is_empty());
        let far = apart(&logits(&merged, &rows), &before);
        assert!(far < 3e-5, "{name}: {far:e}");
    }
}

#[test]
fn a_saved_adapter_goes_on_where_it_was() {
    let out = tempfile::tempdir().unwrap();
    for name in ["llama", "llama_tied", "phi3"] {
        let model = adapted(load(name, false).unwrap(), &lora(r#""all-linear""#));
        let rows = rows(&expected(name));
        model
            .save_adapter("default", out.path().join(name))
            .unwrap();
        let mut again = load(name, false).unwrap();
        let left_out = again.load_adapter("second", out.path().join(name), Strictness::Strict);
        assert!(left_out.unwrap().is_empty());
        assert_eq!(
            apart(&logits(&again, &rows), &logits(&model, &rows)),
            0.0,
            "{name}"
        );
    }
}

#[test]
fn the_head_of_a_classifier_is_trained_with_its_adapter() {
    let mut rng = StdRng::seed_from_u64(1);
    let model = load("llama", false)
        .unwrap()
        .into_classifier(1, &mut rng)
        .unwrap();
    let mut config = lora(r#"["q_proj"]"#);
    config.task = Some(TaskType::SequenceClassification);
    let model = adapted(model, &config);
    assert!(model.vars().iter().any(|(name, _)| name == "score.weight"));
    let rows = rows(&expected("llama"));
    let scores = |model: &Decoder| {
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let segments = Segments::from_lengths(&lengths).unwrap();
        let tokens = rows.concat();
        model
            .scores(
                &model.hidden(&tokens, &segments).unwrap(),
                &tokens,
                &segments,
            )
            .unwrap()
    };
    let before = scores(&model);
    assert!(apart(&scores(&model.merge_adapter("default").unwrap()), &before) < 1e-5);
}

#[test]
fn frozen_half_weights_stay_what_they_are_and_adapters_learn_in_f32() {
    for dtype in [DType::BF16, DType::F16] {
        let half = Load {
            dtype,
            ..Load::default()
        };
        let model = adapted(
            Decoder::load(folder("qwen3"), &half).unwrap(),
            &lora(r#""all-linear""#),
        );
        assert!(
            model
                .state_dict()
                .values()
                .all(|tensor| tensor.dtype() == dtype)
        );
        let rows = rows(&expected("qwen3"));
        let found = logits(&model, &rows);
        assert_eq!(found.dtype(), DType::F32);
        let config = SamplingConfig {
            max_new_tokens: 4,
            ..Default::default()
        };
        let mut rng = StdRng::seed_from_u64(0);
        let drawn = model.sample(&rows, &config, &mut rng).unwrap();
        assert_eq!(drawn.rows.len(), rows.len());
        let grads = found.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        for (name, var) in model.vars() {
            assert_eq!(var.dtype(), DType::F32, "{name}");
            let largest = grads
                .get(&var)
                .unwrap()
                .abs()
                .unwrap()
                .flatten_all()
                .unwrap();
            assert!(
                largest.max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0,
                "{name}"
            );
        }
    }
}

/// With a cache, one token of each row goes through products of its own.
#[test]
fn a_drawn_token_is_as_likely_as_in_a_whole_pass() {
    let cases = [
        ("llama", r#""all-linear""#, LoraBias::Frozen),
        ("gemma3", r#""all-linear""#, LoraBias::Update),
        ("qwen2", r#"["q_proj", "v_proj"]"#, LoraBias::Base),
        ("qwen2", r#""all-linear""#, LoraBias::Update),
        ("llama_biased", r#""all-linear""#, LoraBias::Frozen),
    ];
    for (name, targets, bias) in cases {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let mut config = lora(targets);
            if let AdapterMethod::Lora(file) = &mut config.method {
                file.model.config.bias = bias;
            }
            let load = Load {
                dtype,
                ..Load::default()
            };
            let model = adapted(Decoder::load(folder(name), &load).unwrap(), &config);
            let drawing = SamplingConfig {
                max_new_tokens: 5,
                ..Default::default()
            };
            let mut rng = StdRng::seed_from_u64(0);
            let drawn = model.sample(&rows(&expected(name)), &drawing, &mut rng);
            for row in &drawn.unwrap().rows {
                let whole = row.sequence.tokens().to_vec();
                let first = whole.len() - row.answer().len();
                let under = candle_nn::ops::log_softmax(&logits(&model, &[whole]), 1).unwrap();
                let under = under.to_vec2::<f32>().unwrap();
                for (at, (token, found)) in row.answer().iter().zip(&row.log_probs).enumerate() {
                    let want = f64::from(under[first + at - 1][*token as usize]);
                    let far = (found - want).abs();
                    assert!(far < 1e-4, "{name} {dtype:?} {bias:?} at {at}: {far:e}");
                }
            }
        }
    }
}

/// DPO as a loop writes it, over the trait alone.
fn margin(model: &impl LanguageModel) -> f32 {
    let segments = Segments::from_prompts(&[2], &[vec![2, 1]]).unwrap();
    let tokens = [1u32, 9, 5, 2, 7];
    let mask = Tensor::new(&[[0u8, 0, 1, 1], [0, 0, 1, 0]], &Device::Cpu).unwrap();
    let pair = |mode| {
        let log_probs = model.log_probs(&tokens, &segments, &mask, mode).unwrap();
        Pair::from_rows(&log_probs.sum().unwrap()).unwrap()
    };
    let (policy, reference) = (pair(Mode::Evaluation), pair(Mode::Reference));
    let out = dpo_loss(&policy, Some(&reference), &DpoConfig::default()).unwrap();
    out.loss.mean_all().unwrap().to_scalar().unwrap()
}

#[test]
fn a_loop_over_the_trait_alone_sees_policy_and_reference() {
    let model = load("llama", false).unwrap();
    // without an adapter the policy is the reference
    assert!((margin(&model) - 2f32.ln()).abs() < 1e-6);
    let model = adapted(model, &lora(r#"["q_proj", "v_proj"]"#));
    assert!((margin(&model) - 2f32.ln()).abs() > 1e-4);
}

/// Under an adapter, of trained weights, and of a classifier; whatever is computed again.
#[test]
fn without_gradients_the_values_are_the_same_and_nothing_is_kept_for_a_backward_pass() {
    for name in ["llama", "llama_tied", "gemma3"] {
        let rows = rows(&expected(name));
        let under_adapter = adapted(load(name, false).unwrap(), &lora(r#""all-linear""#));
        let mut again = under_adapter.clone();
        again.set_recompute(true);
        for model in [under_adapter, again, load(name, true).unwrap()] {
            let quiet = model.without_gradients();
            let (kept, cut) = (logits(&model, &rows), logits(&quiet, &rows));
            assert!(kept.track_op() && !cut.track_op(), "{name}");
            assert_eq!(apart(&kept, &cut), 0.0, "{name}");
            // the weights are shared, and the model itself is as it was
            let var = &model.vars()[0].1;
            var.set(&var.affine(2.0, 0.1).unwrap()).unwrap();
            let (new, same) = (logits(&model, &rows), logits(&quiet, &rows));
            assert!(new.track_op() && apart(&new, &kept) > 0.0, "{name}");
            assert_eq!(apart(&new, &same), 0.0, "{name}");
        }
    }
    let mut rng = StdRng::seed_from_u64(1);
    let model = load("llama", true).unwrap();
    let model = model.into_classifier(1, &mut rng).unwrap();
    let quiet = model.without_gradients();
    let segments = Segments::from_lengths(&[3]).unwrap();
    let hidden = quiet.hidden(&[1, 5, 6], &segments).unwrap();
    let scores = quiet.scores(&hidden, &[1, 5, 6], &segments).unwrap();
    assert!(!hidden.track_op() && !scores.track_op());
}

#[test]
fn only_an_adapter_of_adalora_has_triplets_to_keep() {
    let mut model = adapted(load("llama", false).unwrap(), &lora(r#"["q_proj"]"#));
    let mut message = |name: &str| {
        let kept = model.set_kept_triplets(name, Default::default());
        kept.unwrap_err().to_string()
    };
    assert_eq!(
        message("default"),
        "Decoder::set_kept_triplets: `name` is `default`, which is not of AdaLoRA"
    );
    assert_eq!(
        message("other"),
        "Decoder::set_kept_triplets: `name` is `other`, and the adapters are default"
    );
    assert!(model.adapter_config("other").is_err());
    assert_eq!(
        model.adapter_config("default").unwrap(),
        &lora(r#"["q_proj"]"#)
    );
}
