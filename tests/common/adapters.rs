//! What the tests of layers with trained variables share.

use super::{GRADIENT, STEP, assert_close, numbers};
use candle_core::{Device, Tensor, Var};
use std::path::{Path, PathBuf};

/// Σ (h − ½)²: each output has a slope of its own.
pub fn objective(h: &Tensor) -> Tensor {
    (h - 0.5).unwrap().sqr().unwrap().sum_all().unwrap()
}

/// Every element of every variable, moved by ±STEP, against the gradient.
#[track_caller]
pub fn assert_gradients(what: &str, vars: &[(String, Var)], loss: impl Fn() -> Tensor) {
    let grads = loss().backward().unwrap();
    for (name, var) in vars {
        let got = numbers(grads.get(var).unwrap_or_else(|| panic!("{what}: {name}")));
        let start = numbers(var);
        let at = |i: usize, by: f64| {
            let mut moved = start.clone();
            moved[i] += by;
            var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap())
                .unwrap();
            numbers(&loss())[0]
        };
        let want: Vec<f64> = (0..start.len())
            .map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP))
            .collect();
        at(0, 0.0);
        let size = want.iter().fold(1.0f64, |m, w| m.max(w.abs()));
        assert_close(&got, &want, GRADIENT * size, &format!("{what}: {name}"));
    }
}

/// θ ← θ − α ∇L for every variable, `steps` times.
pub fn descend(vars: &[(String, Var)], alpha: f64, steps: usize, loss: impl Fn() -> Tensor) {
    for _ in 0..steps {
        let grads = loss().backward().unwrap();
        for (_, var) in vars {
            let step = (grads.get(var).unwrap() * alpha).unwrap();
            var.set(&(var.as_tensor() - step).unwrap()).unwrap();
        }
    }
}

/// Puts irregular numbers into every variable, so that nothing stands at its start.
pub fn disturb(vars: &[(String, Var)]) {
    for (at, (_, var)) in vars.iter().enumerate() {
        let data: Vec<f64> = (0..var.elem_count())
            .map(|i| 0.7 * (2.3 * i as f64 + at as f64 + 0.9).sin())
            .collect();
        let tensor = Tensor::from_vec(data, var.shape(), &Device::Cpu).unwrap();
        var.set(&tensor.to_dtype(var.dtype()).unwrap()).unwrap();
    }
}

/// A file or folder of the adapters that PEFT wrote.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/adapters")
        .join(name)
}
