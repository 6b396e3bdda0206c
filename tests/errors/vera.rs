use crate::common::adapted::*;
use crate::common::lora::*;
use crate::common::{says, vector};
use candle_align::parameter_efficient::{
    Adapter, LinearAdapter, VeraConfig, VeraLinear, VeraProjections,
};
use candle_core::{DType, Device};
use candle_nn::{Linear, Module};

#[test]
fn projections_are_checked() {
    let new = |rank, inputs, outputs| {
        let config = VeraConfig {
            rank,
            ..Default::default()
        };
        let cpu = Device::Cpu;
        VeraProjections::new(&config, inputs, outputs, DType::F32, &cpu, &mut rng(1))
    };
    says(
        new(0, 1, 1),
        "VeraProjections::new: `rank` must be >= 1, got 0",
    );
    says(
        new(1, 0, 1),
        "VeraProjections::new: `inputs` must be >= 1, got 0",
    );
    says(
        new(1, 1, 0),
        "VeraProjections::new: `outputs` must be >= 1, got 0",
    );
    says(
        VeraProjections::from_tensors(tensor(&A), irregular(&[3, 3])),
        "VeraProjections::from_tensors: `b` has shape [3, 3], expected [outputs, rank=2 (from `a`)]",
    );
    says(
        VeraProjections::from_tensors(tensor(&A).to_dtype(DType::BF16).unwrap(), tensor(&B)),
        "VeraProjections::from_tensors: `a` is bf16, expected f32 or f64",
    );
}

#[test]
fn settings_and_base_are_checked() {
    let new =
        |config: &VeraConfig, dtype| VeraLinear::new(&base(DType::F64), &shared(dtype), config);
    for d_initial in [f64::NAN, f64::INFINITY] {
        let config = VeraConfig {
            d_initial,
            ..vera_config()
        };
        says(
            new(&config, DType::F64),
            &format!("VeraLinear::new: `d_initial` must be finite, got {d_initial}"),
        );
    }
    let config = VeraConfig {
        dropout: 1.0,
        ..vera_config()
    };
    says(
        new(&config, DType::F64),
        "VeraLinear::new: `dropout` must be in [0, 1), got 1",
    );
    let config = VeraConfig {
        rank: 3,
        ..vera_config()
    };
    says(
        new(&config, DType::F64),
        "VeraLinear::new: `shared` is of rank 2, and `rank` is 3",
    );
    says(
        new(&vera_config(), DType::F32),
        "VeraLinear::new: `shared` is f32, expected f64 (from `base.weight`)",
    );
    for shape in [[5, 4], [3, 6]] {
        let large = Linear::new(irregular(&shape), None);
        says(
            VeraLinear::new(&large, &shared(DType::F64), &vera_config()),
            &format!(
                "VeraLinear::new: `shared` is for at most 5 inputs and 4 outputs; the layer has {} and {}",
                shape[1], shape[0]
            ),
        );
    }
    let line = Linear::new(vector(&[1.0]), None);
    says(
        VeraLinear::new(&line, &shared(DType::F64), &vera_config()),
        "VeraLinear::new: `base.weight` has shape [1], expected [out, in]",
    );
}

#[test]
fn inputs_and_merges_are_checked() {
    let mut layer = vera(&vera_config(), DType::F64);
    says(
        layer.forward(&irregular(&[3])),
        "VeraLinear::forward: `x` has shape [3], expected [.., in=4 (from `weight`)]",
    );
    layer.merge().unwrap();
    says(
        layer.forward_train(&tensor(&X), &mut rng(1)),
        "VeraLinear::forward_train: `self` is merged, so that nothing would get a gradient; call \
         `unmerge` first",
    );
    set(layer.lambda_b(), vector(&[1.0, 1.0, f64::NAN]));
    says(
        layer.merged_linear(),
        "VeraLinear::merged_linear: `weight` would hold NaN at flat position 8 after the merge; \
         nothing was changed",
    );
}
