use crate::common::adapted::*;
use crate::common::adapters::objective;
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraLinear, AdaLoraScaling, Adapter, ForModel, Orthogonality, RankAllocator,
    RankAllocatorConfig, TargetModules, Targets, orthogonality_penalty,
};
use candle_align::peft::{
    AdaLoraFile, AdapterFile, AdapterMethod, AnyAdapter, ModelAdapters, PeftConfig,
};
use candle_core::{DType, Tensor};
use candle_nn::Module;

fn plain() -> AdaLoraConfig {
    AdaLoraConfig {
        scaling: AdaLoraScaling::Rank,
        ..ada_config()
    }
}

#[test]
fn with_its_singular_values_held_still_it_is_lora() {
    let layer = ada(&plain(), DType::F64);
    let lora = start(&config(), DType::F64);
    // A = ΛQ, B = P
    let lambda = layer.lambda().as_detached_tensor();
    lora.a()
        .set(&layer.q().broadcast_mul(&lambda).unwrap())
        .unwrap();
    lora.b().set(layer.p()).unwrap();
    assert_eq!(layer.scale(), lora.scale());
    let (x, y) = (var(&tensor(&X)), var(&tensor(&X)));
    let (got, want) = (layer.forward(&x).unwrap(), lora.forward(&y).unwrap());
    assert_close(&numbers(&got), &numbers(&want), EXACT, "h");
    let (got, want) = (
        objective(&got).backward().unwrap(),
        objective(&want).backward().unwrap(),
    );
    let pair = |a, b| (numbers(got.get(a).unwrap()), numbers(want.get(b).unwrap()));
    let (mine, other) = pair(&x, &y);
    assert_close(&mine, &other, EXACT, "dx");
    let (mine, other) = pair(layer.p(), lora.b());
    assert_close(&mine, &other, EXACT, "dP = dB");
    // dQ = Λ dA
    let (mine, other) = pair(layer.q(), lora.a());
    let scaled: Vec<f64> = other
        .iter()
        .enumerate()
        .map(|(i, g)| LAMBDA[i / 4] * g)
        .collect();
    assert_close(&mine, &scaled, EXACT, "dQ");
    let delta = numbers(&layer.delta().unwrap());
    assert_close(&delta, &numbers(&lora.delta().unwrap()), EXACT, "delta");
}

#[test]
fn the_two_scalings_differ_by_a_hundred_thousandth_of_a_rank() {
    let (with, without) = (ada_config().scale(), plain().scale());
    assert_close(&[without / with], &[(2.0 + 1e-5) / 2.0], EXACT, "ratio");
}

#[test]
fn a_pruned_triplet_adds_nothing_and_cutting_it_changes_nothing() {
    let layer = ada(&ada_config(), DType::F64);
    set(layer.lambda(), vector(&[0.0, -0.7]));
    let x = tensor(&X);
    let y = numbers(&layer.forward(&x).unwrap());
    // its vectors may be anything
    let far = [[1e3, -1e3, 5.0, 7.0], A[1]];
    set(layer.q(), tensor(&far));
    assert_eq!(numbers(&layer.forward(&x).unwrap()), y);
    // yet its value has a gradient, and so it can return
    let grads = layer
        .forward(&x)
        .unwrap()
        .sqr()
        .unwrap()
        .backward()
        .unwrap();
    assert_ne!(numbers(grads.get(layer.lambda()).unwrap())[0], 0.0);

    let cut = layer.cut(&[false, true]).unwrap();
    assert_eq!((cut.rank(), cut.scale()), (1, layer.scale()));
    assert_eq!((cut.p().dims(), cut.q().dims()), (&[3, 1][..], &[1, 4][..]));
    assert_close(&numbers(&cut.forward(&x).unwrap()), &y, EXACT, "cut");
    let whole = layer.cut(&[true, true]).unwrap();
    assert_close(&numbers(&whole.forward(&x).unwrap()), &y, EXACT, "whole");
    // a copy
    set(cut.lambda(), vector(&[9.0]));
    assert_eq!(numbers(layer.lambda()), [0.0, -0.7]);
    // cutting keeps the switch and leaves a merge behind
    let mut off = layer.clone();
    off.merge().unwrap();
    off.set_enabled(false);
    let cut = off.cut(&[true, false]).unwrap();
    assert!(!cut.is_enabled() && !cut.is_merged());
}

#[test]
fn the_file_of_a_layer_with_all_triplets_is_that_of_the_layer_cut() {
    let file = |layer: AdaLoraLinear, kept: &[bool]| -> Result<AdapterFile> {
        let method = AdapterMethod::AdaLora(AdaLoraFile {
            model: ForModel {
                config: ada_config(),
                targets: Targets {
                    target_modules: TargetModules::Names(vec!["q".to_string()]),
                    ..Default::default()
                },
            },
            allocator: RankAllocatorConfig {
                total_steps: 9,
                ..Default::default()
            },
            kept: [("m.q".to_string(), kept.to_vec())].into(),
            ..Default::default()
        });
        let layers = ModelAdapters {
            layers: [("m.q".to_string(), AnyAdapter::AdaLora(layer))].into(),
            ..Default::default()
        };
        AdapterFile::from_layers(PeftConfig::from(method), &layers)
    };
    let tensors = |file: Result<AdapterFile>| -> Vec<(String, Vec<f64>)> {
        let each = file.unwrap();
        let each = each.tensors().iter();
        each.map(|(name, t)| (name.clone(), numbers(t))).collect()
    };
    let layer = ada(&ada_config(), DType::F64);
    for kept in [[true, false], [false, true]] {
        let cut = layer.cut(&kept).unwrap();
        let got = tensors(file(layer.clone(), &kept));
        assert_eq!(got, tensors(file(cut.clone(), &kept)));
        // A, B and E
        assert_eq!(got[2].1, numbers(cut.lambda()), "{got:?}");
    }
    let cut = layer.cut(&[true, false]).unwrap();
    assert_eq!(
        file(cut, &[true, true]).unwrap_err().to_string(),
        "AdapterFile::from_layers: `m.q` has 1 triplets, and `kept` leaves 2"
    );
}

#[test]
fn a_layer_without_triplets_is_the_base() {
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let mut layer = ada(&ada_config(), dtype).cut(&[false, false]).unwrap();
        assert_eq!((layer.rank(), layer.trainable("").len()), (0, 3));
        let x = tensor(&X).to_dtype(dtype).unwrap();
        let want = bits(&layer.base().forward(&x).unwrap());
        assert_eq!(bits(&layer.forward(&x).unwrap()), want);
        assert_eq!(numbers(&layer.delta().unwrap()), [0.0; 12]);
        layer.merge().unwrap();
        assert_eq!(bits(&layer.forward(&x).unwrap()), want);
        // nor has it a penalty
        let penalty = orthogonality_penalty(&[&layer], Orthogonality::NormMean).unwrap();
        assert_eq!(numbers(&penalty), [0.0]);
    }
    // and so it can be loaded
    let none =
        |shape: &[usize]| Tensor::zeros(shape, DType::F64, &candle_core::Device::Cpu).unwrap();
    let (p, lambda, q) = (none(&[3, 0]), none(&[0, 1]), none(&[0, 4]));
    let layer = AdaLoraLinear::from_factors(&base(DType::F64), &ada_config(), &p, &lambda, &q);
    assert_eq!(layer.unwrap().rank(), 0);
}

#[test]
fn loaded_factors_are_copies_with_the_scale_of_the_start() {
    let (p, q) = (var(&tensor(&B)), var(&tensor(&A)));
    let lambda = var(&tensor(&[[LAMBDA[0]], [LAMBDA[1]]]));
    let config = AdaLoraConfig {
        rank: 6,
        ..ada_config()
    };
    let layer = AdaLoraLinear::from_factors(&base(DType::F64), &config, &p, &lambda, &q).unwrap();
    assert_eq!((layer.rank(), layer.scale()), (2, 3.0 / (6.0 + 1e-5)));
    let before = numbers(&layer.delta().unwrap());
    for var in [&p, &q, &lambda] {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    assert_eq!(numbers(&layer.delta().unwrap()), before);
    let grads = layer.forward(&tensor(&X)).unwrap().backward().unwrap();
    assert!(grads.get(&p).is_none() && grads.get(layer.p()).is_some());
}

/// P R and Rᵀ-turned Q for an orthogonal R; with Λ a multiple of the identity P Λ Q stays.
#[test]
fn turning_p_and_q_changes_no_penalty_and_with_equal_lambdas_no_layer() {
    let (c, s) = (0.6, 0.8);
    let rotation = tensor(&[[c, -s], [s, c]]);
    for (lambda, same) in [([1.5, 1.5], true), (LAMBDA, false)] {
        let layer = ada(&plain(), DType::F64);
        set(layer.lambda(), vector(&lambda));
        let penalty = |form| numbers(&orthogonality_penalty(&[&layer], form).unwrap())[0];
        let penalties = || [Orthogonality::SquaredSum, Orthogonality::NormMean].map(penalty);
        let output = || numbers(&layer.forward(&tensor(&X)).unwrap());
        let (before, h) = (penalties(), output());
        // P Rᵀ · R Q
        let (p, q) = (layer.p(), layer.q());
        p.set(&p.matmul(&rotation.t().unwrap()).unwrap()).unwrap();
        q.set(&rotation.matmul(q).unwrap()).unwrap();
        assert_close(&penalties(), &before, EXACT, "R");
        let turned = output();
        let far = turned.iter().zip(&h).map(|(a, b)| (a - b).abs());
        let far = far.fold(0.0, f64::max);
        assert!(
            (far < EXACT) == same,
            "{lambda:?}: the outputs differ by {far}"
        );
        assert!(same || far > 0.1, "{far}");
    }
}

#[test]
fn the_penalty_of_layers_is_the_sum_or_the_mean_of_theirs() {
    let first = ada(&plain(), DType::F64);
    let other = AdaLoraLinear::new(&base(DType::F64), &plain(), &mut rng(3)).unwrap();
    let of =
        |layers: &[&AdaLoraLinear], form| numbers(&orthogonality_penalty(layers, form).unwrap())[0];
    let form = Orthogonality::SquaredSum;
    let sum = of(&[&first], form) + of(&[&other], form);
    assert_close(&[of(&[&first, &other], form)], &[sum], EXACT, "sum");
    let form = Orthogonality::NormMean;
    let mean = (of(&[&first], form) + of(&[&other], form)) / 2.0;
    assert_close(&[of(&[&first, &other], form)], &[mean], EXACT, "mean");
}

#[test]
fn a_score_does_not_depend_on_how_a_triplet_is_split() {
    // λ, P, Q → λ/c², cP, cQ: every product w · ∂L/∂w stays
    let score = |c: f64| {
        let layer = ada(&plain(), DType::F64);
        set(layer.p(), (tensor(&B) * c).unwrap());
        set(layer.q(), (tensor(&A) * c).unwrap());
        set(layer.lambda(), vector(&LAMBDA.map(|l| l / (c * c))));
        let config = RankAllocatorConfig {
            target_rank: 1,
            initial_steps: 5,
            total_steps: 9,
            ..Default::default()
        };
        let layers = [("m".to_string(), layer.clone())];
        let mut allocator = RankAllocator::new(&layers, &config).unwrap();
        for step in 0..3 {
            let grads = objective(&layer.forward(&tensor(&X)).unwrap())
                .backward()
                .unwrap();
            allocator.update(step, &grads).unwrap();
        }
        allocator.scores().unwrap().remove(0).1
    };
    let plain = score(1.0);
    assert!(plain.iter().all(|s| *s > 0.0));
    for c in [0.5, 3.0] {
        for (got, want) in score(c).iter().zip(&plain) {
            assert_close(&[got / want], &[1.0], EXACT, "S");
        }
    }
}
