//! A frozen linear layer whose weight stays in four bits.

use super::{BlockScale, Nf4Tensor};
use crate::error::{Error, Result};
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::shape::last_axis;
use candle_core::{DType, Tensor};
use candle_nn::Linear;

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
/// [`Error::Shape`] and [`Error::DType`] as above; from [`Nf4Linear::quantize`] those of
/// [`Nf4Tensor::quantize`].
/// # Properties
/// * The layer is [`FrozenLinear`](crate::parameter_efficient::FrozenLinear) over [`Nf4Tensor::dequantize`], up to the
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
/// use candle_align::parameter_efficient::{BlockScale, NF4, Nf4Linear};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
///
/// let weight = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.2]], &Device::Cpu)?;
/// let layer = Nf4Linear::quantize(&Linear::new(weight, None), BlockScale::Single)?;
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
    /// Those of [`Nf4Tensor::quantize`]; [`Error::Shape`] and [`Error::DType`] unless the weight is
    /// `[out, in]` and the bias `[out]`, in one of the types of the table above.
    pub fn quantize(base: &Linear, scale: BlockScale) -> Result<Self> {
        Self::quantized("Nf4Linear::quantize", base, scale)
    }

    /// As `quantize`, in the name of `function`.
    pub(crate) fn quantized(
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
        last_axis(function, "x", x, ("in", inputs), "`weight`")?;
        computable(function, "x", x, self.weight.dtype(), "weight")
    }
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
    Err(Error::dtype(
        function,
        argument,
        tensor.dtype(),
        format!("{expected} (from `{from}`)"),
    ))
}
