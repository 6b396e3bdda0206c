//! Every gradient against central differences in f64: at each row of the table of losses, which
//! holds defaults, settings off the default, the start of training and ties. Those of methods that
//! change a whole model are in `decoder.rs`; those of layers beside their values.

mod decoder;

use crate::common::{self, GRADIENT, Role, Row, STEP, rows};
use candle_core::{DType, Tensor, Var};

/// Σ loss with element `at` of input `i` moved by `by`.
fn moved(row: &Row, i: usize, at: usize, by: f64) -> f64 {
    let mut inputs = row.inputs.clone();
    inputs[i].data[at] += by;
    let vars: Vec<Var> = inputs.iter().map(|i| i.var(DType::F64)).collect();
    row.losses(&vars).iter().sum()
}

#[test]
fn gradients_are_central_differences() {
    for row in rows::smooth() {
        let gradients = row.gradients(&row.vars(DType::F64));
        for (i, input) in row.inputs.iter().enumerate() {
            if input.role != Role::Trained {
                continue;
            }
            let gradient = gradients[i].as_ref().expect("a gradient");
            for (at, got) in gradient.iter().enumerate() {
                let want = (moved(&row, i, at, STEP) - moved(&row, i, at, -STEP)) / (2.0 * STEP);
                assert!(
                    (got - want).abs() <= GRADIENT * want.abs().max(1.0),
                    "{}: d/d {}[{at}]: autodiff {got}, central difference {want}",
                    row.name,
                    input.name
                );
            }
        }
    }
}

/// A loss with a constant weight has the gradient of another function.
#[test]
fn gradients_of_constant_weights_are_central_differences_of_their_primitives() {
    for surrogate in rows::policy_gradient::surrogates() {
        let gradients = surrogate.row.gradients(&surrogate.row.vars(DType::F64));
        let primitive = Row {
            loss: surrogate.primitive,
            ..surrogate.row
        };
        let got = gradients[0].as_ref().expect("a gradient");
        for (at, got) in got.iter().enumerate() {
            let moved = |by| moved(&primitive, 0, at, by);
            let want = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            assert!(
                (got - want).abs() <= GRADIENT * want.abs().max(1.0),
                "{}: d/d [{at}]: autodiff {got}, central difference {want}",
                primitive.name
            );
        }
    }
}

#[test]
fn the_slope_of_a_hinge_at_its_kink_is_zero() {
    let x = Var::new(&[0.0f64, -1.0, 1.0], &candle_core::Device::Cpu).unwrap();
    let grads = candle_align::math::hinge(&x)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    assert_eq!(common::numbers(grads.get(&x).unwrap()), [0.0, 0.0, 1.0]);
}

#[test]
fn the_slope_of_log_sigmoid_is_right_at_zero_and_far_from_it() {
    let points = [0.0f64, 200.0, -200.0, 20.0, -1e4, 1e4];
    let x = Var::new(&points, &candle_core::Device::Cpu).unwrap();
    let y: Tensor = candle_align::math::log_sigmoid(&x).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    let want: Vec<f64> = points.iter().map(|x| common::sigma(-x)).collect();
    common::assert_close(
        &common::numbers(grads.get(&x).unwrap()),
        &want,
        1e-15,
        "slope",
    );
}
