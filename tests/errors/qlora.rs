use crate::common::lora::{A, base, config, irregular, rng, tensor};
use crate::common::quantized::trained;
use crate::common::{says, vector};
use candle_align::Result;
use candle_align::parameter_efficient::{
    Adapter, BlockScale, LinearAdapter, LoraBias, LoraConfig, Nf4Linear, QloraLinear,
};
use candle_core::DType;
use candle_nn::{Linear, Module};

fn new(base: &Linear, config: &LoraConfig) -> Result<QloraLinear> {
    QloraLinear::new(base, BlockScale::Double, config, &mut rng(1))
}

#[test]
fn every_setting_is_checked() {
    let both = |config: LoraConfig, rest: &str| {
        let base = base(DType::F32);
        says(new(&base, &config), &format!("QloraLinear::new: {rest}"));
        let base = Nf4Linear::quantize(&base, BlockScale::Double).unwrap();
        let over = QloraLinear::over(base, &config, &mut rng(1));
        says(over, &format!("QloraLinear::over: {rest}"));
    };
    both(
        LoraConfig {
            rank: 0,
            ..config()
        },
        "`rank` must be >= 1, got 0",
    );
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        both(
            LoraConfig { alpha, ..config() },
            &format!("`alpha` must be finite and > 0, got {alpha}"),
        );
    }
    for dropout in [-0.1, 1.0, f64::NAN] {
        both(
            LoraConfig {
                dropout,
                ..config()
            },
            &format!("`dropout` must be in [0, 1), got {dropout}"),
        );
    }
    let config = LoraConfig {
        bias: LoraBias::Base,
        ..config()
    };
    says(
        new(&Linear::new(irregular(&[3, 4]), None), &config),
        "QloraLinear::new: `base` has no bias, which LoraBias::Base would train",
    );
}

#[test]
fn the_base_is_checked() {
    says(
        new(&Linear::new(vector(&[1.0]), None), &config()),
        "QloraLinear::new: `base.weight` has shape [1], expected [out, in]",
    );
    says(
        new(
            &Linear::new(irregular(&[3, 4]), Some(vector(&[1.0]))),
            &config(),
        ),
        "QloraLinear::new: `base.bias` has shape [1], expected [out=3 (from `base.weight`)]",
    );
    let bad = vector(&[1.0, f64::NAN]).reshape((2, 1)).unwrap();
    says(
        new(&Linear::new(bad, None), &config()),
        "QloraLinear::new: `base.weight` holds NaN at flat position 1; it must be finite in f32",
    );
}

#[test]
fn an_input_that_does_not_fit_is_named() {
    let layer = trained(&config(), DType::F32, BlockScale::Double);
    let rest = "`x` has shape [2, 3], expected [.., in=4 (from `weight`)]";
    let x = irregular(&[2, 3]).to_dtype(DType::F32).unwrap();
    says(layer.forward(&x), &format!("QloraLinear::forward: {rest}"));
    says(
        layer.forward_train(&x, &mut rng(1)),
        &format!("QloraLinear::forward_train: {rest}"),
    );
    says(
        layer.forward(&irregular(&[2, 4])),
        "QloraLinear::forward: `x` is f64, expected f32, bf16 or f16 (from `weight`)",
    );
}

#[test]
fn a_merge_says_what_would_not_be_finite() {
    let layer = trained(&config(), DType::F64, BlockScale::Double);
    let mut a = A;
    a[1][2] = f64::NAN;
    layer.a().set(&tensor(&a)).unwrap();
    says(
        layer.merged_linear(),
        "QloraLinear::merged_linear: `weight` would hold NaN at flat position 2 after the merge; \
         nothing was changed",
    );
}
