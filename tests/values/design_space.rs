use crate::common::adapters::{assert_gradients, objective};
use crate::common::lora::{BIAS, WEIGHT, X, irregular, tensor, var};
use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::parameter_efficient::Strategy::{Adapter, BitFit, Lora, Prefix};
use candle_align::parameter_efficient::{
    Adapter as _, BiasLinear, DesignSpaceConfig, Grouping, LayerPlan, LayerSize, LinearAdapter,
    Strategy,
};
use candle_core::DType;
use candle_nn::{Linear, Module};

fn sets(groups: &[&[Strategy]]) -> DesignSpaceConfig {
    DesignSpaceConfig {
        grouping: Grouping::Sizes(vec![1; groups.len()]),
        strategies: groups.iter().map(|g| g.iter().copied().collect()).collect(),
    }
}

#[test]
fn the_default_is_the_papers_last_space() {
    let space = DesignSpaceConfig::default();
    assert_eq!(space.grouping, Grouping::Spindle);
    let json = serde_json::to_string(&space).unwrap();
    assert_eq!(
        json,
        r#"{"grouping":"spindle","strategies":[["adapter","lora"],["adapter","prefix"],["adapter","prefix","bit_fit"],["prefix","bit_fit","lora"]]}"#
    );
    let again: DesignSpaceConfig = serde_json::from_str(&json).unwrap();
    assert_eq!(again, space);
    let read: DesignSpaceConfig = serde_json::from_str(r#"{"grouping":{"sizes":[1,2]}}"#).unwrap();
    assert_eq!(read.grouping, Grouping::Sizes(vec![1, 2]));
    assert!(serde_json::from_str::<DesignSpaceConfig>(r#"{"groups":4}"#).is_err());
}

#[test]
fn twelve_layers_are_two_four_four_two() {
    let assigned = DesignSpaceConfig::default().assign(12).unwrap();
    let want: Vec<Vec<Strategy>> = [
        (2, vec![Adapter, Lora]),
        (4, vec![Adapter, Prefix]),
        (4, vec![Adapter, Prefix, BitFit]),
        (2, vec![Prefix, BitFit, Lora]),
    ]
    .into_iter()
    .flat_map(|(n, set)| std::iter::repeat_n(set, n))
    .collect();
    let got: Vec<Vec<Strategy>> = assigned
        .into_iter()
        .map(|s| s.into_iter().collect())
        .collect();
    assert_eq!(got, want);
}

#[test]
fn sizes_of_spindles() {
    // one strategy per group, so that the groups can be read from the layers
    let space = DesignSpaceConfig {
        grouping: Grouping::Spindle,
        ..sets(&[&[Adapter], &[Prefix], &[BitFit], &[Lora]])
    };
    for (layers, sizes) in [
        (6, [1, 2, 2, 1]),
        (8, [1, 3, 3, 1]),
        (9, [1, 3, 3, 2]),
        (10, [2, 3, 3, 2]),
        (11, [1, 4, 4, 2]),
        (24, [4, 8, 8, 4]),
        (32, [5, 11, 11, 5]),
    ] {
        let assigned = space.assign(layers).unwrap();
        let count = |s: Strategy| assigned.iter().filter(|set| set.contains(&s)).count();
        assert_eq!([Adapter, Prefix, BitFit, Lora].map(count), sizes);
    }
}

#[test]
fn a_plan_shares_what_the_biases_leave() {
    let size = LayerSize {
        dim: 10,
        kv_dim: 6,
        lora: 40,
        biases: 50,
    };
    let space = sets(&[
        &[Adapter, Lora],
        &[Adapter, Prefix],
        &[Prefix, BitFit, Lora],
        &[BitFit],
        &[],
    ]);
    let plans = space.plan(5, 250, &size).unwrap();
    let want = [
        // 125 each: 125/20, 125/40
        LayerPlan {
            adapter: 6,
            rank: 3,
            ..Default::default()
        },
        // 125/20, 125/12
        LayerPlan {
            adapter: 6,
            prefix: 10,
            ..Default::default()
        },
        // (250 − 50)/2 = 100 each: 100/12, 100/40
        LayerPlan {
            prefix: 8,
            rank: 2,
            biases: true,
            ..Default::default()
        },
        LayerPlan {
            biases: true,
            ..Default::default()
        },
        LayerPlan::default(),
    ];
    assert_eq!(plans, want);
    let counts: Vec<usize> = plans.iter().map(|p| p.parameters(&size)).collect();
    let want = [
        2 * 6 * 10 + 3 * 40,
        2 * 6 * 10 + 2 * 10 * 6,
        2 * 8 * 6 + 2 * 40 + 50,
        50,
        0,
    ];
    assert_eq!(counts, want);
}

#[test]
fn a_bias_is_added_to_the_product() {
    let product =
        |o: usize, x: &[f64; 4]| -> f64 { WEIGHT[o].iter().zip(x).map(|(w, x)| w * x).sum() };
    for bias in [None, Some(vector(&BIAS))] {
        let layer = BiasLinear::new(&Linear::new(tensor(&WEIGHT), bias.clone())).unwrap();
        let start = bias.as_ref().map_or(vec![0.0; 3], numbers);
        assert_eq!(numbers(layer.bias()), start);
        layer.bias().set(&vector(&[5.0, -6.0, 7.0])).unwrap();
        let want: Vec<f64> = X
            .iter()
            .flat_map(|x| {
                [5.0, -6.0, 7.0]
                    .into_iter()
                    .enumerate()
                    .map(move |(o, b)| product(o, x) + b)
            })
            .collect();
        assert_close(
            &numbers(&layer.forward(&tensor(&X)).unwrap()),
            &want,
            EXACT,
            "y",
        );
        let merged = layer.merged_linear().unwrap();
        assert_close(
            &numbers(&merged.forward(&tensor(&X)).unwrap()),
            &want,
            EXACT,
            "merged",
        );
        assert_eq!(layer.trainable("a.b")[0].0, "a.b.bias");
        // the base keeps its own
        assert_eq!(layer.base().bias().map(numbers), bias.as_ref().map(numbers));
    }
}

#[test]
fn the_gradients_of_a_bias_are_central_differences() {
    let layer = BiasLinear::new(&Linear::new(tensor(&WEIGHT), Some(vector(&BIAS)))).unwrap();
    let x = var(&irregular(&[2, 3, 4]));
    let mut vars = layer.trainable("");
    vars.push(("x".to_string(), x.clone()));
    assert_gradients("bias", &vars, || objective(&layer.forward(&x).unwrap()));
}

#[test]
fn a_half_layer_trains_in_f32() {
    let half = |t: candle_core::Tensor| t.to_dtype(DType::BF16).unwrap();
    let base = Linear::new(half(tensor(&WEIGHT)), Some(half(vector(&BIAS))));
    let layer = BiasLinear::new(&base).unwrap();
    assert_eq!(layer.bias().dtype(), DType::F32);
    let y = layer.forward(&half(tensor(&X))).unwrap();
    assert_eq!(y.dtype(), DType::BF16);
    assert_eq!(
        layer.merged_linear().unwrap().bias().unwrap().dtype(),
        DType::BF16
    );
}
