use crate::common::lora::{irregular, rng};
use crate::common::says;
use candle_align::parameter_efficient::{
    PrefixConfig, PrefixEncoder, PrefixLayer, PrefixShape, Reparametrization, prefix_attention,
    prefix_mixing,
};
use candle_core::{DType, Device, Tensor};

const SHAPE: PrefixShape = PrefixShape {
    layers: 2,
    heads: 2,
    head_dim: 3,
};

fn start(
    shape: PrefixShape,
    config: &PrefixConfig,
    dtype: DType,
) -> candle_align::Result<PrefixEncoder> {
    PrefixEncoder::new(shape, config, dtype, &Device::Cpu, &mut rng(1))
}

#[test]
fn settings() {
    let config = PrefixConfig {
        length: 2,
        reparametrization: Reparametrization::Direct,
    };
    let none = PrefixConfig {
        length: 0,
        ..config.clone()
    };
    let thin = PrefixConfig {
        reparametrization: Reparametrization::Mlp { inner: 0 },
        ..config.clone()
    };
    for (shape, config, message) in [
        (SHAPE, &none, "`length` must be >= 1, got 0"),
        (SHAPE, &thin, "`inner` must be >= 1, got 0"),
        (
            PrefixShape { layers: 0, ..SHAPE },
            &config,
            "`layers` must be >= 1, got 0",
        ),
        (
            PrefixShape { heads: 0, ..SHAPE },
            &config,
            "`heads` must be >= 1, got 0",
        ),
        (
            PrefixShape {
                head_dim: 0,
                ..SHAPE
            },
            &config,
            "`head_dim` must be >= 1, got 0",
        ),
    ] {
        says(
            start(shape, config, DType::F32),
            &format!("PrefixEncoder::new: {message}"),
        );
    }
    says(
        start(SHAPE, &config, DType::BF16),
        "PrefixEncoder::new: `dtype` is bf16, expected f32 or f64",
    );
}

#[test]
fn stored_values() {
    let read = |values: &Tensor| PrefixEncoder::from_values(SHAPE, values);
    says(
        read(&irregular(&[4, 12])),
        "PrefixEncoder::from_values: `values` has shape [4, 12], expected \
         [length, 2*layers*heads*head_dim=24]",
    );
    says(
        read(&irregular(&[24])),
        "PrefixEncoder::from_values: `values` has shape [24], expected [length, numbers]",
    );
    says(
        read(&irregular(&[4, 24]).to_dtype(DType::F16).unwrap()),
        "PrefixEncoder::from_values: `values` is f16, expected f32 or f64",
    );
    says(
        read(&irregular(&[4, 24]).narrow(0, 0, 0).unwrap()),
        "PrefixEncoder::from_values: `length` must be >= 1, got 0",
    );
    let shape = PrefixShape { layers: 0, ..SHAPE };
    says(
        PrefixEncoder::from_values(shape, &irregular(&[4, 24])),
        "PrefixEncoder::from_values: `layers` must be >= 1, got 0",
    );
}

#[test]
fn attention() {
    let (q, k) = (irregular(&[2, 4, 3, 5]), irregular(&[2, 2, 6, 5]));
    let own = irregular(&[2, 7, 5]);
    let layer = |key: &Tensor, value: &Tensor| PrefixLayer {
        key: key.clone(),
        value: value.clone(),
    };
    let prefix = layer(&own, &own);
    let bits = |shape: &[usize]| irregular(shape).to_dtype(DType::U8).unwrap();
    let call = |q: &Tensor,
                k: &Tensor,
                v: &Tensor,
                prefix: &PrefixLayer,
                visible: Option<&Tensor>,
                message: &str| {
        says(
            prefix_attention(q, k, v, prefix, visible),
            &format!("prefix_attention: {message}"),
        );
        says(
            prefix_mixing(q, k, v, prefix, visible),
            &format!("prefix_mixing: {message}"),
        );
    };
    call(
        &own,
        &k,
        &k,
        &prefix,
        None,
        "`q` has shape [2, 7, 5], expected [batch, heads, time, head_dim]",
    );
    call(
        &q,
        &irregular(&[3, 2, 6, 5]),
        &k,
        &prefix,
        None,
        "`k` has shape [3, 2, 6, 5], expected [batch=2 (from `q`), kv_heads, keys, head_dim=5 (from `q`)]",
    );
    call(
        &q,
        &k,
        &irregular(&[2, 2, 1, 5]),
        &prefix,
        None,
        "`v` has shape [2, 2, 1, 5], expected [batch=2 (from `q`), kv_heads=2 (from `k`), keys=6 \
         (from `k`), head_dim=5 (from `q`)]",
    );
    let other = irregular(&[1, 7, 5]);
    let expected = "expected [kv_heads=2 (from `k`), length, head_dim=5 (from `q`)]";
    call(
        &q,
        &k,
        &k,
        &layer(&other, &own),
        None,
        &format!("`prefix.key` has shape [1, 7, 5], {expected}"),
    );
    let shorter = irregular(&[2, 6, 5]);
    call(
        &q,
        &k,
        &k,
        &layer(&own, &shorter),
        None,
        "`prefix.value` has shape [2, 6, 5], expected [kv_heads=2 (from `k`), length=7 (from `prefix.key`), \
         head_dim=5 (from `q`)]",
    );
    let single = own.to_dtype(DType::F32).unwrap();
    call(
        &q,
        &k,
        &k,
        &layer(&single, &own),
        None,
        "`prefix.key` is f32, expected f64 (from `q`)",
    );
    call(
        &q,
        &k,
        &k,
        &prefix,
        Some(&bits(&[6, 3])),
        "`visible` has shape [6, 3], expected [time=3 (from `q`), keys=6 (from `k`)]",
    );
    call(
        &q,
        &k,
        &k,
        &prefix,
        Some(&bits(&[1, 3, 6])),
        "`visible` has shape [1, 3, 6], expected [batch=2 (from `q`), time=3 (from `q`), keys=6 (from `k`)]",
    );
    call(
        &q,
        &k,
        &k,
        &prefix,
        Some(&irregular(&[3, 6])),
        "`visible` is f64, expected u8",
    );
    let (k, own) = (irregular(&[2, 3, 6, 5]), irregular(&[3, 7, 5]));
    call(
        &q,
        &k,
        &k,
        &layer(&own, &own),
        None,
        "`k` has 3 heads, which do not divide the 4 of `q`",
    );
    let (k, own) = (irregular(&[2, 0, 6, 5]), irregular(&[0, 7, 5]));
    call(
        &q,
        &k,
        &k,
        &layer(&own, &own),
        None,
        "`k` has 0 heads, which do not divide the 4 of `q`",
    );
}
