//! Rotary position embeddings.

use super::element::{
    Element, Wide, by_type, dense, elements, gradient, of_tensor, same_type, widened,
};
use super::rows::{in_tasks, row};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};

/// Rotates each pair of a head's dimensions by its position's angle; `candle_nn::rotary_emb::rope` with a
/// backward pass. Dimension i is paired with i + dim / 2, as in Llama's files on Hugging Face.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | x | `xs` | `[batch, heads, time, dim]` |
/// | cos φ, sin φ | `cos`, `sin` | `[positions, dim / 2]`, or `[batch, positions, dim / 2]` |
///
/// # Equation
/// ```text
/// y₁ = x₁ cos φ − x₂ sin φ         y₂ = x₁ sin φ + x₂ cos φ
///
/// ∂L/∂x is the gradient of y, turned back by −φ
/// ```
///
/// # Shapes
/// The result has the shape and type of `xs`: f32, f64, bf16 or f16, in any layout. At least as many
/// positions as `time`; the first are used.
///
/// # Errors
/// Unless the shapes are those of the table and all are of one floating-point type.
///
/// # Properties
/// * Lengths are kept, of x and of its gradient, if cos² + sin² = 1.
/// * The number of threads changes no bit.
/// * `cos` and `sin` get their gradients if they are trained, from candle's operations; otherwise nothing
///   is computed for them.
///
/// # Departures
/// * candle has no backward pass here.
/// * `cos` and `sin` may have different numbers of axes, and with a batch axis more positions than `time`.
///   candle then reads another position's angles.
/// * Each argument may have any layout.
///
/// # Examples
/// ```
/// use candle_align::ops::rope;
/// use candle_core::{Device, Tensor, Var};
///
/// // one head of two dimensions; position 0 is not turned, position 1 by a right angle
/// let x = Var::new(&[[[[1f64, 2.0], [1.0, 2.0]]]], &Device::Cpu)?;
/// let cos = Tensor::new(&[[1f64], [0.0]], &Device::Cpu)?;
/// let sin = Tensor::new(&[[0f64], [1.0]], &Device::Cpu)?;
/// let y = rope(&x, &cos, &sin)?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f64>()?, [1.0, 2.0, -2.0, 1.0]);
/// assert!(y.sqr()?.sum_all()?.backward()?.get(&x).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[doc(alias = "rotary")]
pub fn rope(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rotate(xs, cos, sin, Form::Halves)
}

/// [`rope`] whose pairs are neighbors: dimension 2i with 2i + 1; `candle_nn::rotary_emb::rope_i` with a
/// backward pass.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | x | `xs` | `[batch, heads, time, dim]` |
/// | cos φ, sin φ | `cos`, `sin` | `[positions, dim / 2]`, or `[batch, positions, dim / 2]` |
///
/// # Equation
/// ```text
/// y₂ᵢ = x₂ᵢ cos φᵢ − x₂ᵢ₊₁ sin φᵢ         y₂ᵢ₊₁ = x₂ᵢ sin φᵢ + x₂ᵢ₊₁ cos φᵢ
///
/// ∂L/∂x is the gradient of y, turned back by −φ
/// ```
///
/// # Shapes
/// As of [`rope`].
///
/// # Errors
/// As of [`rope`].
///
/// # Properties
/// * It equals [`rope`] with the dimensions in another order: the even ones first, then the odd ones.
/// * The other properties are those of [`rope`].
///
/// # Departures
/// As of [`rope`].
///
/// # Examples
/// ```
/// use candle_align::ops::rope_i;
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::new(&[[[[1f64, 2.0, 3.0, 4.0]]]], &Device::Cpu)?;
/// // the first pair is turned by a right angle
/// let cos = Tensor::new(&[[0f64, 1.0]], &Device::Cpu)?;
/// let sin = Tensor::new(&[[1f64, 0.0]], &Device::Cpu)?;
/// let y = rope_i(&x, &cos, &sin)?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f64>()?, [-2.0, 1.0, 3.0, 4.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn rope_i(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rotate(xs, cos, sin, Form::Neighbors)
}

/// [`rope`] of heads that come after time; `candle_nn::rotary_emb::rope_thd` with a backward pass.
///
/// | symbol | name | shape |
/// |---|---|---|
/// | x | `xs` | `[batch, time, heads, dim]` |
/// | cos φ, sin φ | `cos`, `sin` | `[positions, dim / 2]`, or `[batch, positions, dim / 2]` |
///
/// # Equation
/// ```text
/// y₁ = x₁ cos φ − x₂ sin φ         y₂ = x₁ sin φ + x₂ cos φ
///
/// ∂L/∂x is the gradient of y, turned back by −φ
/// ```
///
/// # Shapes
/// The result has the shape and type of `xs`; otherwise as of [`rope`].
///
/// # Errors
/// As of [`rope`].
///
/// # Properties
/// * It equals [`rope`] with the two axes exchanged before and after.
/// * The other properties are those of [`rope`].
///
/// # Departures
/// As of [`rope`].
///
/// # Examples
/// ```
/// use candle_align::ops::rope_thd;
/// use candle_core::{Device, Tensor};
///
/// // two heads at position 0, which is turned by a right angle
/// let x = Tensor::new(&[[[[1f64, 2.0], [3.0, 4.0]]]], &Device::Cpu)?;
/// let cos = Tensor::new(&[[0f64]], &Device::Cpu)?;
/// let sin = Tensor::new(&[[1f64]], &Device::Cpu)?;
/// let y = rope_thd(&x, &cos, &sin)?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f64>()?, [-2.0, 1.0, -4.0, 3.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn rope_thd(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rotate(xs, cos, sin, Form::HeadsLast)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// `[batch, heads, time, dim]`, i with i + dim / 2.
    Halves,
    /// `[batch, heads, time, dim]`, 2i with 2i + 1.
    Neighbors,
    /// `[batch, time, heads, dim]`, i with i + dim / 2.
    HeadsLast,
}

impl Form {
    /// The axis of time.
    fn time(self) -> usize {
        match self {
            Form::Halves | Form::Neighbors => 2,
            Form::HeadsLast => 1,
        }
    }
}

/// The positions and the pairs of an argument.
fn angles(cs: &Tensor, batch: usize) -> Result<(usize, usize)> {
    match *cs.dims() {
        [positions, pairs] => Ok((positions, pairs)),
        [b, positions, pairs] => match b == batch {
            true => Ok((positions, pairs)),
            false => bail!("inconsistent batch size in rope {batch} {:?}", cs.shape()),
        },
        _ => bail!(
            "cos/sin has to be 2D or 3D in rope {batch} {:?}",
            cs.shape()
        ),
    }
}

fn rotate(xs: &Tensor, cos: &Tensor, sin: &Tensor, form: Form) -> Result<Tensor> {
    let (batch, _, _, dim) = xs.dims4()?;
    let time = xs.dim(form.time())?;
    let fits = |(positions, pairs): (usize, usize)| positions >= time && 2 * pairs == dim;
    if !fits(angles(cos, batch)?) || !fits(angles(sin, batch)?) {
        bail!(
            "inconsistent last dim size in rope {:?} {:?} {:?}",
            xs.shape(),
            cos.shape(),
            sin.shape()
        )
    }
    same_type("rope", &[xs, cos, sin])?;
    if !xs.device().is_cpu() || cos.track_op() || sin.track_op() {
        return composed(xs, cos, sin, form);
    }
    let op = Rope { form, back: false };
    dense(xs)?.apply_op3(&dense(cos)?, &dense(sin)?, op)
}

/// The same from candle's operations, with gradients of `cos` and `sin`.
fn composed(xs: &Tensor, cos: &Tensor, sin: &Tensor, form: Form) -> Result<Tensor> {
    let (time, dim) = (xs.dim(form.time())?, xs.dim(D::Minus1)?);
    let wide = widened(xs)?;
    // [batch or 1, 1, time, pairs], or with the middle axes exchanged
    let broad = |cs: &Tensor| {
        let cs = widened(cs)?.narrow(D::Minus2, 0, time)?;
        let cs = match cs.rank() {
            2 => cs.unsqueeze(0)?,
            _ => cs,
        };
        cs.unsqueeze(3 - form.time())
    };
    let (cos, sin) = (broad(cos)?, broad(sin)?);
    let (first, second) = match form {
        Form::Neighbors => {
            let pairs = wide.reshape([xs.dims()[..3].to_vec(), vec![dim / 2, 2]].concat())?;
            let one = |at| pairs.narrow(D::Minus1, at, 1)?.squeeze(D::Minus1);
            (one(0)?, one(1)?)
        }
        _ => {
            let half = |at| wide.narrow(D::Minus1, at, dim / 2);
            (half(0)?, half(dim / 2)?)
        }
    };
    let one = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
    let two = (first.broadcast_mul(&sin)? + second.broadcast_mul(&cos)?)?;
    let y = match form {
        Form::Neighbors => Tensor::stack(&[one, two], D::Minus1)?.flatten_from(D::Minus2)?,
        _ => Tensor::cat(&[one, two], D::Minus1)?,
    };
    y.to_dtype(xs.dtype())
}

#[derive(Clone, Copy)]
struct Rope {
    form: Form,
    /// By −φ.
    back: bool,
}

/// The angles' rows, and how far they are apart from batch to batch.
struct Table<'a, T> {
    data: &'a [T],
    batch: usize,
}

impl<'a, T> Table<'a, T> {
    fn new(data: &'a [T], dims: &[usize]) -> Self {
        let batch = match *dims {
            [_, positions, pairs] => positions * pairs,
            _ => 0,
        };
        Self { data, batch }
    }

    #[inline(always)]
    fn row(&self, batch: usize, time: usize, pairs: usize) -> &'a [T] {
        row(&self.data[batch * self.batch..], pairs, time)
    }
}

impl Rope {
    fn run<T: Element>(&self, x: &[T], dims: &[usize], cos: Table<T>, sin: Table<T>) -> Vec<T> {
        let mut out = vec![T::default(); x.len()];
        let &[_, one, two, dim] = dims else {
            return out;
        };
        let (rows, pairs) = (x.len() / dim.max(1), dim / 2);
        in_tasks(
            rows,
            dim,
            [(&mut out, dim)],
            #[inline(always)]
            |rows, [out]| {
                let [mut a, mut b, mut c, mut d] = [const { Vec::new() }; 4];
                for (i, out) in rows.zip(out.chunks_mut(dim)) {
                    let (batch, time) = match self.form {
                        Form::HeadsLast => (i / (one * two), i / two % one),
                        _ => (i / (one * two), i % two),
                    };
                    let cos = T::wide(cos.row(batch, time, pairs), &mut a);
                    let sin = T::wide(sin.row(batch, time, pairs), &mut b);
                    let x = T::wide(row(x, dim, i), &mut c);
                    T::fill(
                        out,
                        &mut d,
                        #[inline(always)]
                        |y| match (self.form, self.back) {
                            (Form::Neighbors, false) => neighbors(x, cos, sin, y, |sin| sin),
                            (Form::Neighbors, true) => neighbors(x, cos, sin, y, |sin| -sin),
                            (_, false) => halves(x, cos, sin, y, |sin| sin),
                            (_, true) => halves(x, cos, sin, y, |sin| -sin),
                        },
                    );
                }
            },
        );
        out
    }
}

/// y₁ = x₁ cos φ − x₂ sin φ,  y₂ = x₁ sin φ + x₂ cos φ
#[inline(always)]
fn halves<W: Wide>(x: &[W], cos: &[W], sin: &[W], y: &mut [W], turn: impl Fn(W) -> W) {
    let (x1, x2) = x.split_at(cos.len());
    let (y1, y2) = y.split_at_mut(cos.len());
    let (x, y) = (x1.iter().zip(x2), y1.iter_mut().zip(y2));
    for (((y1, y2), (&x1, &x2)), (&cos, &sin)) in y.zip(x).zip(cos.iter().zip(sin)) {
        let sin = turn(sin);
        *y1 = x1 * cos - x2 * sin;
        *y2 = x1 * sin + x2 * cos;
    }
}

/// The same for pairs of neighbors.
#[inline(always)]
fn neighbors<W: Wide>(x: &[W], cos: &[W], sin: &[W], y: &mut [W], turn: impl Fn(W) -> W) {
    let (x, y) = (x.as_chunks::<2>().0, y.as_chunks_mut::<2>().0);
    for ((y, &[x1, x2]), (&cos, &sin)) in y.iter_mut().zip(x).zip(cos.iter().zip(sin)) {
        let sin = turn(sin);
        *y = [x1 * cos - x2 * sin, x1 * sin + x2 * cos];
    }
}

impl CustomOp3 for Rope {
    fn name(&self) -> &'static str {
        "rotary-emb"
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
        let out = by_type!(s1.dtype(), "rope", T => {
            let cos = Table::new(elements::<T>(s2, l2)?, l2.dims());
            let sin = Table::new(elements::<T>(s3, l3)?, l3.dims());
            let out = self.run(elements(s1, l1)?, l1.dims(), cos, sin);
            candle_core::WithDType::to_cpu_storage_owned(out)
        });
        Ok((out, l1.shape().clone()))
    }

    /// `cos` and `sin` are constants here: [`rotate`] takes the composed form for others.
    fn bwd(
        &self,
        xs: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = dense(grad)?;
        let back = Self {
            back: !self.back,
            ..*self
        };
        let read = [&grad, cos, sin].map(Tensor::storage_and_layout);
        by_type!(xs.dtype(), "rope", T => {
            let cos = Table::new(of_tensor::<T>(&read[1])?, cos.dims());
            let sin = Table::new(of_tensor::<T>(&read[2])?, sin.dims());
            let out = back.run(of_tensor(&read[0])?, xs.dims(), cos, sin);
            Ok((gradient(out, xs)?, None, None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{TYPES, assert_same, numbers};

    #[test]
    fn the_composed_form_has_the_same_values_and_gradients() {
        let forms = [Form::Halves, Form::Neighbors, Form::HeadsLast];
        for (form, dtype) in forms.into_iter().flat_map(|f| TYPES.map(|t| (f, t))) {
            let x = numbers(&[2, 3, 4, 6], 2.0, dtype);
            for shape in [&[5, 3][..], &[2, 5, 3]] {
                let angles = numbers(shape, 3.0, candle_core::DType::F64);
                let cos = angles.cos().unwrap().to_dtype(dtype).unwrap();
                let sin = angles.sin().unwrap().to_dtype(dtype).unwrap();
                assert_same(
                    std::slice::from_ref(&x),
                    |t| rotate(&t[0], &cos, &sin, form),
                    |t| composed(&t[0], &cos, &sin, form),
                );
            }
        }
    }
}
