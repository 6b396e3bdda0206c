use crate::common::lora::*;
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::parameter_efficient::{
    Adapter, LinearAdapter, LoraBias, LoraConfig, LoraEmbedding, LoraLinear, Scaling,
};
use candle_core::{DType, Device, IndexOp, Tensor, Var};
use candle_nn::{Embedding, Linear, Module};

/// Relative to 1, what a computation in this type may differ by from itself in another order; for a
/// half type, what rounding a merged weight costs an output of four products.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => EXACT,
        DType::F32 => 1e-5,
        DType::F16 => 16.0 / 2048.0,
        _ => 16.0 / 256.0,
    }
}

/// Inputs in every type that the layer takes, with two and with three axes.
fn inputs(stored: DType) -> Vec<Tensor> {
    let mut inputs = Vec::new();
    for shape in [&[3, 4][..], &[2, 3, 4]] {
        let x = irregular(shape);
        let wide = if stored == DType::F64 {
            DType::F64
        } else {
            DType::F32
        };
        inputs.push(x.to_dtype(wide).unwrap());
        if wide != stored {
            inputs.push(x.to_dtype(stored).unwrap());
        }
    }
    inputs
}

fn outputs(layer: &impl Module, stored: DType) -> Vec<Vec<u64>> {
    inputs(stored)
        .iter()
        .map(|x| bits(&layer.forward(x).unwrap()))
        .collect()
}

#[test]
fn at_its_start_the_layer_is_the_base_to_the_bit() {
    for dtype in TYPES {
        for bias in BIASES {
            let layer = start(&LoraConfig { bias, ..config() }, dtype);
            assert_eq!(outputs(&layer, dtype), outputs(layer.base(), dtype));
            if matches!(dtype, DType::F32 | DType::F64) {
                assert_eq!(outputs(&layer, dtype), outputs(&base(dtype), dtype));
            }
        }
        let layer = LoraEmbedding::new(&table(dtype), &config(), &mut rng(1)).unwrap();
        let tokens = Tensor::new(&[[1u32, 4], [0, 0]], &Device::Cpu).unwrap();
        let got = layer.forward(&tokens).unwrap();
        assert_eq!(bits(&got), bits(&table(dtype).forward(&tokens).unwrap()));
    }
}

#[test]
fn at_its_start_only_b_moves() {
    let layer = start(&config(), DType::F64);
    let y = layer.forward(&tensor(&X)).unwrap();
    let grads = y.sqr().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(layer.a()).unwrap()), [0.0; 8]);
    let b = numbers(grads.get(layer.b()).unwrap());
    assert!(b.iter().all(|g| *g != 0.0), "{b:?}");
    let coverage = candle_align::training::grad_coverage(&layer.trainable("q"), &grads).unwrap();
    assert_eq!(coverage.zero, ["q.lora_A.weight"]);
    assert_eq!(coverage.learning, ["q.lora_B.weight"]);
    assert!(coverage.missing.is_empty() && coverage.non_finite.is_empty());

    // an embedding: only A
    let layer = LoraEmbedding::new(&table(DType::F64), &config(), &mut rng(1)).unwrap();
    let tokens = Tensor::new(&[1u32, 4], &Device::Cpu).unwrap();
    let y = layer.forward(&tokens).unwrap();
    let grads = y.sqr().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(layer.b()).unwrap()), [0.0; 6]);
    assert!(
        numbers(grads.get(layer.a()).unwrap())
            .iter()
            .any(|g| *g != 0.0)
    );
}

#[test]
fn merged_is_unmerged() {
    for dtype in TYPES {
        for bias in BIASES {
            for scaling in [Scaling::Rank, Scaling::RankSqrt] {
                let config = LoraConfig {
                    bias,
                    scaling,
                    dropout: 0.5, // no part of a merged layer
                    ..config()
                };
                let mut layer = trained(&config, dtype);
                let alone = layer.merged_linear().unwrap();
                assert!(!layer.is_merged());
                for x in inputs(dtype) {
                    let beside = layer.forward(&x).unwrap();
                    layer.merge().unwrap();
                    assert!(layer.is_merged());
                    let merged = layer.forward(&x).unwrap();
                    layer.unmerge();
                    assert_eq!(
                        (beside.dims(), beside.dtype()),
                        (merged.dims(), merged.dtype())
                    );
                    let what = format!("{dtype:?} {bias:?}");
                    let within = rounding(dtype);
                    assert_close(&numbers(&merged), &numbers(&beside), within, &what);
                    if x.dtype() == dtype && dtype == DType::F64 {
                        assert_eq!(bits(&alone.forward(&x).unwrap()), bits(&merged));
                    }
                }
                // the merged weight is W₀ + s·B·A, rounded once
                let float = layer.a().dtype();
                let want = (base(dtype).weight().to_dtype(float).unwrap() + layer.delta().unwrap())
                    .unwrap();
                let want = want.to_dtype(dtype).unwrap();
                assert_eq!(bits(alone.weight()), bits(&want));
                assert!(!alone.weight().track_op(), "a merged weight has no history");
            }
        }
        let mut layer = embedding(dtype);
        let alone = layer.merged_embedding().unwrap();
        assert!(!alone.embeddings().track_op());
        let tokens = Tensor::new(&[[1u32, 4], [0, 0]], &Device::Cpu).unwrap();
        let beside = layer.forward(&tokens).unwrap();
        layer.merge().unwrap();
        let merged = layer.forward(&tokens).unwrap();
        assert_eq!(bits(&merged), bits(&alone.forward(&tokens).unwrap()));
        assert_close(
            &numbers(&merged),
            &numbers(&beside),
            rounding(dtype),
            "embedding",
        );
        assert_eq!(merged.dtype(), dtype);
    }
}

#[test]
fn merging_twice_is_merging_once_and_brings_a_merged_layer_up_to_date() {
    let mut layer = trained(&config(), DType::F32);
    layer.merge().unwrap();
    let once = outputs(&layer, DType::F32);
    layer.merge().unwrap();
    assert_eq!(outputs(&layer, DType::F32), once);
    // a merged layer stands still while the factors move, until it is merged again
    layer
        .b()
        .set(&(layer.b().as_tensor() * 2.0).unwrap())
        .unwrap();
    assert_eq!(outputs(&layer, DType::F32), once);
    layer.merge().unwrap();
    assert_ne!(outputs(&layer, DType::F32), once);
    let weight = layer.merged_linear().unwrap().weight().clone();
    let change = (weight - base(DType::F32).weight()).unwrap();
    let want = numbers(&layer.delta().unwrap());
    assert_close(&numbers(&change), &want, 1e-6, "change");
}

#[test]
fn unmerging_restores_every_bit() {
    for dtype in TYPES {
        for bias in BIASES {
            let mut layer = trained(&LoraConfig { bias, ..config() }, dtype);
            let weight = bits(layer.base().weight());
            let beside = outputs(&layer, dtype);
            layer.unmerge(); // nothing to do
            for _ in 0..3 {
                layer.merge().unwrap();
                assert_ne!(outputs(&layer, dtype), outputs(layer.base(), dtype));
                layer.unmerge();
                assert!(!layer.is_merged());
                assert_eq!(bits(layer.base().weight()), weight);
                assert_eq!(weight, bits(base(dtype).weight()));
                assert_eq!(outputs(&layer, dtype), beside);
            }
        }
        let mut layer = embedding(dtype);
        let tokens = Tensor::arange(0u32, 5, &Device::Cpu).unwrap();
        let beside = bits(&layer.forward(&tokens).unwrap());
        layer.merge().unwrap();
        assert!(layer.is_merged());
        layer.unmerge();
        assert!(!layer.is_merged());
        assert_eq!(bits(&layer.forward(&tokens).unwrap()), beside);
        assert_eq!(
            bits(layer.base().embeddings()),
            bits(table(dtype).embeddings())
        );
    }
}

#[test]
fn a_disabled_layer_is_the_base_to_the_bit_merged_or_not() {
    for dtype in TYPES {
        for bias in BIASES {
            // a trained bias too must not show
            let mut layer = trained(&LoraConfig { bias, ..config() }, dtype);
            let on = outputs(&layer, dtype);
            for merged in [false, true] {
                if merged {
                    layer.merge().unwrap();
                }
                layer.set_enabled(false);
                assert!(!layer.is_enabled());
                assert_eq!(outputs(&layer, dtype), outputs(layer.base(), dtype));
                assert_ne!(outputs(&layer, dtype), on);
                if matches!(dtype, DType::F32 | DType::F64) {
                    assert_eq!(outputs(&layer, dtype), outputs(&base(dtype), dtype));
                }
                layer.set_enabled(true);
            }
            layer.unmerge();
            assert_eq!(outputs(&layer, dtype), on);
        }
        let mut layer = embedding(dtype);
        let tokens = Tensor::arange(0u32, 5, &Device::Cpu).unwrap();
        for merged in [false, true] {
            if merged {
                layer.merge().unwrap();
            }
            layer.set_enabled(false);
            assert!(!layer.is_enabled());
            let y = layer.forward(&tokens).unwrap();
            assert_eq!(bits(&y), bits(table(dtype).embeddings()));
            layer.set_enabled(true);
            assert!(layer.is_enabled());
            assert_ne!(bits(&layer.forward(&tokens).unwrap()), bits(&y));
        }
    }
}

#[test]
fn training_does_not_move_the_disabled_layer() {
    let config = LoraConfig {
        bias: LoraBias::Base,
        ..config()
    };
    let mut layer = start(&config, DType::F64);
    let before = outputs(layer.base(), DType::F64);
    for _ in 0..5 {
        let y = layer.forward(&tensor(&X)).unwrap();
        let grads = (y - 1.0).unwrap().sqr().unwrap().backward().unwrap();
        for (_, var) in layer.trainable("") {
            let step = (grads.get(&var).unwrap() * 0.05).unwrap();
            var.set(&(var.as_tensor() - step).unwrap()).unwrap();
        }
    }
    assert_ne!(outputs(&layer, DType::F64), before);
    layer.set_enabled(false);
    assert_eq!(outputs(&layer, DType::F64), before);
}

#[test]
fn a_merge_that_is_not_finite_changes_nothing() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut layer = trained(&config(), DType::F32);
        let beside = outputs(&layer, DType::F32);
        let good = layer.a().as_tensor().copy().unwrap();
        let poison = vector(&[bad])
            .to_dtype(DType::F32)
            .unwrap()
            .broadcast_as((2, 4))
            .unwrap();
        layer.a().set(&poison).unwrap();
        assert!(layer.merge().is_err() && layer.merged_linear().is_err());
        assert!(!layer.is_merged());
        layer.a().set(&good).unwrap();
        assert_eq!(outputs(&layer, DType::F32), beside);
        // nor does it undo a merge that stands
        layer.merge().unwrap();
        let merged = outputs(&layer, DType::F32);
        layer.a().set(&poison).unwrap();
        assert!(layer.merge().is_err());
        assert!(layer.is_merged());
        assert_eq!(outputs(&layer, DType::F32), merged);

        let mut layer = embedding(DType::F32);
        let poison = poison.i((.., ..1)).unwrap().broadcast_as((2, 5)).unwrap();
        layer.a().set(&poison).unwrap();
        assert!(layer.merge().is_err() && !layer.is_merged());

        let config = LoraConfig {
            bias: LoraBias::Update,
            ..config()
        };
        let mut layer = trained(&config, DType::F32);
        let bias = &layer.trainable("")[1].1;
        bias.set(&poison.i((0, ..3)).unwrap()).unwrap();
        assert!(layer.merge().is_err() && !layer.is_merged());
    }
    // a finite change that leaves the range of the stored type
    let mut layer = trained(&config(), DType::F16);
    let far = (layer.b().as_tensor() * 1e6).unwrap();
    layer.b().set(&far).unwrap();
    assert!(layer.merge().is_err() && !layer.is_merged());
}

#[test]
fn the_change_is_linear_in_alpha_and_rank_stabilized_by_the_root_of_the_rank() {
    let delta = |alpha, scaling| {
        let config = LoraConfig {
            alpha,
            scaling,
            ..config()
        };
        numbers(&trained(&config, DType::F64).delta().unwrap())
    };
    let plain = delta(3.0, Scaling::Rank);
    let times = |x: f64| plain.iter().map(|d| x * d).collect::<Vec<_>>();
    assert_close(&delta(7.5, Scaling::Rank), &times(2.5), EXACT, "alpha");
    let stabilized = delta(3.0, Scaling::RankSqrt);
    assert_close(&stabilized, &times(2f64.sqrt()), EXACT, "root");
    // at α = r the change is B·A itself
    let product = tensor(&B).matmul(&tensor(&A)).unwrap();
    let one = delta(2.0, Scaling::Rank);
    assert_close(&one, &numbers(&product), EXACT, "alpha = r");
}

#[test]
fn at_rank_one_both_scalings_are_alpha() {
    for scaling in [Scaling::Rank, Scaling::RankSqrt] {
        let config = LoraConfig {
            rank: 1,
            alpha: 3.0,
            scaling,
            ..config()
        };
        assert_eq!(config.scale(), 3.0);
    }
}

#[test]
fn another_basis_between_the_factors_is_the_same_layer() {
    let layer = trained(&config(), DType::F64);
    let x = tensor(&X);
    let want = numbers(&layer.forward(&x).unwrap());
    // M and its inverse
    let (m, inverse) = (
        matrix(&[&[2.0, 1.0], &[-1.0, 3.0]]),
        matrix(&[&[3.0 / 7.0, -1.0 / 7.0], &[1.0 / 7.0, 2.0 / 7.0]]),
    );
    layer.a().set(&inverse.matmul(layer.a()).unwrap()).unwrap();
    layer.b().set(&layer.b().matmul(&m).unwrap()).unwrap();
    assert_close(&numbers(&layer.forward(&x).unwrap()), &want, EXACT, "h");
}

#[test]
fn an_embedding_is_the_linear_layer_on_one_hot_vectors() {
    let mut rows = embedding(DType::F64);
    let transposed = rows.base().embeddings().t().unwrap();
    let base = Linear::new(transposed.contiguous().unwrap(), None);
    let mut layer = LoraLinear::new(&base, &config(), &mut rng(1)).unwrap();
    layer.a().set(rows.a()).unwrap();
    layer.b().set(rows.b()).unwrap();
    let tokens = Tensor::new(&[[1u32, 4], [0, 0]], &Device::Cpu).unwrap();
    let one_hot = Tensor::eye(5, DType::F64, &Device::Cpu)
        .unwrap()
        .index_select(&tokens.flatten_all().unwrap(), 0)
        .unwrap()
        .reshape((2, 2, 5))
        .unwrap();
    let loss = |h: Tensor| (h - 0.5).unwrap().sqr().unwrap();
    let (mine, other) = (
        loss(rows.forward(&tokens).unwrap()),
        loss(layer.forward(&one_hot).unwrap()),
    );
    assert_close(&numbers(&mine), &numbers(&other), EXACT, "h");
    let (mine, other) = (mine.backward().unwrap(), other.backward().unwrap());
    for (name, row, linear) in [("A", rows.a(), layer.a()), ("B", rows.b(), layer.b())] {
        let (got, want) = (mine.get(row).unwrap(), other.get(linear).unwrap());
        assert_close(&numbers(got), &numbers(want), EXACT, name);
    }
    rows.merge().unwrap();
    layer.merge().unwrap();
    let (got, want) = (
        rows.forward(&tokens).unwrap(),
        layer.forward(&one_hot).unwrap(),
    );
    assert_close(&numbers(&got), &numbers(&want), EXACT, "merged");
    assert_eq!(rows.scale(), layer.scale());
}

#[test]
fn a_lora_layer_without_an_update_has_the_input_gradient_of_its_base() {
    let layer = start(&config(), DType::F64);
    let (x, y) = (
        Var::from_tensor(&tensor(&X)).unwrap(),
        Var::from_tensor(&tensor(&X)).unwrap(),
    );
    let loss = |h: Tensor| h.sqr().unwrap().backward().unwrap();
    let got = loss(layer.forward(&x).unwrap());
    let want = loss(base(DType::F64).forward(&y).unwrap());
    assert_close(
        &numbers(got.get(&x).unwrap()),
        &numbers(want.get(&y).unwrap()),
        EXACT,
        "dx",
    );
}

#[test]
fn a_layer_over_a_variable_follows_it_and_a_merged_one_does_not() {
    // shared, as the page says
    let weight = Var::from_tensor(&tensor(&WEIGHT)).unwrap();
    let base = Linear::new(weight.as_tensor().clone(), None);
    let mut layer = LoraLinear::new(&base, &config(), &mut rng(1)).unwrap();
    layer.merge().unwrap();
    let merged = bits(&layer.forward(&tensor(&X)).unwrap());
    weight.set(&weight.zeros_like().unwrap()).unwrap();
    assert_eq!(bits(&layer.forward(&tensor(&X)).unwrap()), merged);
    layer.unmerge();
    assert_eq!(numbers(&layer.forward(&tensor(&X)).unwrap()), [0.0; 6]);
    // a trained bias is a copy
    let bias = Var::from_tensor(&vector(&BIAS)).unwrap();
    let base = Linear::new(tensor(&WEIGHT), Some(bias.as_tensor().clone()));
    let config = LoraConfig {
        bias: LoraBias::Base,
        ..config()
    };
    let layer = LoraLinear::new(&base, &config, &mut rng(1)).unwrap();
    let copy = &layer.trainable("")[0].1;
    copy.set(&vector(&NEW_BIAS)).unwrap();
    assert_eq!(numbers(&bias), BIAS);
    assert_eq!(numbers(layer.base().bias().unwrap()), BIAS);
}

#[test]
fn a_clone_shares_what_is_trained_but_not_its_switches() {
    let mut layer = trained(&config(), DType::F64);
    let clone = layer.clone();
    layer.set_enabled(false);
    layer.merge().unwrap();
    assert!(clone.is_enabled() && !clone.is_merged());
    layer.b().set(&layer.b().zeros_like().unwrap()).unwrap();
    let y = clone.forward(&tensor(&X)).unwrap();
    assert_eq!(bits(&y), bits(&layer.base().forward(&tensor(&X)).unwrap()));
}

#[test]
fn a_table_of_one_token_and_a_layer_of_one_number_are_layers_too() {
    let config = LoraConfig {
        rank: 4, // above both sizes: allowed
        alpha: 2.0,
        ..Default::default()
    };
    let base = Linear::new(matrix(&[&[2.0]]), None);
    let layer = LoraLinear::new(&base, &config, &mut rng(1)).unwrap();
    layer
        .a()
        .set(&vector(&[1.0, 2.0, 3.0, 4.0]).unsqueeze(1).unwrap())
        .unwrap();
    layer.b().set(&matrix(&[&[1.0, -1.0, 1.0, 1.0]])).unwrap();
    let y = layer.forward(&matrix(&[&[3.0]])).unwrap();
    let want = 2.0 * 3.0 + 2.0 / 4.0 * (1.0 - 2.0 + 3.0 + 4.0) * 3.0;
    assert_close(&numbers(&y), &[want], EXACT, "h");
    let base = Embedding::new(matrix(&[&[2.0]]), 1);
    let layer = LoraEmbedding::new(&base, &config, &mut rng(1)).unwrap();
    let y = layer.forward(&Tensor::new(&[0u32], &Device::Cpu).unwrap());
    assert_eq!(numbers(&y.unwrap()), [2.0]);
}
