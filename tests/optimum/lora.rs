//! Linear regression towards a teacher W₀ + Δ: with inputs of covariance Σ the loss is
//! ½ tr(E Σ Eᵀ), E = s·B·A − Δ.

use crate::common::lora::{irregular, rng};
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{Adapter, LinearAdapter, LoraConfig, LoraLinear, Scaling};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};

/// Orthonormal columns `[6, 2]` for the outputs and `[5, 2]` for the inputs.
fn bases() -> (Tensor, Tensor) {
    let column = |x: &[f64]| {
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter().map(|x| x / length).collect::<Vec<_>>()
    };
    let columns = |a: &[f64], b: &[f64]| {
        let data = [column(a), column(b)].concat();
        let rows = Tensor::from_vec(data, (2, a.len()), &Device::Cpu).unwrap();
        rows.t().unwrap().contiguous().unwrap()
    };
    (
        columns(
            &[1.0, 2.0, -1.0, 0.5, 0.0, 1.0],
            &[2.0, -1.0, 0.0, 0.0, 3.0, 0.0],
        ),
        columns(&[1.0, 1.0, 0.0, -2.0, 0.5], &[1.0, -1.0, 2.0, 0.0, 0.0]),
    )
}

/// U diag(σ) Vᵀ `[6, 5]`.
fn of_singular_values(values: [f64; 2]) -> Tensor {
    let (u, v) = bases();
    let values = Tensor::new(&values, &Device::Cpu).unwrap();
    u.broadcast_mul(&values)
        .unwrap()
        .matmul(&v.t().unwrap())
        .unwrap()
}

/// The variances of five independent inputs.
const VARIANCES: [f64; 5] = [2.0, 0.5, 1.0, 1.5, 0.25];

fn variances() -> Tensor {
    Tensor::new(&VARIANCES, &Device::Cpu).unwrap()
}

/// Inputs with XᵀX/N = diag(variances): N = 5 rows, one axis each.
fn inputs(variances: &Tensor) -> Tensor {
    Tensor::eye(5, DType::F64, &Device::Cpu)
        .unwrap()
        .broadcast_mul(&(variances * 5.0).unwrap().sqrt().unwrap())
        .unwrap()
}

struct Regression {
    layer: LoraLinear,
    x: Tensor,
    y: Tensor,
}

impl Regression {
    fn new(change: &Tensor, x: Tensor, config: &LoraConfig) -> Self {
        let weight = irregular(&[6, 5]);
        let bias = irregular(&[6]);
        let teacher = Linear::new((&weight + change).unwrap(), Some(bias.clone()));
        let base = Linear::new(weight, Some(bias));
        Self {
            layer: LoraLinear::new(&base, config, &mut rng(4)).unwrap(),
            y: teacher.forward(&x).unwrap(),
            x,
        }
    }

    /// ½ · mean over the rows of ‖h − y‖².
    fn loss(&self) -> Tensor {
        let error = (self.layer.forward(&self.x).unwrap() - &self.y).unwrap();
        let rows = self.x.dim(0).unwrap() as f64;
        let sum = error.sqr().unwrap().sum_all().unwrap();
        (sum * (0.5 / rows)).unwrap()
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

/// rank, and α = 3: s ≠ 1.
fn config(rank: usize) -> LoraConfig {
    LoraConfig {
        rank,
        alpha: 3.0,
        ..Default::default()
    }
}

/// What gradient descent reaches of a smooth optimum in f64.
const REACHED: f64 = 1e-10;

#[test]
fn a_change_of_the_adapters_rank_is_recovered() {
    let change = of_singular_values([2.0, 1.0]);
    for scaling in [Scaling::Rank, Scaling::RankSqrt] {
        let config = LoraConfig {
            scaling,
            ..config(2)
        };
        let ones = variances().ones_like().unwrap();
        let task = Regression::new(&change, inputs(&ones), &config);
        task.descend(0.1, 500);
        let found = numbers(&task.layer.delta().unwrap());
        assert_close(&found, &numbers(&change), REACHED, "change");
        assert!(numbers(&task.loss())[0] < REACHED * REACHED);
        // the merged layer is the teacher
        let merged = task.layer.merged_linear().unwrap();
        let y = merged.forward(&task.x).unwrap();
        assert_close(&numbers(&y), &numbers(&task.y), 10.0 * REACHED, "teacher");
    }
}

#[test]
fn a_change_of_lower_rank_is_recovered_too() {
    let change = of_singular_values([2.0, 0.0]);
    let task = Regression::new(&change, inputs(&variances()), &config(2));
    task.descend(0.1, 2000);
    let found = numbers(&task.layer.delta().unwrap());
    // the second direction has nothing to fit: it dies out more slowly than the first is found
    assert_close(&found, &numbers(&change), 1e-6, "change");
}

#[test]
fn of_a_change_of_higher_rank_the_best_part_is_found_weighted_by_the_inputs() {
    // Δ Σ^{½} has the singular values 2 and 1: the best of rank one leaves ½ · 1²
    let whitened = of_singular_values([2.0, 1.0]);
    let root = variances().sqrt().unwrap();
    let change = whitened.broadcast_div(&root).unwrap();
    let task = Regression::new(&change, inputs(&variances()), &config(1));
    let start = numbers(&task.loss())[0];
    assert_close(&[start], &[0.5 * (4.0 + 1.0)], 1e-12, "at B = 0: ½‖Δ Σ^½‖²");
    task.descend(0.05, 1500);
    let loss = numbers(&task.loss())[0];
    assert_close(&[loss], &[0.5], REACHED, "loss");
    let best = of_singular_values([2.0, 0.0]).broadcast_div(&root).unwrap();
    let found = numbers(&task.layer.delta().unwrap());
    assert_close(&found, &numbers(&best), 1e-6, "truncated SVD of Δ Σ^½");
}

#[test]
fn without_weights_the_best_part_is_the_truncated_svd() {
    let change = of_singular_values([2.0, 1.0]);
    let ones = variances().ones_like().unwrap();
    let task = Regression::new(&change, inputs(&ones), &config(1));
    task.descend(0.05, 1500);
    assert_close(&numbers(&task.loss()), &[0.5], REACHED, "loss");
    let best = of_singular_values([2.0, 0.0]);
    let found = numbers(&task.layer.delta().unwrap());
    assert_close(&found, &numbers(&best), 1e-6, "change");
}

/// BᵀB − AAᵀ `[rank, rank]`.
fn imbalance(layer: &LoraLinear) -> Vec<f64> {
    let (a, b) = (layer.a(), layer.b());
    let bb = b.t().unwrap().matmul(b).unwrap();
    let aa = a.matmul(&a.t().unwrap()).unwrap();
    numbers(&(bb - aa).unwrap())
}

#[test]
fn gradient_flow_keeps_the_imbalance_of_the_factors() {
    // a step of descent moves it by a term of second order: the drift falls with the step
    let change = of_singular_values([2.0, 1.0]);
    let drift = |alpha: f64, steps: usize| {
        let task = Regression::new(&change, inputs(&variances()), &config(2));
        let before = imbalance(&task.layer);
        task.descend(alpha, steps);
        let after = imbalance(&task.layer);
        before
            .iter()
            .zip(after)
            .map(|(b, a)| (a - b).abs())
            .fold(0.0, f64::max)
    };
    let coarse = drift(0.02, 100);
    let fine = drift(0.002, 1000);
    assert!(coarse > 1e-4, "{coarse}");
    let ratio = coarse / fine;
    assert!((8.0..12.0).contains(&ratio), "{coarse} / {fine}");
}

#[test]
fn with_both_factors_at_zero_nothing_is_learnt() {
    let change = of_singular_values([2.0, 1.0]);
    let task = Regression::new(&change, inputs(&variances()), &config(2));
    let a = task.layer.a();
    a.set(&a.zeros_like().unwrap()).unwrap();
    let before = numbers(&task.loss());
    task.descend(0.1, 10);
    assert_eq!(numbers(&task.loss()), before);
    assert!(
        numbers(&task.layer.delta().unwrap())
            .iter()
            .all(|d| *d == 0.0)
    );
}
