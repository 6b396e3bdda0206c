//! One decoder under every parameter-efficient method.

use crate::support::adapters::{Adapted, AdapterConfig, adapt, layer_size};
use crate::support::transformer::{Config, Transformer};
use candle_align::training::grad_coverage;
use candle_align::{
    BottleneckConfig, DesignSpaceConfig, Insertion, LoraConfig, MamConfig, Placement, PrefixConfig,
    PromptConfig, PromptInit, Reduction, Reparametrisation, SftConfig, TokenLogProbs, sft_loss,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand::rngs::StdRng;

const DIM: usize = 12;
const LAYERS: usize = 6;
const FEED_FORWARD: usize = 20;

fn base(dtype: DType) -> Transformer {
    let config = Config {
        vocabulary: 7,
        dim: DIM,
        heads: 3,
        layers: LAYERS,
        max_len: 6,
        feed_forward: FEED_FORWARD,
    };
    let model = Transformer::new(&config, dtype, &mut StdRng::seed_from_u64(1));
    model.and_then(|m| m.frozen()).expect("sizes that fit")
}

fn bottleneck(insertion: Insertion, bias: bool) -> BottleneckConfig {
    BottleneckConfig {
        width: 4,
        insertion,
        bias,
        ..Default::default()
    }
}

fn prefix(reparametrisation: Reparametrisation) -> PrefixConfig {
    PrefixConfig {
        length: 3,
        reparametrisation,
    }
}

/// How much one layer of the design space may train.
const PER_LAYER: usize = 250;

/// Every method, with the number that its formula says is trained.
fn methods() -> Vec<(AdapterConfig, usize)> {
    let (d, m, l) = (DIM, FEED_FORWARD, LAYERS);
    let lora = LoraConfig {
        rank: 2,
        alpha: 6.0,
        ..Default::default()
    };
    let prompt = PromptConfig {
        length: 5,
        init: PromptInit::Text {
            tokens: vec![3, 1, 4],
        },
    };
    let adapter = |placement, insertion, bias| AdapterConfig::Adapter {
        placement,
        adapter: bottleneck(insertion, bias),
    };
    let mam = MamConfig {
        prefix: prefix(Reparametrisation::Direct),
        adapter: BottleneckConfig {
            width: 4,
            ..MamConfig::default().adapter
        },
    };
    let space = DesignSpaceConfig::default();
    let size = layer_size(&base(DType::F32));
    let plans = space.plan(l, PER_LAYER, &size).expect("a plan");
    let planned = plans.iter().map(|p| p.parameters(&size)).sum();
    vec![
        // r(in + out) for qkv, output, up and down
        (
            AdapterConfig::Lora(lora),
            l * 2 * ((d + 3 * d) + (d + d) + (d + m) + (m + d)),
        ),
        (AdapterConfig::BitFit, l * (3 * d + d + m + d)),
        (AdapterConfig::Prompt(prompt), 5 * d),
        (
            AdapterConfig::Prefix(prefix(Reparametrisation::Direct)),
            2 * l * 3 * d,
        ),
        (
            AdapterConfig::Prefix(prefix(Reparametrisation::Mlp { inner: 8 })),
            3 * d + 8 * (d + 1) + 2 * l * d * (8 + 1),
        ),
        (
            adapter(
                Placement::AttentionAndFeedForward,
                Insertion::Sequential,
                true,
            ),
            2 * l * (2 * 4 * d + 4 + d),
        ),
        (
            adapter(
                Placement::AttentionAndFeedForward,
                Insertion::Parallel,
                false,
            ),
            2 * l * 2 * 4 * d,
        ),
        (
            adapter(Placement::FeedForward, Insertion::Sequential, false),
            l * 2 * 4 * d,
        ),
        (AdapterConfig::Mam(mam), l * (2 * 3 * d + 2 * 4 * d)),
        (
            AdapterConfig::DesignSpace {
                space,
                per_layer: PER_LAYER,
            },
            planned,
        ),
    ]
}

fn adapted(base: &Transformer, config: &AdapterConfig) -> Adapted {
    adapt(base, config, &mut StdRng::seed_from_u64(2)).unwrap_or_else(|e| panic!("{config:?}: {e}"))
}

/// All rows of length 6; every token and position occurs.
fn tokens() -> Tensor {
    let rows: Vec<u32> = (0..24u32).map(|i| (i * 5 + i / 6) % 7).collect();
    Tensor::from_vec(rows, (4, 6), &Device::Cpu).expect("24 numbers")
}

fn logits(model: &Transformer) -> Tensor {
    let logits = model.forward(&tokens()).expect("forward").logits;
    assert_eq!(logits.dims(), [4, 6, 7]);
    logits
}

fn loss(model: &Transformer) -> Tensor {
    let tokens = tokens();
    let mask = Tensor::ones(tokens.dims(), DType::U8, &Device::Cpu).expect("ones");
    TokenLogProbs::next_token(&logits(model), &tokens, &mask)
        .and_then(|l| sft_loss(&l, None, &SftConfig::default()))
        .and_then(|l| l.reduce(Reduction::TokenMean))
        .expect("a loss")
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.flatten_all()
        .and_then(|t| t.to_dtype(DType::F64))
        .and_then(|t| t.to_vec1())
        .expect("numbers")
}

fn bits(t: &Tensor) -> Vec<u64> {
    flat(t).iter().map(|x| x.to_bits()).collect()
}

/// Moves everything that is trained away from its start.
fn disturb(adapted: &Adapted) {
    for (at, (_, var)) in adapted.vars().iter().enumerate() {
        let data: Vec<f64> = (0..var.elem_count())
            .map(|i| 0.3 * (2.3 * i as f64 + at as f64 + 0.9).sin())
            .collect();
        let moved = Tensor::from_vec(data, var.shape(), &Device::Cpu)
            .and_then(|t| t.to_dtype(var.dtype()))
            .and_then(|t| var.as_tensor() + t)
            .expect("same shape");
        var.set(&moved).expect("same shape");
    }
}

#[test]
fn as_many_numbers_are_trained_as_the_formula_says() {
    let base = base(DType::F32);
    for (config, expected) in methods() {
        let adapted = adapted(&base, &config);
        assert_eq!(adapted.parameters(), expected, "{config:?}");
        let names: Vec<String> = adapted.vars().into_iter().map(|(n, _)| n).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}

#[test]
fn methods_that_promise_it_start_at_the_base_to_the_bit() {
    for dtype in [DType::F32, DType::F64] {
        let base = base(dtype);
        let want = bits(&logits(&base));
        for (config, _) in methods() {
            let same = bits(&logits(&adapted(&base, &config).model)) == want;
            let promised = matches!(
                config,
                AdapterConfig::Lora(_) | AdapterConfig::BitFit | AdapterConfig::Adapter { .. }
            );
            assert_eq!(same, promised, "{config:?}");
        }
    }
}

#[test]
fn switched_off_every_method_is_the_base_to_the_bit() {
    let base = base(DType::F32);
    let (want, weights) = (bits(&logits(&base)), base.weights().clone());
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        disturb(&adapted);
        let trained = bits(&logits(&adapted.model));
        assert_ne!(trained, want, "{config:?}");
        adapted.set_enabled(false);
        assert_eq!(bits(&logits(&adapted.model)), want, "{config:?}");
        adapted.set_enabled(true);
        assert_eq!(bits(&logits(&adapted.model)), trained, "{config:?}");
        for (name, weight) in &weights {
            assert_eq!(bits(weight), bits(&adapted.model.weights()[name]), "{name}");
        }
    }
}

#[test]
fn everything_trained_learns_and_nothing_frozen_gets_a_gradient() {
    let base = base(DType::F32);
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        disturb(&adapted);
        let grads = loss(&adapted.model).backward().expect("backward");
        let coverage = grad_coverage(&adapted.vars(), &grads).expect("coverage");
        assert!(coverage.is_complete(), "{config:?}: {coverage}");
        for (name, weight) in adapted.model.weights() {
            assert!(grads.get(weight).is_none(), "{config:?}: {name}");
        }
        // nor does anything of the size of a frozen matrix stand among the gradients
        let own: Vec<_> = adapted.vars().iter().map(|(_, v)| v.id()).collect();
        for id in grads.get_ids().filter(|id| !own.contains(id)) {
            let dims = grads.get_id(*id).expect("listed").dims();
            for frozen in [[3 * DIM, DIM], [DIM, DIM], [FEED_FORWARD, DIM], [7, DIM]] {
                let turned = [frozen[1], frozen[0]];
                assert!(dims != frozen && dims != turned, "{config:?}: {dims:?}");
            }
        }
    }
}

#[test]
fn gradients_are_those_of_differences() {
    let base = base(DType::F64);
    let step = 1e-5;
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        disturb(&adapted);
        let grads = loss(&adapted.model).backward().expect("backward");
        for (name, var) in adapted.vars() {
            let grad = flat(grads.get(&var).expect("a gradient"));
            let values = flat(var.as_tensor());
            // one number of each: the layers' own tests move all of them
            let i = values.len() / 2;
            let at = |x: f64| {
                let mut moved = values.clone();
                moved[i] += x;
                let moved = Tensor::from_vec(moved, var.dims(), &Device::Cpu).expect("same shape");
                var.set(&moved).expect("same shape");
                flat(&loss(&adapted.model))[0]
            };
            let difference = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            assert!(
                (difference - grad[i]).abs() < 1e-8 * grad[i].abs().max(1.0),
                "{config:?}: {name}: {} against {difference}",
                grad[i]
            );
        }
    }
}

#[test]
fn no_position_sees_what_follows() {
    let base = base(DType::F64);
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        disturb(&adapted);
        let short = tokens().narrow(1, 0, 4).expect("4 of 6");
        let short = flat(&adapted.model.forward(&short).expect("forward").logits);
        let long = flat(&logits(&adapted.model).narrow(1, 0, 4).expect("4 of 6"));
        for (a, b) in short.iter().zip(&long) {
            assert!((a - b).abs() < 1e-12, "{config:?}");
        }
    }
}

#[test]
fn without_its_network_a_prefix_is_the_same_model() {
    let base = base(DType::F32);
    let config = AdapterConfig::Prefix(prefix(Reparametrisation::Mlp { inner: 8 }));
    let mut adapted = adapted(&base, &config);
    disturb(&adapted);
    let before = bits(&logits(&adapted.model));
    adapted.finish().expect("finished");
    assert_eq!(bits(&logits(&adapted.model)), before);
    assert_eq!(adapted.parameters(), 2 * LAYERS * 3 * DIM);
}

/// Four rows to learn by heart, with the base frozen: every method lowers the loss, and no step
/// moves the base.
#[test]
fn every_method_learns_rows_that_the_frozen_base_does_not_know() {
    let base = base(DType::F32);
    let before = flat(&loss(&base))[0];
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        let vars = adapted.vars().into_iter().map(|(_, v)| v).collect();
        let settings = ParamsAdamW {
            lr: 3e-2,
            weight_decay: 0.0,
            ..Default::default()
        };
        let mut optimiser = AdamW::new(vars, settings).expect("an optimiser");
        for _ in 0..30 {
            optimiser
                .backward_step(&loss(&adapted.model))
                .expect("a step");
        }
        let after = flat(&loss(&adapted.model))[0];
        println!("{before} {after} {config:?}");
        assert!(after < 0.8 * before, "{config:?}: {after} after {before}");
        assert_eq!(flat(&loss(&base))[0], before);
    }
}

#[test]
fn a_method_is_a_setting() {
    for (config, _) in methods() {
        let json = serde_json::to_string(&config).expect("json");
        let again: AdapterConfig = serde_json::from_str(&json).expect("read");
        assert_eq!(again, config);
    }
    let read = |json: &str| serde_json::from_str::<AdapterConfig>(json);
    let short = read(r#"{"lora":{"rank":4}}"#).expect("read");
    let lora = LoraConfig {
        rank: 4,
        ..Default::default()
    };
    assert_eq!(short, AdapterConfig::Lora(lora));
    assert!(read(r#"{"lora":{"r":4}}"#).is_err());
    assert!(read(r#"{"none":{}}"#).is_err());
}
