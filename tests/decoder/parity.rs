//! Logits at every position, gradients of every weight, greedy continuations.

use super::{NAMES, changed, expected, load, logits, rows};
use candle_align::decoder::{Decoder, Load};
use candle_align::ops::Segments;
use candle_align::{SamplingConfig, Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The largest difference, relative to the largest number.
fn difference(ours: &Tensor, theirs: &Tensor) -> f64 {
    let number = |t: Tensor| t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
    let largest = number(
        theirs
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max_all()
            .unwrap(),
    );
    let ours = ours.to_dtype(theirs.dtype()).unwrap();
    number(
        (ours - theirs)
            .unwrap()
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max_all()
            .unwrap(),
    ) / largest
}

#[test]
fn logits_at_every_position_are_those_of_transformers() {
    for name in NAMES {
        let (decoder, expected) = (load(name, false).unwrap(), expected(name));
        let rows = rows(&expected);
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let segments = Segments::from_lengths(&lengths).unwrap();
        let tokens = rows.concat();
        let logits = decoder
            .logits(&decoder.hidden(&tokens, &segments).unwrap())
            .unwrap();
        let of_rows = segments.to_rows(&logits).unwrap();
        let right = difference(&of_rows, &expected["logits.right"]);
        assert!(right < 1e-5, "{name}: {right:e}");
        // the same rows at the other end of their batch
        let time = of_rows.dim(1).unwrap();
        for (row, length) in lengths.iter().enumerate() {
            let left = expected["logits.left"].get(row).unwrap();
            let left = left.narrow(0, time - length, *length).unwrap();
            let ours = of_rows.get(row).unwrap().narrow(0, 0, *length).unwrap();
            let left = difference(&ours, &left);
            assert!(left < 1e-5, "{name}, row {row} on the left: {left:e}");
        }
    }
}

#[test]
fn every_weight_gets_the_gradient_of_transformers() {
    for name in NAMES {
        for recompute in [false, true] {
            let (mut decoder, expected) = (load(name, true).unwrap(), expected(name));
            decoder.set_recompute(recompute);
            let rows = rows(&expected);
            let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
            let segments = Segments::from_lengths(&lengths).unwrap();
            let hidden = decoder.hidden_train(&rows.concat(), &segments, 0).unwrap();
            let hidden = segments.to_rows(&hidden).unwrap();
            let tokens = expected["tokens"].to_dtype(DType::U32).unwrap();
            let mask = segments.mask(&Device::Cpu).unwrap();
            let head = decoder.head().unwrap();
            let log_probs =
                TokenLogProbs::from_hidden(&hidden, &head, &tokens, &mask, Statistics::default());
            let count: usize = lengths.iter().map(|length| length - 1).sum();
            let sum = log_probs.unwrap().sum().unwrap().sum_all().unwrap();
            let loss = (sum / -(count as f64)).unwrap();
            let value = loss.to_scalar::<f32>().unwrap();
            let theirs = expected["loss"].to_scalar::<f32>().unwrap();
            assert!(
                (value / theirs - 1.0).abs() < 1e-5,
                "{name}: {value} {theirs}"
            );
            let grads = loss.backward().unwrap();
            let vars = decoder.vars();
            let names = expected.keys().filter(|key| key.starts_with("gradient."));
            assert_eq!(vars.len(), names.count(), "{name}");
            for (weight, var) in vars {
                let theirs = &expected[&format!("gradient.{weight}")];
                let ours = grads
                    .get(&var)
                    .unwrap_or_else(|| panic!("{name}: {weight}"));
                let difference = difference(ours, theirs);
                assert!(difference < 1e-5, "{name}: {weight}: {difference:e}");
            }
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for name in NAMES {
        let (decoder, expected) = (load(name, false).unwrap(), expected(name));
        let config = SamplingConfig {
            top_k: Some(1),
            max_new_tokens: 32,
            ..Default::default()
        };
        let mut rng = StdRng::seed_from_u64(0);
        let drawn = decoder.sample(&rows(&expected), &config, &mut rng).unwrap();
        let theirs = expected["greedy"].to_vec2::<i64>().unwrap();
        for (row, theirs) in drawn.rows.iter().zip(theirs) {
            let ours: Vec<i64> = row.answer().iter().map(|token| i64::from(*token)).collect();
            assert_eq!(ours, theirs, "{name}");
        }
    }
}

/// Caps that every score feels: the one in the golden file is too high for so small a model.
#[test]
fn the_cache_bounds_its_scores_as_a_whole_pass_does() {
    let capped = changed("gemma2", |config| {
        config.insert("attn_logit_softcapping".into(), 0.4.into());
    });
    let model = Decoder::load(capped.path(), &Load::default()).unwrap();
    let rows = rows(&expected("gemma2"));
    let free = logits(&load("gemma2", false).unwrap(), &rows);
    assert!(difference(&logits(&model, &rows), &free) > 0.01);
    let config = SamplingConfig {
        top_k: Some(1),
        max_new_tokens: 12,
        ..Default::default()
    };
    let mut rng = StdRng::seed_from_u64(0);
    let drawn = model.sample(&rows, &config, &mut rng).unwrap();
    for (row, prompt) in drawn.rows.iter().zip(&rows) {
        let mut whole = prompt.clone();
        for token in row.answer() {
            let last = logits(&model, &[whole.clone()])
                .get(whole.len() - 1)
                .unwrap();
            let best = last.argmax(0).unwrap().to_scalar::<u32>().unwrap();
            assert_eq!(*token, best, "after {} tokens", whole.len());
            whole.push(best);
        }
    }
}
