//! A LoRA layer small enough to write down: 4 inputs, 3 outputs, rank 2, α = 3, away from its start.

use super::{dot, matrix, numbers, vector};
use candle_align::parameter_efficient::{Adapter, LoraBias, LoraConfig, LoraEmbedding, LoraLinear};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Embedding, Linear};
use rand::{SeedableRng, rngs::StdRng};

pub const WEIGHT: [[f64; 4]; 3] = [
    [0.5, -1.0, 0.25, 2.0],
    [-0.75, 0.3, 1.1, -0.2],
    [0.9, 0.4, -1.3, 0.6],
];
pub const BIAS: [f64; 3] = [0.1, -0.2, 0.7];
pub const A: [[f64; 4]; 2] = [[0.3, -0.8, 0.5, 0.2], [-0.4, 0.6, 0.9, -1.2]];
pub const B: [[f64; 2]; 3] = [[0.7, -0.3], [0.2, 1.1], [-0.9, 0.4]];
/// Two rows of inputs.
pub const X: [[f64; 4]; 2] = [[1.0, -2.0, 0.5, 3.0], [-0.6, 1.4, 2.2, -0.1]];
/// α/r.
pub const S: f64 = 3.0 / 2.0;

/// Every type that a layer is stored in.
pub const TYPES: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];
/// Every way to treat a bias.
pub const BIASES: [LoraBias; 3] = [LoraBias::Frozen, LoraBias::Base, LoraBias::Update];

/// rank 2, α = 3: α ≠ r, so that a missing scale shows.
pub fn config() -> LoraConfig {
    LoraConfig {
        rank: 2,
        alpha: 3.0,
        ..Default::default()
    }
}

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub fn tensor<const R: usize, const C: usize>(rows: &[[f64; C]; R]) -> Tensor {
    matrix(&rows.iter().map(|r| r.as_slice()).collect::<Vec<_>>())
}

pub fn var(tensor: &Tensor) -> Var {
    Var::from_tensor(&tensor.copy().unwrap()).unwrap()
}

/// The base layer, in `dtype`.
pub fn base(dtype: DType) -> Linear {
    let cast = |t: Tensor| t.to_dtype(dtype).unwrap();
    Linear::new(cast(tensor(&WEIGHT)), Some(cast(vector(&BIAS))))
}

/// The layer at its start.
pub fn start(config: &LoraConfig, dtype: DType) -> LoraLinear {
    LoraLinear::new(&base(dtype), config, &mut rng(7)).unwrap()
}

/// The layer after some training: A, B and a trained bias are set.
pub fn trained(config: &LoraConfig, dtype: DType) -> LoraLinear {
    let layer = start(config, dtype);
    let float = layer.a().dtype();
    let set = |var: &Var, t: Tensor| var.set(&t.to_dtype(float).unwrap()).unwrap();
    set(layer.a(), tensor(&A));
    set(layer.b(), tensor(&B));
    if config.bias != LoraBias::Frozen {
        let bias = layer
            .trainable("")
            .into_iter()
            .find(|(name, _)| name.ends_with("bias"));
        set(&bias.expect("a trained bias").1, vector(&NEW_BIAS));
    }
    layer
}

/// What a trained bias becomes in [`trained`].
pub const NEW_BIAS: [f64; 3] = [-0.4, 0.9, 0.05];

/// W x + s · B A x in plain numbers, without a bias.
pub fn by_hand(x: &[f64], s: f64) -> Vec<f64> {
    let ax: Vec<f64> = A.iter().map(|row| dot(row, x)).collect();
    WEIGHT
        .iter()
        .zip(&B)
        .map(|(w, b)| dot(w, x) + s * dot(b, &ax))
        .collect()
}

/// Five tokens of three numbers, and a layer over them that has been trained a little.
pub fn embedding(dtype: DType) -> LoraEmbedding {
    let layer = LoraEmbedding::new(&table(dtype), &config(), &mut rng(7)).unwrap();
    let float = layer.a().dtype();
    let a = tensor(&[[0.3, -0.8, 0.5, 0.2, 1.5], [-0.4, 0.6, 0.9, -1.2, 0.1]]);
    layer.a().set(&a.to_dtype(float).unwrap()).unwrap();
    layer.b().set(&tensor(&B).to_dtype(float).unwrap()).unwrap();
    layer
}

pub fn table(dtype: DType) -> Embedding {
    let rows = [
        [0.5, -1.0, 0.25],
        [-0.75, 0.3, 1.1],
        [0.9, 0.4, -1.3],
        [2.0, -0.2, 0.6],
        [0.1, 0.8, -0.7],
    ];
    Embedding::new(tensor(&rows).to_dtype(dtype).unwrap(), 3)
}

/// Every element's bits, after a cast to f64, which is exact.
pub fn bits(t: &Tensor) -> Vec<u64> {
    numbers(t).iter().map(|x| x.to_bits()).collect()
}

/// A tensor of the shape, irregular, in f64.
pub fn irregular(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<f64> = (0..n).map(|i| (1.7 * i as f64 + 0.3).sin()).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}
