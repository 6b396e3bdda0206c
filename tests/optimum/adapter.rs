//! What an adapter's activation is for, and what its linear form recovers.

use crate::common::adapters::descend;
use crate::common::lora::{irregular, rng};
use crate::common::{assert_close, matrix, numbers};
use candle_align::parameter_efficient::{
    Activation, BottleneckAdapter, BottleneckConfig, FrozenLinear, Insertion,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::Module;

/// What gradient descent reaches of a smooth optimum in f64.
const REACHED: f64 = 1e-9;

fn adapter(inputs: usize, outputs: usize, activation: Activation) -> BottleneckAdapter {
    let config = BottleneckConfig {
        width: 2,
        activation,
        scale: 1.5,
        insertion: Insertion::Parallel,
        bias: false,
    };
    BottleneckAdapter::new(
        inputs,
        outputs,
        &config,
        DType::F64,
        &Device::Cpu,
        &mut rng(4),
    )
    .unwrap()
}

/// |x| on ±1, ±2 beside a layer that says nothing: two relus have it exactly, a linear adapter
/// none of it, since |x| and x are uncorrelated there.
#[test]
fn two_relus_learn_what_no_linear_adapter_does() {
    let x = matrix(&[&[1.0], &[-1.0], &[2.0], &[-2.0]]);
    let want = x.abs().unwrap();
    let silent = x.zeros_like().unwrap();
    for (activation, least) in [
        (Activation::Relu, 0.0),
        (Activation::Linear, 0.5 * 10.0 / 4.0),
    ] {
        let adapter = adapter(1, 1, activation);
        let start = matrix(&[&[0.8], &[-0.6]]);
        adapter.down().set(&start).unwrap();
        let loss = || {
            let error = (adapter.insert(&x, &silent).unwrap() - &want).unwrap();
            (error.sqr().unwrap().mean_all().unwrap() * 0.5).unwrap()
        };
        descend(&adapter.trainable(""), 0.05, 800, loss);
        assert_close(&numbers(&loss()), &[least], REACHED, "loss");
    }
}

/// Beside a frozen layer, towards a teacher whose weight differs by rank 2: the optimum is that
/// difference, s · W_up W_down = Δ.
#[test]
fn a_linear_adapter_recovers_a_change_of_its_width() {
    let weight = irregular(&[4, 3]);
    let change = matrix(&[&[1.0, 0.5], &[0.0, -1.0], &[0.7, 0.2], &[-0.4, 0.9]])
        .matmul(&matrix(&[&[1.0, -0.5, 0.3], &[0.2, 0.8, -1.0]]))
        .unwrap();
    let layer =
        adapter(3, 4, Activation::Linear).around(FrozenLinear::new(weight.clone(), None).unwrap());
    // XᵀX/N = 1
    let x = (Tensor::eye(3, DType::F64, &Device::Cpu).unwrap() * 3f64.sqrt()).unwrap();
    let teacher = FrozenLinear::new((weight + &change).unwrap(), None).unwrap();
    let want = teacher.forward(&x).unwrap();
    descend(&layer.adapter.trainable(""), 0.1, 800, || {
        let error = (layer.forward(&x).unwrap() - &want).unwrap();
        (error.sqr().unwrap().sum_all().unwrap() * (0.5 / 3.0)).unwrap()
    });
    let found = layer.adapter.up().matmul(layer.adapter.down()).unwrap();
    let found = (found * layer.adapter.scale()).unwrap();
    assert_close(&numbers(&found), &numbers(&change), REACHED, "change");
}
