use crate::common::adapted::*;
use crate::common::lora::*;
use crate::common::says;
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraLinear, Adapter, LinearAdapter, Orthogonality, RankAllocator,
    RankAllocatorConfig, orthogonality_penalty,
};
use candle_core::{DType, Tensor};
use candle_nn::Module;
use std::collections::HashMap;

#[test]
fn every_setting_is_checked() {
    let wrong = |config: AdaLoraConfig, rest: &str| {
        let new = AdaLoraLinear::new(&base(DType::F64), &config, &mut rng(1));
        says(new, &format!("AdaLoraLinear::new: {rest}"));
        let lambda = tensor(&[[1.0], [2.0]]);
        let loaded = AdaLoraLinear::from_factors(
            &base(DType::F64),
            &config,
            &tensor(&B),
            &lambda,
            &tensor(&A),
        );
        says(loaded, &format!("AdaLoraLinear::from_factors: {rest}"));
    };
    wrong(
        AdaLoraConfig {
            rank: 0,
            ..ada_config()
        },
        "`rank` must be >= 1, got 0",
    );
    for alpha in [0.0, f64::NAN] {
        wrong(
            AdaLoraConfig {
                alpha,
                ..ada_config()
            },
            &format!("`alpha` must be finite and > 0, got {alpha}"),
        );
    }
    for dropout in [-0.1, 1.0] {
        wrong(
            AdaLoraConfig {
                dropout,
                ..ada_config()
            },
            &format!("`dropout` must be in [0, 1), got {dropout}"),
        );
    }
}

#[test]
fn factors_must_fit_the_layer() {
    let load = |p: &Tensor, lambda: &Tensor, q: &Tensor| {
        AdaLoraLinear::from_factors(&base(DType::F64), &ada_config(), p, lambda, q)
    };
    let (p, lambda, q) = (tensor(&B), tensor(&[[1.0], [2.0]]), tensor(&A));
    let wrong = |result, rest: &str| says(result, &format!("AdaLoraLinear::from_factors: {rest}"));
    wrong(
        load(&irregular(&[4, 2]), &lambda, &q),
        "`p` has shape [4, 2], expected [out=3 (from `base.weight`), rank]",
    );
    wrong(
        load(&p, &irregular(&[3, 1]), &q),
        "`lambda` has shape [3, 1], expected [rank=2 (from `p`), one]",
    );
    wrong(
        load(&p, &irregular(&[2, 2]), &q),
        "`lambda` has shape [2, 2], expected [rank, 1]",
    );
    wrong(
        load(&p, &lambda, &irregular(&[2, 5])),
        "`q` has shape [2, 5], expected [rank=2 (from `p`), in=4 (from `base.weight`)]",
    );
    wrong(
        load(&p, &lambda, &q.to_dtype(DType::F32).unwrap()),
        "`q` is f32, expected f64 (from `base.weight`)",
    );
    wrong(
        load(
            &irregular(&[3, 3]),
            &irregular(&[3, 1]),
            &irregular(&[3, 4]),
        ),
        "`q` has 3 rows, and `rank` is 2",
    );
    says(
        ada(&ada_config(), DType::F64).cut(&[true]),
        "AdaLoraLinear::cut: `kept` has 1 entries, for 2 triplets",
    );
}

#[test]
fn inputs_and_merges_are_checked() {
    let mut layer = ada(&ada_config(), DType::F64);
    let x = irregular(&[2, 3]);
    says(
        layer.forward(&x),
        "AdaLoraLinear::forward: `x` has shape [2, 3], expected [.., in=4 (from `weight`)]",
    );
    says(
        layer.forward_train(&x, &mut rng(1)),
        "AdaLoraLinear::forward_train: `x` has shape [2, 3], expected [.., in=4 (from `weight`)]",
    );
    layer.merge().unwrap();
    says(
        layer.forward_train(&tensor(&X), &mut rng(1)),
        "AdaLoraLinear::forward_train: `self` is merged, so that nothing would get a gradient; \
         call `unmerge` first",
    );
    layer.set_enabled(false); // the base layer does not mind
    layer.forward_train(&tensor(&X), &mut rng(1)).unwrap();
    set(layer.lambda(), tensor(&[[f64::NAN, 1.0]]));
    let rest = "`weight` would hold NaN at flat position 0 after the merge; nothing was changed";
    says(layer.merge(), &format!("AdaLoraLinear::merge: {rest}"));
    says(
        layer.merged_linear(),
        &format!("AdaLoraLinear::merged_linear: {rest}"),
    );
}

#[test]
fn a_penalty_needs_layers_of_one_type() {
    says(
        orthogonality_penalty(&[], Orthogonality::NormMean),
        "orthogonality_penalty: `layers` is empty",
    );
    let (double, single) = (
        ada(&ada_config(), DType::F64),
        ada(&ada_config(), DType::F32),
    );
    says(
        orthogonality_penalty(&[&double, &single], Orthogonality::SquaredSum),
        "orthogonality_penalty: `layers` is f32, expected f64 (from the first layer)",
    );
}

fn layers() -> [(String, AdaLoraLinear); 1] {
    [("m.q".to_string(), ada(&ada_config(), DType::F64))]
}

fn schedule() -> RankAllocatorConfig {
    RankAllocatorConfig {
        target_rank: 1,
        total_steps: 10,
        ..Default::default()
    }
}

#[test]
fn a_schedule_is_checked() {
    let wrong = |config: RankAllocatorConfig, rest: &str| {
        let new = RankAllocator::new(&layers(), &config);
        says(new, &format!("RankAllocator::new: {rest}"));
    };
    wrong(
        RankAllocatorConfig {
            interval: 0,
            ..schedule()
        },
        "`interval` must be >= 1, got 0",
    );
    wrong(
        RankAllocatorConfig {
            initial_steps: 4,
            final_steps: 6,
            ..schedule()
        },
        "`total_steps` must be > `initial_steps` + `final_steps`, got 10",
    );
    wrong(
        RankAllocatorConfig::default(),
        "`total_steps` must be > `initial_steps` + `final_steps`, got 0",
    );
    for beta in [0.0, 1.0, f64::NAN] {
        wrong(
            RankAllocatorConfig {
                beta1: beta,
                ..schedule()
            },
            &format!("`beta1` must be in (0, 1), got {beta}"),
        );
        wrong(
            RankAllocatorConfig {
                beta2: beta,
                ..schedule()
            },
            &format!("`beta2` must be in (0, 1), got {beta}"),
        );
    }
    wrong(
        RankAllocatorConfig {
            target_rank: 3,
            ..schedule()
        },
        "`layers` hold 2 triplets, and `target_rank` asks for 3",
    );
    let [(_, other)] = layers();
    let two = [layers(), [("m.v".to_string(), other)]].concat();
    let without_end = RankAllocatorConfig {
        target_rank: usize::MAX,
        ..schedule()
    };
    says(
        RankAllocator::new(&two, &without_end),
        "RankAllocator::new: `layers` hold 4 triplets, and `target_rank` asks for 18446744073709551615",
    );
    let twice = [layers(), layers()].concat();
    says(
        RankAllocator::new(&twice, &schedule()),
        "RankAllocator::new: `layers` names `m.q` twice",
    );
}

#[test]
fn a_gradient_that_is_missing_or_not_finite_changes_nothing() {
    let layers = layers();
    let layer = &layers[0].1;
    let mut allocator = RankAllocator::new(&layers, &schedule()).unwrap();
    let good = layer.forward(&tensor(&X)).unwrap().sqr().unwrap();
    let good = good.backward().unwrap();
    allocator.update(0, &good).unwrap();
    let before = allocator.scores().unwrap();
    let state = |lambda: &AdaLoraLinear| bits(lambda.lambda());
    let values = state(layer);

    let missing = layer.q().sum_all().unwrap().backward().unwrap();
    says(
        allocator.update(1, &missing),
        "RankAllocator::update: `grads` holds no gradient of `m.q.lora_E`",
    );
    let infinite = (layer.forward(&tensor(&X)).unwrap() * f64::INFINITY).unwrap();
    let infinite = infinite.sum_all().unwrap().backward().unwrap();
    says(
        allocator.update(1, &infinite),
        "RankAllocator::update: `grads` holds no finite gradient of `m.q.lora_E`",
    );
    assert_eq!(allocator.scores().unwrap(), before);
    assert_eq!(state(layer), values);

    let mut blind = RankAllocator::new(&layers, &schedule()).unwrap();
    says(
        blind.update(10, &good),
        "RankAllocator::update: `step` 10 prunes, but no gradient was seen before it",
    );
    assert_eq!(state(layer), values);
}

#[test]
fn a_state_must_be_this_allocators() {
    let mut allocator = RankAllocator::new(&layers(), &schedule()).unwrap();
    let good = allocator.state().unwrap();
    let mut names: Vec<_> = good.keys().cloned().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "m.q.kept",
            "m.q.lora_A.sensitivity",
            "m.q.lora_A.uncertainty",
            "m.q.lora_B.sensitivity",
            "m.q.lora_B.uncertainty",
            "m.q.lora_E.sensitivity",
            "m.q.lora_E.uncertainty",
            "scored"
        ]
    );
    let mut wrong = |change: &dyn Fn(&mut HashMap<String, Tensor>), rest: &str| {
        let mut state = good.clone();
        change(&mut state);
        let message = format!("RankAllocator::restore: `state` {rest}");
        says(allocator.restore(state), &message);
    };
    wrong(
        &|state| drop(state.remove("m.q.kept")),
        "holds no tensor `m.q.kept`",
    );
    wrong(
        &|state| drop(state.insert("m.q.lora_E.sensitivity".to_string(), tensor(&[[1.0]]))),
        "holds `m.q.lora_E.sensitivity` as f64 [1, 1], expected f64 [2, 1]",
    );
    wrong(
        &|state| drop(state.insert("m.v.kept".to_string(), tensor(&[[1.0]]))),
        "holds `m.v.kept`, which belongs to no layer here",
    );
    allocator.restore(good).unwrap();
}
