//! Root-mean-square normalization.

use super::element::{
    Element, Wide, by_type, dense, elements, gradient, of_tensor, same_type, sum, widened,
};
use super::rows::{Columns, in_tasks, row, total};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};

/// Divides each row by its root mean square and multiplies by `alpha`; `candle_nn::ops::rms_norm` with a
/// backward pass.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | x | `xs` | `[…, hidden]` |
/// | α | `alpha` | `[hidden]` |
/// | ε | `eps` | |
///
/// # Equation
/// ```text
/// r = 1 / √(Σ x² / n + ε)          y = α x r
///
/// h = α ∂L/∂y                      ∂L/∂x = r (h − x r² Σ h x / n)
///                                  ∂L/∂α = Σ over rows of x r ∂L/∂y
/// ```
///
/// # Shapes
/// The result has the shape and type of `xs`: f32, f64, bf16 or f16, in any layout.
///
/// # Errors
/// Unless `alpha` has one axis, as long as the last of `xs`; unless both are of one floating-point type.
///
/// # Properties
/// * Rows are independent: NaN in one changes no other.
/// * The number of threads changes no bit.
/// * y does not change if x and √ε are scaled alike; with ε = 0 the gradient is orthogonal to x.
/// * On the CPU, squares that leave the range of f32 are summed again in f64.
///
/// # Departures
/// * candle has no backward pass here, and no f64.
/// * bf16 and f16 are rounded once, at the end. candle rounds the root, then the quotient.
/// * Each argument may have any layout.
///
/// # Examples
/// ```
/// use candle_align::ops::rms_norm;
/// use candle_core::{Device, Tensor, Var};
///
/// let x = Var::new(&[[3f64, 4.0]], &Device::Cpu)?;
/// let alpha = Var::new(&[1f64, 2.0], &Device::Cpu)?;
/// let y = rms_norm(&x, &alpha, 0.0)?;
/// let root = 12.5f64.sqrt();
/// let want = Tensor::new(&[[3.0 / root, 8.0 / root]], &Device::Cpu)?;
/// assert!((y.sub(&want)?).abs()?.max_all()?.to_scalar::<f64>()? < 1e-15);
///
/// let grads = y.sum_all()?.backward()?;
/// assert!(grads.get(&x).is_some() && grads.get(&alpha).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[doc(alias = "RMSNorm")]
pub fn rms_norm(xs: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    let (hidden, of_alpha) = (xs.dim(D::Minus1)?, alpha.dims1()?);
    if hidden != of_alpha {
        bail!(
            "shape mismatch in rms-norm {:?} {:?}",
            xs.shape(),
            alpha.shape()
        )
    }
    same_type("rmsnorm", &[xs, alpha])?;
    if !xs.device().is_cpu() {
        return composed(xs, alpha, eps);
    }
    dense(xs)?.apply_op2(&dense(alpha)?, RmsNorm { eps: eps as f64 })
}

/// The same from candle's operations.
fn composed(xs: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    let x = widened(xs)?;
    let mean = (x.sqr()?.sum_keepdim(D::Minus1)? / xs.dim(D::Minus1)? as f64)?;
    let normed = x.broadcast_div(&(mean + eps as f64)?.sqrt()?)?;
    normed.broadcast_mul(&widened(alpha)?)?.to_dtype(xs.dtype())
}

struct RmsNorm {
    eps: f64,
}

/// Mean squares that are precise in single precision.
const SINGLE: std::ops::RangeInclusive<f64> = 1e-30..=1e30;

impl RmsNorm {
    /// 1 / √(Σ x² / n + ε).
    #[inline(always)]
    fn inverse<W: Wide>(&self, x: &[W]) -> f64 {
        let n = x.len() as f64;
        let mut mean = sum(x, x, |x, _| x * x) / n;
        if !SINGLE.contains(&mean) {
            mean = x.iter().map(|x| x.double() * x.double()).sum::<f64>() / n;
        }
        1.0 / (mean + self.eps).sqrt()
    }

    fn forward<T: Element>(&self, x: &[T], alpha: &[T]) -> Vec<T> {
        let n = alpha.len();
        let mut out = vec![T::default(); x.len()];
        let rows = x.len() / n.max(1);
        in_tasks(
            rows,
            n,
            [(&mut out, n)],
            #[inline(always)]
            |rows, [out]| {
                let [mut a, mut b, mut c] = [const { Vec::new() }; 3];
                let alpha = T::wide(alpha, &mut a);
                for (i, out) in rows.zip(out.chunks_mut(n)) {
                    let x = T::wide(row(x, n, i), &mut b);
                    // y = α x r
                    let r = T::Wide::of(self.inverse(x));
                    T::fill(
                        out,
                        &mut c,
                        #[inline(always)]
                        |out| {
                            for ((y, &x), &alpha) in out.iter_mut().zip(x).zip(alpha) {
                                *y = x * r * alpha;
                            }
                        },
                    );
                }
            },
        );
        out
    }

    /// The gradients of x and α, empty where not wanted.
    fn backward<T: Element>(
        &self,
        [x, alpha, grad]: [&[T]; 3],
        [for_x, for_alpha]: [bool; 2],
    ) -> [Vec<T>; 2] {
        let n = alpha.len();
        let mut of_x = vec![T::default(); if for_x { x.len() } else { 0 }];
        let rows = x.len() / n.max(1);
        let sums = in_tasks(
            rows,
            n,
            [(&mut of_x, n)],
            #[inline(always)]
            |rows, [out]| {
                let [mut a, mut b, mut c, mut d] = [const { Vec::new() }; 4];
                let alpha = T::wide(alpha, &mut a);
                let mut columns = Columns::new(if for_alpha { n } else { 0 });
                let mut out = out.chunks_mut(n);
                for i in rows {
                    let x = T::wide(row(x, n, i), &mut b);
                    let grad = T::wide(row(grad, n, i), &mut c);
                    let inverse = self.inverse(x);
                    let r = T::Wide::of(inverse);
                    // ∂L/∂α = Σ x r ∂L/∂y
                    if for_alpha {
                        columns.add(x, grad, |x, g| x * r * g);
                    }
                    // h = α ∂L/∂y,  ∂L/∂x = r (h − x r² Σ h x / n)
                    let Some(out) = out.next() else { continue };
                    T::fill(
                        out,
                        &mut d,
                        #[inline(always)]
                        |out| {
                            for ((h, &g), &alpha) in out.iter_mut().zip(grad).zip(alpha) {
                                *h = g * alpha;
                            }
                            let mean = sum(out, x, |h, x| h * (x * r)) / n as f64;
                            let mean = T::Wide::of(mean);
                            for (h, &x) in out.iter_mut().zip(x) {
                                *h = r * (*h - x * r * mean);
                            }
                        },
                    );
                }
                columns.finish()
            },
        );
        let of_alpha = match for_alpha {
            true => total(n, sums.iter()),
            false => Vec::new(),
        };
        [of_x, of_alpha]
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let out = by_type!(s1.dtype(), "rmsnorm", T => {
            let out = self.forward::<T>(elements(s1, l1)?, elements(s2, l2)?);
            candle_core::WithDType::to_cpu_storage_owned(out)
        });
        Ok((out, l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        alpha: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = dense(grad)?;
        let wanted = [xs.track_op(), alpha.track_op()];
        let read = [xs, alpha, &grad].map(Tensor::storage_and_layout);
        by_type!(xs.dtype(), "rmsnorm", T => {
            let all = [of_tensor::<T>(&read[0])?, of_tensor(&read[1])?, of_tensor(&read[2])?];
            let [of_x, of_alpha] = self.backward(all, wanted);
            Ok((gradient(of_x, xs)?, gradient(of_alpha, alpha)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{assert_same, numbers};

    #[test]
    fn the_composed_form_has_the_same_values_and_gradients() {
        for dtype in crate::ops::tests::TYPES {
            let inputs = [numbers(&[3, 2, 37], 3.0, dtype), numbers(&[37], 1.0, dtype)];
            assert_same(
                &inputs,
                |t| rms_norm(&t[0], &t[1], 0.1),
                |t| composed(&t[0], &t[1], 0.1),
            );
        }
    }
}
