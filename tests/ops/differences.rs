//! Every gradient against central differences in f64.

use super::table::{Op, all, weighed};
use crate::common::{GRADIENT, STEP, numbers};
use candle_core::{Device, Tensor, Var};

fn loss(op: &Op, inputs: &[Tensor]) -> f64 {
    numbers(&weighed(&(op.ours)(inputs).unwrap())).iter().sum()
}

/// The inputs with element `at` of input `i` moved by `by`.
fn moved(inputs: &[Tensor], i: usize, at: usize, by: f64) -> Vec<Tensor> {
    let mut inputs = inputs.to_vec();
    let mut data = numbers(&inputs[i]);
    data[at] += by;
    inputs[i] = Tensor::from_vec(data, inputs[i].shape(), &Device::Cpu).unwrap();
    inputs
}

fn check(op: &Op, inputs: &[Tensor], trained: usize, what: &str) {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|x| Var::from_tensor(x).unwrap())
        .collect();
    let mut arguments = inputs.to_vec();
    for (argument, var) in arguments.iter_mut().zip(&vars).take(trained) {
        *argument = var.as_tensor().clone();
    }
    let grads = weighed(&(op.ours)(&arguments).unwrap()).backward().unwrap();
    for (i, var) in vars.iter().take(trained).enumerate() {
        let grad = numbers(grads.get(var).expect("a gradient"));
        for (at, got) in grad.iter().enumerate() {
            let scale = numbers(var)[at].abs();
            let step = STEP * scale.clamp(1e-3, 1e3);
            let (up, down) = (moved(inputs, i, at, step), moved(inputs, i, at, -step));
            let want = (loss(op, &up) - loss(op, &down)) / (2.0 * step);
            // rounding of the loss, over the step
            let noise = 1e-13 * loss(op, inputs).abs().max(1.0) / step;
            assert!(
                (got - want).abs() <= GRADIENT * want.abs().max(1.0) + noise,
                "{}, {what}: argument {i}[{at}]: {got}, central difference {want}",
                op.name
            );
        }
    }
}

#[test]
fn gradients_are_central_differences() {
    for op in all() {
        for n in [1, 2, 5] {
            check(&op, &op.inputs(n, 3.0), op.trained, "moderate");
        }
    }
}

#[test]
fn so_they_are_for_small_and_large_rows() {
    for op in all() {
        check(&op, &op.inputs(3, 1e-2), op.trained, "small");
        check(&op, &op.inputs(3, 50.0), op.trained, "large");
        check(
            &op,
            &op.inputs(70, 3.0),
            op.trained,
            "more than the partial sums",
        );
    }
}

#[test]
fn so_they_are_for_trained_angles() {
    for op in all().into_iter().filter(|op| op.angles) {
        check(&op, &op.inputs(3, 2.0), 2, "angles");
    }
}
