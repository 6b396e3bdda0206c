//! A step away from the start, for every adapter.

use candle_core::{Device, Tensor};
use support::adapters::Adapted;

/// Moves everything that is trained away from its start.
pub fn disturb(adapted: &Adapted) {
    for (at, (_, var)) in adapted.vars().iter().enumerate() {
        let data: Vec<f64> = (0..var.elem_count())
            .map(|i| 0.3 * (2.3 * i as f64 + at as f64 + 0.9).sin())
            .collect();
        let moved = Tensor::from_vec(data, var.shape(), &Device::Cpu)
            .and_then(|t| t.to_dtype(var.dtype()))
            .and_then(|t| var.as_tensor() + t)
            .expect("same shape");
        var.set(&moved).expect("same shape");
    }
}
