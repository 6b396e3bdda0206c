use crate::common::lora::{TYPES, bits, irregular};
use crate::common::quantized::*;
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{BlockScale, NF4, Nf4Linear, Nf4Tensor};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};
use std::collections::HashMap;

#[test]
fn quantizing_again_changes_no_index() {
    for scale in SCALES {
        for dtype in TYPES {
            let once = quantized(&uneven(&[37, 45], dtype), scale);
            let again = quantized(&once.dequantize().unwrap(), scale);
            assert_eq!(again.packed(), once.packed(), "{scale:?} {dtype:?}");
            if scale == BlockScale::Single {
                let (once, again) = (once.dequantize().unwrap(), again.dequantize().unwrap());
                assert_eq!(
                    bits(&once),
                    bits(&again),
                    "nor with single scales any number"
                );
            }
        }
    }
}

#[test]
fn a_power_of_two_multiplies_the_scales_alone() {
    let x = uneven(&[29, 31], DType::F32);
    for scale in SCALES {
        let plain = quantized(&x, scale);
        for factor in [0.125, 16.0] {
            let more = quantized(&(&x * factor).unwrap(), scale);
            assert_eq!(more.packed(), plain.packed());
            let want = (plain.dequantize().unwrap() * factor).unwrap();
            assert_eq!(bits(&more.dequantize().unwrap()), bits(&want));
        }
    }
}

#[test]
fn no_element_moves_by_more_than_half_the_widest_gap() {
    let gaps = NF4.windows(2).map(|pair| pair[1] - pair[0]);
    let half = f64::from(gaps.fold(0f32, f32::max)) / 2.0;
    assert!((half - 0.152).abs() < 1e-3);
    // numbers all over a block's range
    let x: Vec<f64> = (0..BLOCK * 40)
        .map(|i| (0.37 * i as f64).sin() * 3.0)
        .collect();
    let y = numbers(&through(&vector32(&x), BlockScale::Single));
    let mut worst = 0f64;
    for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
        let x: Vec<f64> = x.iter().map(|x| single(*x)).collect();
        let largest = x.iter().fold(0f64, |m, x| m.max(x.abs()));
        for (x, y) in x.iter().zip(y) {
            worst = worst.max((x - y).abs() / largest);
            // the largest stays, sign and all
            assert!(x.abs() < largest || x == y, "{x} {y}");
        }
    }
    assert!(worst < half + 1e-6 && worst > 0.95 * half, "{worst}");
}

#[test]
fn zeros_stay_zero() {
    for scale in SCALES {
        let mut x = numbers(&uneven(&[5 * BLOCK + 9], DType::F32));
        x[BLOCK..2 * BLOCK].fill(0.0);
        x[5 * BLOCK..].fill(0.0);
        let y = numbers(&through(&vector32(&x), scale));
        assert!(y[BLOCK..2 * BLOCK].iter().all(|y| *y == 0.0));
        assert!(y[5 * BLOCK..].iter().all(|y| *y == 0.0));
        for n in [1, 63, 64, 65, 200] {
            let y = numbers(&through(&vector32(&vec![0.0; n]), scale));
            assert!(y.iter().all(|y| *y == 0.0));
        }
    }
}

#[test]
fn a_double_scale_is_off_by_a_share_of_the_greatest_deviation_not_of_itself() {
    // a block a hundred times smaller than the others
    let scales = [0.01, 1.0, 1.1, 0.9, 1.3];
    let mut x = vec![0.0; scales.len() * BLOCK];
    (0..scales.len()).for_each(|block| x[block * BLOCK] = scales[block]);
    let y = numbers(&through(&vector32(&x), BlockScale::Double));
    let mean = scales.iter().sum::<f64>() / 5.0;
    let greatest = mean - 0.01;
    for (block, scale) in scales.into_iter().enumerate() {
        let error = (y[block * BLOCK] - scale).abs();
        assert!(error <= 0.9 / 128.0 * greatest + 1e-6, "{block}: {error}");
    }
    // −1 is not in the map, −0.993 is: the small one nearly doubles
    let small = mean - greatest * (0.1 + 0.9 * 63.5 / 64.0);
    assert!((y[0] - small).abs() < 1e-6 && y[0] > 1.5 * 0.01, "{}", y[0]);

    // among deviations set by a greater one it can change its sign
    let mut wrong = 0;
    for k in 0..400 {
        let scales = [0.001, 1.0, 3.0 + 0.01 * f64::from(k)];
        (0..3).for_each(|block| x[block * BLOCK] = scales[block]);
        let y = numbers(&through(&vector32(&x[..3 * BLOCK]), BlockScale::Double));
        wrong += usize::from(y[0] < 0.0);
    }
    assert!(wrong > 0);
}

#[test]
fn a_layer_survives_a_file() {
    let weight = uneven(&[9, 21], DType::BF16);
    let bias = irregular(&[9]).to_dtype(DType::F32).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for scale in SCALES {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for (module, name) in [
                ("model.layers.0.q_proj", "model.layers.0.q_proj.weight"),
                ("", "weight"),
            ] {
                let weight = quantized(&weight.to_dtype(dtype).unwrap(), scale);
                let layer = Nf4Linear::new(weight, Some(bias.clone())).unwrap();
                let mut tensors = layer.to_state_dict(module).unwrap();
                assert_eq!(
                    tensors.len(),
                    if scale == BlockScale::Double { 7 } else { 5 }
                );
                assert!(tensors.contains_key(name));
                // other modules do not disturb
                tensors.insert("model.layers.0.q_proj2.weight".into(), bias.clone());
                let path = folder.path().join("model.safetensors");
                candle_core::safetensors::save(&tensors, &path).unwrap();
                let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
                let again = Nf4Linear::from_state_dict(&tensors, module).unwrap();
                assert_eq!(again.weight().packed(), layer.weight().packed());
                assert_eq!(again.weight().block_scale(), scale);
                assert_eq!(again.bytes(), layer.bytes());
                assert_eq!(again.weight().shape(), layer.weight().shape());
                assert_eq!(again.weight().dtype(), dtype);
                let x = irregular(&[2, 21]).to_dtype(DType::F32).unwrap();
                let (y, want) = (again.forward(&x).unwrap(), layer.forward(&x).unwrap());
                assert_eq!(bits(&y), bits(&want));
            }
        }
    }
}

#[test]
fn a_weight_of_any_shape_survives_its_state_dict() {
    for shape in [&[1][..], &[65], &[3, 1], &[2, 3, 5, 7]] {
        let q = quantized(&uneven(shape, DType::F32), BlockScale::Double);
        let tensors = q.to_state_dict("w").unwrap();
        let again = Nf4Tensor::from_state_dict(&tensors, "w").unwrap();
        assert_eq!(again.shape().dims(), shape);
        assert_eq!(
            bits(&again.dequantize().unwrap()),
            bits(&q.dequantize().unwrap())
        );
    }
}

#[test]
fn another_table_of_scales_is_obeyed() {
    // some releases had −1 at the beginning of the dynamic map
    let mut x = vec![0.0; 2 * BLOCK];
    (x[0], x[BLOCK]) = (1.0, 3.0);
    let q = quantized(&vector32(&x), BlockScale::Double);
    let mut tensors: HashMap<String, Tensor> = q.to_state_dict("w").unwrap();
    let mut map = tensors["w.nested_quant_map"].to_vec1::<f32>().unwrap();
    map[0] = -1.0;
    let map = Tensor::new(map, &Device::Cpu).unwrap();
    tensors.insert("w.nested_quant_map".into(), map.clone());
    let again = Nf4Tensor::from_state_dict(&tensors, "w").unwrap();
    // μ = 2, c₁ = 1
    let y = numbers(&again.dequantize().unwrap());
    assert_close(&[y[0], y[BLOCK]], &[2.0 - 1.0, 2.0 + 1.0], 1e-6, "x");
    let written = again.to_state_dict("w").unwrap();
    assert_eq!(bits(&written["w.nested_quant_map"]), bits(&map));
}

#[test]
fn a_clone_shares_the_bytes() {
    let q = quantized(&irregular(&[9, 9]), BlockScale::Double);
    assert!(std::ptr::eq(q.packed(), q.clone().packed()));
    let text = format!("{q:?}");
    assert!(
        text.contains("[9, 9]") && text.contains("F64") && text.len() < 100,
        "{text}"
    );
    let layer = Nf4Linear::quantize(&Linear::new(irregular(&[9, 9]), None), BlockScale::Double);
    assert!(!format!("{:?}", layer.unwrap()).contains("packed"));
}
