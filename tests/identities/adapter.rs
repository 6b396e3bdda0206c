use crate::common::adapters::disturb;
use crate::common::lora::{BIAS, WEIGHT, bits, irregular, rng, tensor};
use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::parameter_efficient::{
    Activation, Adapter, BottleneckAdapter, BottleneckConfig, FrozenLinear, Insertion, LoraConfig,
    LoraLinear, MamConfig,
};
use candle_align::training::grad_coverage;
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};

fn config() -> BottleneckConfig {
    BottleneckConfig {
        width: 2,
        scale: 1.5,
        ..Default::default()
    }
}

fn adapter(
    inputs: usize,
    outputs: usize,
    config: &BottleneckConfig,
    dtype: DType,
) -> BottleneckAdapter {
    BottleneckAdapter::new(inputs, outputs, config, dtype, &Device::Cpu, &mut rng(8)).unwrap()
}

#[test]
fn at_its_start_an_adapter_changes_no_bit() {
    for dtype in [DType::F64, DType::F32] {
        for insertion in [Insertion::Sequential, Insertion::Parallel] {
            let config = BottleneckConfig {
                insertion,
                ..config()
            };
            let adapter = adapter(4, 4, &config, dtype);
            let types = [dtype, DType::BF16, DType::F16];
            for found in &types[..if dtype == DType::F64 { 1 } else { 3 }] {
                let x = irregular(&[2, 3, 4]).to_dtype(*found).unwrap();
                let h = x.affine(-0.7, 0.1).unwrap();
                assert_eq!(bits(&adapter.insert(&x, &h).unwrap()), bits(&h));
            }
            let x = irregular(&[5, 4]).to_dtype(dtype).unwrap();
            let y = adapter.insert(&x, &x).unwrap().sqr().unwrap();
            let grads = y.sum_all().unwrap().backward().unwrap();
            let coverage = grad_coverage(&adapter.trainable(""), &grads).unwrap();
            assert_eq!(coverage.zero, ["down_proj.bias", "down_proj.weight"]);
            assert_eq!(coverage.learning, ["up_proj.bias", "up_proj.weight"]);
        }
    }
}

#[test]
fn disabled_it_returns_h() {
    for insertion in [Insertion::Sequential, Insertion::Parallel] {
        let config = BottleneckConfig {
            insertion,
            ..config()
        };
        let mut adapter = adapter(3, 3, &config, DType::F64);
        disturb(&adapter.trainable(""));
        let (x, h) = (irregular(&[2, 3]), irregular(&[2, 3]).neg().unwrap());
        let changed = bits(&adapter.insert(&x, &h).unwrap());
        assert_ne!(changed, bits(&h));
        adapter.set_enabled(false);
        assert!(!adapter.is_enabled());
        assert_eq!(bits(&adapter.insert(&x, &h).unwrap()), bits(&h));
        adapter.set_enabled(true);
        assert!(adapter.is_enabled());
        assert_eq!(bits(&adapter.insert(&x, &h).unwrap()), changed);
    }
}

#[test]
fn linear_and_parallel_around_a_linear_layer_it_is_lora() {
    let base = Linear::new(tensor(&WEIGHT), Some(vector(&BIAS)));
    let lora_config = LoraConfig {
        rank: 2,
        alpha: 3.0,
        ..Default::default()
    };
    let lora = LoraLinear::new(&base, &lora_config, &mut rng(1)).unwrap();
    disturb(&lora.trainable(""));
    let config = BottleneckConfig {
        activation: Activation::Linear,
        insertion: Insertion::Parallel,
        bias: false,
        ..config()
    };
    assert_eq!(config.scale, lora.scale());
    let adapter = adapter(4, 3, &config, DType::F64);
    assert_eq!(adapter.parameters(), 2 * (4 + 3));
    adapter.down().set(lora.a()).unwrap();
    adapter.up().set(lora.b()).unwrap();
    let frozen = FrozenLinear::new(tensor(&WEIGHT), Some(vector(&BIAS))).unwrap();
    let layer = adapter.clone().around(frozen);
    let x = irregular(&[2, 3, 4]);
    let (got, want) = (layer.forward(&x).unwrap(), lora.forward(&x).unwrap());
    assert_close(&numbers(&got), &numbers(&want), EXACT, "y");
    let [got, want] = [got, want].map(|y| y.sqr().unwrap().sum_all().unwrap().backward().unwrap());
    for (a, b) in [(adapter.down(), lora.a()), (adapter.up(), lora.b())] {
        let (a, b) = (numbers(got.get(a).unwrap()), numbers(want.get(b).unwrap()));
        assert_close(&a, &b, 10.0 * EXACT, "gradient");
    }
}

#[test]
fn around_the_identity_sequential_is_parallel() {
    let [sequential, parallel] = [Insertion::Sequential, Insertion::Parallel].map(|insertion| {
        let config = BottleneckConfig {
            insertion,
            ..config()
        };
        let adapter = adapter(4, 4, &config, DType::F64);
        disturb(&adapter.trainable(""));
        adapter
    });
    let x = irregular(&[6, 4]);
    let same = |a: &BottleneckAdapter, h: &Tensor| bits(&a.insert(&x, h).unwrap());
    assert_eq!(same(&sequential, &x), same(&parallel, &x));
    // around anything else they differ
    let h = x.affine(2.0, 0.5).unwrap();
    assert_ne!(same(&sequential, &h), same(&parallel, &h));
}

#[test]
fn the_scale_and_the_second_map_can_be_traded() {
    let scaled = adapter(4, 4, &config(), DType::F64);
    let unscaled = BottleneckConfig {
        scale: 1.0,
        ..config()
    };
    let plain = adapter(4, 4, &unscaled, DType::F64);
    disturb(&scaled.trainable(""));
    for ((name, from), (_, to)) in scaled.trainable("").iter().zip(plain.trainable("")) {
        let by = if name.starts_with("up") { 1.5 } else { 1.0 };
        to.set(&(from.as_tensor() * by).unwrap()).unwrap();
    }
    let x = irregular(&[6, 4]);
    let (a, b) = (
        scaled.insert(&x, &x).unwrap(),
        plain.insert(&x, &x).unwrap(),
    );
    assert_close(&numbers(&a), &numbers(&b), EXACT, "traded");
    // not the same training: the gradients differ by s
    let [a, b] = [a, b].map(|y| y.sqr().unwrap().sum_all().unwrap().backward().unwrap());
    let (a, b) = (
        numbers(a.get(scaled.up()).unwrap()),
        numbers(b.get(plain.up()).unwrap()),
    );
    let b: Vec<f64> = b.iter().map(|g| 1.5 * g).collect();
    assert_close(&a, &b, 10.0 * EXACT, "gradient");
}

#[test]
fn nothing_frozen_gets_a_gradient() {
    let base = FrozenLinear::new(irregular(&[17, 13]), None).unwrap();
    let config = BottleneckConfig {
        insertion: Insertion::Parallel,
        ..config()
    };
    let layer = adapter(13, 17, &config, DType::F64).around(base);
    disturb(&layer.adapter.trainable(""));
    let y = layer.forward(&irregular(&[5, 13])).unwrap();
    let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for id in grads.get_ids() {
        assert_ne!(grads.get_id(*id).unwrap().elem_count(), 17 * 13);
    }
    let clone = layer.clone();
    let coverage = grad_coverage(&clone.adapter.trainable("a"), &grads).unwrap();
    assert!(coverage.is_complete(), "{coverage}");
}

#[test]
fn the_counts_of_the_unified_view() {
    // one layer of width 16, feed-forward 64: prefix 2·l·d in the attention, 2·r·d at the feed-forward
    let mam = MamConfig::default();
    let (d, r, l) = (16, mam.adapter.width, mam.prefix.length);
    let adapter = adapter(d, d, &mam.adapter, DType::F32);
    assert_eq!(adapter.parameters(), 2 * r * d);
    let shape = candle_align::parameter_efficient::PrefixShape {
        layers: 1,
        heads: 2,
        head_dim: 8,
    };
    let cpu = Device::Cpu;
    let prefix = candle_align::parameter_efficient::PrefixEncoder::new(
        shape,
        &mam.prefix,
        DType::F32,
        &cpu,
        &mut rng(1),
    )
    .unwrap();
    assert_eq!(prefix.finish().unwrap().parameters(), 2 * l * d);
    // with biases: 2·r·d + r + d
    let houlsby = self::adapter(d, d, &BottleneckConfig::default(), DType::F32);
    assert_eq!(houlsby.parameters(), 2 * 64 * d + 64 + d);
}
