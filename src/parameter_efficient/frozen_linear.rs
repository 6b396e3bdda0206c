//! A linear layer that is not trained and costs nothing in the backward pass (the base of LoRA, §3.3).
//!
//! In one sentence: y = Wx + b as one operation on x alone, so that candle has no W to compute a
//! gradient for.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | W₀ | [`FrozenLinear::weight`] | `[out, in]` |
//! | b | [`FrozenLinear::bias`] | `[out]` |
//! | x | argument of `forward` | `[.., in]` |
//!
//! Read next: [`LoraLinear`](crate::parameter_efficient::LoraLinear), which adds the trained part.

use crate::error::{Error, Result};
use crate::known::readable;
use crate::shape::{Axes, last_axis, same_type};
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, DType, Layout, MetalStorage, Shape, Storage, Tensor, op,
};
use candle_nn::{Linear, Module};

/// y = Wx + b with W and b truly frozen.
///
/// Candle computes gradients of constants too, and keeps them until the gradients are dropped. With an
/// ordinary product a frozen weight costs as much time and memory as a trained one, and `detach` does
/// not change that.
///
/// # Equation
/// ```text
/// y = W x + b
/// ∂L/∂x = Wᵀ ∂L/∂y          and nothing else
/// ```
/// # Shapes
/// `weight` `[out, in]` in f32, f64, bf16 or f16, `bias` `[out]` in the same type; `x` `[.., in]`
/// with any number of leading axes, including none; the result is `[.., out]` in the type of `x`.
///
/// | weight | computed in | `x` |
/// |---|---|---|
/// | f64 | f64 | f64 |
/// | f32 | f32 | f32 |
/// | bf16, f16 | f32, the result rounded once | f32, or the type of the weight |
///
/// A half weight is widened when it is used, forward and backward; no f32 copy is kept.
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] as above.
/// # Properties
/// * For a contiguous `x` the values are those of [`candle_nn::Linear`] bit for bit, in f32 and f64.
/// * After `backward` the gradients have no entry for the weight or the bias, even if these were
///   variables.
/// * The weight is shared, not copied: setting a variable that it was made from changes this layer too.
/// # Departures
/// None in the mathematics. The tests run on the CPU; on CUDA and Metal the layer makes the same calls
/// as candle's own product.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::FrozenLinear;
/// use candle_core::{Device, Var};
/// use candle_nn::Module;
///
/// let weight = Var::new(&[[1.0f64, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
/// let x = Var::new(&[10.0f64, 100.0], &Device::Cpu)?;
/// let layer = FrozenLinear::new(weight.as_tensor().clone(), None)?;
///
/// let y = layer.forward(&x)?;
/// assert_eq!(y.to_vec1::<f64>()?, [1.0 * 10.0 + 2.0 * 100.0, 430.0, 650.0]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).unwrap().to_vec1::<f64>()?, [1.0 + 3.0 + 5.0, 2.0 + 4.0 + 6.0]);
/// assert!(grads.get(&weight).is_none());
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Hu et al. 2021, arXiv:2106.09685v2, §4.1: "W₀ is frozen and does not receive gradient updates".
#[doc(alias = "requires_grad")]
#[doc(alias = "freeze")]
#[derive(Clone, Debug)]
pub struct FrozenLinear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl FrozenLinear {
    /// From a weight `[out, in]` and a bias `[out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless the two have these shapes and one type, which is f32,
    /// f64, bf16 or f16.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Self::checked("FrozenLinear::new", ["weight", "bias"], weight, bias)
    }

    /// Of an ordinary layer, for a `function` whose argument `base` it is.
    pub(crate) fn of(function: &'static str, base: &Linear) -> Result<Self> {
        let (weight, bias) = (base.weight().clone(), base.bias().cloned());
        Self::checked(function, ["base.weight", "base.bias"], weight, bias)
    }

    /// As `new`, for a `function` whose caller knows the two tensors by other names.
    fn checked(
        function: &'static str,
        names: [&'static str; 2],
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Result<Self> {
        let mut axes = Axes::new(function);
        axes.axes(names[0], &weight, &["out", "in"])?;
        let stored = stored_type(function, names[0], &weight)?;
        if let Some(bias) = &bias {
            axes.axes(names[1], bias, &["out"])?;
            let from = format!("`{}`", names[0]);
            same_type(function, names[1], bias, (stored, &from))?;
        }
        Ok(Self {
            weight: weight.detach(),
            bias: bias.map(|bias| bias.detach()),
        })
    }

    /// W `[out, in]`, detached.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// b `[out]`, detached.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The type in which the layer computes, and in which an adapter over it trains.
    pub(crate) fn wide(&self) -> DType {
        compute_type(self.weight.dtype())
    }

    /// The same W, shared, without b.
    pub(crate) fn without_bias(&self) -> Self {
        Self {
            weight: self.weight.clone(),
            bias: None,
        }
    }

    /// Checks the shape and type of `x`; errors name `function`.
    pub(crate) fn check(&self, function: &'static str, x: &Tensor) -> Result<()> {
        let (_, inputs) = self.weight.dims2()?;
        last_axis(function, "x", x, ("in", inputs), "`weight`")?;
        let (stored, computed) = (self.weight.dtype(), self.wide());
        if x.dtype() == stored || x.dtype() == computed {
            return Ok(());
        }
        Err(Error::dtype(
            function,
            "x",
            x.dtype(),
            match stored == computed {
                true => format!("{} (from `weight`)", stored.as_str()),
                false => format!("f32 or {} (from `weight`)", stored.as_str()),
            },
        ))
    }
}

impl Module for FrozenLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.check("FrozenLinear::forward", x)?;
        computed(x, self.wide(), Product(self.clone()))
    }
}

/// A product with x in the `wide` type, and in the type of x again.
pub(crate) fn computed(
    x: &Tensor,
    wide: DType,
    product: impl CustomOp1 + Send + Sync + 'static,
) -> candle_core::Result<Tensor> {
    let rows = readable(x)?.to_dtype(wide)?.contiguous()?;
    rows.apply_op1(product)?.to_dtype(x.dtype())
}

/// The type of a stored weight, if a layer can have it.
pub(crate) fn stored_type(
    function: &'static str,
    argument: &str,
    weight: &Tensor,
) -> Result<DType> {
    match weight.dtype() {
        dtype @ (DType::F32 | DType::F64 | DType::BF16 | DType::F16) => Ok(dtype),
        other => Err(Error::dtype(
            function,
            argument,
            other,
            "f32, f64, bf16 or f16",
        )),
    }
}

/// The type in which a layer with such a weight computes and trains: f64 for f64, else f32.
pub(crate) fn compute_type(stored: DType) -> DType {
    match stored {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// The product of all axes except the last.
pub(crate) fn rows(x: &Tensor) -> usize {
    x.dims().iter().rev().skip(1).product()
}

/// A tensor's memory, if it is the CPU's.
pub(crate) fn on_cpu(storage: &Storage) -> Option<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Some(storage),
        _ => None,
    }
}

/// As [`on_cpu`], for CUDA.
pub(crate) fn on_cuda(storage: &Storage) -> Option<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Some(storage),
        _ => None,
    }
}

/// As [`on_cpu`], for Metal.
pub(crate) fn on_metal(storage: &Storage) -> Option<&MetalStorage> {
    match storage {
        Storage::Metal(storage) => Some(storage),
        _ => None,
    }
}

impl FrozenLinear {
    /// W x + b for all rows of a contiguous x, by the same storage calls as candle's own product.
    pub(crate) fn values<S: BackendStorage>(
        &self,
        x: &S,
        x_layout: &Layout,
        on_device: fn(&Storage) -> Option<&S>,
    ) -> candle_core::Result<(S, Shape)> {
        let elsewhere =
            || candle_core::Error::Msg("FrozenLinear: `x` is not on the weight's device".into());
        let weight = self.weight.to_dtype(x.dtype())?.t()?;
        let (inputs, outputs) = weight.dims2()?;
        let mut dims = x_layout.dims().to_vec();
        dims.pop();
        let rows = dims.iter().product();
        dims.push(outputs);

        // W x, for all rows in one product
        let x_rows = Layout::contiguous_with_offset((rows, inputs), x_layout.start_offset());
        let (storage, layout) = weight.storage_and_layout();
        let weight = on_device(&storage).ok_or_else(elsewhere)?;
        let mut y = x.matmul(weight, (1, rows, outputs, inputs), &x_rows, layout)?;

        // + b
        if let Some(bias) = &self.bias {
            let bias = bias.to_dtype(x.dtype())?.broadcast_as((rows, outputs))?;
            let (storage, layout) = bias.storage_and_layout();
            let bias = on_device(&storage).ok_or_else(elsewhere)?;
            let y_rows = Layout::contiguous((rows, outputs));
            y = y.binary_impl::<op::Add>(bias, &y_rows, layout)?;
        }
        Ok((y, Shape::from(dims)))
    }

    /// ∂L/∂x = Wᵀ ∂L/∂y, for all rows `[n, out]` of ∂L/∂y in one product.
    pub(crate) fn gradient(&self, grad: &Tensor) -> candle_core::Result<Tensor> {
        grad.matmul(&self.weight.to_dtype(grad.dtype())?)
    }
}

/// Wx + b as an operation on x: the backward pass does not see what it captures.
struct Product(FrozenLinear);

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.0.values(x, layout, on_cpu)
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.0.values(x, layout, on_cuda)
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        layout: &Layout,
    ) -> candle_core::Result<(MetalStorage, Shape)> {
        self.0.values(x, layout, on_metal)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.reshape((rows(x), self.0.weight.dim(0)?))?;
        Ok(Some(self.0.gradient(&grad)?.reshape(x.shape())?))
    }
}
