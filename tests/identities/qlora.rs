use crate::common::lora::{BIASES, TYPES, base, bits, config, irregular, rng, var};
use crate::common::quantized::{SCALES, normal, over_dequantized, quantized, trained};
use crate::common::{EXACT, assert_close, numbers};
use candle_align::parameter_efficient::{
    Adapter, BlockScale, LinearAdapter, LoraConfig, QloraLinear, Scaling,
};
use candle_core::{DType, Tensor};
use candle_nn::{Linear, Module};

/// Inputs in every type that the layer takes, with two and with three axes.
fn inputs(stored: DType) -> Vec<Tensor> {
    let types: &[DType] = match stored {
        DType::F64 => &[DType::F64],
        _ => &[DType::F32, DType::BF16, DType::F16],
    };
    [&[3, 4][..], &[2, 3, 4]]
        .into_iter()
        .flat_map(|shape| {
            types
                .iter()
                .map(|dtype| irregular(shape).to_dtype(*dtype).unwrap())
        })
        .collect()
}

/// What rounding a merged weight, or a result, costs an output of four products about 1.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => EXACT,
        DType::F32 => 1e-5,
        DType::F16 => 16.0 / 2048.0,
        _ => 16.0 / 256.0,
    }
}

#[test]
fn merged_is_unmerged() {
    for dtype in TYPES {
        for bias in BIASES {
            for scaling in [Scaling::Rank, Scaling::RankSqrt] {
                for scale in SCALES {
                    let config = LoraConfig {
                        bias,
                        scaling,
                        dropout: 0.5, // no part of a merged layer
                        ..config()
                    };
                    let layer = trained(&config, dtype, scale);
                    let merged = layer.merged_linear().unwrap();
                    let wide = layer.a().dtype();
                    let x = irregular(&[2, 3, 4]).to_dtype(dtype).unwrap();
                    let y = layer.forward(&x).unwrap().to_dtype(wide).unwrap();
                    let cast = |t: &Tensor| t.to_dtype(wide).unwrap();
                    let merged = Linear::new(cast(merged.weight()), merged.bias().map(cast));
                    let want = merged.forward(&cast(&x)).unwrap();
                    assert_close(&numbers(&y), &numbers(&want), rounding(dtype), "h");
                }
            }
        }
    }
}

#[test]
fn it_is_lora_over_the_dequantized_weight() {
    for dtype in TYPES {
        for bias in BIASES {
            for scale in SCALES {
                let config = LoraConfig { bias, ..config() };
                let layer = trained(&config, dtype, scale);
                let lora = over_dequantized(&layer, &config);
                let x = irregular(&[5, 4]).to_dtype(layer.a().dtype()).unwrap();
                let (x, z) = (var(&x), var(&x));
                let (y, want) = (layer.forward(&x).unwrap(), lora.forward(&z).unwrap());
                let close = if dtype == DType::F64 { EXACT } else { 2e-5 };
                assert_close(&numbers(&y), &numbers(&want), close, "h");
                let (got, want) = (
                    y.sqr().unwrap().backward().unwrap(),
                    want.sqr().unwrap().backward().unwrap(),
                );
                let close = if dtype == DType::F64 { 1e-11 } else { 1e-3 };
                for ((name, var), (_, same)) in layer.trainable("").iter().zip(lora.trainable("")) {
                    let (got, want) = (got.get(var).unwrap(), want.get(&same).unwrap());
                    assert_close(&numbers(got), &numbers(want), close, name);
                }
                let (got, want) = (got.get(&x).unwrap(), want.get(&z).unwrap());
                assert_close(&numbers(got), &numbers(want), close, "x");
            }
        }
    }
}

#[test]
fn disabled_it_is_its_base_to_the_bit() {
    for dtype in TYPES {
        for bias in BIASES {
            for scale in SCALES {
                let config = LoraConfig { bias, ..config() };
                let mut layer = trained(&config, dtype, scale);
                assert!(layer.is_enabled());
                for x in inputs(dtype) {
                    let on = layer.forward(&x).unwrap();
                    layer.set_enabled(false);
                    assert!(!layer.is_enabled());
                    let off = layer.forward(&x).unwrap();
                    let base =
                        candle_align::parameter_efficient::Nf4Linear::quantize(&base(dtype), scale)
                            .unwrap();
                    assert_eq!(bits(&off), bits(&base.forward(&x).unwrap()));
                    assert_ne!(bits(&off), bits(&on));
                    layer.set_enabled(true);
                    assert_eq!(bits(&layer.forward(&x).unwrap()), bits(&on));
                }
            }
        }
    }
}

#[test]
fn a_clone_shares_what_is_trained_but_not_its_switch() {
    let mut layer = trained(&config(), DType::F64, BlockScale::Double);
    let clone = layer.clone();
    layer.set_enabled(false);
    assert!(clone.is_enabled());
    layer.b().set(&layer.b().zeros_like().unwrap()).unwrap();
    let x = irregular(&[2, 4]);
    let (y, want) = (clone.forward(&x).unwrap(), layer.forward(&x).unwrap());
    assert_eq!(bits(&y), bits(&want));
}

#[test]
fn a_layer_of_one_number_and_a_rank_above_its_sizes_is_a_layer_too() {
    let config = LoraConfig {
        rank: 4,
        ..config()
    };
    let base = Linear::new(
        Tensor::new(&[[-2.0f64]], &candle_core::Device::Cpu).unwrap(),
        None,
    );
    let layer = QloraLinear::new(&base, BlockScale::Double, &config, &mut rng(1)).unwrap();
    layer.b().set(&layer.b().ones_like().unwrap()).unwrap();
    let sum: f64 = numbers(layer.a()).iter().sum();
    let x = Tensor::new(&[3.0f64], &candle_core::Device::Cpu).unwrap();
    let want = (-2.0 + 3.0 / 4.0 * sum) * 3.0;
    assert_close(&numbers(&layer.forward(&x).unwrap()), &[want], 1e-6, "h");
}

/// ‖x‖.
fn length(x: &Tensor) -> f64 {
    numbers(x).iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn quantizing_the_merged_weight_again_loses_the_adapter() {
    let (n, rank) = (128, 4);
    let base = Linear::new(normal(&[n, n], 1), None);
    let config = LoraConfig {
        rank,
        alpha: rank as f64,
        ..Default::default()
    };
    let layer = QloraLinear::new(&base, BlockScale::Single, &config, &mut rng(1)).unwrap();
    let before = layer.base().weight().clone();
    let weight = before.dequantize().unwrap();
    for share in [0.008, 0.04] {
        layer.b().set(&normal(&[n, rank], 2)).unwrap();
        let now = length(&layer.delta().unwrap()) / length(&weight);
        let b = (layer.b().as_tensor() * (share / now)).unwrap();
        layer.b().set(&b).unwrap();
        let delta = layer.delta().unwrap();
        let merged = layer.merged_linear().unwrap();
        let kept = ((merged.weight() - &weight).unwrap() - &delta).unwrap();
        assert!(length(&kept) < 1e-3 * length(&delta), "merging keeps it");
        // what is wrong after four bits again, against what the adapter was
        let again = quantized(merged.weight(), BlockScale::Single);
        let error = (again.dequantize().unwrap() - merged.weight()).unwrap();
        let loss = length(&error) / length(&delta);
        assert!((0.9..1.2).contains(&loss), "{share}: {loss}");
    }
}
