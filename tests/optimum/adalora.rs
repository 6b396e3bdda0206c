//! Two matrices, one budget: the rank goes where it is needed.

use crate::common::lora::rng;
use crate::common::{assert_close, numbers};
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraLinear, AdaLoraScaling, Adapter, Orthogonality, RankAllocator,
    RankAllocatorConfig, orthogonality_penalty,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};

const SIZE: usize = 6;
const STEPS: usize = 600;
/// The last steps, in which the ranks stay.
const FINAL: usize = 250;

/// U diag(values) Vᵀ with U and V reflections: every singular vector has all coordinates.
fn change(values: &[f64], seed: f64) -> Tensor {
    let reflection = |phase: f64| {
        let v: Vec<f64> = (0..SIZE).map(|i| (1.3 * i as f64 + phase).cos()).collect();
        let v = Tensor::from_vec(v, (SIZE, 1), &Device::Cpu).unwrap();
        let length = v
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f64>()
            .unwrap();
        let outer = v.matmul(&v.t().unwrap()).unwrap();
        (Tensor::eye(SIZE, DType::F64, &Device::Cpu).unwrap() - (outer * (2.0 / length)).unwrap())
            .unwrap()
    };
    let mut diagonal = vec![0.0; SIZE];
    diagonal[..values.len()].copy_from_slice(values);
    let diagonal = Tensor::new(diagonal, &Device::Cpu).unwrap();
    reflection(seed)
        .broadcast_mul(&diagonal)
        .unwrap()
        .matmul(&reflection(seed + 1.0))
        .unwrap()
}

/// What training reached: the changes found, the ranks, the last loss.
struct Found {
    changes: Vec<Tensor>,
    ranks: Vec<usize>,
    loss: f64,
}

/// Σ ½‖s·PΛQ − Δ‖² over two matrices, with the penalty, by gradient descent.
fn train(teachers: &[Tensor; 2], seed: u64) -> Found {
    let config = AdaLoraConfig {
        rank: 4,
        alpha: 4.0, // s = 1
        scaling: AdaLoraScaling::Rank,
        ..Default::default()
    };
    let base = Linear::new(
        Tensor::zeros((SIZE, SIZE), DType::F64, &Device::Cpu).unwrap(),
        None,
    );
    let mut rng = rng(seed);
    let layers = ["q", "v"].map(|name| {
        let layer = AdaLoraLinear::new(&base, &config, &mut rng).unwrap();
        // larger than at a real start, so that few steps are enough
        for var in [layer.p(), layer.q()] {
            var.set(&(var.as_tensor() * 15.0).unwrap()).unwrap();
        }
        (name.to_string(), layer)
    });
    let schedule = RankAllocatorConfig {
        target_rank: 2,
        initial_steps: 100,
        final_steps: FINAL,
        interval: 10,
        total_steps: STEPS,
        ..Default::default()
    };
    let mut allocator = RankAllocator::new(&layers, &schedule).unwrap();
    let x = Tensor::eye(SIZE, DType::F64, &Device::Cpu).unwrap();
    let mut last = f64::NAN;
    for step in 0..STEPS {
        let mut fit = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
        for ((_, layer), teacher) in layers.iter().zip(teachers) {
            let error = (layer.forward(&x).unwrap() - teacher.t().unwrap()).unwrap();
            fit = (fit + (error.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap()).unwrap();
        }
        last = numbers(&fit)[0];
        let both = [&layers[0].1, &layers[1].1];
        let penalty = orthogonality_penalty(&both, Orthogonality::SquaredSum).unwrap();
        // the penalty keeps λ comparable while ranks are chosen; then the fit alone decides
        let gamma = if step < STEPS - FINAL { 0.1 } else { 0.0 };
        let loss = (fit + (penalty * gamma).unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        for (name, layer) in &layers {
            for (_, var) in layer.trainable(name) {
                let step = (grads.get(&var).unwrap() * 0.05).unwrap();
                var.set(&(var.as_tensor() - step).unwrap()).unwrap();
            }
        }
        allocator.update(step, &grads).unwrap();
    }
    let kept = allocator.kept().into_iter();
    Found {
        changes: layers.iter().map(|(_, l)| l.delta().unwrap()).collect(),
        ranks: kept
            .map(|(_, kept)| kept.iter().filter(|k| **k).count())
            .collect(),
        loss: last,
    }
}

#[test]
fn the_rank_goes_to_the_matrix_that_needs_it() {
    let teachers = [change(&[3.0, 2.5, 2.0], 0.4), change(&[2.2], 2.0)];
    let found = train(&teachers, 11);
    assert_eq!(found.ranks, [3, 1]);
    assert!(found.loss < 1e-12, "{}", found.loss);
    for (got, want) in found.changes.iter().zip(&teachers) {
        assert_close(&numbers(got), &numbers(want), 1e-6, "change");
    }
    // the other way round
    let [first, second] = teachers;
    let found = train(&[second, first], 11);
    assert_eq!(found.ranks, [1, 3]);
    assert!(found.loss < 1e-12, "{}", found.loss);
}
