//! Trained biases: the optimum of a regression is the mean of what the frozen layer leaves.

use crate::common::adapters::descend;
use crate::common::lora::irregular;
use crate::common::{assert_close, matrix, numbers};
use candle_align::parameter_efficient::{Adapter, BiasLinear};
use candle_nn::{Linear, Module};

#[test]
fn a_bias_becomes_the_mean_residual() {
    let weight = irregular(&[2, 3]);
    let layer = BiasLinear::new(&Linear::new(weight.clone(), None)).unwrap();
    let x = irregular(&[4, 3]);
    let residual = [[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0], [0.5, 0.5]];
    let rows: Vec<&[f64]> = residual.iter().map(|r| r.as_slice()).collect();
    let want = (x.matmul(&weight.t().unwrap()).unwrap() + matrix(&rows)).unwrap();
    // ½ · mean: of Hessian 1, so that a step of ½ halves the distance each time
    descend(&layer.trainable(""), 0.5, 60, || {
        let error = (layer.forward(&x).unwrap() - &want).unwrap();
        (error.sqr().unwrap().sum_all().unwrap() * (0.5 / 4.0)).unwrap()
    });
    let mean = [3.5 / 4.0, 3.0 / 4.0];
    assert_close(&numbers(layer.bias()), &mean, 1e-14, "bias");
}
