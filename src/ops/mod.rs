//! candle's fused operations, with a backward pass.
//!
//! Candle's own cut the graph without an error: `backward()` returns `Ok`, the loss falls, and what is below
//! the operation does not learn. These have the same names and arguments, so a model needs another `use`
//! line and nothing else:
//!
//! ```text
//! use candle_nn::ops;                →    use candle_align::ops;
//! use candle_nn::rotary_emb::rope;   →    use candle_align::ops::rope;
//! ```
//!
//! | operation | what candle 0.11 does with its gradient | here |
//! |---|---|---|
//! | [`rms_norm`] | cut; f64 is an error | for `xs` and `alpha` |
//! | [`layer_norm`] | cut; f64 is an error | for `xs`, `alpha` and `beta` |
//! | [`softmax_last_dim`] | cut | for `xs` |
//! | [`rope`], [`rope_i`], [`rope_thd`] | cut | for `xs`; for `cos` and `sin` if they are trained |
//! | [`attention`](attention()) | none on the CPU; `softmax_last_dim` is cut | for queries, keys and values, over [`Segments`] |
//! | [`swiglu`] | right, from four operations that each keep their result | the same from one |
//! | [`silu_mul`] | (`gate.silu()? * up`, right) | the same from one |
//! | `softmax`, `log_softmax`, `silu`, `sigmoid`, `leaky_relu`, `dropout` | right | candle's own, passed on |
//!
//! The layers of candle_nn call its operations: `RmsNorm::forward` and `LayerNorm::forward` are cut for
//! contiguous inputs. Call [`rms_norm`] with the layer's weight, `norm.weight()`, or keep
//! the weight itself.
//!
//! All take f32, f64, bf16 and f16, all arguments of one type. bf16 and f16 are computed in f32 and rounded
//! once. Arguments may have any layout; one that is not contiguous is copied. On the CPU an operation is one
//! pass, shared out by rows among rayon's threads, and small tensors stay on the calling thread. Elsewhere it
//! is composed of candle's operations, with the same values. Errors are candle's.
//!
//! A gradient is computed for those arguments that are part of a graph. A frozen weight costs nothing.
//! Nothing but the arguments and the result is kept for the backward pass.
//!
//! [`grad_coverage`](crate::training::grad_coverage) and
//! [`gradient_agreement`](crate::training::gradient_agreement) tell whether a model is cut somewhere.

pub mod attention;
mod element;
pub(crate) mod few_rows;
mod layer_norm;
mod rms_norm;
mod rope;
mod rows;
mod softmax;
mod swiglu;

pub use attention::{AttentionConfig, Segments, attention, attention_with_prefix};
pub use candle_nn::ops::{dropout, leaky_relu, log_softmax, sigmoid, silu, softmax};
pub use layer_norm::layer_norm;
pub use rms_norm::rms_norm;
pub use rope::{rope, rope_i, rope_thd};
pub use softmax::softmax_last_dim;
pub use swiglu::{silu_mul, swiglu};

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Result, Tensor, Var};

    pub(super) const TYPES: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];

    /// Numbers between −scale and scale, without pattern.
    pub(super) fn numbers(shape: &[usize], scale: f64, dtype: DType) -> Tensor {
        let n: usize = shape.iter().product();
        let data: Vec<f64> = (1..=n).map(|i| (i as f64 * 1.7).sin() * scale).collect();
        let x = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
        x.to_dtype(dtype).unwrap()
    }

    fn doubles(x: &Tensor) -> Vec<f64> {
        let x = x.to_dtype(DType::F64).unwrap();
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Two functions of the inputs agree in value and in every gradient, to a few roundings.
    pub(super) fn assert_same(
        inputs: &[Tensor],
        one: impl Fn(&[Tensor]) -> Result<Tensor>,
        two: impl Fn(&[Tensor]) -> Result<Tensor>,
    ) {
        let dtype = inputs[0].dtype();
        let rounding = match dtype {
            DType::F64 => 1e-12,
            DType::F32 => 5e-6,
            DType::BF16 => 2e-2,
            _ => 3e-3,
        };
        let vars: Vec<Var> = inputs
            .iter()
            .map(|x| Var::from_tensor(x).unwrap())
            .collect();
        let run = |f: &dyn Fn(&[Tensor]) -> Result<Tensor>| {
            let inputs: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = f(&inputs).unwrap();
            let weights = numbers(y.dims(), 1.0, dtype);
            let grads = (&y * weights).unwrap().backward().unwrap();
            let mut all = vec![doubles(&y)];
            all.extend(vars.iter().map(|var| doubles(grads.get(var).unwrap())));
            all
        };
        let (one, two) = (run(&one), run(&two));
        for (i, (one, two)) in one.iter().zip(&two).enumerate() {
            assert_eq!(one.len(), two.len());
            let largest = two.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
            for (a, b) in one.iter().zip(two) {
                let near = (a - b).abs() <= rounding * largest;
                assert!(near, "{dtype:?}, value or gradient {i}: {a} against {b}");
            }
        }
    }
}
