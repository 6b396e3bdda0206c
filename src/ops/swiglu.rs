//! The gate of a feed-forward layer.

use super::element::{
    Element, Wide, by_type, dense, elements, gradient, of_tensor, same_type, widened,
};
use super::rows::{in_tasks, row};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};

/// SiLU of the first half of the last axis, times the second half; `candle_nn::ops::swiglu` in one operation.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | a, b | `xs` | `[…, 2 · inner]` |
///
/// # Equation
/// ```text
/// σ = 1 / (1 + e^{−a})       y = a σ b
///
/// ∂L/∂a = ∂L/∂y b σ (1 + a (1 − σ))          ∂L/∂b = ∂L/∂y a σ
/// ```
///
/// # Shapes
/// The result is `[…, inner]`, of the type of `xs`: f32, f64, bf16 or f16, in any layout.
///
/// # Errors
/// Unless the last axis is of even length; unless `xs` is of a floating-point type.
///
/// # Properties
/// * Elements are independent: NaN in one changes no other.
/// * The number of threads changes no bit.
/// * It equals [`silu_mul`] of the two halves.
///
/// # Departures
/// * candle keeps the two halves, the SiLU and the product for the backward pass. Here only `xs` and the
///   result are kept.
/// * candle rounds bf16 and f16 after the SiLU, too.
///
/// # Examples
/// ```
/// use candle_align::ops::swiglu;
/// use candle_core::{Device, Var};
///
/// let x = Var::new(&[0f64, 3.0], &Device::Cpu)?;
/// let y = swiglu(&x)?;
/// assert_eq!(y.to_vec1::<f64>()?, [0.0]);
/// // σ(0) = ½
/// let grads = y.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f64>()?, [1.5, 0.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[doc(alias = "silu")]
pub fn swiglu(xs: &Tensor) -> Result<Tensor> {
    let last = xs.dim(D::Minus1)?;
    if last % 2 != 0 {
        bail!("the last dim of {:?} has to be even in swiglu", xs.shape())
    }
    same_type("swiglu", &[xs])?;
    if !xs.device().is_cpu() {
        let half = |at| xs.narrow(D::Minus1, at, last / 2);
        return composed(&half(0)?, &half(last / 2)?);
    }
    dense(xs)?.apply_op1(Gate)
}

/// SiLU of `gate` times `up`: [`swiglu`] of two tensors, in one operation.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | a | `gate` | any |
/// | b | `up` | that of `gate` |
///
/// # Equation
/// ```text
/// σ = 1 / (1 + e^{−a})       y = a σ b
///
/// ∂L/∂a = ∂L/∂y b σ (1 + a (1 − σ))          ∂L/∂b = ∂L/∂y a σ
/// ```
///
/// # Shapes
/// The result has the shape and type of `gate`: f32, f64, bf16 or f16, in any layout.
///
/// # Errors
/// Unless both have one shape and one floating-point type.
///
/// # Properties
/// * Elements are independent: NaN in one changes no other.
/// * The number of threads changes no bit.
/// * It equals `gate.silu()? * up` in values and gradients.
///
/// # Departures
/// * candle has no such function. `gate.silu()? * up` keeps the SiLU for the backward pass, and rounds it in
///   bf16 and f16.
///
/// # Examples
/// ```
/// use candle_align::ops::silu_mul;
/// use candle_core::{Device, Var};
///
/// let gate = Var::new(&[0f64, 3f64.ln()], &Device::Cpu)?;
/// let up = Var::new(&[5f64, 4.0], &Device::Cpu)?;
/// // σ(ln 3) = ¾
/// let y = silu_mul(&gate, &up)?;
/// assert!((y.to_vec1::<f64>()?[1] - 3.0 * 3f64.ln()).abs() < 1e-15);
/// assert!(y.sum_all()?.backward()?.get(&up).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[doc(alias = "swiglu")]
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        bail!(
            "shape mismatch in silu-mul, gate: {:?}, up: {:?}",
            gate.shape(),
            up.shape()
        )
    }
    same_type("silu-mul", &[gate, up])?;
    match gate.device().is_cpu() {
        true => dense(gate)?.apply_op2(&dense(up)?, Gate),
        false => composed(gate, up),
    }
}

/// The same from candle's operations.
fn composed(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    (widened(gate)?.silu()? * widened(up)?)?.to_dtype(gate.dtype())
}

struct Gate;

/// σ(a) and 1 − σ(a), both without cancellation.
#[inline(always)]
fn sigmoid<W: Wide>(a: W) -> (W, W) {
    let positive = a >= W::default();
    // e^{−|a|}
    let e = (if positive { -a } else { a }).exp();
    let more = W::ONE / (W::ONE + e);
    let less = e * more;
    if positive { (more, less) } else { (less, more) }
}

#[inline(always)]
fn values<W: Wide>(a: &[W], b: &[W], out: &mut [W]) {
    for ((y, &a), &b) in out.iter_mut().zip(a).zip(b) {
        // y = a σ b
        *y = a * sigmoid(a).0 * b;
    }
}

#[inline(always)]
fn slopes_of_gate<W: Wide>([a, b, grad]: [&[W]; 3], out: &mut [W]) {
    for (((out, &a), &b), &g) in out.iter_mut().zip(a).zip(b).zip(grad) {
        // ∂L/∂a = ∂L/∂y b σ (1 + a (1 − σ))
        let (share, rest) = sigmoid(a);
        *out = g * b * (share * (W::ONE + a * rest));
    }
}

/// Both gradients, e^{−|a|} computed once.
#[inline(always)]
fn slopes<W: Wide>([a, b, grad]: [&[W]; 3], of_a: &mut [W], of_b: &mut [W]) {
    let out = of_a.iter_mut().zip(of_b);
    for (((out, &a), &b), &g) in out.zip(a).zip(b).zip(grad) {
        let (share, rest) = sigmoid(a);
        *out.0 = g * b * (share * (W::ONE + a * rest));
        // ∂L/∂b = ∂L/∂y a σ
        *out.1 = g * (a * share);
    }
}

/// Elements of two flat tensors that are computed at a time.
const PART: usize = 1024;

/// The part of flat tensors with this number. The last one is shorter.
#[inline(always)]
fn part<T>(data: &[T], at: usize) -> &[T] {
    let first = at * PART;
    &data[first..data.len().min(first + PART)]
}

fn two_forward<T: Element>(a: &[T], b: &[T]) -> Vec<T> {
    let mut out = vec![T::default(); a.len()];
    let parts = a.len().div_ceil(PART);
    in_tasks(
        parts,
        PART,
        [(&mut out, PART)],
        #[inline(always)]
        |parts, [out]| {
            let [mut x, mut y, mut z] = [const { Vec::new() }; 3];
            for (i, out) in parts.zip(out.chunks_mut(PART)) {
                let (a, b) = (T::wide(part(a, i), &mut x), T::wide(part(b, i), &mut y));
                T::fill(
                    out,
                    &mut z,
                    #[inline(always)]
                    |out| values(a, b, out),
                );
            }
        },
    );
    out
}

/// The gradients of a and b, empty where not wanted.
fn two_backward<T: Element>(all: [&[T]; 3], wanted: [bool; 2]) -> [Vec<T>; 2] {
    let [mut of_a, mut of_b] =
        wanted.map(|wanted| vec![T::default(); if wanted { all[0].len() } else { 0 }]);
    let parts = all[0].len().div_ceil(PART);
    let outs = [(of_a.as_mut_slice(), PART), (of_b.as_mut_slice(), PART)];
    in_tasks(
        parts,
        PART,
        outs,
        #[inline(always)]
        |parts, [of_a, of_b]| {
            let [mut x, mut y, mut z, mut u, mut v] = [const { Vec::new() }; 5];
            let (mut of_a, mut of_b) = (of_a.chunks_mut(PART), of_b.chunks_mut(PART));
            for i in parts {
                let a = T::wide(part(all[0], i), &mut x);
                let b = T::wide(part(all[1], i), &mut y);
                let grad = T::wide(part(all[2], i), &mut z);
                match (of_a.next(), of_b.next()) {
                    (Some(of_a), Some(of_b)) => T::fill(
                        of_a,
                        &mut u,
                        #[inline(always)]
                        |of_a| {
                            T::fill(
                                of_b,
                                &mut v,
                                #[inline(always)]
                                |of_b| slopes([a, b, grad], of_a, of_b),
                            )
                        },
                    ),
                    (Some(of_a), None) => T::fill(
                        of_a,
                        &mut u,
                        #[inline(always)]
                        |of_a| slopes_of_gate([a, b, grad], of_a),
                    ),
                    // ∂L/∂b = ∂L/∂y a σ
                    (None, Some(of_b)) => T::fill(
                        of_b,
                        &mut v,
                        #[inline(always)]
                        |of_b| values(a, grad, of_b),
                    ),
                    (None, None) => {}
                }
            }
        },
    );
    [of_a, of_b]
}

fn one_forward<T: Element>(x: &[T], inner: usize) -> Vec<T> {
    let mut out = vec![T::default(); x.len() / 2];
    let rows = out.len() / inner.max(1);
    in_tasks(
        rows,
        inner,
        [(&mut out, inner)],
        #[inline(always)]
        |rows, [out]| {
            let [mut a, mut b] = [const { Vec::new() }; 2];
            for (i, out) in rows.zip(out.chunks_mut(inner)) {
                let (gate, up) = T::wide(row(x, 2 * inner, i), &mut a).split_at(inner);
                T::fill(
                    out,
                    &mut b,
                    #[inline(always)]
                    |out| values(gate, up, out),
                );
            }
        },
    );
    out
}

fn one_backward<T: Element>(x: &[T], grad: &[T], inner: usize) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
    let (rows, both) = (grad.len() / inner.max(1), 2 * inner);
    in_tasks(
        rows,
        both,
        [(&mut out, both)],
        #[inline(always)]
        |rows, [out]| {
            let [mut a, mut b, mut c] = [const { Vec::new() }; 3];
            for (i, out) in rows.zip(out.chunks_mut(both)) {
                let (gate, up) = T::wide(row(x, both, i), &mut a).split_at(inner);
                let grad = T::wide(row(grad, inner, i), &mut b);
                T::fill(
                    out,
                    &mut c,
                    #[inline(always)]
                    |out| {
                        let (of_gate, of_up) = out.split_at_mut(inner);
                        slopes([gate, up, grad], of_gate, of_up)
                    },
                );
            }
        },
    );
    out
}

impl CustomOp1 for Gate {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let mut shape = layout.dims().to_vec();
        let Some(last) = shape.last_mut() else {
            bail!("swiglu of a scalar")
        };
        *last /= 2;
        let inner = *last;
        let out = by_type!(storage.dtype(), "swiglu", T => {
            let out = one_forward::<T>(elements(storage, layout)?, inner);
            candle_core::WithDType::to_cpu_storage_owned(out)
        });
        Ok((out, Shape::from(shape)))
    }

    fn bwd(&self, xs: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = dense(grad)?;
        let inner = y.dim(D::Minus1)?;
        let read = [xs, &grad].map(Tensor::storage_and_layout);
        by_type!(xs.dtype(), "swiglu", T => {
            gradient(one_backward::<T>(of_tensor(&read[0])?, of_tensor(&read[1])?, inner), xs)
        })
    }
}

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let out = by_type!(s1.dtype(), "silu-mul", T => {
            let out = two_forward::<T>(elements(s1, l1)?, elements(s2, l2)?);
            candle_core::WithDType::to_cpu_storage_owned(out)
        });
        Ok((out, l1.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = dense(grad)?;
        let wanted = [gate.track_op(), up.track_op()];
        let read = [gate, up, &grad].map(Tensor::storage_and_layout);
        by_type!(gate.dtype(), "silu-mul", T => {
            let all = [of_tensor::<T>(&read[0])?, of_tensor(&read[1])?, of_tensor(&read[2])?];
            let [of_gate, of_up] = two_backward(all, wanted);
            Ok((gradient(of_gate, gate)?, gradient(of_up, up)?))
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
            let inputs = [
                numbers(&[3, 2, 37], 5.0, dtype),
                numbers(&[3, 2, 37], 2.0, dtype),
            ];
            assert_same(
                &inputs,
                |t| silu_mul(&t[0], &t[1]),
                |t| composed(&t[0], &t[1]),
            );
        }
    }
}
