//! Faults of language models that were reported in public projects.

use super::{
    NAMES, apart, changed, expected, folder, load, logits, lora, rows, tensors, with_tensors,
};
use candle_align::decoder::{Decoder, DecoderConfig, Load, Save};
use candle_align::ops::Segments;
use candle_align::{SamplingConfig, Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::path::Path;

fn read(folder: &Path) -> Decoder {
    Decoder::load(folder, &Load::default()).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Tokens without a pattern, none of them special.
fn long_row(length: usize) -> Vec<u32> {
    (0..length)
        .map(|i| 3 + (i * i + 5 * i) as u32 % 37)
        .collect()
}

/// candle#3698: tables of rotary positions in the type of the weights turn long prompts into word salad.
#[test]
fn rotary_tables_are_single_precision_whatever_the_weights_are() {
    let far = changed("qwen3", |config| {
        config.insert("max_position_embeddings".into(), json!(4096));
    });
    let half = Load {
        dtype: DType::BF16,
        ..Load::default()
    };
    // the file is in bf16: both hold the same numbers
    let (half, single) = (Decoder::load(far.path(), &half).unwrap(), read(far.path()));
    let row = [long_row(1001)];
    let differ = apart(&logits(&half, &row), &logits(&single, &row));
    assert!(differ < 1e-4, "{differ:e}");
    let rope = &half.config().rope;
    let (cos, sin) = rope.tables(&[3000], &Device::Cpu).unwrap();
    for (i, (cos, sin)) in numbers(&cos).iter().zip(numbers(&sin)).enumerate() {
        let angle = f64::from(3000.0 * rope.inv_freq[i]);
        assert!((f64::from(*cos) - angle.cos()).abs() < 1e-6, "{i}");
        assert!((f64::from(sin) - angle.sin()).abs() < 1e-6, "{i}");
    }
}

/// candle#3698: the window of Phi-3 is ignored.
#[test]
fn a_prompt_longer_than_the_window_sees_that_there_is_one() {
    for name in ["phi3", "mistral"] {
        let open = changed(name, |config| {
            config.insert("sliding_window".into(), json!(null));
        });
        let row = [long_row(12)];
        let (with, without) = (
            logits(&load(name, false).unwrap(), &row),
            logits(&read(open.path()), &row),
        );
        let window = load(name, false).unwrap().config().windows[0].unwrap();
        let part = |x: &Tensor, from: usize, count: usize| x.narrow(0, from, count).unwrap();
        let inside = apart(&part(&with, 0, window), &part(&without, 0, window));
        assert!(inside < 1e-5, "{name}: {inside}");
        assert!(
            apart(
                &part(&with, window, 12 - window),
                &part(&without, window, 12 - window)
            ) > 0.01
        );
    }
}

/// candle#2891: Gemma 3 has another rotary base in layers with a window.
#[test]
fn layers_with_a_window_have_their_own_rotary_base() {
    let old = changed("gemma3", |config| {
        config.remove("rope_parameters");
        config.remove("layer_types");
        config.insert("num_hidden_layers".into(), json!(7));
    });
    let config = DecoderConfig::read(old.path()).unwrap();
    let windows: Vec<bool> = config.windows.iter().map(Option::is_some).collect();
    assert_eq!(windows, [true, true, true, true, true, false, true]);
    // the second of four pairs: base^(−1/4)
    let second = |rope: &candle_align::decoder::Rope| rope.inv_freq[1];
    assert!((second(&config.rope) / 1e6f32.powf(-0.25) - 1.0).abs() < 1e-6);
    assert!((second(config.window_rope.as_ref().unwrap()) / 0.1 - 1.0).abs() < 1e-6);
}

/// mistral.rs#618, kalosm#340: a kind of rotary scaling that is not known is taken for none.
#[test]
fn an_unknown_rotary_scaling_is_named() {
    let other = changed("llama", |config| {
        config.insert("rope_scaling".into(), json!({"type": "ntk", "factor": 2.0}));
    });
    let text = DecoderConfig::read(other.path()).unwrap_err().to_string();
    assert!(
        text.contains("holds `rope_scaling.rope_type` = ntk: the kinds are default, linear"),
        "{text}"
    );
}

/// candle-vllm#52: heads of keys are repeated in the wrong order.
#[test]
fn two_query_heads_in_a_row_share_a_key_head() {
    // queries of one head alone reach the output; then the values of one key head change
    let output = |head: usize, changed: Option<usize>| {
        let copy = with_tensors("llama", |tensors| {
            for layer in 0..2 {
                let name = format!("model.layers.{layer}.self_attn.o_proj.weight");
                let columns: Vec<f32> = (0..16)
                    .map(|i| f32::from(u8::from(i / 4 == head)))
                    .collect();
                let columns = Tensor::new(columns, &Device::Cpu).unwrap();
                let kept = tensors[&name].broadcast_mul(&columns).unwrap();
                tensors.insert(name, kept);
                if let Some(key_head) = changed {
                    let name = format!("model.layers.{layer}.self_attn.v_proj.weight");
                    let rows: Vec<f32> = (0..8)
                        .map(|i| if i / 4 == key_head { 2.0 } else { 1.0 })
                        .collect();
                    let rows = Tensor::from_vec(rows, (8, 1), &Device::Cpu).unwrap();
                    let scaled = tensors[&name].broadcast_mul(&rows).unwrap();
                    tensors.insert(name, scaled);
                }
            }
        });
        logits(&read(copy.path()), &[long_row(6)])
    };
    for (head, key_head) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        let plain = output(head, None);
        assert!(
            apart(&output(head, Some(key_head)), &plain) > 1e-3,
            "{head}"
        );
        assert_eq!(
            apart(&output(head, Some(1 - key_head)), &plain),
            0.0,
            "{head}"
        );
    }
}

/// mlx-lm#390, unsloth#8253: a window of one key too many, and 0 taken for a width.
#[test]
fn a_window_of_three_is_the_token_and_two_before_it() {
    let one_layer = |window: serde_json::Value| {
        let copy = with_tensors("mistral", |tensors| {
            tensors.retain(|name, _| !name.contains("layers.1."))
        });
        let at = copy.path().join("config.json");
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&std::fs::read(&at).unwrap()).unwrap();
        config.insert("num_hidden_layers".into(), json!(1));
        config.insert("sliding_window".into(), window);
        std::fs::write(at, serde_json::to_vec(&config).unwrap()).unwrap();
        copy
    };
    /// How many tokens each of five sees.
    fn visible(model: &Decoder) -> Vec<usize> {
        let row = long_row(5);
        let plain = logits(model, std::slice::from_ref(&row));
        let mut seen = vec![0; 5];
        for key in 0..5 {
            let mut other = row.clone();
            other[key] = 3 + (other[key] + 8) % 37;
            let moved = logits(model, &[other]);
            for (query, seen) in seen.iter_mut().enumerate() {
                let row = |x: &Tensor| x.narrow(0, query, 1).unwrap();
                *seen += usize::from(apart(&row(&moved), &row(&plain)) > 0.0);
            }
        }
        seen
    }
    assert_eq!(visible(&read(one_layer(json!(3)).path())), [1, 2, 3, 3, 3]);
    for none in [json!(null), json!(0)] {
        assert_eq!(visible(&read(one_layer(none).path())), [1, 2, 3, 4, 5]);
    }
}

/// LlamaFactory#10560, unsloth#9331, RuVector#646: a trained head is lost on the way through a folder.
#[test]
fn a_trained_head_comes_back_tied_or_not() {
    let out = tempfile::tempdir().unwrap();
    let own = with_tensors("qwen2", |tensors| {
        let head = (&tensors["model.embed_tokens.weight"] * 0.5).unwrap();
        tensors.insert("lm_head.weight".into(), head);
    });
    let cases = [
        ("tied", folder("qwen2")),
        ("untied", folder("llama")),
        ("own", own.path().to_path_buf()),
    ];
    for (name, from) in cases {
        let trained = Load {
            trained: true,
            ..Load::default()
        };
        let model = Decoder::load(&from, &trained).unwrap();
        let row = [long_row(9)];
        let before = logits(&model, &row);
        let grads = before
            .sqr()
            .unwrap()
            .mean_all()
            .unwrap()
            .backward()
            .unwrap();
        for (_, var) in model.vars() {
            let step = (grads.get(&var).unwrap() * -0.1).unwrap();
            var.set(&(var.as_tensor() + step).unwrap().detach())
                .unwrap();
        }
        let after = logits(&model, &row);
        assert!(apart(&after, &before) > 1e-4, "{name}");
        model.save(out.path().join(name), &Save::default()).unwrap();
        let again = read(&out.path().join(name));
        assert_eq!(apart(&logits(&again, &row), &after), 0.0, "{name}");
        assert_eq!(again.config().tie_word_embeddings, name == "tied");
        let held = tensors(&out.path().join(name));
        assert_eq!(held.contains_key("lm_head.weight"), name != "tied");
    }
}

/// transformers#35352: a reward is taken at the first padding or end token inside the row.
#[test]
fn a_text_is_scored_at_its_last_token_that_is_not_padding() {
    for (pad, row, at) in [
        // an end in the middle and one at the end, and padding of its own
        (json!(0), vec![1u32, 9, 2, 7, 2], 4),
        (json!(0), vec![1, 9, 2, 7, 0, 0], 3),
        // the end token is the padding: the token before the last ends
        (json!(2), vec![1, 9, 2, 7, 2], 3),
        (json!(2), vec![1, 9, 2, 7, 2, 2], 3),
        (json!(2), vec![2, 2, 2], 0),
        (json!(null), vec![1, 9, 0, 0], 3),
    ] {
        let copy = changed("llama", |config| {
            config.insert("pad_token_id".into(), pad.clone());
        });
        let mut rng = StdRng::seed_from_u64(0);
        let model = read(copy.path()).into_classifier(1, &mut rng).unwrap();
        // beside another row, whose tokens come first
        let rows = [vec![1, 5, 6], row.clone()];
        let (segments, tokens) = (
            Segments::from_lengths(&[3, row.len()]).unwrap(),
            rows.concat(),
        );
        let hidden = model.hidden(&tokens, &segments).unwrap();
        let score = model.scores(&hidden, &tokens, &segments).unwrap();
        let of_token = hidden.narrow(0, 3 + at, 1).unwrap();
        let want = of_token
            .matmul(&model.state_dict()["score.weight"].t().unwrap())
            .unwrap();
        assert!(
            apart(&score.narrow(0, 1, 1).unwrap(), &want) < 1e-6,
            "{pad} {row:?}"
        );
        // whatever the file names, the caller may name it
        let plain = changed("llama", |config| drop(config.remove("pad_token_id")));
        let mut named = read(plain.path())
            .into_classifier(1, &mut StdRng::seed_from_u64(0))
            .unwrap();
        let Some(pad) = pad.as_u64() else { continue };
        named.set_pad_token(pad as u32).unwrap();
        let same = named.scores(&hidden, &tokens, &segments).unwrap();
        assert_eq!(apart(&same, &score), 0.0, "{pad} {row:?}");
    }
}

/// transformers#46634, nanoVLM#204: packed documents attend to each other.
#[test]
fn the_rows_of_a_batch_do_not_see_each_other() {
    for name in NAMES {
        let model = load(name, false).unwrap();
        let (one, other, second) = (long_row(6), vec![9, 8, 7, 6, 5, 4], long_row(9));
        let of_second = |first: &[u32]| {
            logits(&model, &[first.to_vec(), second.clone()])
                .narrow(0, 6, 9)
                .unwrap()
        };
        assert_eq!(apart(&of_second(&one), &of_second(&other)), 0.0, "{name}");
    }
}

/// TransformerLens#1609, unsloth#4078: in a batch a row has other positions than alone.
#[test]
fn a_row_alone_is_the_row_in_a_batch() {
    for name in NAMES {
        let model = load(name, false).unwrap();
        let rows = [long_row(4), long_row(11), vec![5, 4]];
        let together = logits(&model, &rows);
        let config = SamplingConfig {
            top_k: Some(1),
            max_new_tokens: 12,
            ..Default::default()
        };
        let mut rng = StdRng::seed_from_u64(0);
        let drawn = model.sample(&rows, &config, &mut rng).unwrap();
        let mut start = 0;
        for (row, drawn) in rows.iter().zip(&drawn.rows) {
            let alone = logits(&model, std::slice::from_ref(row));
            let part = together.narrow(0, start, row.len()).unwrap();
            assert!(apart(&alone, &part) < 1e-5, "{name}");
            start += row.len();
            let alone = model
                .sample(std::slice::from_ref(row), &config, &mut rng)
                .unwrap();
            assert_eq!(alone.rows[0].answer(), drawn.answer(), "{name}");
        }
    }
}

/// aprender#2092: LoRA is not in the training pass, and only the values learn.
#[test]
fn every_matrix_of_lora_learns_by_the_second_step() {
    for name in NAMES {
        for recompute in [false, true] {
            let mut model = load(name, false).unwrap();
            let mut rng = StdRng::seed_from_u64(0);
            model
                .add_adapter("default", &lora(r#""all-linear""#), &mut rng)
                .unwrap();
            model.set_recompute(recompute);
            let rows = rows(&expected(name));
            let (segments, tokens) = Segments::from_tokens(&rows).unwrap();
            let ids = segments
                .to_rows(&Tensor::new(tokens.as_slice(), &Device::Cpu).unwrap())
                .unwrap();
            let mask = segments.mask(&Device::Cpu).unwrap();
            let step = || -> Vec<(String, Var, f32)> {
                let hidden = model.hidden_train(&tokens, &segments, 0).unwrap();
                let hidden = segments.to_rows(&hidden).unwrap();
                let head = model.head().unwrap();
                let log_probs =
                    TokenLogProbs::from_hidden(&hidden, &head, &ids, &mask, Statistics::default());
                let loss = log_probs.unwrap().sum().unwrap().mean_all().unwrap();
                let grads = loss.backward().unwrap();
                let vars = model.vars().into_iter();
                vars.map(|(name, var)| {
                    let grad = grads.get(&var).unwrap_or_else(|| panic!("{name}"));
                    let largest = numbers(grad).iter().fold(0f32, |most, g| most.max(g.abs()));
                    var.set(&(var.as_tensor() + (grad * 0.01).unwrap()).unwrap().detach())
                        .unwrap();
                    (name, var, largest)
                })
                .collect()
            };
            let first = step();
            let maps = if name == "phi3" { 4 } else { 7 };
            assert_eq!(first.len(), 2 * maps * model_layers(name), "{name}");
            for (var, _, largest) in first {
                assert_eq!(largest > 0.0, var.contains("lora_B"), "{name}: {var}");
            }
            for (var, _, largest) in step() {
                assert!(largest > 0.0, "{name}: {var}");
            }
        }
    }
}

fn model_layers(name: &str) -> usize {
    load(name, false).unwrap().config().num_hidden_layers
}
