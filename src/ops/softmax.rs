//! Softmax over the last axis.

use super::element::{
    Element, Wide, by_type, dense, elements, gradient, largest, of_tensor, same_type, sum, widened,
};
use super::rows::{in_tasks, row};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

/// The shares of e^x in each row; `candle_nn::ops::softmax_last_dim` with a backward pass.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | x | `xs` | `[…, last]` |
///
/// # Equation
/// ```text
/// y = e^{x − max} / Σ e^{x − max}          ∂L/∂x = y (∂L/∂y − Σ y ∂L/∂y)
/// ```
///
/// # Shapes
/// The result has the shape and type of `xs`: f32, f64, bf16 or f16, in any layout.
///
/// # Errors
/// Unless `xs` has an axis and is of a floating-point type.
///
/// # Properties
/// * Rows are independent: NaN in one changes no other.
/// * The number of threads changes no bit.
/// * y does not change if a number is added to all of a row, and the gradient of a row sums to 0.
/// * −∞ has no share and no gradient. A row of −∞ alone, or with +∞, is NaN.
///
/// # Departures
/// * candle has no backward pass here, and sums bf16 and f16 in their own type.
/// * In f32 a share below e⁻⁸⁸ of the largest is 0.
/// * The argument may have any layout.
///
/// # Examples
/// ```
/// use candle_align::ops::softmax_last_dim;
/// use candle_core::{Device, Var};
///
/// let x = Var::new(&[0f64, 3f64.ln()], &Device::Cpu)?;
/// let y = softmax_last_dim(&x)?; // ¼, ¾
/// assert!((y.to_vec1::<f64>()?[1] - 0.75).abs() < 1e-15);
///
/// // ∂y₁/∂x = y₁ ([i = 1] − y)
/// let grads = y.get(1)?.backward()?;
/// let of_x = grads.get(&x).unwrap().to_vec1::<f64>()?;
/// assert!((of_x[0] + 0.1875).abs() < 1e-15 && (of_x[1] - 0.1875).abs() < 1e-15);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn softmax_last_dim(xs: &Tensor) -> Result<Tensor> {
    xs.dim(D::Minus1)?;
    same_type("softmax", &[xs])?;
    match xs.device().is_cpu() {
        true => dense(xs)?.apply_op1(Softmax),
        false => composed(xs),
    }
}

/// The same from candle's operations.
fn composed(xs: &Tensor) -> Result<Tensor> {
    candle_nn::ops::softmax(&widened(xs)?, D::Minus1)?.to_dtype(xs.dtype())
}

struct Softmax;

fn forward<T: Element>(x: &[T], n: usize) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
    let rows = x.len() / n.max(1);
    in_tasks(
        rows,
        n,
        [(&mut out, n)],
        #[inline(always)]
        |rows, [out]| {
            let [mut a, mut b] = [const { Vec::new() }; 2];
            for (i, out) in rows.zip(out.chunks_mut(n)) {
                let x = T::wide(row(x, n, i), &mut a);
                T::fill(
                    out,
                    &mut b,
                    #[inline(always)]
                    |out| {
                        // e^{x − max}
                        let max = largest(x);
                        for (y, &x) in out.iter_mut().zip(x) {
                            *y = (x - max).exp();
                        }
                        // y = e^{x − max} / Σ e^{x − max}
                        let share = T::Wide::of(1.0 / sum(out, out, |e, _| e));
                        for y in out.iter_mut() {
                            *y = *y * share;
                        }
                    },
                );
            }
        },
    );
    out
}

fn backward<T: Element>(y: &[T], grad: &[T], n: usize) -> Vec<T> {
    let mut out = vec![T::default(); y.len()];
    let rows = y.len() / n.max(1);
    in_tasks(
        rows,
        n,
        [(&mut out, n)],
        #[inline(always)]
        |rows, [out]| {
            let [mut a, mut b, mut c] = [const { Vec::new() }; 3];
            for (i, out) in rows.zip(out.chunks_mut(n)) {
                let y = T::wide(row(y, n, i), &mut a);
                let grad = T::wide(row(grad, n, i), &mut b);
                // ∂L/∂x = y (∂L/∂y − Σ y ∂L/∂y)
                let mean = T::Wide::of(sum(y, grad, |y, g| y * g));
                T::fill(
                    out,
                    &mut c,
                    #[inline(always)]
                    |out| {
                        for ((out, &y), &g) in out.iter_mut().zip(y).zip(grad) {
                            *out = y * (g - mean);
                        }
                    },
                );
            }
        },
    );
    out
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax-last-dim"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let n = layout.shape().dim(D::Minus1)?;
        let out = by_type!(storage.dtype(), "softmax", T => {
            let out = forward::<T>(elements(storage, layout)?, n);
            candle_core::WithDType::to_cpu_storage_owned(out)
        });
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = dense(grad)?;
        let n = xs.dim(D::Minus1)?;
        let read = [y, &grad].map(Tensor::storage_and_layout);
        by_type!(xs.dtype(), "softmax", T => {
            gradient(backward::<T>(of_tensor(&read[0])?, of_tensor(&read[1])?, n), xs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{TYPES, assert_same, numbers};

    #[test]
    fn the_composed_form_has_the_same_values_and_gradients() {
        for dtype in TYPES {
            let x = numbers(&[3, 2, 37], 5.0, dtype);
            assert_same(&[x], |t| softmax_last_dim(&t[0]), |t| composed(&t[0]));
        }
    }
}
