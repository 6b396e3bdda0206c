use crate::common::lora::*;
use crate::common::{says, vector};
use candle_align::parameter_efficient::{
    Adapter, FrozenLinear, LinearAdapter, LoraBias, LoraConfig, LoraEmbedding, LoraLinear,
    lora_plus_groups,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Embedding, Linear, Module};

#[test]
fn a_frozen_layer_names_what_does_not_fit() {
    says(
        FrozenLinear::new(vector(&[1.0]), None),
        "FrozenLinear::new: `weight` has shape [1], expected [out, in]",
    );
    says(
        FrozenLinear::new(tensor(&WEIGHT).to_dtype(DType::U32).unwrap(), None),
        "FrozenLinear::new: `weight` is u32, expected f32, f64, bf16 or f16",
    );
    says(
        FrozenLinear::new(tensor(&WEIGHT), Some(vector(&[1.0, 2.0]))),
        "FrozenLinear::new: `bias` has shape [2], expected [out=3 (from `weight`)]",
    );
    let single = vector(&BIAS).to_dtype(DType::F32).unwrap();
    says(
        FrozenLinear::new(tensor(&WEIGHT), Some(single)),
        "FrozenLinear::new: `bias` is f32, expected f64 (from `weight`)",
    );
}

#[test]
fn a_layer_names_an_input_that_does_not_fit() {
    let frozen = FrozenLinear::new(tensor(&WEIGHT), None).unwrap();
    let layer = start(&config(), DType::F64);
    for shape in [&[2, 3][..], &[4, 3], &[]] {
        let x = irregular(shape);
        let rest = format!("`x` has shape {shape:?}, expected [.., in=4 (from `weight`)]");
        says(
            frozen.forward(&x),
            &format!("FrozenLinear::forward: {rest}"),
        );
        says(layer.forward(&x), &format!("LoraLinear::forward: {rest}"));
        says(
            layer.forward_train(&x, &mut rng(1)),
            &format!("LoraLinear::forward_train: {rest}"),
        );
    }
    let single = tensor(&X).to_dtype(DType::F32).unwrap();
    says(
        frozen.forward(&single),
        "FrozenLinear::forward: `x` is f32, expected f64 (from `weight`)",
    );
    says(
        layer.forward(&single),
        "LoraLinear::forward: `x` is f32, expected f64 (from `weight`)",
    );
    for (stored, rest) in [
        (DType::F32, "f32 (from `weight`)"),
        (DType::BF16, "f32 or bf16 (from `weight`)"),
        (DType::F16, "f32 or f16 (from `weight`)"),
    ] {
        says(
            start(&config(), stored).forward(&tensor(&X)),
            &format!("LoraLinear::forward: `x` is f64, expected {rest}"),
        );
    }
    says(
        start(&config(), DType::BF16).forward(&single.to_dtype(DType::F16).unwrap()),
        "LoraLinear::forward: `x` is f16, expected f32 or bf16 (from `weight`)",
    );
}

#[test]
fn the_base_is_checked() {
    let new = |base: &Linear| LoraLinear::new(base, &config(), &mut rng(1));
    says(
        new(&Linear::new(vector(&[1.0]), None)),
        "LoraLinear::new: `base.weight` has shape [1], expected [out, in]",
    );
    says(
        new(&Linear::new(
            tensor(&WEIGHT).to_dtype(DType::I64).unwrap(),
            None,
        )),
        "LoraLinear::new: `base.weight` is i64, expected f32, f64, bf16 or f16",
    );
    says(
        new(&Linear::new(tensor(&WEIGHT), Some(vector(&[1.0])))),
        "LoraLinear::new: `base.bias` has shape [1], expected [out=3 (from `base.weight`)]",
    );
    let single = vector(&BIAS).to_dtype(DType::F32).unwrap();
    says(
        new(&Linear::new(tensor(&WEIGHT), Some(single))),
        "LoraLinear::new: `base.bias` is f32, expected f64 (from `base.weight`)",
    );
    let embed = |base: Tensor| LoraEmbedding::new(&Embedding::new(base, 3), &config(), &mut rng(1));
    says(
        embed(vector(&[1.0])),
        "LoraEmbedding::new: `base` has shape [1], expected [vocabulary, dim]",
    );
    says(
        embed(tensor(&WEIGHT).to_dtype(DType::U8).unwrap()),
        "LoraEmbedding::new: `base` is u8, expected f32, f64, bf16 or f16",
    );
}

#[test]
fn every_setting_is_checked() {
    let linear = |config: LoraConfig| LoraLinear::new(&base(DType::F64), &config, &mut rng(1));
    let embed = |config: LoraConfig| LoraEmbedding::new(&table(DType::F64), &config, &mut rng(1));
    let wrong = |config: LoraConfig, rest: &str| {
        says(linear(config.clone()), &format!("LoraLinear::new: {rest}"));
        says(embed(config), &format!("LoraEmbedding::new: {rest}"));
    };
    wrong(
        LoraConfig {
            rank: 0,
            ..config()
        },
        "`rank` must be >= 1, got 0",
    );
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        wrong(
            LoraConfig { alpha, ..config() },
            &format!("`alpha` must be finite and > 0, got {alpha}"),
        );
    }
    for dropout in [-0.1, 1.0, f64::NAN] {
        wrong(
            LoraConfig {
                dropout,
                ..config()
            },
            &format!("`dropout` must be in [0, 1), got {dropout}"),
        );
    }
    says(
        embed(LoraConfig {
            dropout: 0.1,
            ..config()
        }),
        "LoraEmbedding::new: `dropout` must be at its default: an embedding has none, got 0.1",
    );
    says(
        embed(LoraConfig {
            bias: LoraBias::Update,
            ..config()
        }),
        "LoraEmbedding::new: `bias` must be at its default: an embedding has none, got Update",
    );
    says(
        LoraLinear::new(
            &Linear::new(tensor(&WEIGHT), None),
            &LoraConfig {
                bias: LoraBias::Base,
                ..config()
            },
            &mut rng(1),
        ),
        "LoraLinear::new: `base` has no bias, which LoraBias::Base would train",
    );
}

#[test]
fn a_merged_layer_does_not_train() {
    for dropout in [0.0, 0.5] {
        let mut layer = trained(
            &LoraConfig {
                dropout,
                ..config()
            },
            DType::F64,
        );
        layer.merge().unwrap();
        says(
            layer.forward_train(&tensor(&X), &mut rng(1)),
            "LoraLinear::forward_train: `self` is merged, so that A and B would get no gradient; \
             call `unmerge` first",
        );
        layer.set_enabled(false); // the base layer does not mind
        layer.forward_train(&tensor(&X), &mut rng(1)).unwrap();
    }
}

#[test]
fn a_merge_says_what_would_not_be_finite() {
    let mut layer = trained(&config(), DType::F64);
    let mut a = A;
    a[1][2] = f64::NAN;
    layer.a().set(&tensor(&a)).unwrap();
    let rest = "`weight` would hold NaN at flat position 2 after the merge; nothing was changed";
    says(layer.merge(), &format!("LoraLinear::merge: {rest}"));
    says(
        layer.merged_linear(),
        &format!("LoraLinear::merged_linear: {rest}"),
    );

    let config = LoraConfig {
        bias: LoraBias::Base,
        ..config()
    };
    let mut layer = trained(&config, DType::F64);
    let bias = vector(&[0.0, f64::INFINITY, 0.0]);
    layer.trainable("")[0].1.set(&bias).unwrap();
    says(
        layer.merge(),
        "LoraLinear::merge: `bias` would hold inf at flat position 1 after the merge; nothing was \
         changed",
    );

    let mut layer = embedding(DType::F64);
    let mut b = B;
    b[1][0] = f64::NEG_INFINITY;
    layer.b().set(&tensor(&b)).unwrap();
    let rest = "`base` would hold -inf at flat position 1 after the merge; nothing was changed";
    says(layer.merge(), &format!("LoraEmbedding::merge: {rest}"));
    says(
        layer.merged_embedding(),
        &format!("LoraEmbedding::merged_embedding: {rest}"),
    );
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let layer = embedding(DType::F64);
    let token = Tensor::new(&[5u32], &Device::Cpu).unwrap();
    assert!(layer.forward(&token).is_err());
}

#[test]
fn the_rates_of_lora_plus_are_checked() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        says(
            lora_plus_groups(Vec::new(), bad, 0.0),
            &format!("lora_plus_groups: `ratio` must be finite and > 0, got {bad}"),
        );
    }
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        says(
            lora_plus_groups(Vec::new(), 16.0, bad),
            &format!("lora_plus_groups: `weight_decay` must be finite and >= 0, got {bad}"),
        );
    }
}

#[test]
fn a_message_is_the_same_in_a_function_with_candles_own_result() {
    fn model(layer: &LoraLinear) -> candle_core::Result<Tensor> {
        Ok(layer.forward_train(&vector(&[1.0]), &mut rng(1))?)
    }
    says(
        model(&start(&config(), DType::F64)),
        "LoraLinear::forward_train: `x` has shape [1], expected [.., in=4 (from `weight`)]",
    );
}
