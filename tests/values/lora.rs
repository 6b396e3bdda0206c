use crate::common::adapters::{assert_gradients, objective};
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::parameter_efficient::{
    Adapter, FrozenLinear, LinearAdapter, LoraBias, LoraConfig, LoraEmbedding, LoraForModel,
    LoraInit, LoraLinear, Scaling, Targets, lora_plus_groups,
};
use candle_core::{DType, Device, IndexOp, Tensor, Var};
use candle_nn::{Embedding, Linear, Module};

/// Values of f32 against f64, for numbers about 1.
const SINGLE: f64 = 1e-6;
/// Half a unit in the last place of bf16 (8 bits), relative.
const BF16: f64 = 1.0 / 512.0;

// ---- the frozen layer

#[test]
fn a_frozen_layer_has_the_values_and_the_input_gradient_of_a_linear_one() {
    let frozen = FrozenLinear::new(tensor(&WEIGHT), Some(vector(&BIAS))).unwrap();
    let linear = base(DType::F64);
    for shape in [&[1, 4][..], &[5, 4], &[2, 3, 4], &[2, 1, 3, 4]] {
        let (x, y) = (var(&irregular(shape)), var(&irregular(shape)));
        let got = frozen.forward(&x).unwrap();
        let want = linear.forward(&y).unwrap();
        assert_eq!(got.dims(), want.dims());
        assert_eq!(bits(&got), bits(&want), "{shape:?}");
        let got = got.sqr().unwrap().backward().unwrap();
        let want = want.sqr().unwrap().backward().unwrap();
        let (got, want) = (got.get(&x).unwrap(), want.get(&y).unwrap());
        assert_eq!(got.dims(), shape);
        assert_close(&numbers(got), &numbers(want), EXACT, "dx");
    }
}

#[test]
fn a_frozen_layer_takes_one_row_and_none() {
    let frozen = FrozenLinear::new(tensor(&WEIGHT), Some(vector(&BIAS))).unwrap();
    let x = var(&vector(&X[0]));
    let y = frozen.forward(&x).unwrap();
    assert_eq!(y.dims(), [3]);
    let want: Vec<f64> = WEIGHT
        .iter()
        .zip(BIAS)
        .map(|(w, b)| w.iter().zip(X[0]).map(|(w, x)| w * x).sum::<f64>() + b)
        .collect();
    assert_close(&numbers(&y), &want, EXACT, "y");
    let grads = y.sum_all().unwrap().backward().unwrap();
    let columns: Vec<f64> = (0..4).map(|i| WEIGHT.iter().map(|w| w[i]).sum()).collect();
    assert_close(&numbers(grads.get(&x).unwrap()), &columns, EXACT, "dx");

    let none = var(&Tensor::zeros((2, 0, 4), DType::F64, &Device::Cpu).unwrap());
    let y = frozen.forward(&none).unwrap();
    assert_eq!(y.dims(), [2, 0, 3]);
    y.sum_all().unwrap().backward().unwrap();
}

#[test]
fn a_frozen_layer_takes_inputs_in_any_memory_order() {
    let frozen = FrozenLinear::new(tensor(&WEIGHT), Some(vector(&BIAS))).unwrap();
    let stored = var(&irregular(&[4, 3, 2]));
    for (name, x) in [
        ("transposed", stored.transpose(0, 2).unwrap()),
        ("permuted", stored.permute((1, 2, 0)).unwrap()),
        (
            "narrowed",
            stored.transpose(0, 2).unwrap().narrow(1, 1, 2).unwrap(),
        ),
        (
            "broadcast",
            stored.i((.., 0, 0)).unwrap().broadcast_as((2, 4)).unwrap(),
        ),
        (
            "with an offset",
            stored.reshape((6, 4)).unwrap().narrow(0, 2, 3).unwrap(),
        ),
    ] {
        let plain = x
            .contiguous()
            .unwrap()
            .broadcast_matmul(&tensor(&WEIGHT).t().unwrap())
            .unwrap()
            .broadcast_add(&vector(&BIAS))
            .unwrap();
        let got = frozen.forward(&x).unwrap();
        assert_close(&numbers(&got), &numbers(&plain), EXACT, name);
        let got = got.sqr().unwrap().backward().unwrap();
        let want = plain.sqr().unwrap().backward().unwrap();
        assert_close(
            &numbers(got.get(&stored).unwrap()),
            &numbers(want.get(&stored).unwrap()),
            EXACT,
            name,
        );
    }
}

#[test]
fn a_weight_may_be_a_transposed_view() {
    let weight = tensor(&WEIGHT).t().unwrap().contiguous().unwrap();
    let frozen = FrozenLinear::new(weight.t().unwrap(), None).unwrap();
    let x = var(&tensor(&X));
    let y = frozen.forward(&x).unwrap();
    let want = tensor(&X).matmul(&weight).unwrap();
    assert_close(&numbers(&y), &numbers(&want), EXACT, "y");
    let grads = y.sum_all().unwrap().backward().unwrap();
    let columns: Vec<f64> = (0..4).map(|i| WEIGHT.iter().map(|w| w[i]).sum()).collect();
    assert_close(
        &numbers(grads.get(&x).unwrap()),
        &columns.repeat(2),
        EXACT,
        "dx",
    );
}

#[test]
fn nothing_of_a_frozen_weight_stays_among_the_gradients() {
    let weight = var(&irregular(&[40, 30]));
    let bias = var(&irregular(&[40]));
    let x = var(&irregular(&[2, 30]));
    let frozen =
        FrozenLinear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone())).unwrap();
    assert!(!frozen.weight().track_op() && !frozen.bias().unwrap().track_op());
    let grads = frozen
        .forward(&x)
        .unwrap()
        .sqr()
        .unwrap()
        .backward()
        .unwrap();
    assert!(grads.get(&weight).is_none());
    assert!(grads.get(&bias).is_none());
    assert!(grads.get(&x).is_some());
    // nor is there anything of its size under another name
    for id in grads.get_ids() {
        assert!(grads.get_id(*id).unwrap().elem_count() <= 2 * 40);
    }
    // while an ordinary layer over the same constants keeps a gradient of the weight
    let linear = Linear::new(weight.as_detached_tensor(), None);
    let grads = linear
        .forward(&x)
        .unwrap()
        .sqr()
        .unwrap()
        .backward()
        .unwrap();
    assert!(
        grads
            .get_ids()
            .any(|id| grads.get_id(*id).unwrap().elem_count() == 40 * 30)
    );
}

#[test]
fn a_half_weight_is_computed_in_f32() {
    for half in [DType::BF16, DType::F16] {
        let weight = tensor(&WEIGHT).to_dtype(half).unwrap();
        let bias = vector(&BIAS).to_dtype(half).unwrap();
        let frozen = FrozenLinear::new(weight.clone(), Some(bias.clone())).unwrap();
        let wide = Linear::new(
            weight.to_dtype(DType::F32).unwrap(),
            Some(bias.to_dtype(DType::F32).unwrap()),
        );
        let x = tensor(&X).to_dtype(DType::F32).unwrap();
        let y = frozen.forward(&x).unwrap();
        assert_eq!(y.dtype(), DType::F32);
        assert_eq!(bits(&y), bits(&wide.forward(&x).unwrap()));

        // a half input: the same numbers, rounded once at the end
        let x = var(&x.to_dtype(half).unwrap());
        let y = frozen.forward(&x).unwrap();
        assert_eq!(y.dtype(), half);
        let want = wide.forward(&x.to_dtype(DType::F32).unwrap()).unwrap();
        assert_eq!(bits(&y), bits(&want.to_dtype(half).unwrap()));
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&x).unwrap().dtype(), half);
        let columns = weight.to_dtype(DType::F32).unwrap().sum(0).unwrap();
        let want = columns.to_dtype(half).unwrap();
        assert_eq!(
            bits(&grads.get(&x).unwrap().i(0).unwrap()),
            bits(&want),
            "{half:?}"
        );
    }
}

// ---- the layer

#[test]
fn the_output_is_the_base_plus_the_scaled_product() {
    for (scaling, s) in [
        (Scaling::Rank, 3.0 / 2.0),
        (Scaling::RankSqrt, 3.0 / 2f64.sqrt()),
    ] {
        let config = LoraConfig {
            scaling,
            ..config()
        };
        assert_eq!(config.scale(), s);
        let layer = trained(&config, DType::F64);
        assert_eq!(layer.scale(), s);
        let y = layer.forward(&tensor(&X)).unwrap();
        let want: Vec<f64> = X
            .iter()
            .flat_map(|x| by_hand(x, s).into_iter().zip(BIAS).map(|(h, b)| h + b))
            .collect();
        assert_close(&numbers(&y), &want, EXACT, "2-D");
        // [2, 1, 4], [4]
        let y = layer.forward(&tensor(&X).unsqueeze(1).unwrap()).unwrap();
        assert_eq!(y.dims(), [2, 1, 3]);
        assert_close(&numbers(&y), &want, EXACT, "3-D");
        let y = layer.forward(&vector(&X[1])).unwrap();
        assert_eq!(y.dims(), [3]);
        assert_close(&numbers(&y), &want[3..], EXACT, "1-D");
    }
}

#[test]
fn the_change_of_the_weight_is_s_b_a() {
    let delta = trained(&config(), DType::F64).delta().unwrap();
    let want: Vec<f64> = (0..3)
        .flat_map(|o| (0..4).map(move |i| S * (B[o][0] * A[0][i] + B[o][1] * A[1][i])))
        .collect();
    assert_eq!(delta.dims(), [3, 4]);
    assert_close(&numbers(&delta), &want, EXACT, "delta");
}

#[test]
fn a_bias_is_trained_in_the_place_that_is_named() {
    let expected = |bias: [f64; 3]| -> Vec<f64> {
        let rows = X.iter().map(|x| by_hand(x, S));
        rows.flat_map(|h| (0..3).map(move |o| h[o] + bias[o]))
            .collect()
    };
    for (bias, want) in [
        (LoraBias::Frozen, BIAS),
        (LoraBias::Base, NEW_BIAS),
        (
            LoraBias::Update,
            [0, 1, 2].map(|o| BIAS[o] + S * NEW_BIAS[o]),
        ),
    ] {
        let mut layer = trained(&LoraConfig { bias, ..config() }, DType::F64);
        let want = expected(want);
        let y = layer.forward(&tensor(&X)).unwrap();
        assert_close(&numbers(&y), &want, EXACT, "beside");
        layer.merge().unwrap();
        let y = layer.forward(&tensor(&X)).unwrap();
        assert_close(&numbers(&y), &want, EXACT, "merged");
    }
    // a bias on B needs none beneath
    let bare = Linear::new(tensor(&WEIGHT), None);
    let config = LoraConfig {
        bias: LoraBias::Update,
        ..config()
    };
    let layer = LoraLinear::new(&bare, &config, &mut rng(1)).unwrap();
    layer.trainable("")[1].1.set(&vector(&NEW_BIAS)).unwrap();
    let y = layer.forward(&tensor(&X)).unwrap();
    let merged = layer.merged_linear().unwrap();
    for o in 0..3 {
        let want: f64 = WEIGHT[o].iter().zip(X[0]).map(|(w, x)| w * x).sum();
        let want = want + S * NEW_BIAS[o];
        assert_close(&[numbers(&y)[o]], &[want], EXACT, "no base bias");
    }
    let scaled = NEW_BIAS.map(|b| S * b);
    assert_close(&numbers(merged.bias().unwrap()), &scaled, EXACT, "merged");
}

#[test]
fn the_types_follow_the_base() {
    for (stored, trained_in) in [
        (DType::F64, DType::F64),
        (DType::F32, DType::F32),
        (DType::BF16, DType::F32),
        (DType::F16, DType::F32),
    ] {
        let config = LoraConfig {
            bias: LoraBias::Base,
            ..config()
        };
        let layer = trained(&config, stored);
        for (name, var) in layer.trainable("") {
            assert_eq!(var.dtype(), trained_in, "{name} over {stored:?}");
        }
        let merged = layer.merged_linear().unwrap();
        assert_eq!(merged.weight().dtype(), stored);
        assert_eq!(merged.bias().unwrap().dtype(), stored);
        for input in [stored, trained_in] {
            let x = tensor(&X).to_dtype(input).unwrap();
            let y = layer.forward(&x).unwrap();
            assert_eq!(y.dtype(), input);
        }
        let layer = embedding(stored);
        assert_eq!(layer.a().dtype(), trained_in);
        let y = layer.forward(&Tensor::new(&[1u32], &Device::Cpu).unwrap());
        assert_eq!(y.unwrap().dtype(), stored);
    }
}

#[test]
fn a_half_layer_rounds_the_sum_once() {
    let layer = trained(&config(), DType::BF16);
    let x = tensor(&X).to_dtype(DType::BF16).unwrap();
    let narrow = layer.forward(&x).unwrap();
    let wide = layer.forward(&x.to_dtype(DType::F32).unwrap()).unwrap();
    assert_eq!(bits(&narrow), bits(&wide.to_dtype(DType::BF16).unwrap()));
    // against plain numbers: weight, bias and input carry one rounding each
    let single = trained(&config(), DType::F64).forward(&tensor(&X)).unwrap();
    assert_close(&numbers(&wide), &numbers(&single), 10.0 * BF16, "bf16");
    let f32 = trained(&config(), DType::F32);
    let y = f32.forward(&tensor(&X).to_dtype(DType::F32).unwrap());
    assert_close(
        &numbers(&y.unwrap()),
        &numbers(&single),
        8.0 * SINGLE,
        "f32",
    );
}

// ---- gradients

#[test]
fn gradients_are_central_differences() {
    for bias in [LoraBias::Frozen, LoraBias::Base, LoraBias::Update] {
        for dropout in [0.0, 0.3] {
            for shape in [&[2, 4][..], &[2, 3, 4]] {
                let config = LoraConfig {
                    bias,
                    dropout,
                    scaling: Scaling::RankSqrt,
                    ..config()
                };
                for layer in [trained(&config, DType::F64), start(&config, DType::F64)] {
                    let x = var(&irregular(shape));
                    let mut vars = layer.trainable("");
                    vars.push(("x".to_string(), x.clone()));
                    // the same seed each time: the same elements are dropped
                    assert_gradients(&format!("{config:?} {shape:?}"), &vars, || {
                        objective(&layer.forward_train(&x, &mut rng(3)).unwrap())
                    });
                    assert_gradients("without dropout", &vars, || {
                        objective(&layer.forward(&x).unwrap())
                    });
                }
            }
        }
    }
}

#[test]
fn the_input_gradient_of_merged_and_disabled_layers_is_a_central_difference() {
    let mut layer = trained(&config(), DType::F64);
    layer.merge().unwrap();
    for enabled in [true, false] {
        layer.set_enabled(enabled);
        let x = var(&irregular(&[2, 2, 4]));
        assert_gradients("x", &[("x".to_string(), x.clone())], || {
            objective(&layer.forward(&x).unwrap())
        });
    }
}

#[test]
fn the_gradients_of_the_factors_are_those_of_the_product() {
    // ∇B = s · G Aᵀ, ∇A = s · Bᵀ G with G = Σ (∂L/∂h) xᵀ; for L = Σh, ∂L/∂h = 1
    let layer = trained(&config(), DType::F64);
    let grads = layer.forward(&tensor(&X)).unwrap().backward().unwrap();
    let g: [f64; 4] = [0, 1, 2, 3].map(|i| X[0][i] + X[1][i]);
    let row = |a: &[f64; 4]| -> f64 { S * a.iter().zip(g).map(|(a, g)| a * g).sum::<f64>() };
    let want = [row(&A[0]), row(&A[1])].repeat(3);
    assert_close(&numbers(grads.get(layer.b()).unwrap()), &want, EXACT, "B");
    let want: Vec<f64> = (0..2)
        .flat_map(|r| g.map(|g| S * (B[0][r] + B[1][r] + B[2][r]) * g))
        .collect();
    assert_close(&numbers(grads.get(layer.a()).unwrap()), &want, EXACT, "A");
}

#[test]
fn the_base_gets_no_gradient_and_takes_no_room() {
    // even where it was made of variables
    let (weight, bias) = (var(&irregular(&[40, 30])), var(&irregular(&[40])));
    let base = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    for trained_bias in [LoraBias::Frozen, LoraBias::Base, LoraBias::Update] {
        let config = LoraConfig {
            bias: trained_bias,
            dropout: 0.1,
            ..config()
        };
        let layer = LoraLinear::new(&base, &config, &mut rng(5)).unwrap();
        let x = var(&irregular(&[2, 30]));
        let y = layer.forward_train(&x, &mut rng(1)).unwrap();
        let grads = y.sqr().unwrap().backward().unwrap();
        assert!(grads.get(&weight).is_none() && grads.get(&bias).is_none());
        for id in grads.get_ids() {
            let size = grads.get_id(*id).unwrap().elem_count();
            assert!(size <= 2 * 40, "a gradient of {size} numbers");
        }
    }
    let table = var(&irregular(&[50, 7]));
    let base = Embedding::new(table.as_tensor().clone(), 7);
    let layer = LoraEmbedding::new(&base, &config(), &mut rng(5)).unwrap();
    let y = layer.forward(&Tensor::new(&[3u32, 8], &Device::Cpu).unwrap());
    let grads = y.unwrap().sqr().unwrap().backward().unwrap();
    assert!(grads.get(&table).is_none());
    assert!(grads.get(layer.a()).is_some() && grads.get(layer.b()).is_some());
}

// ---- the start

/// Mean, variance, least and greatest of the numbers.
fn statistics(t: &Tensor) -> (f64, f64, f64, f64) {
    let x = numbers(t);
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let least = x.iter().fold(f64::MAX, |a, &b| a.min(b));
    let greatest = x.iter().fold(f64::MIN, |a, &b| a.max(b));
    (mean, variance, least, greatest)
}

/// How many standard errors a sample's mean and variance may be off: once in 15 000 draws of a seed.
const SIGMAS: f64 = 4.0;

#[test]
fn a_starts_as_the_law_that_is_named_and_b_at_zero() {
    let (inputs, outputs, rank) = (400, 3, 50);
    let n = (inputs * rank) as f64;
    let base = Linear::new(irregular(&[outputs, inputs]), None);
    let new = |init| {
        let config = LoraConfig {
            rank,
            init,
            ..config()
        };
        LoraLinear::new(&base, &config, &mut rng(11)).unwrap()
    };

    let layer = new(LoraInit::KaimingUniform);
    let bound = 1.0 / 400f64.sqrt();
    let (mean, variance, least, greatest) = statistics(layer.a());
    let expected = bound * bound / 3.0;
    assert!(mean.abs() < SIGMAS * (expected / n).sqrt(), "mean {mean}");
    // the variance of u² for u ~ U(−b, b) is 4b⁴/45
    let error = SIGMAS * (4.0 * bound.powi(4) / 45.0 / n).sqrt();
    assert!((variance - expected).abs() < error, "variance {variance}");
    assert!(-bound <= least && least < -0.999 * bound);
    assert!(0.999 * bound < greatest && greatest <= bound);
    assert!(numbers(layer.b()).iter().all(|&b| b == 0.0));

    let layer = new(LoraInit::Gaussian);
    let (mean, variance, _, greatest) = statistics(layer.a());
    let expected = 1.0 / (50.0 * 50.0);
    assert!(mean.abs() < SIGMAS * (expected / n).sqrt(), "mean {mean}");
    // the variance of z² for z ~ N(0, v) is 2v²
    let error = SIGMAS * (2.0 / n).sqrt() * expected;
    assert!((variance - expected).abs() < error, "variance {variance}");
    assert!(greatest > 3.0 / 50.0, "no tail");
    assert!(numbers(layer.b()).iter().all(|&b| b == 0.0));

    // an embedding, the other way round
    let base = Embedding::new(irregular(&[6, 400]), 400);
    for init in [LoraInit::KaimingUniform, LoraInit::Gaussian] {
        let config = LoraConfig {
            rank,
            init,
            ..config()
        };
        let layer = LoraEmbedding::new(&base, &config, &mut rng(12)).unwrap();
        let (mean, variance, ..) = statistics(layer.b());
        assert!(mean.abs() < SIGMAS / n.sqrt(), "mean {mean}");
        let error = SIGMAS * (2.0 / n).sqrt();
        assert!((variance - 1.0).abs() < error, "variance {variance}");
        assert!(numbers(layer.a()).iter().all(|&a| a == 0.0));
        assert_eq!(layer.a().dims(), [50, 6]);
        assert_eq!(layer.b().dims(), [400, 50]);
    }
}

#[test]
fn a_seed_gives_the_same_start_again() {
    for init in [LoraInit::KaimingUniform, LoraInit::Gaussian] {
        let config = LoraConfig { init, ..config() };
        let a = |seed| {
            let layer = LoraLinear::new(&base(DType::F32), &config, &mut rng(seed));
            numbers(layer.unwrap().a())
        };
        assert_eq!(a(1), a(1));
        assert_ne!(a(1), a(2));
    }
}

#[test]
fn r_times_in_plus_out_numbers_are_trained_under_their_peft_names() {
    let base = Linear::new(irregular(&[7, 11]), Some(irregular(&[7])));
    let config = |bias| LoraConfig {
        rank: 3,
        bias,
        ..config()
    };
    for (bias, names, more) in [
        (
            LoraBias::Frozen,
            &["m.q.lora_A.weight", "m.q.lora_B.weight"][..],
            0,
        ),
        (
            LoraBias::Base,
            &[
                "m.q.base_layer.bias",
                "m.q.lora_A.weight",
                "m.q.lora_B.weight",
            ],
            7,
        ),
        (
            LoraBias::Update,
            &["m.q.lora_A.weight", "m.q.lora_B.bias", "m.q.lora_B.weight"],
            7,
        ),
    ] {
        let layer = LoraLinear::new(&base, &config(bias), &mut rng(1)).unwrap();
        let vars = layer.trainable("m.q");
        let found: Vec<_> = vars.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, names);
        let count: usize = vars.iter().map(|(_, v)| v.elem_count()).sum();
        assert_eq!(count, 3 * (7 + 11) + more);
        // the layer's own variables, not copies
        let b = &vars.last().unwrap().1;
        b.set(&b.ones_like().unwrap()).unwrap();
        assert_eq!(numbers(layer.b())[0], 1.0);
        assert_eq!(layer.trainable("")[0].0, names[0][4..]);
    }
    let base = Embedding::new(irregular(&[11, 7]), 7);
    let config = config(LoraBias::Frozen);
    let layer = LoraEmbedding::new(&base, &config, &mut rng(1)).unwrap();
    let vars = layer.trainable("embed_tokens");
    assert_eq!(vars[0].0, "embed_tokens.lora_embedding_A");
    assert_eq!(vars[1].0, "embed_tokens.lora_embedding_B");
    let count: usize = vars.iter().map(|(_, v)| v.elem_count()).sum();
    assert_eq!(count, 3 * (7 + 11));
}

// ---- dropout

/// W₀ = 0, A = (1, 1, 1, 1), B = (1, 1)ᵀ: both outputs are s times the sum of what was kept.
fn summing(dropout: f64) -> LoraLinear {
    let config = LoraConfig {
        rank: 1,
        alpha: 3.0,
        dropout,
        ..Default::default()
    };
    let base = Linear::new(tensor(&[[0.0; 4]; 2]), None);
    let layer = LoraLinear::new(&base, &config, &mut rng(1)).unwrap();
    layer.a().set(&tensor(&[[1.0; 4]])).unwrap();
    layer.b().set(&tensor(&[[1.0], [1.0]])).unwrap();
    layer
}

#[test]
fn dropout_acts_on_the_inputs_of_a() {
    let layer = summing(0.25);
    // powers of two: a sum tells which of them were kept
    let x = matrix(&[&[1.0, 2.0, 4.0, 8.0]]).repeat((2000, 1)).unwrap();
    let y = layer.forward_train(&x, &mut rng(9)).unwrap();
    let (mut kept, mut patterns) = ([0usize; 4], [0usize; 16]);
    for row in y.to_vec2::<f64>().unwrap() {
        assert_eq!(row[0], row[1], "the outputs are not dropped");
        let sum = row[0] * 0.75 / 3.0;
        assert!((sum - sum.round()).abs() < EXACT, "{sum}");
        let pattern = sum.round() as usize;
        patterns[pattern] += 1;
        (0..4).for_each(|i| kept[i] += pattern >> i & 1);
    }
    let error = |p: f64| SIGMAS * (p * (1.0 - p) * 2000.0).sqrt();
    for kept in kept {
        assert!((kept as f64 - 0.75 * 2000.0).abs() < error(0.75), "{kept}");
    }
    // independently of each other
    for (pattern, count) in patterns.iter().enumerate() {
        let ones = pattern.count_ones() as i32;
        let p = 0.75f64.powi(ones) * 0.25f64.powi(4 - ones);
        let want = p * 2000.0;
        assert!(
            (*count as f64 - want).abs() < error(p),
            "{pattern}: {count}"
        );
    }
}

#[test]
fn the_expectation_of_dropout_is_the_output_without_it() {
    let config = LoraConfig {
        dropout: 0.4,
        ..config()
    };
    let layer = trained(&config, DType::F64);
    let n = 4000;
    let x = vector(&X[0]).unsqueeze(0).unwrap().repeat((n, 1)).unwrap();
    let y = layer.forward_train(&x, &mut rng(2)).unwrap();
    let mean = numbers(&y.mean(0).unwrap());
    let std = numbers(&y.var(0).unwrap().sqrt().unwrap());
    let want = numbers(&layer.forward(&vector(&X[0])).unwrap());
    for o in 0..3 {
        assert!(std[o] > 0.1, "nothing was dropped");
        let error = SIGMAS * std[o] / (n as f64).sqrt();
        assert!((mean[o] - want[o]).abs() < error, "{mean:?} {want:?}");
    }
}

#[test]
fn dropout_follows_its_seed_and_p_zero_is_the_plain_forward() {
    let layer = summing(0.5);
    let x = irregular(&[3, 5, 4]);
    let y = |seed| numbers(&layer.forward_train(&x, &mut rng(seed)).unwrap());
    assert_eq!(y(1), y(1));
    assert_ne!(y(1), y(2));

    let layer = trained(&config(), DType::F32);
    let x = x.to_dtype(DType::F32).unwrap();
    let mut used = rng(1);
    let y = layer.forward_train(&x, &mut used).unwrap();
    assert_eq!(bits(&y), bits(&layer.forward(&x).unwrap()));
    assert_eq!(used, rng(1), "nothing is drawn");
}

#[test]
fn what_is_dropped_does_not_reach_the_update() {
    let layer = summing(0.5);
    let x = matrix(&[&[1.0, 2.0, 4.0, 8.0]]);
    // a seed with which the first input is dropped
    let seed = (0..64)
        .find(|&seed| {
            let y = layer.forward_train(&x, &mut rng(seed)).unwrap();
            (numbers(&y)[0] as usize / 6).is_multiple_of(2)
        })
        .unwrap();
    let update = |first: f64| {
        let x = var(&matrix(&[&[first, 2.0, 4.0, 8.0]]));
        // without the base's own product, which has no dropout
        let y = layer.forward_train(&x, &mut rng(seed)).unwrap();
        let base = layer.base().forward(&x).unwrap();
        (numbers(&(y - base).unwrap())[0], first)
    };
    assert!((update(1.0).0 - update(50.0).0).abs() < EXACT);
}

#[test]
fn a_disabled_layer_draws_nothing_in_training() {
    let mut layer = summing(0.5);
    layer.set_enabled(false);
    let mut used = rng(1);
    let y = layer.forward_train(&irregular(&[2, 4]), &mut used).unwrap();
    assert_eq!(numbers(&y), [0.0; 4]);
    assert_eq!(used, rng(1));
}

// ---- embeddings

#[test]
fn an_embedding_adds_the_scaled_column_of_each_token() {
    let layer = embedding(DType::F64);
    let (a, b) = (numbers(layer.a()), numbers(layer.b()));
    let table = numbers(layer.base().embeddings());
    let row = |t: usize| -> Vec<f64> {
        (0..3)
            .map(|o| table[t * 3 + o] + S * (b[o * 2] * a[t] + b[o * 2 + 1] * a[5 + t]))
            .collect()
    };
    let want: Vec<f64> = [4, 0, 0, 2].iter().flat_map(|&t| row(t)).collect();
    let tokens = Tensor::new(&[4u32, 0, 0, 2], &Device::Cpu).unwrap();
    let y = layer.forward(&tokens).unwrap();
    assert_eq!(y.dims(), [4, 3]);
    assert_close(&numbers(&y), &want, EXACT, "1-D");
    let pairs = tokens.reshape((2, 2)).unwrap();
    for tokens in [pairs.clone(), pairs.to_dtype(DType::I64).unwrap()] {
        let y = layer.forward(&tokens).unwrap();
        assert_eq!(y.dims(), [2, 2, 3]);
        assert_close(&numbers(&y), &want, EXACT, "2-D");
    }
    let crossed = pairs.t().unwrap();
    let y = layer.forward(&crossed).unwrap().transpose(0, 1).unwrap();
    assert_close(&numbers(&y), &want, EXACT, "transposed");
    // the change of the whole table
    let all = Tensor::arange(0u32, 5, &Device::Cpu).unwrap();
    let change = (layer.forward(&all).unwrap() - layer.base().embeddings()).unwrap();
    let delta = layer.delta().unwrap();
    assert_close(&numbers(&change), &numbers(&delta), EXACT, "delta");
}

#[test]
fn gradients_of_an_embedding_are_central_differences() {
    let layer = embedding(DType::F64);
    // a repeated token, and two that do not occur
    let tokens = Tensor::new(&[[4u32, 0], [0, 2]], &Device::Cpu).unwrap();
    let loss = || objective(&layer.forward(&tokens).unwrap());
    assert_gradients("embedding", &layer.trainable(""), loss);
    let grads = loss().backward().unwrap();
    let a = grads.get(layer.a()).unwrap();
    assert_eq!(numbers(&a.i((.., 1)).unwrap()), [0.0, 0.0]);
    assert_eq!(numbers(&a.i((.., 3)).unwrap()), [0.0, 0.0]);
    assert!(numbers(&a.i((.., 0)).unwrap()).iter().all(|g| *g != 0.0));

    let fresh = LoraEmbedding::new(&table(DType::F64), &config(), &mut rng(2)).unwrap();
    let loss = || objective(&fresh.forward(&tokens).unwrap());
    assert_gradients("at its start", &fresh.trainable(""), loss);
}

// ---- settings

#[test]
fn settings_keep_their_names_in_json_and_refuse_others() {
    let config = LoraConfig {
        rank: 3,
        alpha: 5.0,
        scaling: Scaling::RankSqrt,
        dropout: 0.1,
        init: LoraInit::Gaussian,
        bias: LoraBias::Base,
    };
    let whole = LoraForModel {
        config: config.clone(),
        rank_pattern: vec![("q".to_string(), 2)],
        alpha_pattern: vec![("v".to_string(), 0.5)],
        targets: Targets {
            layers_to_transform: vec![1],
            ..Default::default()
        },
    };
    let json = serde_json::to_value(&config).unwrap();
    let want = serde_json::json!({
        "rank": 3, "alpha": 5.0, "scaling": "rank_sqrt", "dropout": 0.1,
        "init": "gaussian", "bias": "base"
    });
    assert_eq!(json, want);
    assert_eq!(serde_json::from_value::<LoraConfig>(json).unwrap(), config);
    // those of a model stand beside them
    let json = serde_json::to_value(&whole).unwrap();
    let want = serde_json::json!({
        "rank": 3, "alpha": 5.0, "scaling": "rank_sqrt", "dropout": 0.1,
        "init": "gaussian", "bias": "base", "rank_pattern": {"q": 2}, "alpha_pattern": {"v": 0.5},
        "targets": {
            "target_modules": [], "exclude_modules": [], "modules_to_save": [],
            "layers_to_transform": [1], "layers_pattern": []
        }
    });
    assert_eq!(json, want);
    assert_eq!(serde_json::from_value::<LoraForModel>(json).unwrap(), whole);
    let default = serde_json::from_str::<LoraForModel>("{}").unwrap();
    assert_eq!(default, LoraForModel::default());
    assert_eq!(default, LoraConfig::default().into());
    assert!(serde_json::from_str::<LoraForModel>(r#"{"lora_alpha": 8}"#).is_err());
    let default = serde_json::from_str::<LoraConfig>("{}").unwrap();
    assert_eq!(default, LoraConfig::default());
    assert_eq!(
        (default.rank, default.alpha, default.dropout),
        (8, 8.0, 0.0)
    );
    assert!(serde_json::from_str::<LoraConfig>(r#"{"lora_alpha": 8}"#).is_err());
}

#[test]
fn lora_plus_gives_b_and_biases_the_faster_rate() {
    let config = LoraConfig {
        bias: LoraBias::Update,
        ..config()
    };
    let mut vars = trained(&config, DType::F64).trainable("lora_Banana.q");
    vars.extend(embedding(DType::F64).trainable("e"));
    vars.push(("head.weight".to_string(), var(&irregular(&[2, 2]))));
    vars.push(("norm.weight".to_string(), var(&irregular(&[2]))));
    let groups = lora_plus_groups(vars, 16.0, 0.1).unwrap();
    let [a, b] = &groups[..] else {
        panic!("{groups:?}")
    };
    let names = |vars: &[(String, Var)]| -> Vec<String> {
        vars.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(
        names(&a.vars),
        [
            "lora_Banana.q.lora_A.weight",
            "e.lora_embedding_A",
            "e.lora_embedding_B",
            "head.weight"
        ]
    );
    assert_eq!(
        names(&b.vars),
        [
            "lora_Banana.q.lora_B.bias",
            "lora_Banana.q.lora_B.weight",
            "norm.weight"
        ]
    );
    assert_eq!((a.rate, b.rate), (1.0, 16.0));
    assert_eq!((a.weight_decay, b.weight_decay), (0.1, 0.1));
}
