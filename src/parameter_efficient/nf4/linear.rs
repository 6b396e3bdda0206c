//! A frozen linear layer whose weight stays in four bits.

use super::{BlockScale, Nf4Tensor};
use crate::error::{Error, Result};
use crate::known::readable;
use crate::parameter_efficient::frozen_linear::{compute_type, rows};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Storage, Tensor, WithDType};
use candle_nn::{Linear, Module};
use half::{bf16, f16};
use rayon::prelude::*;

/// y = Wx + b with W in [`Nf4Tensor`], dequantized when it is used, a part at a time.
///
/// # Equation
/// ```text
/// y = dequant(W) x + b                        eq. 5 without its adapter
/// ∂L/∂x = dequant(W)ᵀ ∂L/∂y                   and nothing else
/// ```
/// # Shapes
/// W `[out, in]`, b `[out]`; `x` `[.., in]` with any number of leading axes, including none; the
/// result is `[.., out]` in the type of `x`.
///
/// | quantized from | computed in | `x` and b |
/// |---|---|---|
/// | f64 | f64 | f64 |
/// | f32, bf16, f16 | f32, the result rounded once | f32, bf16 or f16 |
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] as above; from [`Nf4Linear::quantise`] those of
/// [`Nf4Tensor::quantise`].
/// # Properties
/// * The layer is [`FrozenLinear`](crate::FrozenLinear) over [`Nf4Tensor::dequantise`], up to the
///   rounding of a sum in another order.
/// * Of a large weight at most 2²⁰ elements, or 64 rows or columns, are dequantized at a time, forward and
///   backward: the whole weight never exists in 16 or 32 bits.
/// * After `backward` the gradients have no entry for a weight or the bias.
/// * [`Nf4Linear::bytes`] counts weight and bias; [`Nf4Tensor::bits_per_parameter`] the weight alone.
/// # Departures
/// bitsandbytes multiplies in the type of `x`; here a half `x` is widened, and the result rounded
/// once. bitsandbytes rounds an f32 weight to the type of a half `x` before use; this layer does not. The
/// layer computes on the CPU.
/// # Examples
/// ```
/// use candle_align::{BlockScale, NF4, Nf4Linear};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
///
/// let weight = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.2]], &Device::Cpu)?;
/// let layer = Nf4Linear::quantise(&Linear::new(weight, None), BlockScale::Single)?;
/// let y = layer.forward(&Tensor::new(&[3.0f32, 1.0], &Device::Cpu)?)?;
/// let (a, b, c) = (2.0 * NF4[10], 2.0 * NF4[2], 2.0 * NF4[8]);
/// assert_eq!(y.to_vec1::<f32>()?, [a * 3.0 + b, 2.0 * 3.0 + c]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Dettmers et al. 2023, arXiv:2305.14314v1, eq. 5; code bitsandbytes 0.50.2, `Linear4bit`.
#[doc(alias = "Linear4bit")]
#[doc(alias = "bitsandbytes")]
#[derive(Clone, Debug)]
pub struct Nf4Linear {
    weight: Nf4Tensor,
    bias: Option<Tensor>,
}

impl Nf4Linear {
    /// From a layer in 16, 32 or 64 bits. The bias is shared, not copied.
    ///
    /// # Errors
    /// Those of [`Nf4Tensor::quantise`]; [`Error::Shape`] and [`Error::DType`] unless the weight is
    /// `[out, in]` and the bias `[out]`, in one of the types of the table above.
    pub fn quantise(base: &Linear, scale: BlockScale) -> Result<Self> {
        Self::quantised("Nf4Linear::quantise", base, scale)
    }

    /// As `quantise`, in the name of `function`.
    pub(crate) fn quantised(
        function: &'static str,
        base: &Linear,
        scale: BlockScale,
    ) -> Result<Self> {
        let names = ["base.weight", "base.bias"];
        let weight = Nf4Tensor::named(function, names[0], base.weight(), scale)?;
        Self::checked(function, names, weight, base.bias().cloned())
    }

    /// From a weight `[out, in]` and a bias `[out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless the weight is `[out, in]` and the bias `[out]` in a type
    /// of the table above.
    pub fn new(weight: Nf4Tensor, bias: Option<Tensor>) -> Result<Self> {
        Self::checked("Nf4Linear::new", ["weight", "bias"], weight, bias)
    }

    /// As `new`, for a `function` whose caller knows the two by other names.
    pub(super) fn checked(
        function: &'static str,
        names: [&str; 2],
        weight: Nf4Tensor,
        bias: Option<Tensor>,
    ) -> Result<Self> {
        let shape = |argument: &str, shape: &[usize], expected: String| Error::Shape {
            function,
            argument: argument.to_string(),
            shape: shape.to_vec(),
            expected,
        };
        let dims = weight.shape().dims();
        let [outputs, _] = dims else {
            return Err(shape(names[0], dims, "out, in".to_string()));
        };
        if let Some(bias) = &bias {
            if bias.dims() != [*outputs] {
                let expected = format!("out={outputs} (from `{}`)", names[0]);
                return Err(shape(names[1], bias.dims(), expected));
            }
            computable(function, names[1], bias, weight.dtype(), names[0])?;
        }
        Ok(Self {
            weight,
            bias: bias.map(|bias| bias.detach()),
        })
    }

    /// W in four bits, `[out, in]`.
    pub fn weight(&self) -> &Nf4Tensor {
        &self.weight
    }

    /// b `[out]`, detached.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The memory of weight and bias, in bytes.
    pub fn bytes(&self) -> usize {
        let bias = self.bias.as_ref();
        self.weight.bytes() + bias.map_or(0, |b| b.elem_count() * b.dtype().size_in_bytes())
    }

    /// The same W, shared, without b.
    pub(crate) fn without_bias(&self) -> Self {
        Self {
            weight: self.weight.clone(),
            bias: None,
        }
    }

    /// `[out, in]`.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let dims = self.weight.shape().dims();
        (dims[0], dims[1])
    }

    /// Checks the shape and type of `x`; errors name `function`.
    pub(crate) fn check(&self, function: &'static str, x: &Tensor) -> Result<()> {
        let (_, inputs) = self.sizes();
        if x.dims().last() != Some(&inputs) {
            return Err(Error::Shape {
                function,
                argument: "x".to_string(),
                shape: x.dims().to_vec(),
                expected: format!(".., in={inputs} (from `weight`)"),
            });
        }
        computable(function, "x", x, self.weight.dtype(), "weight")
    }

    /// A · Wᵀ or A · W for rows of A, as many columns of the result at a time as [`CHUNK`] allows;
    /// `finish` makes a weight from a product of value and scale.
    fn product<T: WithDType>(
        &self,
        side: Side,
        a: &CpuStorage,
        start: usize,
        rows: usize,
        finish: impl Fn(f32) -> T + Copy + Sync,
    ) -> candle_core::Result<Vec<T>> {
        let (outputs, inputs) = self.sizes();
        let (depth, columns) = match side {
            Side::Forward => (inputs, outputs),
            Side::Backward => (outputs, inputs),
        };
        let a_layout = Layout::contiguous_with_offset((rows, depth), start);
        let step = (CHUNK / depth).max(NARROWEST).min(columns);
        let mut buffer = Vec::new();
        let mut y = vec![T::zero(); if step < columns { rows * columns } else { 0 }];
        for first in (0..columns).step_by(step) {
            let width = step.min(columns - first);
            buffer.resize(depth * width, T::zero());
            // where a piece of the buffer lies in W
            let (piece, layout) = match side {
                Side::Forward => (PIECE, Layout::contiguous((width, depth)).transpose(0, 1)?),
                Side::Backward => (width, Layout::contiguous((depth, width))),
            };
            buffer
                .par_chunks_mut(piece)
                .enumerate()
                .for_each(|(i, out)| {
                    let at = match side {
                        Side::Forward => first * inputs + i * PIECE,
                        Side::Backward => i * inputs + first,
                    };
                    self.weight.fill(at, out, finish);
                });
            let weights = T::to_cpu_storage_owned(buffer);
            let part = a.matmul(&weights, (1, rows, width, depth), &a_layout, &layout)?;
            let part = T::cpu_storage_data(part)?;
            if step == columns {
                return Ok(part);
            }
            for (y, part) in y.chunks_mut(columns).zip(part.chunks(width)) {
                y[first..first + width].copy_from_slice(part);
            }
            buffer = T::cpu_storage_data(weights)?;
        }
        Ok(y)
    }

    /// As [`Nf4Linear::product`], with the conversion for the type that the weight was quantized from.
    fn product_in_f32(
        &self,
        side: Side,
        a: &CpuStorage,
        start: usize,
        rows: usize,
    ) -> candle_core::Result<Vec<f32>> {
        match self.weight.dtype() {
            DType::BF16 => self.product(side, a, start, rows, |x| bf16::from_f32(x).to_f32()),
            DType::F16 => self.product(side, a, start, rows, |x| f16::from_f32(x).to_f32()),
            _ => self.product(side, a, start, rows, |x| x),
        }
    }

    /// Adds b to each row.
    fn biased<T: WithDType>(&self, mut y: Vec<T>) -> candle_core::Result<CpuStorage> {
        if let Some(bias) = &self.bias {
            let bias = bias.to_dtype(T::DTYPE)?.to_vec1::<T>()?;
            for y in y.chunks_mut(bias.len()) {
                y.iter_mut().zip(&bias).for_each(|(y, b)| *y += *b);
            }
        }
        Ok(T::to_cpu_storage_owned(y))
    }
}

/// How many elements of W are dequantized at a time.
const CHUNK: usize = 1 << 20;
/// The fewest columns of a product per pass; with fewer, memory bandwidth would limit the speed.
const NARROWEST: usize = 64;
/// How many elements one task dequantizes.
const PIECE: usize = 1 << 14;

#[derive(Clone, Copy)]
enum Side {
    /// x · Wᵀ, from rows of W.
    Forward,
    /// ∂L/∂y · W, from columns of W.
    Backward,
}

/// Whether a layer over such a weight can compute with a tensor of this type.
fn computable(
    function: &'static str,
    argument: &str,
    tensor: &Tensor,
    stored: DType,
    from: &str,
) -> Result<()> {
    let (fits, expected) = match compute_type(stored) {
        DType::F64 => (tensor.dtype() == DType::F64, "f64"),
        _ => (
            matches!(tensor.dtype(), DType::F32 | DType::BF16 | DType::F16),
            "f32, bf16 or f16",
        ),
    };
    if fits {
        return Ok(());
    }
    Err(Error::DType {
        function,
        argument: argument.to_string(),
        found: tensor.dtype().as_str(),
        expected: format!("{expected} (from `{from}`)"),
    })
}

impl Module for Nf4Linear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.check("Nf4Linear::forward", x)?;
        readable(x)?
            .to_dtype(compute_type(self.weight.dtype()))?
            .contiguous()?
            .apply_op1(Product(self.clone()))?
            .to_dtype(x.dtype())
    }
}

/// Wx + b as an operation on x: the backward pass does not see what it captures.
struct Product(Nf4Linear);

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "nf4-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let layer = &self.0;
        let (start, mut dims) = (layout.start_offset(), layout.dims().to_vec());
        dims.pop();
        let rows = dims.iter().product();
        dims.push(layer.sizes().0);
        let y = match x {
            CpuStorage::F64(_) => {
                layer.biased(layer.product(Side::Forward, x, start, rows, f64::from)?)?
            }
            _ => layer.biased(layer.product_in_f32(Side::Forward, x, start, rows)?)?,
        };
        Ok((y, Shape::from(dims)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        // ∂L/∂x = Wᵀ ∂L/∂y, for all rows in one product
        let (layer, rows) = (&self.0, rows(x));
        let grad = grad.contiguous()?;
        let (storage, layout) = grad.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("nf4-linear: the gradient has left the CPU")
        };
        let start = layout.start_offset();
        let (shape, device) = (x.shape(), x.device());
        let gradient = match storage {
            CpuStorage::F64(_) => {
                let gradient = layer.product(Side::Backward, storage, start, rows, f64::from)?;
                Tensor::from_vec(gradient, shape, device)?
            }
            _ => {
                let gradient = layer.product_in_f32(Side::Backward, storage, start, rows)?;
                Tensor::from_vec(gradient, shape, device)?
            }
        };
        Ok(Some(gradient))
    }
}
