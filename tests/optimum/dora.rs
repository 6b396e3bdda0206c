//! Linear regression towards a teacher whose rows are longer and whose directions have moved: DoRA of
//! one rank reaches it, LoRA of the same rank does not.

use crate::common::lora::{irregular, rng};
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{
    Adapter, DoraLinear, LinearAdapter, LoraConfig, LoraLinear,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};

/// diag(lengths)·(W₀ + u vᵀ), W₀ `[4, 5]`.
fn teacher() -> (Linear, Linear) {
    let weight = irregular(&[4, 5]);
    let column = Tensor::new(&[[0.6f64], [-0.4], [0.3], [0.5]], &Device::Cpu).unwrap();
    let row = Tensor::new(&[[0.5f64, -0.3, 0.7, 0.2, -0.6]], &Device::Cpu).unwrap();
    let lengths = Tensor::new(&[[1.6f64], [0.7], [1.3], [0.5]], &Device::Cpu).unwrap();
    let moved = (&weight + column.matmul(&row).unwrap()).unwrap();
    let taught = moved.broadcast_mul(&lengths).unwrap();
    (Linear::new(weight, None), Linear::new(taught, None))
}

/// ½‖h(I) − Wᵀ‖² after so many steps of gradient descent.
fn descend(layer: &dyn Module, vars: &[(String, Var)], taught: &Linear, steps: usize) -> f64 {
    let x = Tensor::eye(5, DType::F64, &Device::Cpu).unwrap();
    let y = taught.forward(&x).unwrap();
    let loss = || {
        let error = (layer.forward(&x).unwrap() - &y).unwrap();
        (error.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap()
    };
    for _ in 0..steps {
        let grads = loss().backward().unwrap();
        for (_, var) in vars {
            let step = (grads.get(var).unwrap() * 0.1).unwrap();
            var.set(&(var.as_tensor() - step).unwrap()).unwrap();
        }
    }
    numbers(&loss())[0]
}

#[test]
fn lengths_and_a_change_of_one_rank_are_learnt_together() {
    let (base, taught) = teacher();
    let config = LoraConfig {
        rank: 1,
        alpha: 1.5,
        ..Default::default()
    };
    let dora = DoraLinear::new(&base, &config, &mut rng(4)).unwrap();
    let loss = descend(&dora, &dora.trainable(""), &taught, 1500);
    assert!(loss < 1e-10, "{loss}");
    let merged = dora.merged_linear().unwrap();
    assert_close(
        &numbers(merged.weight()),
        &numbers(taught.weight()),
        1e-4,
        "W",
    );
    // m are the lengths of the teacher's rows
    let lengths = taught
        .weight()
        .sqr()
        .unwrap()
        .sum(1)
        .unwrap()
        .sqrt()
        .unwrap();
    assert_close(&numbers(dora.magnitude()), &numbers(&lengths), 1e-4, "m");

    let lora = LoraLinear::new(&base, &config, &mut rng(4)).unwrap();
    let left = descend(&lora, &lora.trainable(""), &taught, 1500);
    assert!(left > 0.05, "LoRA of rank one reached {left}");
}
