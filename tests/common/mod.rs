//! What the suites share: tensors from literals, gradients, the table of losses, small policies.
#![allow(dead_code)] // the suite of the examples compiles it too and uses a part

pub mod adapted;
pub mod adapters;
pub mod draws;
pub mod layers;
pub mod lists;
pub mod lora;
pub mod policy;
pub mod quantized;
pub mod rankings;
pub mod rows;
pub mod table;
pub mod words;

use candle_align::{Result, Statistics};
use candle_core::{DType, Device, Tensor, Var};

/// Absolute difference allowed between two f64 computations of one number.
pub const EXACT: f64 = 1e-12;
/// Step of the central differences.
pub const STEP: f64 = 1e-5;
/// Difference allowed between a gradient and its central difference, relative to max(1, |gradient|).
pub const GRADIENT: f64 = 2e-8;

/// Everything that can be asked for beside the log-probabilities.
pub const ALL_STATISTICS: Statistics = Statistics {
    entropy: true,
    vocabulary_mean: true,
    log_collision: true,
};

/// What an input is to a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gets a gradient.
    Trained,
    /// Must not get one.
    Constant,
    /// u8, extended by zeros.
    Mask,
    /// u32; extended by values out of range, which the mask must hide.
    Index,
}

/// One argument of a loss: batch first; a second axis, if there is one, is time or k.
#[derive(Clone, Debug)]
pub struct Input {
    /// As the error message spells it.
    pub name: &'static str,
    pub role: Role,
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

pub fn trained(name: &'static str, shape: &[usize], data: &[f64]) -> Input {
    input(name, Role::Trained, shape, data)
}

pub fn constant(name: &'static str, shape: &[usize], data: &[f64]) -> Input {
    input(name, Role::Constant, shape, data)
}

pub fn mask(name: &'static str, shape: &[usize], data: &[u8]) -> Input {
    let data: Vec<f64> = data.iter().map(|&m| m as f64).collect();
    input(name, Role::Mask, shape, &data)
}

pub fn index(name: &'static str, shape: &[usize], data: &[u32]) -> Input {
    let data: Vec<f64> = data.iter().map(|&m| m as f64).collect();
    input(name, Role::Index, shape, &data)
}

fn input(name: &'static str, role: Role, shape: &[usize], data: &[f64]) -> Input {
    assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}");
    Input {
        name,
        role,
        shape: shape.to_vec(),
        data: data.to_vec(),
    }
}

impl Input {
    /// As a variable, so that a gradient would be seen where none may be.
    pub fn var(&self, float: DType) -> Var {
        let dtype = match self.role {
            Role::Trained | Role::Constant => float,
            Role::Mask => DType::U8,
            Role::Index => DType::U32,
        };
        let tensor = Tensor::from_slice(&self.data, self.shape.as_slice(), &Device::Cpu)
            .and_then(|t| t.to_dtype(dtype))
            .expect("an input's own shape");
        Var::from_tensor(&tensor).expect("a copy")
    }
}

/// One loss at one setting and one point: the suites run every law on every row.
pub struct Row {
    /// The loss, its setting, the point: for the messages of a failing law.
    pub name: &'static str,
    pub inputs: Vec<Input>,
    /// From the inputs in their order to one loss per example `[batch]`.
    pub loss: fn(&[Tensor]) -> Result<Tensor>,
    /// Whether an example's loss depends on that example alone.
    pub independent: bool,
}

impl Row {
    pub fn vars(&self, float: DType) -> Vec<Var> {
        self.inputs.iter().map(|i| i.var(float)).collect()
    }

    /// The losses `[batch]` of these variables, in f64.
    pub fn losses(&self, vars: &[Var]) -> Vec<f64> {
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let loss = (self.loss)(&tensors).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        assert_eq!(loss.rank(), 1, "{}: one loss per example", self.name);
        numbers(&loss)
    }

    /// The gradient of Σ loss with respect to every input; `None` where the graph does not reach.
    pub fn gradients(&self, vars: &[Var]) -> Vec<Option<Vec<f64>>> {
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let loss = (self.loss)(&tensors).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let grads = loss.sum_all().and_then(|l| l.backward()).expect("backward");
        vars.iter().map(|v| grads.get(v).map(numbers)).collect()
    }
}

/// Every element, as f64.
pub fn numbers(t: &Tensor) -> Vec<f64> {
    t.flatten_all()
        .and_then(|t| t.to_dtype(DType::F64))
        .and_then(|t| t.to_vec1::<f64>())
        .expect("a tensor's own elements")
}

/// A vector in f64.
pub fn vector(data: &[f64]) -> Tensor {
    Tensor::new(data, &Device::Cpu).expect("a vector")
}

/// A variable in f64.
pub fn var(values: &[f64]) -> Var {
    Var::from_tensor(&vector(values)).expect("a copy")
}

/// A matrix in f64.
pub fn matrix(rows: &[&[f64]]) -> Tensor {
    let (r, c) = (rows.len(), rows.first().map_or(0, |r| r.len()));
    let data: Vec<f64> = rows.iter().flat_map(|r| r.iter().copied()).collect();
    Tensor::from_vec(data, (r, c), &Device::Cpu).expect("rows of one length")
}

/// A u8 mask.
pub fn bits(rows: &[&[u8]]) -> Tensor {
    let (r, c) = (rows.len(), rows.first().map_or(0, |r| r.len()));
    let data: Vec<u8> = rows.iter().flat_map(|r| r.iter().copied()).collect();
    Tensor::from_vec(data, (r, c), &Device::Cpu).expect("rows of one length")
}

/// Fails unless the two agree within `tolerance`, element by element.
#[track_caller]
pub fn assert_close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: {got:?} against {want:?}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            approx::abs_diff_eq!(g, w, epsilon = tolerance),
            "{what}[{i}]: got {g}, want {w} (all: {got:?} against {want:?})"
        );
    }
}

/// A message, word for word.
#[track_caller]
pub fn says<T, E: std::fmt::Display>(result: std::result::Result<T, E>, message: &str) {
    match result {
        Ok(_) => panic!("no error, where this was expected: {message}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

/// row · x, for expectations.
pub fn dot(row: &[f64], x: &[f64]) -> f64 {
    row.iter().zip(x).map(|(w, x)| w * x).sum()
}

/// σ(x) in f64, for expectations.
pub fn sigma(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// −log σ(x) in f64, for expectations at moderate x.
pub fn logistic_loss(x: f64) -> f64 {
    (1.0 + (-x).exp()).ln()
}
