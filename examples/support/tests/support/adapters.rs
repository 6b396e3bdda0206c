//! One decoder under every parameter-efficient method.

use crate::disturb::disturb;
use candle_align::parameter_efficient::{
    AdaLoraConfig, Adapter, BlockScale, BottleneckConfig, DesignSpaceConfig, Ia3ForModel,
    Insertion, LoraConfig, LoraForModel, MamConfig, Nf4Linear, Placement, PrefixConfig,
    PromptConfig, PromptInit, Reparametrization, TargetModules, Targets, VeraConfig,
};
use candle_align::training::grad_coverage;
use candle_align::{Reduction, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Linear, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::adapters::{Adapted, AdapterSettings, adapt, layer_size};
use support::transformer::{Config, Transformer};

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

fn prefix(reparametrization: Reparametrization) -> PrefixConfig {
    PrefixConfig {
        length: 3,
        reparametrization,
    }
}

/// The number of parameters that one layer of the design space may train.
const PER_LAYER: usize = 250;

/// Every method, with its number of trained parameters by formula.
fn methods() -> Vec<(AdapterSettings, usize)> {
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
    let adapter = |placement, insertion, bias| AdapterSettings::Adapter {
        placement,
        adapter: bottleneck(insertion, bias),
    };
    let mam = MamConfig {
        prefix: prefix(Reparametrization::Direct),
        adapter: BottleneckConfig {
            width: 4,
            ..MamConfig::default().adapter
        },
    };
    let space = DesignSpaceConfig::default();
    let size = layer_size(&base(DType::F32));
    let plans = space.plan(l, PER_LAYER, &size).expect("a plan");
    let planned = plans.iter().map(|p| p.parameters(&size)).sum();
    let names =
        |names: &[&str]| TargetModules::Names(names.iter().map(|n| n.to_string()).collect());
    let ia3 = Ia3ForModel {
        targets: Targets {
            target_modules: names(&["attention.qkv", "feed_forward.down"]),
            ..Default::default()
        },
        feedforward_modules: names(&["feed_forward.down"]),
    };
    let ada = AdaLoraConfig {
        rank: 2,
        ..Default::default()
    };
    let vera = VeraConfig {
        rank: 5,
        ..Default::default()
    };
    // Σ (in + out) and Σ out over qkv, output, up and down
    let sides = (d + 3 * d) + (d + d) + (d + m) + (m + d);
    let outputs = 3 * d + d + m + d;
    vec![
        (AdapterSettings::Lora(lora.clone().into()), l * 2 * sides),
        (AdapterSettings::Qlora(lora.clone().into()), l * 2 * sides),
        (
            AdapterSettings::Dora(lora.into()),
            l * (2 * sides + outputs),
        ),
        // r(in + out + 1) for each of the four
        (AdapterSettings::AdaLora(ada), l * 2 * (sides + 4)),
        // one for each output of qkv, one for each input of down
        (AdapterSettings::Ia3(ia3), l * (3 * d + m)),
        (AdapterSettings::Vera(vera), l * (outputs + 4 * 5)),
        (AdapterSettings::BitFit {}, l * outputs),
        (AdapterSettings::Prompt(prompt), 5 * d),
        (
            AdapterSettings::Prefix(prefix(Reparametrization::Direct)),
            2 * l * 3 * d,
        ),
        (
            AdapterSettings::Prefix(prefix(Reparametrization::Mlp { inner: 8 })),
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
        (AdapterSettings::Mam(mam), l * (2 * 3 * d + 2 * 4 * d)),
        (
            AdapterSettings::DesignSpace {
                space,
                per_layer: PER_LAYER,
            },
            planned,
        ),
    ]
}

/// The model below a method: the base, or the base in four bits for QLoRA.
fn underneath(base: &Transformer, config: &AdapterSettings) -> Transformer {
    match config {
        AdapterSettings::Qlora(_) => base.map_linears(|_, weight| {
            let linear = Linear::new(weight, None);
            Ok(Box::new(Nf4Linear::quantize(&linear, BlockScale::Double)?))
        }),
        _ => base.frozen(),
    }
    .expect("a copy")
}

fn adapted(base: &Transformer, config: &AdapterSettings) -> Adapted {
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
            let promised = match config {
                AdapterSettings::Lora(_)
                | AdapterSettings::Dora(_)
                | AdapterSettings::AdaLora(_)
                | AdapterSettings::Ia3(_)
                | AdapterSettings::Vera(_)
                | AdapterSettings::BitFit {}
                | AdapterSettings::Adapter { .. } => true,
                AdapterSettings::Qlora(_)
                | AdapterSettings::Prompt(_)
                | AdapterSettings::Prefix(_)
                | AdapterSettings::Mam(_)
                | AdapterSettings::DesignSpace { .. } => false,
            };
            assert_eq!(same, promised, "{config:?}");
            let own = underneath(&base, &config);
            let same = bits(&logits(&adapted(&base, &config).model)) == bits(&logits(&own));
            let quantized = matches!(config, AdapterSettings::Qlora(_));
            assert_eq!(same, promised || quantized, "{config:?}");
        }
    }
}

#[test]
fn switched_off_every_method_is_the_base_to_the_bit() {
    let base = base(DType::F32);
    let weights = base.weights().clone();
    for (config, _) in methods() {
        let want = bits(&logits(&underneath(&base, &config)));
        let adapted = adapted(&base, &config);
        disturb(&adapted);
        let trained = bits(&logits(&adapted.model));
        assert_ne!(trained, want, "{config:?}");
        adapted.set_enabled(false);
        assert_eq!(bits(&logits(&adapted.model)), want, "{config:?}");
        let grads = loss(&adapted.model).backward().expect("backward");
        assert!(
            adapted
                .vars()
                .iter()
                .all(|(_, var)| grads.get(var).is_none())
        );
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
        // no gradient has the size of a frozen matrix either
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
            // DoRA's gradient treats the length of a row as a constant
            if matches!(config, AdapterSettings::Dora(_)) && !name.ends_with("magnitude_vector") {
                continue;
            }
            let grad = flat(grads.get(&var).expect("a gradient"));
            let values = flat(var.as_tensor());
            // one number of each variable; the layers' own tests move all of them
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
    let config = AdapterSettings::Prefix(prefix(Reparametrization::Mlp { inner: 8 }));
    let mut adapted = adapted(&base, &config);
    disturb(&adapted);
    let before = bits(&logits(&adapted.model));
    adapted.finish().expect("finished");
    assert_eq!(bits(&logits(&adapted.model)), before);
    assert_eq!(adapted.parameters(), 2 * LAYERS * 3 * DIM);
}

/// Trains with AdamW, and returns the loss before and after.
fn train(
    vars: Vec<(String, Var)>,
    rate: f64,
    steps: usize,
    loss: impl Fn() -> Tensor,
) -> (f64, f64) {
    let settings = ParamsAdamW {
        lr: rate,
        weight_decay: 0.0,
        ..Default::default()
    };
    let vars = vars.into_iter().map(|(_, var)| var).collect();
    let mut optimizer = AdamW::new(vars, settings).expect("an optimizer");
    let before = flat(&loss())[0];
    for _ in 0..steps {
        optimizer.backward_step(&loss()).expect("a step");
    }
    (before, flat(&loss())[0])
}

/// The share of the loss that may remain, and the share that must.
fn left(config: &AdapterSettings) -> (f64, f64) {
    match config {
        // Attention to the prompt adds one direction to every position. It cannot reorder the rows,
        // and this base knows nothing that a prompt could ask for. Ten times the steps, at rates from
        // 0.01 to 1, leave 0.95.
        AdapterSettings::Prompt(_) => (0.98, 0.94),
        // One direction for each map, the same for every row. Ten times the steps, at rates from 0.01 to
        // 1, leave 0.83.
        AdapterSettings::BitFit {} => (0.93, 0.83),
        // Factors only scale what the base has, which is slow.
        AdapterSettings::Ia3(_) => (0.9, 0.0),
        _ => (0.8, 0.0),
    }
}

/// Four rows to memorize on an untrained base. Methods that change maps, keys or values memorize them,
/// and the others reach their limits. No step changes the base.
#[test]
fn every_method_learns_of_unknown_rows_what_it_can() {
    let base = base(DType::F32);
    let start = flat(&loss(&base))[0];
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        // variables that start at 1 have farther to go
        let rate = match config {
            AdapterSettings::Prefix(PrefixConfig {
                reparametrization: Reparametrization::Direct,
                ..
            }) => 0.1,
            _ => 0.03,
        };
        let (_, after) = train(adapted.vars(), rate, 40, || loss(&adapted.model));
        let (most, least) = left(&config);
        assert!(
            after < most * start && after > least * start,
            "{config:?}: {after} of {start}"
        );
        assert_eq!(flat(&loss(&base))[0], start);
    }
}

/// A base that knows two rules: a → a + 1 (mod 5) after token 5, and a → a + 2 after token 6. After token
/// 7 it finds both equally likely.
fn undecided() -> Transformer {
    let config = Config {
        vocabulary: 8,
        max_len: 3,
        ..base(DType::F32).config().clone()
    };
    let model = Transformer::new(&config, DType::F32, &mut StdRng::seed_from_u64(4))
        .expect("sizes that fit");
    let rows = [rule(5, 1), rule(6, 2), rule(7, 1), rule(7, 2)];
    let rows = Tensor::cat(&rows, 0).expect("rows");
    train(model.vars(), 1e-2, 150, || last(&model, &rows));
    model.frozen().expect("a copy")
}

/// `[mode, a, a + step]` for each a.
fn rule(mode: u32, step: u32) -> Tensor {
    let rows: Vec<u32> = (0..5).flat_map(|a| [mode, a, (a + step) % 5]).collect();
    Tensor::from_vec(rows, (5, 3), &Device::Cpu).expect("15 numbers")
}

/// The mean loss of the last token of each row.
fn last(model: &Transformer, rows: &Tensor) -> Tensor {
    let mask: Vec<u8> = (0..rows.elem_count())
        .map(|i| u8::from(i % 3 == 2))
        .collect();
    let mask = Tensor::from_vec(mask, rows.shape(), &Device::Cpu).expect("as many");
    let logits = model.forward(rows).expect("forward").logits;
    TokenLogProbs::next_token(&logits, rows, &mask)
        .and_then(|l| sft_loss(&l, None, &SftConfig::default()))
        .and_then(|l| l.reduce(Reduction::TokenMean))
        .expect("a loss")
}

/// If the base knows the rule already, steering is enough, even by a prompt, biases or factors.
#[test]
fn every_method_chooses_between_two_things_that_the_frozen_base_knows() {
    let base = undecided();
    let at = |mode, step| flat(&last(&base, &rule(mode, step)))[0];
    assert!(at(5, 1) < 0.02 && at(6, 2) < 0.02);
    let toss = 2f64.ln();
    assert!((at(7, 1) - toss).abs() < 0.05 && (at(7, 2) - toss).abs() < 0.05);
    let (wanted, other) = (rule(7, 2), rule(7, 1));
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        let (_, after) = train(adapted.vars(), 3e-2, 30, || last(&adapted.model, &wanted));
        // in nats: nine tenths
        assert!(after < 0.2 * toss, "{config:?}: {after}");
        assert!(
            flat(&last(&adapted.model, &other))[0] > 2.0 * toss,
            "{config:?}"
        );
        adapted.set_enabled(false);
        let undecided = flat(&last(&adapted.model, &wanted))[0];
        assert!((undecided - toss).abs() < 0.1, "{config:?}: {undecided}");
    }
}

#[test]
fn only_adalora_has_triplets() {
    let base = base(DType::F32);
    for (config, _) in methods() {
        let adapted = adapted(&base, &config);
        let names: Vec<&str> = adapted.triplets().iter().map(|(n, _)| n.as_str()).collect();
        match config {
            AdapterSettings::AdaLora(_) => {
                assert_eq!(names.len(), 4 * LAYERS);
                for (name, layer) in adapted.triplets() {
                    // the layer of the model, not a copy of it
                    let own = layer.trainable(name);
                    let ids = adapted.vars().into_iter().map(|(n, v)| (n, v.id()));
                    let ids: std::collections::BTreeMap<_, _> = ids.collect();
                    assert!(own.iter().all(|(n, v)| ids[n] == v.id()), "{name}");
                }
            }
            _ => assert!(names.is_empty(), "{config:?}"),
        }
    }
}

#[test]
fn what_the_decoder_does_not_do_is_refused_by_name() {
    let base = base(DType::F32);
    let says = |json: &str, message: &str| {
        let config: AdapterSettings = serde_json::from_str(json).expect("read");
        match adapt(&base, &config, &mut StdRng::seed_from_u64(2)) {
            Ok(_) => panic!("{json} is not refused"),
            Err(error) => assert_eq!(error.to_string(), message, "{json}"),
        }
    };
    let saved = r#""target_modules": ["attention.qkv"], "modules_to_save": ["head"]"#;
    for method in ["lora", "qlora", "dora", "ia3"] {
        says(
            &format!(r#"{{"{method}": {{"targets": {{{saved}}}}}}}"#),
            "adapt: `modules_to_save` must be empty: the decoder trains no module whole",
        );
    }
    for method in ["lora", "qlora", "dora"] {
        says(
            &format!(r#"{{"{method}": {{"targets": {{"target_modules": "q_proj"}}}}}}"#),
            "LoraForModel::for_modules: `target_modules` chooses no module",
        );
    }
    says(
        r#"{"ia3": {}}"#,
        "Targets::choose: `target_modules` chooses no module",
    );
    says(
        r#"{"ia3": {"targets": {"target_modules": ["attention.qkv", "q_proj"]}}}"#,
        "Targets::choose: `target_modules` names `q_proj`, which chooses no module",
    );
    // the layer itself refuses what is not a probability
    says(
        r#"{"lora": {"dropout": 1.5}}"#,
        "LoraLinear::new: `dropout` must be in [0, 1), got 1.5",
    );
}

#[test]
fn dropout_is_drawn_while_it_is_asked_for() {
    let base = base(DType::F32);
    for method in ["lora", "qlora", "dora", "ada_lora", "vera"] {
        let json = format!(r#"{{"{method}": {{"dropout": 0.5}}}}"#);
        let config: AdapterSettings = serde_json::from_str(&json).expect("read");
        let adapted = adapted(&base, &config);
        for (_, var) in adapted.vars() {
            // fresh layers add nothing, so dropout would change nothing
            let moved = (var.as_tensor() + 0.1).expect("a sum");
            var.set(&moved).expect("the same shape");
        }
        let logits = || flat(&adapted.model.forward(&tokens()).expect("logits").logits);
        let drawn = |seed| {
            adapted.set_dropout(Some(StdRng::seed_from_u64(seed)));
            logits()
        };
        let plain = logits();
        let (first, again, other) = (drawn(1), drawn(1), drawn(2));
        assert_eq!(first, again, "{method}");
        assert!(first != other && first != plain, "{method}");
        adapted.set_dropout(None);
        assert_eq!(logits(), plain, "{method}");
        // the base has no dropout
        adapted.set_enabled(false);
        let off = logits();
        assert_eq!(drawn(1), off, "{method}");
    }
}

#[test]
fn a_method_is_a_setting() {
    for (config, _) in methods() {
        let json = serde_json::to_string(&config).expect("json");
        let again: AdapterSettings = serde_json::from_str(&json).expect("read");
        assert_eq!(again, config);
    }
    let read = |json: &str| serde_json::from_str::<AdapterSettings>(json);
    let short = read(r#"{"lora":{"rank":4}}"#).expect("read");
    let lora = LoraConfig {
        rank: 4,
        ..Default::default()
    };
    assert_eq!(short, AdapterSettings::Lora(lora.into()));
    assert_eq!(
        read(r#""bit_fit""#).expect("read"),
        AdapterSettings::BitFit {}
    );
    for (name, config) in [
        ("qlora", AdapterSettings::Qlora(LoraForModel::default())),
        ("dora", AdapterSettings::Dora(LoraForModel::default())),
        (
            "ada_lora",
            AdapterSettings::AdaLora(AdaLoraConfig::default()),
        ),
        ("ia3", AdapterSettings::Ia3(Ia3ForModel::default())),
        ("vera", AdapterSettings::Vera(VeraConfig::default())),
        ("prompt", AdapterSettings::Prompt(PromptConfig::default())),
        ("prefix", AdapterSettings::Prefix(PrefixConfig::default())),
        ("mam", AdapterSettings::Mam(MamConfig::default())),
    ] {
        let empty = format!(r#"{{"{name}":{{}}}}"#);
        assert_eq!(read(&empty).expect("read"), config);
        assert!(read(&empty.replace("{}", r#"{"r":4}"#)).is_err(), "{name}");
    }
    assert!(read(r#"{"lora":{"r":4}}"#).is_err());
    assert!(read(r#"{"none":{}}"#).is_err());
}
