//! Linear regression in the factors alone: least squares has one answer.

use crate::common::lora::irregular;
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{Ia3Linear, Ia3Place};
use candle_core::Tensor;
use candle_nn::{Linear, Module};

const REACHED: f64 = 1e-10;

/// Steps of gradient descent on ½‖h − targets‖².
fn descend(layer: &Ia3Linear, x: &Tensor, targets: &Tensor, alpha: f64, steps: usize) -> Tensor {
    let loss = || {
        let error = (layer.forward(x).unwrap() - targets).unwrap();
        (error.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap()
    };
    for _ in 0..steps {
        let grads = loss().backward().unwrap();
        let step = (grads.get(layer.scale()).unwrap() * alpha).unwrap();
        let moved = (layer.scale().as_tensor() - step).unwrap();
        layer.scale().set(&moved).unwrap();
    }
    loss()
}

fn problem() -> (Linear, Tensor, Tensor) {
    let base = Linear::new(irregular(&[3, 4]), Some(irregular(&[3])));
    let targets = (irregular(&[8, 3]) * 1.7).unwrap();
    (base, (irregular(&[8, 4]) * 0.9).unwrap(), targets)
}

#[test]
fn factors_of_outputs_are_one_projection_each() {
    let (base, x, targets) = problem();
    let layer = Ia3Linear::new(&base, Ia3Place::Output).unwrap();
    descend(&layer, &x, &targets, 0.05, 1000);
    // l_o = ⟨yₒ, tₒ⟩/⟨yₒ, yₒ⟩
    let y = base.forward(&x).unwrap();
    let over = (&y * &targets).unwrap().sum(0).unwrap();
    let best = (over / y.sqr().unwrap().sum(0).unwrap()).unwrap();
    assert_close(&numbers(layer.scale()), &numbers(&best), REACHED, "l");
}

#[test]
fn factors_of_inputs_recover_a_teacher() {
    let (base, x, _) = problem();
    // inputs of every direction
    let x = (Tensor::eye(4, x.dtype(), x.device()).unwrap()
        + (x.narrow(0, 0, 4).unwrap() * 0.2).unwrap())
    .unwrap();
    let teacher = Ia3Linear::new(&base, Ia3Place::Input).unwrap();
    let factors = [0.3, 2.5, -1.0, 1.4];
    let row = Tensor::new(&[factors], x.device()).unwrap();
    teacher.scale().set(&row).unwrap();
    let layer = Ia3Linear::new(&base, Ia3Place::Input).unwrap();
    let loss = descend(&layer, &x, &teacher.forward(&x).unwrap(), 0.1, 3000);
    assert_close(&numbers(layer.scale()), &factors, 1e-6, "l");
    assert!(numbers(&loss)[0] < REACHED);
}
