//! The operations as a table, so that each law holds for each.

use candle_align::ops;
use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{ops as theirs, rotary_emb};

/// An operation at one setting, with the shapes of its arguments for rows of `n`.
pub struct Op {
    pub name: &'static str,
    pub shapes: fn(usize) -> Vec<Vec<usize>>,
    /// How many of the arguments are trained; the others are constants.
    pub trained: usize,
    pub ours: fn(&[Tensor]) -> Result<Tensor>,
    /// The same from candle's operations, in f32 or f64.
    pub slow: fn(&[Tensor]) -> Result<Tensor>,
    /// The last argument's values are angles: the operation takes their cosines and sines.
    pub angles: bool,
}

fn rows(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 3, n]]
}

fn with_one(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 3, n], vec![n]]
}

fn with_two(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 3, n], vec![n], vec![n]]
}

fn halves(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 3, 2 * n]]
}

fn pair(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 3, n], vec![2, 3, n]]
}

fn heads(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 3, 4, 2 * n], vec![5, n]]
}

fn heads_of_rows(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 3, 4, 2 * n], vec![2, 5, n]]
}

fn heads_last(n: usize) -> Vec<Vec<usize>> {
    vec![vec![2, 4, 3, 2 * n], vec![5, n]]
}

/// `rope_slow` knows no batch axis of the angles: batch by batch.
fn each(t: &[Tensor], slow: fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (x, cos, sin) = (&t[0], t[1].cos()?, t[1].sin()?);
    if cos.rank() == 2 {
        return slow(x, &cos, &sin);
    }
    let one = |b: usize| slow(&x.narrow(0, b, 1)?, &cos.get(b)?, &sin.get(b)?);
    Tensor::cat(&(0..x.dim(0)?).map(one).collect::<Result<Vec<_>>>()?, 0)
}

pub fn all() -> Vec<Op> {
    let op = |name, shapes, trained, ours, slow| Op {
        name,
        shapes,
        trained,
        ours,
        slow,
        angles: false,
    };
    let rope = |name, shapes, ours, slow| Op {
        angles: true,
        ..op(name, shapes, 1, ours, slow)
    };
    vec![
        op(
            "rms_norm",
            with_one,
            2,
            |t| ops::rms_norm(&t[0], &t[1], 1e-6),
            |t| theirs::rms_norm_slow(&t[0], &t[1], 1e-6),
        ),
        op(
            "rms_norm, eps 0.5",
            with_one,
            2,
            |t| ops::rms_norm(&t[0], &t[1], 0.5),
            |t| theirs::rms_norm_slow(&t[0], &t[1], 0.5),
        ),
        op(
            "layer_norm",
            with_two,
            3,
            |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5),
            |t| theirs::layer_norm_slow(&t[0], &t[1], &t[2], 1e-5),
        ),
        op(
            "layer_norm, eps 0.5",
            with_two,
            3,
            |t| ops::layer_norm(&t[0], &t[1], &t[2], 0.5),
            |t| theirs::layer_norm_slow(&t[0], &t[1], &t[2], 0.5),
        ),
        op(
            "softmax_last_dim",
            rows,
            1,
            |t| ops::softmax_last_dim(&t[0]),
            |t| theirs::softmax(&t[0], D::Minus1),
        ),
        op(
            "swiglu",
            halves,
            1,
            |t| ops::swiglu(&t[0]),
            |t| theirs::swiglu(&t[0]),
        ),
        op(
            "silu_mul",
            pair,
            2,
            |t| ops::silu_mul(&t[0], &t[1]),
            |t| t[0].silu()? * &t[1],
        ),
        rope(
            "rope",
            heads,
            |t| ops::rope(&t[0], &t[1].cos()?, &t[1].sin()?),
            |t| each(t, rotary_emb::rope_slow),
        ),
        rope(
            "rope, angles by row",
            heads_of_rows,
            |t| ops::rope(&t[0], &t[1].cos()?, &t[1].sin()?),
            |t| each(t, rotary_emb::rope_slow),
        ),
        rope(
            "rope_i",
            heads,
            |t| ops::rope_i(&t[0], &t[1].cos()?, &t[1].sin()?),
            |t| each(t, rotary_emb::rope_i_slow),
        ),
        rope(
            "rope_i, angles by row",
            heads_of_rows,
            |t| ops::rope_i(&t[0], &t[1].cos()?, &t[1].sin()?),
            |t| each(t, rotary_emb::rope_i_slow),
        ),
        rope(
            "rope_thd",
            heads_last,
            |t| ops::rope_thd(&t[0], &t[1].cos()?, &t[1].sin()?),
            |t| {
                let turned = [t[0].transpose(1, 2)?.contiguous()?, t[1].clone()];
                each(&turned, rotary_emb::rope_slow)?.transpose(1, 2)
            },
        ),
    ]
}

/// Numbers without pattern, from −scale to scale.
pub fn numbers(shape: &[usize], scale: f64, seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let one = |i: usize| ((i * (2 * seed + 7) + seed) as f64 * 1.7).sin() * scale;
    let data: Vec<f64> = (1..=n).map(one).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

impl Op {
    /// Arguments in f64.
    pub fn inputs(&self, n: usize, scale: f64) -> Vec<Tensor> {
        let shapes = (self.shapes)(n);
        let all = shapes.iter().enumerate();
        all.map(|(i, shape)| numbers(shape, if i == 0 { scale } else { 2.0 }, i))
            .collect()
    }

    /// The trained arguments as variables, with all arguments in their order.
    pub fn vars(&self, inputs: &[Tensor]) -> (Vec<Var>, Vec<Tensor>) {
        let (trained, constant) = inputs.split_at(self.trained);
        let vars: Vec<Var> = trained
            .iter()
            .map(|x| Var::from_tensor(x).unwrap())
            .collect();
        let mut all: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        all.extend(constant.iter().cloned());
        (vars, all)
    }
}

/// weightᵢ yᵢ with weights without pattern: the gradient of their sum shows every element.
pub fn weighed(y: &Tensor) -> Tensor {
    weighed_by(y, y.dtype())
}

fn weighed_by(y: &Tensor, rounded: DType) -> Tensor {
    let weights = numbers(y.dims(), 1.0, 5).to_dtype(rounded).unwrap();
    (y * weights.to_dtype(y.dtype()).unwrap()).unwrap()
}

/// The value and the gradients of the trained arguments, in f64.
pub fn run(op: &Op, f: fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    run_by(op, f, inputs, inputs[0].dtype())
}

/// The same where the gradient of the result has been rounded to another type.
pub fn run_by(
    op: &Op,
    f: fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    rounded: DType,
) -> Vec<Vec<f64>> {
    let (vars, all) = op.vars(inputs);
    let y = f(&all).unwrap_or_else(|e| panic!("{}: {e}", op.name));
    let grads = weighed_by(&y, rounded).backward().unwrap();
    let mut found = vec![crate::common::numbers(&y)];
    for (i, var) in vars.iter().enumerate() {
        let grad = grads.get(var);
        let grad = grad.unwrap_or_else(|| panic!("{}: no gradient of {i}", op.name));
        assert_eq!(grad.dtype(), var.dtype(), "{}", op.name);
        assert_eq!(grad.dims(), var.dims(), "{}", op.name);
        found.push(crate::common::numbers(grad));
    }
    found
}

/// All arguments in another type.
pub fn cast(inputs: &[Tensor], dtype: DType) -> Vec<Tensor> {
    inputs.iter().map(|x| x.to_dtype(dtype).unwrap()).collect()
}

/// The same numbers, read in another order: not contiguous.
pub fn strided(x: &Tensor) -> Tensor {
    let last = x.rank() - 1;
    match last {
        // every other element of a vector twice as long
        0 => Tensor::stack(&[x, x], 1)
            .unwrap()
            .narrow(1, 0, 1)
            .unwrap()
            .squeeze(1)
            .unwrap(),
        _ => x
            .transpose(0, last)
            .unwrap()
            .contiguous()
            .unwrap()
            .transpose(0, last)
            .unwrap(),
    }
}
