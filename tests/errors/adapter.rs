use crate::common::lora::{irregular, rng};
use crate::common::says;
use candle_align::parameter_efficient::{BottleneckAdapter, BottleneckConfig, Insertion};
use candle_core::{DType, Device};

fn start(
    inputs: usize,
    config: &BottleneckConfig,
    dtype: DType,
) -> candle_align::Result<BottleneckAdapter> {
    BottleneckAdapter::new(inputs, 3, config, dtype, &Device::Cpu, &mut rng(1))
}

#[test]
fn settings() {
    let of = |width, scale| BottleneckConfig {
        width,
        scale,
        ..Default::default()
    };
    for (width, scale, message) in [
        (0, 1.0, "`width` must be >= 1, got 0"),
        (2, 0.0, "`scale` must be finite and > 0, got 0"),
        (2, f64::NAN, "`scale` must be finite and > 0, got NaN"),
    ] {
        says(
            start(3, &of(width, scale), DType::F32),
            &format!("BottleneckAdapter::new: {message}"),
        );
    }
    says(
        start(3, &of(2, 1.0), DType::F16),
        "BottleneckAdapter::new: `dtype` is f16, expected f32 or f64",
    );
    says(
        start(4, &of(2, 1.0), DType::F32),
        "BottleneckAdapter::new: `inputs` is 4, but a sequential adapter reads the sub-layer's 3 outputs",
    );
}

#[test]
fn inputs() {
    let config = BottleneckConfig {
        width: 2,
        insertion: Insertion::Parallel,
        ..Default::default()
    };
    let mut adapter = start(4, &config, DType::F64).unwrap();
    for enabled in [true, false] {
        adapter.set_enabled(enabled);
        let (x, h) = (irregular(&[2, 4]), irregular(&[2, 3]));
        says(
            adapter.insert(&h, &h),
            "BottleneckAdapter::insert: `x` has shape [2, 3], expected [.., in=4 (from the adapter)]",
        );
        says(
            adapter.insert(&x, &x),
            "BottleneckAdapter::insert: `h` has shape [2, 4], expected [.., out=3 (from the adapter)]",
        );
        says(
            adapter.insert(&x, &irregular(&[])),
            "BottleneckAdapter::insert: `h` has shape [], expected [.., out=3 (from the adapter)]",
        );
        says(
            adapter.insert(&x, &irregular(&[1, 2, 3])),
            "BottleneckAdapter::insert: `h` has shape [1, 2, 3], but `x` [2, 4]",
        );
        says(
            adapter.insert(&x, &h.to_dtype(DType::F16).unwrap()),
            "BottleneckAdapter::insert: `h` is f16, expected f64 (from the adapter)",
        );
    }
    let single = start(4, &config, DType::F32).unwrap();
    says(
        single.insert(&irregular(&[2, 4]), &irregular(&[2, 3])),
        "BottleneckAdapter::insert: `x` is f64, expected f32, bf16 or f16 (from the adapter)",
    );
}
