//! Tensors for the four-bit layers.

use super::lora::{self, irregular, rng};
use candle_align::parameter_efficient::{
    Adapter, BlockScale, LoraConfig, LoraLinear, Nf4Tensor, QloraLinear,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Linear;
use rand_distr::{Distribution, StandardNormal};

pub const SCALES: [BlockScale; 2] = [BlockScale::Single, BlockScale::Double];

/// Elements that share a scale.
pub const BLOCK: usize = 64;

/// The nearest f32, as f64: what a value of the type f32 is in formulas.
pub fn single(x: f64) -> f64 {
    f64::from(x as f32)
}

pub fn vector32(data: &[f64]) -> Tensor {
    let data: Vec<f32> = data.iter().map(|x| *x as f32).collect();
    Tensor::new(data, &Device::Cpu).unwrap()
}

pub fn quantized(x: &Tensor, scale: BlockScale) -> Nf4Tensor {
    Nf4Tensor::quantize(x, scale).unwrap()
}

/// What four bits make of it.
pub fn through(x: &Tensor, scale: BlockScale) -> Tensor {
    quantized(x, scale).dequantize().unwrap()
}

/// The indices of the first `n` elements.
pub fn indices(q: &Nf4Tensor, n: usize) -> Vec<u8> {
    let halves = q.packed().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves.take(n).collect()
}

/// N(0, 1).
pub fn normal(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = rng(seed);
    let n = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|_| StandardNormal.sample(&mut rng)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Irregular numbers whose blocks differ much in magnitude.
pub fn uneven(shape: &[usize], dtype: DType) -> Tensor {
    let n: usize = shape.iter().product();
    let factor = |i: usize| 0.05 + ((i / BLOCK * 7) % 11) as f64;
    let factors: Vec<f64> = (0..n).map(factor).collect();
    let factors = Tensor::from_vec(factors, shape, &Device::Cpu).unwrap();
    (irregular(shape) * factors)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

/// A four-bit LoRA layer small enough to write down: 4 inputs, 3 outputs, rank 2, α = 3, away from
/// its start.
pub fn trained(config: &LoraConfig, dtype: DType, scale: BlockScale) -> QloraLinear {
    let layer = QloraLinear::new(&lora::base(dtype), scale, config, &mut rng(7)).unwrap();
    let float = layer.a().dtype();
    let set = |var: &Var, t: Tensor| var.set(&t.to_dtype(float).unwrap()).unwrap();
    set(layer.a(), lora::tensor(&lora::A));
    set(layer.b(), lora::tensor(&lora::B));
    for (name, var) in layer.trainable("") {
        if name.ends_with("bias") {
            set(&var, super::vector(&lora::NEW_BIAS));
        }
    }
    layer
}

/// The same LoRA layer over the weight that the four bits stand for.
pub fn over_dequantized(layer: &QloraLinear, config: &LoraConfig) -> LoraLinear {
    let weight = layer.base().weight().dequantize().unwrap();
    let bias = layer.base().bias().cloned();
    let same = LoraLinear::new(&Linear::new(weight, bias), config, &mut rng(7)).unwrap();
    for ((name, from), (other, to)) in layer.trainable("").iter().zip(same.trainable("")) {
        assert_eq!(name, &other);
        to.set(&from.copy().unwrap()).unwrap();
    }
    same
}
