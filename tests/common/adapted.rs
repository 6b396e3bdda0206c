//! The adapter layers beside LoRA over LoRA's little base layer, at their start and after some
//! training.

use super::lora::{A, B, base, irregular, rng, tensor};
use super::vector;
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraLinear, DoraLinear, FrozenBase, FrozenLinear, Ia3Linear, Ia3Place,
    LinearAdapter, LoraConfig, VeraConfig, VeraLinear, VeraProjections,
};
use candle_core::{DType, Tensor, Var};
use candle_nn::Linear;

/// What all of them can do.
pub trait Adapted: LinearAdapter {
    fn base(&self) -> &FrozenLinear;
    fn another(&self) -> Box<dyn Adapted>;
}

impl<L: LinearAdapter + Clone + 'static> Adapted for L {
    fn base(&self) -> &FrozenLinear {
        match self.frozen() {
            FrozenBase::Linear(base) => base,
            other => panic!("{other:?}"),
        }
    }
    fn another(&self) -> Box<dyn Adapted> {
        Box::new(self.clone())
    }
}

/// AdaLoRA of rank 2, α = 3.
pub fn ada_config() -> AdaLoraConfig {
    AdaLoraConfig {
        rank: 2,
        alpha: 3.0,
        ..Default::default()
    }
}

/// VeRA of rank 2.
pub fn vera_config() -> VeraConfig {
    VeraConfig {
        rank: 2,
        ..Default::default()
    }
}

/// A and B of LoRA's layer, with a fifth input and a fourth output that are not this layer's.
pub fn shared(dtype: DType) -> VeraProjections {
    let wide = match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let a = tensor(&A.map(|a| [a[0], a[1], a[2], a[3], 99.0]));
    let b = tensor(&[B[0], B[1], B[2], [99.0, -99.0]]);
    let cast = |t: Tensor| t.to_dtype(wide).unwrap();
    VeraProjections::from_tensors(cast(a), cast(b)).unwrap()
}

pub const LAMBDA: [f64; 2] = [1.5, -0.7];
pub const MAGNITUDE: [f64; 3] = [1.2, 0.4, 2.5];
pub const OUTPUT_SCALE: [f64; 3] = [1.5, -0.5, 0.8];
pub const INPUT_SCALE: [f64; 4] = [0.5, 2.0, -1.0, 1.25];
pub const LAMBDA_B: [f64; 3] = [0.6, -1.1, 0.3];

/// Sets a variable in its own type.
pub fn set(var: &Var, value: Tensor) {
    let value = value.to_dtype(var.dtype()).unwrap();
    var.set(&value.reshape(var.shape()).unwrap()).unwrap();
}

pub fn ada(config: &AdaLoraConfig, dtype: DType) -> AdaLoraLinear {
    let layer = AdaLoraLinear::new(&base(dtype), config, &mut rng(7)).unwrap();
    set(layer.q(), tensor(&A));
    set(layer.lambda(), vector(&LAMBDA));
    set(layer.p(), tensor(&B));
    layer
}

pub fn dora(config: &LoraConfig, dtype: DType) -> DoraLinear {
    let layer = DoraLinear::new(&base(dtype), config, &mut rng(7)).unwrap();
    set(layer.a(), tensor(&A));
    set(layer.b(), tensor(&B));
    set(layer.magnitude(), vector(&MAGNITUDE));
    layer
}

pub fn ia3(place: Ia3Place, dtype: DType) -> Ia3Linear {
    let layer = Ia3Linear::new(&base(dtype), place).unwrap();
    match place {
        Ia3Place::Output => set(layer.scale(), vector(&OUTPUT_SCALE)),
        Ia3Place::Input => set(layer.scale(), vector(&INPUT_SCALE)),
    }
    layer
}

pub fn vera(config: &VeraConfig, dtype: DType) -> VeraLinear {
    let layer = VeraLinear::new(&base(dtype), &shared(dtype), config).unwrap();
    set(layer.lambda_d(), vector(&LAMBDA));
    set(layer.lambda_b(), vector(&LAMBDA_B));
    layer
}

/// Each of them over a base, at its start, with ranks that make nothing as large as a weight.
pub fn starts_over(base: &Linear) -> Vec<(&'static str, Box<dyn Adapted>)> {
    let weight = base.weight();
    let (outputs, inputs) = weight.dims2().unwrap();
    let dtype = match weight.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let lora = LoraConfig {
        rank: 2,
        alpha: 3.0,
        ..Default::default()
    };
    let cast = |shape: &[usize]| irregular(shape).to_dtype(dtype).unwrap();
    let shared = VeraProjections::from_tensors(cast(&[2, inputs + 1]), cast(&[outputs + 1, 2]));
    let place = |place| Box::new(Ia3Linear::new(base, place).unwrap());
    vec![
        (
            "AdaLoRA",
            Box::new(AdaLoraLinear::new(base, &ada_config(), &mut rng(7)).unwrap()) as _,
        ),
        (
            "DoRA",
            Box::new(DoraLinear::new(base, &lora, &mut rng(7)).unwrap()),
        ),
        ("(IA)³, output", place(Ia3Place::Output)),
        ("(IA)³, input", place(Ia3Place::Input)),
        (
            "VeRA",
            Box::new(VeraLinear::new(base, &shared.unwrap(), &vera_config()).unwrap()),
        ),
    ]
}

/// Each of them over LoRA's base layer, with and without its bias, at its start.
pub fn starts(dtype: DType) -> Vec<(&'static str, Box<dyn Adapted>)> {
    let with = base(dtype);
    let without = Linear::new(with.weight().clone(), None);
    let mut layers = starts_over(&with);
    layers.extend(starts_over(&without));
    layers
}

/// As [`starts`], after some training.
pub fn trained_layers(dtype: DType) -> Vec<(&'static str, Box<dyn Adapted>)> {
    let layers = starts(dtype);
    for (_, layer) in &layers {
        for (i, (_, var)) in layer.trainable("").into_iter().enumerate() {
            let shape = [&[i + 2], var.dims()].concat();
            let row = irregular(&shape).narrow(0, i + 1, 1).unwrap();
            set(&var, (row + 0.4).unwrap());
        }
    }
    layers
}
