use crate::common::lora::{
    A, B, BIAS, BIASES, NEW_BIAS, S, TYPES, X, base, bits, config, irregular, rng, tensor, var,
};
use crate::common::quantized::{SCALES, over_dequantized, single, trained};
use crate::common::{EXACT, GRADIENT, STEP, assert_close, numbers, vector};
use candle_align::parameter_efficient::{
    Adapter, BlockScale, LinearAdapter, LoraBias, LoraConfig, LoraInit, LoraLinear, NF4, Nf4Linear,
    QloraLinear, Scaling,
};
use candle_core::{DType, Tensor, Var};
use candle_nn::{Linear, Module};

/// What four bits make of the weight, by hand: its largest magnitude is 2.
fn four_bits() -> [[f64; 4]; 3] {
    // shares 0.25, −0.5, 0.125, 1 / −0.375, 0.15, 0.55, −0.1 / 0.45, 0.2, −0.65, 0.3
    let indices = [[10, 2, 9, 15], [3, 9, 13, 6], [12, 9, 1, 11]];
    indices.map(|row| row.map(|i: usize| single(f64::from(NF4[i]) * 2.0)))
}

#[test]
fn the_output_is_the_quantized_base_plus_the_scaled_product() {
    for bias in BIASES {
        let config = LoraConfig { bias, ..config() };
        let layer = trained(&config, DType::F64, BlockScale::Single);
        let y = layer.forward(&tensor(&X)).unwrap();
        let dot = |row: &[f64], x: &[f64]| -> f64 { row.iter().zip(x).map(|(w, x)| w * x).sum() };
        let want: Vec<f64> = X
            .iter()
            .flat_map(|x| {
                let ax: Vec<f64> = A.iter().map(|row| dot(row, x)).collect();
                (0..3).map(move |o| {
                    let added = match bias {
                        LoraBias::Frozen => BIAS[o],
                        LoraBias::Base => NEW_BIAS[o],
                        LoraBias::Update => BIAS[o] + S * NEW_BIAS[o],
                    };
                    dot(&four_bits()[o], x) + added + S * dot(&B[o], &ax)
                })
            })
            .collect();
        assert_close(&numbers(&y), &want, EXACT, "h");
    }
}

#[test]
fn gradients_are_central_differences() {
    for bias in BIASES {
        for scale in SCALES {
            let config = LoraConfig { bias, ..config() };
            let layer = trained(&config, DType::F64, scale);
            let x = var(&irregular(&[2, 3, 4]));
            let loss = || {
                let y = layer.forward(&x).unwrap();
                let weights = irregular(y.dims());
                (y.sqr().unwrap() * weights).unwrap().sum_all().unwrap()
            };
            let mut vars = layer.trainable("");
            vars.push(("x".to_string(), x.clone()));
            let grads = loss().backward().unwrap();
            for (name, var) in &vars {
                let got = numbers(grads.get(var).unwrap());
                let start = numbers(var);
                let at = |i: usize, step: f64| {
                    let mut moved = start.clone();
                    moved[i] += step;
                    let moved = vector(&moved).reshape(var.shape()).unwrap();
                    var.set(&moved).unwrap();
                    numbers(&loss())[0]
                };
                for (i, got) in got.iter().enumerate() {
                    let want = (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP);
                    let error = (got - want).abs() / want.abs().max(1.0);
                    assert!(error < GRADIENT, "{name}[{i}]: {got} {want}");
                    at(i, 0.0);
                }
            }
        }
    }
}

#[test]
fn nothing_frozen_gets_a_gradient_or_takes_its_room() {
    let (weight, bias) = (var(&irregular(&[40, 30])), var(&irregular(&[40])));
    let base = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    for kind in BIASES {
        let config = LoraConfig {
            bias: kind,
            dropout: 0.25,
            ..config()
        };
        let layer = QloraLinear::new(&base, BlockScale::Double, &config, &mut rng(5)).unwrap();
        layer.b().set(&layer.b().ones_like().unwrap()).unwrap();
        let x = var(&irregular(&[2, 30]));
        let y = layer.forward_train(&x, &mut rng(1)).unwrap();
        let grads = y.sqr().unwrap().backward().unwrap();
        assert!(grads.get(&weight).is_none() && grads.get(&bias).is_none());
        for id in grads.get_ids() {
            let size = grads.get_id(*id).unwrap().elem_count();
            assert!(size <= 2 * 40, "a gradient of {size} numbers");
        }
        let vars = layer.trainable("q");
        let coverage = candle_align::training::grad_coverage(&vars, &grads).unwrap();
        assert_eq!(coverage.learning.len(), vars.len());
    }
}

#[test]
fn r_times_in_plus_out_numbers_are_trained_under_their_peft_names() {
    let base = Linear::new(irregular(&[7, 11]), Some(irregular(&[7])));
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
        let config = LoraConfig {
            rank: 3,
            bias,
            ..config()
        };
        let layer = QloraLinear::new(&base, BlockScale::Double, &config, &mut rng(1)).unwrap();
        let vars = layer.trainable("m.q");
        let found: Vec<_> = vars.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, names);
        let count: usize = vars.iter().map(|(_, v)| v.elem_count()).sum();
        assert_eq!(count, 3 * (7 + 11) + more);
    }
}

#[test]
fn the_start_is_that_of_lora() {
    for init in [LoraInit::KaimingUniform, LoraInit::Gaussian] {
        let config = LoraConfig { init, ..config() };
        for dtype in TYPES {
            let lora = LoraLinear::new(&base(dtype), &config, &mut rng(3)).unwrap();
            let base = base(dtype);
            let new = QloraLinear::new(&base, BlockScale::Double, &config, &mut rng(3)).unwrap();
            let quantized = Nf4Linear::quantize(&base, BlockScale::Double).unwrap();
            let over = QloraLinear::over(quantized, &config, &mut rng(3)).unwrap();
            for layer in [new, over] {
                assert_eq!(layer.a().dtype(), lora.a().dtype());
                assert_eq!(bits(layer.a()), bits(lora.a()));
                assert_eq!(bits(layer.b()), bits(lora.b()));
                assert_eq!(layer.scale(), 1.5);
            }
        }
    }
}

#[test]
fn at_its_start_the_layer_is_its_quantized_base_and_only_b_moves() {
    for dtype in TYPES {
        for bias in BIASES {
            let config = LoraConfig { bias, ..config() };
            let layer = QloraLinear::new(&base(dtype), BlockScale::Double, &config, &mut rng(7));
            let layer = layer.unwrap();
            let x = var(&irregular(&[3, 4]).to_dtype(layer.a().dtype()).unwrap());
            let y = layer.forward(&x).unwrap();
            assert_eq!(bits(&y), bits(&layer.base().forward(&x).unwrap()));
            // and that is not the layer it was made from
            let original = base(dtype).weight().to_dtype(layer.a().dtype()).unwrap();
            let original = x.matmul(&original.t().unwrap()).unwrap();
            let bias = vector(&BIAS).to_dtype(layer.a().dtype()).unwrap();
            assert_ne!(bits(&y), bits(&original.broadcast_add(&bias).unwrap()));
            let grads = y.sqr().unwrap().backward().unwrap();
            assert_eq!(numbers(grads.get(layer.a()).unwrap()), [0.0; 8]);
            let b = numbers(grads.get(layer.b()).unwrap());
            assert!(b.iter().all(|g| *g != 0.0), "{b:?}");
        }
    }
}

#[test]
fn dropout_is_that_of_lora() {
    let config = LoraConfig {
        dropout: 0.4,
        ..config()
    };
    let layer = trained(&config, DType::F64, BlockScale::Double);
    let lora = over_dequantized(&layer, &config);
    let x = irregular(&[3, 5, 4]);
    let y = layer.forward_train(&x, &mut rng(8)).unwrap();
    let want = lora.forward_train(&x, &mut rng(8)).unwrap();
    assert_close(&numbers(&y), &numbers(&want), EXACT, "h");
    assert_ne!(
        bits(&y),
        bits(&layer.forward_train(&x, &mut rng(9)).unwrap())
    );
    assert_ne!(bits(&y), bits(&layer.forward(&x).unwrap()));

    // without a rate, or disabled, nothing is drawn
    let mut used = rng(1);
    let plain = trained(
        &crate::common::lora::config(),
        DType::F64,
        BlockScale::Double,
    );
    let y = plain.forward_train(&x, &mut used).unwrap();
    assert_eq!(bits(&y), bits(&plain.forward(&x).unwrap()));
    let mut disabled = layer.clone();
    disabled.set_enabled(false);
    let y = disabled.forward_train(&x, &mut used).unwrap();
    assert_eq!(bits(&y), bits(&layer.base().forward(&x).unwrap()));
    assert_eq!(used, rng(1));
}

#[test]
fn the_change_of_the_weight_is_s_b_a() {
    for (scaling, s) in [(Scaling::Rank, 1.5), (Scaling::RankSqrt, 3.0 / 2f64.sqrt())] {
        let config = LoraConfig {
            scaling,
            ..config()
        };
        let layer = trained(&config, DType::F64, BlockScale::Single);
        let product: Tensor = tensor(&B).matmul(&tensor(&A)).unwrap();
        let want = numbers(&(product * s).unwrap());
        assert_close(&numbers(&layer.delta().unwrap()), &want, EXACT, "delta");
        assert!((layer.scale() - s).abs() < EXACT);
    }
}

#[test]
fn half_inputs_are_widened_and_the_sum_is_rounded_once() {
    for stored in [DType::F32, DType::BF16, DType::F16] {
        let layer = trained(&config(), stored, BlockScale::Double);
        assert_eq!(layer.a().dtype(), DType::F32);
        for dtype in [DType::BF16, DType::F16] {
            let x = irregular(&[2, 3, 4]).to_dtype(dtype).unwrap();
            let y = layer.forward(&x).unwrap();
            assert_eq!((y.dtype(), y.dims()), (dtype, &[2, 3, 3][..]));
            let wide = layer.forward(&x.to_dtype(DType::F32).unwrap()).unwrap();
            assert_eq!(bits(&y), bits(&wide.to_dtype(dtype).unwrap()));
        }
    }
}

#[test]
fn the_merged_weight_is_the_sum_in_the_type_it_was_quantized_from() {
    let layer = trained(&config(), DType::F64, BlockScale::Single);
    let merged = layer.merged_linear().unwrap();
    let delta = numbers(&layer.delta().unwrap());
    let base = four_bits().concat();
    let want: Vec<f64> = base.iter().zip(delta).map(|(w, d)| w + d).collect();
    assert_close(&numbers(merged.weight()), &want, EXACT, "W");
    assert_eq!(numbers(merged.bias().unwrap()), BIAS);
    for dtype in TYPES {
        let merged = trained(&config(), dtype, BlockScale::Double)
            .merged_linear()
            .unwrap();
        assert_eq!(merged.weight().dtype(), dtype);
        assert_eq!(merged.bias().unwrap().dtype(), dtype);
        assert!(!merged.weight().track_op());
    }
    // a bias of another type takes the weight's
    let bias = Var::from_tensor(&vector(&BIAS).to_dtype(DType::F32).unwrap()).unwrap();
    let half = trained(&config(), DType::BF16, BlockScale::Double)
        .base()
        .weight()
        .clone();
    let base = Nf4Linear::new(half, Some(bias.as_tensor().clone())).unwrap();
    let layer = QloraLinear::over(base, &config(), &mut rng(1)).unwrap();
    let merged = layer.merged_linear().unwrap();
    let want = bias.to_dtype(DType::BF16).unwrap();
    assert_eq!(bits(merged.bias().unwrap()), bits(&want));
}
