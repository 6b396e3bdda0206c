//! candle's composed forms as a witness, over random shapes, layouts, settings and types.

use super::table::{Op, all, cast, run, run_by, strided};
use crate::common::numbers;
use candle_align::ops;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops as theirs;
use proptest::prelude::*;

const TYPES: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];

/// Roundings, relative to the largest number; a row of nearly equal numbers makes them larger.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-10,
        DType::F32 => 5e-5,
        DType::BF16 => 2e-2,
        _ => 3e-3,
    }
}

fn agree(
    got: &[Vec<f64>],
    want: &[Vec<f64>],
    tolerance: f64,
    what: &str,
) -> Result<(), TestCaseError> {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        prop_assert_eq!(got.len(), want.len(), "{}", what);
        let largest = want.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
        for (got, want) in got.iter().zip(want) {
            let near = (got - want).abs() <= tolerance * largest;
            prop_assert!(near, "{}, {}: {} against {}", what, i, got, want);
        }
    }
    Ok(())
}

fn random(shape: &[usize], scale: f64, values: &[f64]) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<f64> = values
        .iter()
        .cycle()
        .take(n)
        .enumerate()
        .map(|(i, v)| scale * (v + (i as f64 * 0.7).sin() * 0.3))
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_and_gradients_are_those_of_candles_composed_forms(
        which in 0..all().len(),
        n in 1usize..40,
        dtype in 0usize..4,
        scale in 0.1f64..6.0,
        view in any::<bool>(),
        values in prop::collection::vec(-1.0f64..1.0, 61),
    ) {
        let (op, dtype) = (&all()[which], TYPES[dtype]);
        let shapes = (op.shapes)(n);
        let inputs: Vec<Tensor> = shapes.iter().enumerate()
            .map(|(i, shape)| random(shape, if i == 0 { scale } else { 1.0 }, &values[i..]))
            .collect();
        let inputs = cast(&inputs, dtype);
        let read: Vec<Tensor> = match view {
            true => inputs.iter().map(strided).collect(),
            false => inputs.clone(),
        };
        let got = run(op, op.ours, &read);
        // candle's operations in double precision, from the same rounded numbers
        let want = run_by(op, op.slow, &cast(&inputs, DType::F64), dtype);
        agree(&got, &want, tolerance(dtype), op.name)?;
    }

    #[test]
    fn norms_agree_for_any_shape_and_eps(
        shape in prop::collection::vec(1usize..6, 0..4),
        n in 1usize..80,
        eps in prop_oneof![Just(1e-6f32), Just(1e-5), 1e-3f32..10.0],
        values in prop::collection::vec(-2.0f64..2.0, 97),
    ) {
        let shape = [shape, vec![n]].concat();
        let x = random(&shape, 1.0, &values);
        let inputs = [x, random(&[n], 1.0, &values[3..]), random(&[n], 1.0, &values[5..])];
        let both = |f: &dyn Fn(&[Tensor]) -> candle_core::Result<Tensor>| {
            let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
            let all: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = f(&all).unwrap();
            let grads = super::table::weighed(&y).backward().unwrap();
            let mut found = vec![numbers(&y)];
            found.extend(vars.iter().filter_map(|v| grads.get(v)).map(numbers));
            found
        };
        let got = both(&|t| ops::rms_norm(&t[0], &t[1], eps));
        let want = both(&|t| theirs::rms_norm_slow(&t[0], &t[1], eps));
        prop_assert_eq!(got.len(), 3);
        agree(&got, &want, 1e-11, "rms_norm")?;
        // a row of one element has variance 0: its gradient is that of ε alone
        let got = both(&|t| ops::layer_norm(&t[0], &t[1], &t[2], eps));
        let want = both(&|t| theirs::layer_norm_slow(&t[0], &t[1], &t[2], eps));
        prop_assert_eq!(got.len(), 4);
        agree(&got, &want, 1e-9, "layer_norm")?;
        let got = both(&|t| ops::softmax_last_dim(&t[0]));
        let want = both(&|t| theirs::softmax(&t[0], D::Minus1));
        agree(&got, &want, 1e-12, "softmax")?;
    }
}

#[test]
fn values_are_those_of_candles_fused_operations() {
    use candle_nn::rotary_emb;
    let fused = |name: &str, t: &[Tensor]| -> Option<candle_core::Result<Tensor>> {
        let (cos, sin) = (|| t[1].cos().unwrap(), || t[1].sin().unwrap());
        Some(match name {
            "rms_norm" => theirs::rms_norm(&t[0], &t[1], 1e-6),
            "layer_norm" => theirs::layer_norm(&t[0], &t[1], &t[2], 1e-5),
            "softmax_last_dim" => theirs::softmax_last_dim(&t[0]),
            "swiglu" => theirs::swiglu(&t[0]),
            "rope" => rotary_emb::rope(&t[0], &cos(), &sin()),
            "rope_i" => rotary_emb::rope_i(&t[0], &cos(), &sin()),
            "rope_thd" => rotary_emb::rope_thd(&t[0], &cos(), &sin()),
            _ => return None,
        })
    };
    let mut count = 0;
    for op in all() {
        let inputs = cast(&op.inputs(48, 2.0), DType::F32);
        let Some(want) = fused(op.name, &inputs) else {
            continue;
        };
        let (got, want) = ((op.ours)(&inputs).unwrap(), want.unwrap());
        assert_eq!(got.dims(), want.dims());
        let want = [numbers(&want)];
        agree(&[numbers(&got)], &want, 2e-6, op.name).unwrap();
        count += 1;
    }
    assert_eq!(count, 7);
}

/// One table holds them all.
#[test]
fn the_table_names_each_operation_once() {
    let mut names: Vec<&str> = all().iter().map(|op: &Op| op.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all().len());
}
