//! Linear regression back to the layer that was quantized: with inputs of covariance Σ the loss is
//! ½ tr(E Σ Eᵀ), E = s·B·A − (W − dequant(W)).

use crate::common::lora::{irregular, rng};
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{
    Adapter, BlockScale, LinearAdapter, LoraConfig, NF4, QloraLinear,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};

/// The variances of five independent inputs.
const VARIANCES: [f64; 5] = [2.0, 0.5, 1.0, 1.5, 0.25];
/// The largest weight, so large that errors about 1 move no index.
const LARGEST: f64 = 60.0;

/// U diag(σ) Vᵀ `[6, 5]` with orthonormal columns; its first row is 0.
fn of_singular_values(values: [f64; 2]) -> Tensor {
    let column = |x: &[f64]| {
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter().map(|x| x / length).collect::<Vec<_>>()
    };
    let columns = |a: &[f64], b: &[f64]| {
        let data = [column(a), column(b)].concat();
        Tensor::from_vec(data, (2, a.len()), &Device::Cpu).unwrap()
    };
    let u = columns(
        &[0.0, 2.0, -1.0, 0.5, 0.0, 1.0],
        &[0.0, -1.0, 0.0, 0.0, 3.0, 2.0],
    );
    let v = columns(&[1.0, 1.0, 0.0, -2.0, 0.5], &[1.0, -1.0, 2.0, 0.0, 0.0]);
    let values = Tensor::new(&values, &Device::Cpu).unwrap();
    let u = u.t().unwrap().broadcast_mul(&values).unwrap();
    u.matmul(&v).unwrap()
}

fn variances() -> Tensor {
    Tensor::new(&VARIANCES, &Device::Cpu).unwrap()
}

/// Weights that four bits hold exactly, in one block: the first is the largest.
fn exact() -> Tensor {
    let index = |i: usize| if i == 0 { 15 } else { (7 * i + i * i) % 16 };
    let data: Vec<f64> = (0..30)
        .map(|i| f64::from(NF4[index(i)] * LARGEST as f32))
        .collect();
    Tensor::from_vec(data, (6, 5), &Device::Cpu).unwrap()
}

struct Regression {
    layer: QloraLinear,
    x: Tensor,
    y: Tensor,
}

impl Regression {
    /// Towards `weight`, from its four bits.
    fn new(weight: &Tensor, scale: BlockScale, rank: usize) -> Self {
        // XᵀX/N = diag(variances): N = 5 rows, one axis each
        let x = Tensor::eye(5, DType::F64, &Device::Cpu).unwrap();
        let x = x
            .broadcast_mul(&(variances() * 5.0).unwrap().sqrt().unwrap())
            .unwrap();
        let base = Linear::new(weight.clone(), Some(irregular(&[6])));
        let config = LoraConfig {
            rank,
            alpha: 3.0,
            ..Default::default()
        };
        Self {
            layer: QloraLinear::new(&base, scale, &config, &mut rng(4)).unwrap(),
            y: base.forward(&x).unwrap(),
            x,
        }
    }

    /// ½ · mean over the rows of ‖h − y‖².
    fn loss(&self) -> Tensor {
        let error = (self.layer.forward(&self.x).unwrap() - &self.y).unwrap();
        (error.sqr().unwrap().sum_all().unwrap() * (0.5 / 5.0)).unwrap()
    }

    fn descend(&self, alpha: f64, steps: usize) {
        for _ in 0..steps {
            let grads = self.loss().backward().unwrap();
            for (_, var) in self.layer.trainable("") {
                let step = (grads.get(&var).unwrap() * alpha).unwrap();
                var.set(&(var.as_tensor() - step).unwrap()).unwrap();
            }
        }
    }
}

/// What gradient descent reaches of a smooth optimum in f64.
const REACHED: f64 = 1e-10;

#[test]
fn the_adapter_becomes_the_best_correction_of_its_rank() {
    // W − dequant(W) = E with E Σ^½ of singular values 2 and 1
    let root = variances().sqrt().unwrap();
    let of = |values| of_singular_values(values).broadcast_div(&root).unwrap();
    let error = of([2.0, 1.0]);
    let weight = (exact() + &error).unwrap();
    for (rank, left, steps) in [(1, 0.5 * 1.0, 1500), (2, 0.0, 2500)] {
        let task = Regression::new(&weight, BlockScale::Single, rank);
        let base = task.layer.base().weight().dequantize().unwrap();
        assert_close(&numbers(&base), &numbers(&exact()), 0.0, "dequantized");
        let start = numbers(&task.loss())[0];
        assert_close(
            &[start],
            &[0.5 * (4.0 + 1.0)],
            REACHED,
            "at the start: ½‖E Σ^½‖²",
        );
        task.descend(0.05, steps);
        assert_close(&numbers(&task.loss()), &[left], REACHED, "loss");
        let best = of(if rank == 1 { [2.0, 0.0] } else { [2.0, 1.0] });
        let found = numbers(&task.layer.delta().unwrap());
        assert_close(&found, &numbers(&best), 1e-6, "truncated SVD of E Σ^½");
    }
}

#[test]
fn at_full_rank_the_error_of_quantization_is_repaired() {
    for scale in [BlockScale::Single, BlockScale::Double] {
        let weight = (irregular(&[6, 5]) * 8.0).unwrap();
        let task = Regression::new(&weight, scale, 5);
        let start = numbers(&task.loss())[0];
        assert!(start > 0.05, "{start}");
        task.descend(0.05, 3000);
        let end = numbers(&task.loss())[0];
        assert!(end < 1e-8 * start, "{end} of {start}");
        let merged = task.layer.merged_linear().unwrap();
        assert_close(&numbers(merged.weight()), &numbers(&weight), 1e-3, "W");
    }
}
