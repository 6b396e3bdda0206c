//! Linear regression towards a change of VeRA's form: it is found, up to the factor that the two
//! vectors share.

use crate::common::lora::{irregular, rng};
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{Adapter, VeraConfig, VeraLinear, VeraProjections};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};

#[test]
fn a_change_within_reach_is_recovered_from_random_projections() {
    let (inputs, outputs) = (5, 4);
    let config = VeraConfig {
        rank: 3,
        d_initial: 0.5,
        ..Default::default()
    };
    let shared = VeraProjections::new(
        &config,
        inputs,
        outputs,
        DType::F64,
        &Device::Cpu,
        &mut rng(2),
    );
    let shared = shared.unwrap();
    let base = Linear::new(irregular(&[outputs, inputs]), None);
    let new = || VeraLinear::new(&base, &shared, &config).unwrap();
    let (teacher, layer) = (new(), new());
    let set = |var: &candle_core::Var, data: &[f64]| {
        var.set(&Tensor::new(data, &Device::Cpu).unwrap()).unwrap();
    };
    let (d, b) = ([0.8, -0.5, 1.1], [0.7, 0.9, -0.6, 0.4]);
    set(teacher.lambda_d(), &d);
    set(teacher.lambda_b(), &b);

    let x = Tensor::eye(inputs, DType::F64, &Device::Cpu).unwrap();
    let y = teacher.forward(&x).unwrap();
    let loss = || {
        let error = (layer.forward(&x).unwrap() - &y).unwrap();
        (error.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap()
    };
    for _ in 0..3000 {
        let grads = loss().backward().unwrap();
        for (_, var) in layer.trainable("") {
            let step = (grads.get(&var).unwrap() * 0.03).unwrap();
            var.set(&(var.as_tensor() - step).unwrap()).unwrap();
        }
    }
    assert!(numbers(&loss())[0] < 1e-12, "{:?}", numbers(&loss()));
    let (got, want) = (layer.delta().unwrap(), teacher.delta().unwrap());
    assert_close(&numbers(&got), &numbers(&want), 1e-6, "change");
    // λ_d = c · d, λ_b = b/c
    let (found_d, found_b) = (numbers(layer.lambda_d()), numbers(layer.lambda_b()));
    let c = found_d[0] / d[0];
    assert_close(&found_d, &d.map(|d| c * d), 1e-6, "d");
    assert_close(&found_b, &b.map(|b| b / c), 1e-6, "b");
}
