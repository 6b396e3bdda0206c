//! What AdaLoRA, DoRA, (IA)³ and VeRA promise alike.

use crate::common::adapted::{Adapted, starts, starts_over, trained_layers};
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, numbers};
use candle_align::training::grad_coverage;
use candle_core::{DType, Tensor};
use candle_nn::{Linear, Module};

/// What a computation in this type may differ by from itself in another order, for outputs about 4;
/// for a half type, what rounding a merged weight costs an output of four products.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 4.0 * EXACT,
        DType::F32 => 1e-5,
        DType::F16 => 32.0 / 2048.0,
        _ => 32.0 / 256.0,
    }
}

/// Inputs in every type that the layer takes, with one, two and three axes.
fn inputs(stored: DType) -> Vec<Tensor> {
    let mut inputs = Vec::new();
    for shape in [&[4][..], &[3, 4], &[2, 3, 4]] {
        let x = irregular(shape);
        let wide = match stored {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        inputs.push(x.to_dtype(wide).unwrap());
        if wide != stored {
            inputs.push(x.to_dtype(stored).unwrap());
        }
    }
    inputs
}

fn outputs(layer: &dyn Adapted, stored: DType) -> Vec<Vec<u64>> {
    let inputs = inputs(stored);
    inputs
        .iter()
        .map(|x| bits(&layer.forward(x).unwrap()))
        .collect()
}

fn base_outputs(layer: &dyn Adapted, stored: DType) -> Vec<Vec<u64>> {
    let inputs = inputs(stored);
    inputs
        .iter()
        .map(|x| bits(&layer.base().forward(x).unwrap()))
        .collect()
}

#[test]
fn at_its_start_the_layer_is_the_base_to_the_bit() {
    for dtype in TYPES {
        for (name, layer) in starts(dtype) {
            let (got, want) = (outputs(&*layer, dtype), base_outputs(&*layer, dtype));
            assert_eq!(got, want, "{name} {dtype:?}");
        }
    }
}

#[test]
fn at_its_start_the_input_has_the_gradient_of_the_base() {
    for (name, layer) in starts(DType::F64) {
        let (x, y) = (var(&tensor(&X)), var(&tensor(&X)));
        let grads = |h: Tensor| h.sqr().unwrap().backward().unwrap();
        let got = grads(layer.forward(&x).unwrap());
        let want = grads(layer.base().forward(&y).unwrap());
        let (got, want) = (got.get(&x).unwrap(), want.get(&y).unwrap());
        assert_close(&numbers(got), &numbers(want), EXACT, name);
    }
}

#[test]
fn merged_is_unmerged() {
    for dtype in TYPES {
        for (name, mut layer) in trained_layers(dtype) {
            let alone = layer.merged_linear().unwrap();
            assert!(!layer.is_merged() && !alone.weight().track_op());
            assert_eq!(alone.weight().dtype(), dtype);
            assert_eq!(alone.bias().is_some(), layer.base().bias().is_some());
            for x in inputs(dtype) {
                let beside = layer.forward(&x).unwrap();
                layer.merge().unwrap();
                assert!(layer.is_merged());
                let merged = layer.forward(&x).unwrap();
                layer.unmerge();
                assert_eq!(beside.dims(), merged.dims());
                assert_eq!((beside.dtype(), merged.dtype()), (x.dtype(), x.dtype()));
                let what = format!("{name} {dtype:?}");
                assert_close(&numbers(&merged), &numbers(&beside), rounding(dtype), &what);
                if dtype == DType::F64 && x.rank() > 1 {
                    let alone = alone.forward(&x).unwrap();
                    assert_close(&numbers(&alone), &numbers(&merged), EXACT, &what);
                }
            }
        }
    }
}

#[test]
fn unmerging_restores_every_bit_and_merging_twice_is_merging_once() {
    for dtype in TYPES {
        for (name, mut layer) in trained_layers(dtype) {
            let weight = bits(layer.base().weight());
            let beside = outputs(&*layer, dtype);
            layer.unmerge(); // nothing to do
            for _ in 0..2 {
                layer.merge().unwrap();
                let once = outputs(&*layer, dtype);
                assert_ne!(once, base_outputs(&*layer, dtype), "{name}");
                layer.merge().unwrap();
                assert_eq!(outputs(&*layer, dtype), once, "{name}");
                layer.unmerge();
                assert!(!layer.is_merged());
                assert_eq!(bits(layer.base().weight()), weight, "{name}");
                assert_eq!(outputs(&*layer, dtype), beside, "{name}");
            }
            assert_eq!(weight, bits(base(dtype).weight()));
        }
    }
}

#[test]
fn a_merged_layer_stands_still_until_it_is_merged_again() {
    for (name, mut layer) in trained_layers(DType::F64) {
        layer.merge().unwrap();
        let once = outputs(&*layer, DType::F64);
        for (_, var) in layer.trainable("") {
            var.set(&(var.as_tensor() * 1.5).unwrap()).unwrap();
        }
        assert_eq!(outputs(&*layer, DType::F64), once, "{name}");
        layer.merge().unwrap();
        assert_ne!(outputs(&*layer, DType::F64), once, "{name}");
    }
}

#[test]
fn a_disabled_layer_is_the_base_to_the_bit_merged_or_not() {
    for dtype in TYPES {
        for (name, mut layer) in trained_layers(dtype) {
            let on = outputs(&*layer, dtype);
            for merged in [false, true] {
                if merged {
                    layer.merge().unwrap();
                }
                layer.set_enabled(false);
                assert!(!layer.is_enabled());
                assert_eq!(
                    outputs(&*layer, dtype),
                    base_outputs(&*layer, dtype),
                    "{name}"
                );
                assert_ne!(outputs(&*layer, dtype), on, "{name}");
                layer.set_enabled(true);
            }
            layer.unmerge();
            assert_eq!(outputs(&*layer, dtype), on, "{name}");
        }
    }
}

#[test]
fn training_does_not_move_the_disabled_layer() {
    for (name, mut layer) in starts(DType::F64) {
        let before = outputs(&*layer, DType::F64);
        for _ in 0..5 {
            let y = layer.forward(&tensor(&X)).unwrap();
            let grads = (y - 1.0).unwrap().sqr().unwrap().backward().unwrap();
            for (_, var) in layer.trainable("") {
                let step = (grads.get(&var).unwrap() * 0.01).unwrap();
                var.set(&(var.as_tensor() - step).unwrap()).unwrap();
            }
        }
        assert_ne!(outputs(&*layer, DType::F64), before, "{name}");
        layer.set_enabled(false);
        assert_eq!(outputs(&*layer, DType::F64), before, "{name}");
    }
}

#[test]
fn a_merge_that_is_not_finite_changes_nothing() {
    for bad in [f64::NAN, f64::INFINITY] {
        for (name, mut layer) in trained_layers(DType::F32) {
            layer.merge().unwrap();
            let merged = outputs(&*layer, DType::F32);
            let (_, last) = layer.trainable("").pop().unwrap();
            let poison = (last.ones_like().unwrap() * bad).unwrap();
            last.set(&poison).unwrap();
            assert!(
                layer.merge().is_err() && layer.merged_linear().is_err(),
                "{name}"
            );
            assert!(layer.is_merged());
            assert_eq!(outputs(&*layer, DType::F32), merged, "{name}");
        }
    }
    // a finite change that leaves the range of the stored type
    for (name, mut layer) in trained_layers(DType::F16) {
        for (_, var) in layer.trainable("") {
            var.set(&(var.as_tensor() * 1e6).unwrap()).unwrap();
        }
        assert!(layer.merge().is_err() && !layer.is_merged(), "{name}");
    }
}

#[test]
fn a_clone_shares_what_is_trained_but_not_its_switches() {
    for (name, mut layer) in trained_layers(DType::F64) {
        let clone = layer.another();
        let before = outputs(&*clone, DType::F64);
        layer.set_enabled(false);
        layer.merge().unwrap();
        assert!(clone.is_enabled() && !clone.is_merged(), "{name}");
        assert_eq!(outputs(&*clone, DType::F64), before, "{name}");
        for (_, var) in layer.trainable("") {
            var.set(&(var.as_tensor() * 1.5).unwrap()).unwrap();
        }
        assert_ne!(outputs(&*clone, DType::F64), before, "{name}");
    }
}

#[test]
fn all_that_is_trained_gets_a_gradient_and_nothing_else() {
    // even where the base was made of variables
    let (weight, bias) = (var(&irregular(&[40, 30])), var(&irregular(&[40])));
    let base = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    for (name, layer) in starts_over(&base) {
        let vars = layer.trainable("m");
        for (_, var) in &vars {
            let some = irregular(var.dims());
            var.set(&some).unwrap();
        }
        let x = var(&irregular(&[2, 30]));
        for y in [
            layer.forward(&x),
            Ok(layer.forward_train(&x, &mut rng(1)).unwrap()),
        ] {
            let grads = y.unwrap().sqr().unwrap().backward().unwrap();
            assert!(
                grads.get(&weight).is_none() && grads.get(&bias).is_none(),
                "{name}"
            );
            let coverage = grad_coverage(&vars, &grads).unwrap();
            assert!(coverage.is_complete(), "{name}: {coverage}");
            // the largest trained matrix, or two rows of outputs: not the 40 · 30 of a weight
            for id in grads.get_ids() {
                let size = grads.get_id(*id).unwrap().elem_count();
                assert!(size <= 2 * 40, "{name}: a gradient of {size} numbers");
            }
        }
    }
}

#[test]
fn so_many_numbers_are_trained_under_their_peft_names() {
    let (inputs, outputs, r) = (11, 7, 2);
    let base = Linear::new(irregular(&[outputs, inputs]), Some(irregular(&[outputs])));
    let want: [(&[&str], usize); 5] = [
        (
            &["m.q.lora_A", "m.q.lora_B", "m.q.lora_E"],
            r * (inputs + outputs + 1),
        ),
        (
            &[
                "m.q.lora_A.weight",
                "m.q.lora_B.weight",
                "m.q.lora_magnitude_vector",
            ],
            r * (inputs + outputs) + outputs,
        ),
        (&["m.q.ia3_l"], outputs),
        (&["m.q.ia3_l"], inputs),
        (&["m.q.vera_lambda_b", "m.q.vera_lambda_d"], outputs + r),
    ];
    for ((name, layer), (names, count)) in starts_over(&base).into_iter().zip(want) {
        let vars = layer.trainable("m.q");
        let found: Vec<_> = vars.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, names, "{name}");
        let trained: usize = vars.iter().map(|(_, v)| v.elem_count()).sum();
        assert_eq!(trained, count, "{name}");
        assert_eq!(layer.trainable("")[0].0, names[0][4..], "{name}");
    }
}

#[test]
fn the_types_follow_the_base() {
    for (stored, trained_in) in [
        (DType::F64, DType::F64),
        (DType::F32, DType::F32),
        (DType::BF16, DType::F32),
        (DType::F16, DType::F32),
    ] {
        for (name, layer) in trained_layers(stored) {
            for (part, var) in layer.trainable("") {
                assert_eq!(var.dtype(), trained_in, "{name} {part} over {stored:?}");
            }
            for x in inputs(stored) {
                assert_eq!(layer.forward(&x).unwrap().dtype(), x.dtype(), "{name}");
                let y = layer.forward_train(&x, &mut rng(1)).unwrap();
                assert_eq!(bits(&y), bits(&layer.forward(&x).unwrap()), "{name}");
            }
        }
    }
    // a half layer's sum is made in f32 and rounded once
    for (name, layer) in trained_layers(DType::BF16) {
        let x = tensor(&X).to_dtype(DType::BF16).unwrap();
        let wide = layer.forward(&x.to_dtype(DType::F32).unwrap()).unwrap();
        let narrow = layer.forward(&x).unwrap();
        assert_eq!(
            bits(&narrow),
            bits(&wide.to_dtype(DType::BF16).unwrap()),
            "{name}"
        );
    }
}

#[test]
fn an_empty_batch_is_an_empty_output() {
    for (name, layer) in trained_layers(DType::F64) {
        let none = Tensor::zeros((2, 0, 4), DType::F64, &candle_core::Device::Cpu).unwrap();
        let none = var(&none);
        let y = layer.forward(&none).unwrap();
        assert_eq!(y.dims(), [2, 0, 3], "{name}");
    }
}
