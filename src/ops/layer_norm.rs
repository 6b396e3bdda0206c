//! Layer normalization.

use super::element::{
    Element, Wide, by_type, dense, elements, gradient, of_tensor, same_type, sum, widened,
};
use super::rows::{Columns, in_tasks, row, total};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};

/// Moves each row to mean 0 and variance 1, multiplies by `alpha` and adds `beta`;
/// `candle_nn::ops::layer_norm` with a backward pass.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | x | `xs` | `[…, hidden]` |
/// | α, β | `alpha`, `beta` | `[hidden]` |
/// | ε | `eps` | |
///
/// # Equation
/// ```text
/// m = Σ x / n     r = 1 / √(Σ (x − m)² / n + ε)     z = (x − m) r     y = α z + β
///
/// h = α ∂L/∂y                      ∂L/∂x = r (h − Σ h / n − z Σ h z / n)
///                                  ∂L/∂α = Σ over rows of z ∂L/∂y
///                                  ∂L/∂β = Σ over rows of ∂L/∂y
/// ```
///
/// # Shapes
/// The result has the shape and type of `xs`: f32, f64, bf16 or f16, in any layout.
///
/// # Errors
/// Unless `alpha` and `beta` have one axis, as long as the last of `xs`; unless all are of one
/// floating-point type.
///
/// # Properties
/// * Rows are independent: NaN in one changes no other.
/// * The number of threads changes no bit.
/// * y does not change if a number is added to all of a row, and the gradient of a row sums to 0.
/// * On the CPU, squares that leave the range of f32 are summed again in f64.
///
/// # Departures
/// * candle has no backward pass here, and no f64.
/// * The variance is that of the centered row. candle subtracts the square of the mean from the mean of the
///   squares, which loses all digits in f32 once the mean is a few thousand standard deviations.
/// * Each argument may have any layout.
///
/// # Examples
/// ```
/// use candle_align::ops::layer_norm;
/// use candle_core::{Device, Var};
///
/// let x = Var::new(&[[1f64, 3.0]], &Device::Cpu)?;
/// let alpha = Var::new(&[1f64, 2.0], &Device::Cpu)?;
/// let beta = Var::new(&[0f64, 0.5], &Device::Cpu)?;
/// // mean 2, variance 1
/// let y = layer_norm(&x, &alpha, &beta, 0.0)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[-1.0, 2.5]]);
///
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&beta).unwrap().to_vec1::<f64>()?, [1.0, 1.0]);
/// assert_eq!(grads.get(&alpha).unwrap().to_vec1::<f64>()?, [-1.0, 1.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[doc(alias = "LayerNorm")]
pub fn layer_norm(xs: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    let hidden = xs.dim(D::Minus1)?;
    let (of_alpha, of_beta) = (alpha.dims1()?, beta.dims1()?);
    if hidden != of_alpha || hidden != of_beta {
        bail!(
            "shape mismatch in layer-norm src: {:?} alpha: {:?} beta: {:?}",
            xs.shape(),
            alpha.shape(),
            beta.shape()
        )
    }
    same_type("layernorm", &[xs, alpha, beta])?;
    if !xs.device().is_cpu() {
        return composed(xs, alpha, beta, eps);
    }
    let op = LayerNorm { eps: eps as f64 };
    dense(xs)?.apply_op3(&dense(alpha)?, &dense(beta)?, op)
}

/// The same from candle's operations.
fn composed(xs: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    let (x, n) = (widened(xs)?, xs.dim(D::Minus1)? as f64);
    let x = x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / n)?)?;
    let variance = (x.sqr()?.sum_keepdim(D::Minus1)? / n)?;
    let normed = x.broadcast_div(&(variance + eps as f64)?.sqrt()?)?;
    normed
        .broadcast_mul(&widened(alpha)?)?
        .broadcast_add(&widened(beta)?)?
        .to_dtype(xs.dtype())
}

struct LayerNorm {
    eps: f64,
}

/// Variances that are precise in single precision.
const SINGLE: std::ops::RangeInclusive<f64> = 1e-30..=1e30;

/// What normalizes a row: z = (x − pivot − rest) · r. The mean is pivot + rest, which together hold more
/// digits of it than one number.
struct Centre<W> {
    pivot: W,
    rest: W,
    r: W,
}

impl<W: Wide> Centre<W> {
    #[inline(always)]
    fn of(x: &[W], eps: f64) -> Self {
        let n = x.len() as f64;
        let pivot = W::of(sum(x, x, |x, _| x) / n);
        let rest = sum(x, x, |x, _| x - pivot) / n;
        let mut variance = sum(x, x, |x, _| (x - pivot) * (x - pivot)) / n - rest * rest;
        if !SINGLE.contains(&variance) {
            let mean = pivot.double() + rest;
            variance = x.iter().map(|x| (x.double() - mean).powi(2)).sum::<f64>() / n;
        }
        Self {
            pivot,
            rest: W::of(rest),
            r: W::of(1.0 / (variance + eps).sqrt()),
        }
    }

    #[inline(always)]
    fn z(&self, x: W) -> W {
        (x - self.pivot - self.rest) * self.r
    }
}

impl LayerNorm {
    fn forward<T: Element>(&self, [x, alpha, beta]: [&[T]; 3]) -> Vec<T> {
        let n = alpha.len();
        let mut out = vec![T::default(); x.len()];
        let rows = x.len() / n.max(1);
        in_tasks(
            rows,
            n,
            [(&mut out, n)],
            #[inline(always)]
            |rows, [out]| {
                let [mut a, mut b, mut c, mut d] = [const { Vec::new() }; 4];
                let (alpha, beta) = (T::wide(alpha, &mut a), T::wide(beta, &mut b));
                for (i, out) in rows.zip(out.chunks_mut(n)) {
                    let x = T::wide(row(x, n, i), &mut c);
                    // y = α z + β
                    let centre = Centre::of(x, self.eps);
                    T::fill(
                        out,
                        &mut d,
                        #[inline(always)]
                        |out| {
                            let parameters = alpha.iter().zip(beta);
                            for ((y, &x), (&alpha, &beta)) in out.iter_mut().zip(x).zip(parameters)
                            {
                                *y = centre.z(x) * alpha + beta;
                            }
                        },
                    );
                }
            },
        );
        out
    }

    /// The gradients of x, α and β, empty where not wanted.
    fn backward<T: Element>(
        &self,
        [x, alpha, grad]: [&[T]; 3],
        [for_x, for_alpha, for_beta]: [bool; 3],
    ) -> [Vec<T>; 3] {
        let n = alpha.len();
        let mut of_x = vec![T::default(); if for_x { x.len() } else { 0 }];
        let rows = x.len() / n.max(1);
        let columns = |wanted: bool| Columns::new(if wanted { n } else { 0 });
        let sums = in_tasks(
            rows,
            n,
            [(&mut of_x, n)],
            #[inline(always)]
            |rows, [out]| {
                let [mut a, mut b, mut c, mut d] = [const { Vec::new() }; 4];
                let alpha = T::wide(alpha, &mut a);
                let (mut of_alpha, mut of_beta) = (columns(for_alpha), columns(for_beta));
                let mut out = out.chunks_mut(n);
                for i in rows {
                    let x = T::wide(row(x, n, i), &mut b);
                    let grad = T::wide(row(grad, n, i), &mut c);
                    let centre = Centre::of(x, self.eps);
                    // ∂L/∂α = Σ z ∂L/∂y
                    of_alpha.add(x, grad, |x, g| centre.z(x) * g);
                    // ∂L/∂β = Σ ∂L/∂y
                    of_beta.add(grad, grad, |g, _| g);
                    // h = α ∂L/∂y,  ∂L/∂x = r (h − Σ h / n − z Σ h z / n)
                    let Some(out) = out.next() else { continue };
                    T::fill(
                        out,
                        &mut d,
                        #[inline(always)]
                        |out| {
                            for ((h, &g), &alpha) in out.iter_mut().zip(grad).zip(alpha) {
                                *h = g * alpha;
                            }
                            let mean = T::Wide::of(sum(out, out, |h, _| h) / n as f64);
                            let along = sum(out, x, |h, x| h * centre.z(x)) / n as f64;
                            let along = T::Wide::of(along);
                            for (h, &x) in out.iter_mut().zip(x) {
                                *h = centre.r * (*h - mean - centre.z(x) * along);
                            }
                        },
                    );
                }
                [of_alpha.finish(), of_beta.finish()]
            },
        );
        let all = |wanted: bool, at: usize| match wanted {
            true => total(n, sums.iter().map(|sums| &sums[at])),
            false => Vec::new(),
        };
        let (of_alpha, of_beta) = (all(for_alpha, 0), all(for_beta, 1));
        [of_x, of_alpha, of_beta]
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let out = by_type!(s1.dtype(), "layernorm", T => {
            let all = [elements::<T>(s1, l1)?, elements(s2, l2)?, elements(s3, l3)?];
            candle_core::WithDType::to_cpu_storage_owned(self.forward(all))
        });
        Ok((out, l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        alpha: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = dense(grad)?;
        let wanted = [xs, alpha, beta].map(Tensor::track_op);
        let read = [xs, alpha, &grad].map(Tensor::storage_and_layout);
        by_type!(xs.dtype(), "layernorm", T => {
            let all = [of_tensor::<T>(&read[0])?, of_tensor(&read[1])?, of_tensor(&read[2])?];
            let [of_x, of_alpha, of_beta] = self.backward(all, wanted);
            Ok((
                gradient(of_x, xs)?,
                gradient(of_alpha, alpha)?,
                gradient(of_beta, beta)?,
            ))
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
            let (x, parameters) = (numbers(&[3, 2, 37], 3.0, dtype), numbers(&[37], 1.0, dtype));
            assert_same(
                &[x, parameters.clone(), parameters],
                |t| layer_norm(&t[0], &t[1], &t[2], 0.1),
                |t| composed(&t[0], &t[1], &t[2], 0.1),
            );
        }
    }
}
