//! The model that the examples train.

use candle_align::training::grad_coverage;
use candle_align::{Reduction, SamplingConfig, SftConfig, TokenLogProbs, sample, sft_loss};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Linear, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::transformer::{Config, Projection, Transformer};

fn config() -> Config {
    Config {
        vocabulary: 7,
        dim: 12,
        heads: 3,
        layers: 2,
        max_len: 6,
        feed_forward: 20,
    }
}

fn model(dtype: DType) -> Transformer {
    Transformer::new(&config(), dtype, &mut StdRng::seed_from_u64(1)).expect("sizes that fit")
}

/// All rows of length 6; every token and position occurs.
fn tokens() -> Tensor {
    let rows: Vec<u32> = (0..24u32).map(|i| (i * 5 + i / 6) % 7).collect();
    Tensor::from_vec(rows, (4, 6), &Device::Cpu).expect("24 numbers")
}

fn loss(model: &Transformer) -> Tensor {
    let tokens = tokens();
    let mask = Tensor::ones(tokens.dims(), DType::U8, &Device::Cpu).expect("ones");
    let logits = model.forward(&tokens).expect("forward").logits;
    TokenLogProbs::next_token(&logits, &tokens, &mask)
        .and_then(|l| sft_loss(&l, None, &SftConfig::default()))
        .and_then(|l| l.reduce(Reduction::Sum))
        .expect("a loss")
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.flatten_all()
        .and_then(|t| t.to_dtype(DType::F64))
        .and_then(|t| t.to_vec1())
        .expect("numbers")
}

#[test]
fn every_variable_learns() {
    let model = model(DType::F32);
    let grads = loss(&model).backward().expect("backward");
    let coverage = grad_coverage(&model.vars(), &grads).expect("coverage");
    assert!(coverage.is_complete(), "{coverage}");
    assert_eq!(coverage.learning.len(), 4 + 2 * 6);
    let names: Vec<String> = model.vars().into_iter().map(|(n, _)| n).collect();
    assert!(names.is_sorted(), "{names:?}");
}

/// The graph could be cut for some rows of the fused weight: q and k must learn as well as v.
#[test]
fn gradients_are_those_of_differences() {
    let model = model(DType::F64);
    let grads = loss(&model).backward().expect("backward");
    let step = 1e-5;
    for (name, var) in model.vars() {
        let grad = flat(grads.get(&var).expect("a gradient"));
        let values = flat(var.as_tensor());
        // The last position's row is never used to predict: its gradient is 0, and so is the difference.
        for i in (0..values.len()).step_by(1 + values.len() / 23) {
            let at = |x: f64| {
                let mut moved = values.clone();
                moved[i] += x;
                let moved = Tensor::from_vec(moved, var.dims(), &Device::Cpu).expect("same shape");
                var.set(&moved).expect("same shape");
                flat(&loss(&model))[0]
            };
            let difference = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            assert!(
                (difference - grad[i]).abs() < 1e-7 * grad[i].abs().max(1.0),
                "{name}[{i}]: {} against {difference}",
                grad[i]
            );
        }
    }
}

#[test]
fn no_position_sees_what_follows() {
    let model = model(DType::F64);
    let short = model.forward(&tokens().narrow(1, 0, 4).expect("4 of 6"));
    let long = model.forward(&tokens()).expect("forward").logits;
    let (short, long) = (
        flat(&short.expect("forward").logits),
        flat(&long.narrow(1, 0, 4).expect("4 of 6")),
    );
    for (a, b) in short.iter().zip(&long) {
        assert!((a - b).abs() < 1e-12);
    }
}

fn with(tokens: &Tensor, visible: &Tensor) -> Vec<f64> {
    let output = model(DType::F64).forward_with(tokens, Some(visible));
    flat(&output.expect("forward").logits)
}

#[test]
fn what_is_seen_whole_is_the_plain_path() {
    let plain = flat(
        &model(DType::F64)
            .forward(&tokens())
            .expect("forward")
            .logits,
    );
    for shape in [vec![4, 6], vec![4, 6, 6]] {
        let all = Tensor::ones(shape, DType::U8, &Device::Cpu).expect("ones");
        assert_eq!(with(&tokens(), &all), plain);
    }
}

#[test]
fn a_hidden_token_is_as_good_as_any_other() {
    let (row, token, hidden) = (1, 2, 6 + 2);
    let mut other: Vec<u32> = tokens()
        .flatten_all()
        .and_then(|t| t.to_vec1())
        .expect("u32");
    other[hidden] = (other[hidden] + 3) % 7;
    let other = Tensor::from_vec(other, (4, 6), &Device::Cpu).expect("24 numbers");
    let mut seen = vec![1u8; 24];
    seen[hidden] = 0;
    let seen = Tensor::from_vec(seen, (4, 6), &Device::Cpu).expect("24 numbers");
    let all = seen.ones_like().expect("ones");

    let (a, b) = (with(&tokens(), &seen), with(&other, &seen));
    let (plain, changed) = (with(&tokens(), &all), with(&other, &all));
    for i in 0..a.len() {
        let (at_row, at) = (i / 42, i / 7 % 6);
        // only its own position sees the difference
        assert_eq!(a[i] != b[i], (at_row, at) == (row, token), "{at_row}, {at}");
        // without the mask, every later position would
        assert_eq!(plain[i] != changed[i], at_row == row && at >= token);
        // hiding it changes these positions and no others
        assert_eq!(plain[i] != a[i], at_row == row && at >= token);
    }
}

#[test]
fn what_one_position_forgets_another_may_see() {
    // position 4 of row 0 does not see token 3; position 5 does
    let mut seen = vec![1u8; 4 * 36];
    seen[4 * 6 + 3] = 0;
    let seen = Tensor::from_vec(seen, (4, 6, 6), &Device::Cpu).expect("144 numbers");
    let (a, plain) = (
        with(&tokens(), &seen),
        with(&tokens(), &seen.ones_like().unwrap()),
    );
    for i in 0..a.len() {
        let (row, at) = (i / 42, i / 7 % 6);
        // position 5 differs through position 4
        assert_eq!(a[i] != plain[i], row == 0 && at >= 4, "{row}, {at}");
    }
}

#[test]
fn a_mask_that_does_not_fit_is_refused() {
    let message = |visible: Vec<u8>, shape: (usize, usize)| {
        let visible = Tensor::from_vec(visible, shape, &Device::Cpu).expect("a mask");
        let error = model(DType::F32).hidden_with(&tokens(), Some(&visible));
        error.expect_err("refused").to_string()
    };
    assert_eq!(
        message(vec![1; 20], (4, 5)),
        "`visible` has shape [4, 5], but the tokens [4, 6]"
    );
    let mut first = vec![1u8; 24];
    first[18] = 0;
    assert_eq!(
        message(first, (4, 6)),
        "`visible` hides a first token: its position would see nothing"
    );
}

#[test]
fn training_lowers_the_loss_and_leaves_copies_alone() {
    let model = model(DType::F32);
    let frozen = model.frozen().expect("a copy");
    assert!(frozen.vars().is_empty());
    let before = flat(&loss(&model))[0];
    let vars = model.vars().into_iter().map(|(_, v)| v).collect();
    let settings = ParamsAdamW {
        lr: 1e-2,
        weight_decay: 0.0,
        ..Default::default()
    };
    let mut optimizer = AdamW::new(vars, settings).expect("an optimizer");
    for _ in 0..40 {
        optimizer.backward_step(&loss(&model)).expect("a step");
    }
    assert!(flat(&loss(&model))[0] < 0.3 * before);
    assert_eq!(flat(&loss(&frozen))[0], before);
}

#[test]
fn what_is_saved_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("model.safetensors");
    let model = model(DType::F32);
    model.save(&path).expect("written");
    let again = Transformer::load(&config(), &path).expect("read");
    assert_eq!(flat(&loss(&model)), flat(&loss(&again)));

    let wider = Config {
        dim: 24,
        ..config()
    };
    let error = Transformer::load(&wider, &path).err().expect("other sizes");
    assert_eq!(
        error.to_string(),
        "`embedding.weight` has shape [7, 12], expected [7, 24]"
    );
}

/// In place of an adapter: twice the base.
struct Doubled(Linear);

impl Module for Doubled {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.0.forward(x)? * 2.0
    }
}

#[test]
fn linear_maps_can_be_replaced() {
    let model = model(DType::F32);
    let mut names = Vec::new();
    let doubled = model
        .map_linears(|name, weight| {
            names.push(name.to_string());
            Ok(Box::new(Doubled(Linear::new(weight, None))) as Projection)
        })
        .expect("replaced");
    assert_eq!(
        names[..4],
        [
            "layers.0.attention.qkv",
            "layers.0.attention.output",
            "layers.0.feed_forward.up",
            "layers.0.feed_forward.down"
        ]
    );
    assert_eq!(names.len(), 8);
    assert!(doubled.vars().is_empty());
    assert_ne!(flat(&loss(&model)), flat(&loss(&doubled)));
}

#[test]
fn answers_drawn_together_are_those_drawn_alone() {
    let model = model(DType::F64);
    let read = |tokens: &Tensor| Ok(model.forward(tokens)?.logits);
    let config = SamplingConfig {
        answers: 2,
        max_new_tokens: 3,
        ends: vec![6],
        ..Default::default()
    };
    let prompts: [&[u32]; 3] = [&[1], &[2, 0, 5], &[4, 4]];
    let mut rng = StdRng::seed_from_u64(9);
    let together = sample(read, &prompts, &config, &Device::Cpu, &mut rng).expect("answers");

    let mut rng = StdRng::seed_from_u64(9);
    let mut alone = Vec::new();
    for prompt in prompts {
        let one = sample(read, &[prompt], &config, &Device::Cpu, &mut rng).expect("answers");
        alone.extend(one.rows);
    }
    assert_eq!(together.rows.len(), alone.len());
    for (one, other) in together.rows.iter().zip(&alone) {
        assert_eq!(one.sequence, other.sequence);
        for (p, q) in one.log_probs.iter().zip(&other.log_probs) {
            assert!((p - q).abs() < 1e-12, "{p} and {q}");
        }
    }

    // padding on the right changes nothing: one pass over all rows gives the same numbers
    let batch = together.batch(0, &Device::Cpu).expect("a batch");
    let logits = read(&batch.tokens).expect("forward");
    let again = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask).expect("numbers");
    let old = together
        .log_probs(DType::F64, &Device::Cpu)
        .expect("numbers");
    for (p, q) in flat(again.values()).iter().zip(flat(old.values())) {
        assert!((p - q).abs() < 1e-12, "{p} and {q}");
    }
}
