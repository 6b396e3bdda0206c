//! Operations whose result is computed before they enter the graph, each with its own backward pass.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, Layout, MetalStorage, Result, Shape, Storage,
    Tensor, bail,
};

/// A copy of the result's memory: candle's operations return storage, and tensors share theirs.
fn cpu(result: &Tensor) -> Result<(CpuStorage, Shape)> {
    match &*result.storage_and_layout().0 {
        Storage::Cpu(storage) => Ok((storage.try_clone(result.layout())?, result.shape().clone())),
        _ => bail!("the result is on another device than its argument"),
    }
}

fn cuda(result: &Tensor) -> Result<(CudaStorage, Shape)> {
    match &*result.storage_and_layout().0 {
        Storage::Cuda(storage) => Ok((storage.try_clone(result.layout())?, result.shape().clone())),
        _ => bail!("the result is on another device than its argument"),
    }
}

fn metal(result: &Tensor) -> Result<(MetalStorage, Shape)> {
    match &*result.storage_and_layout().0 {
        Storage::Metal(storage) => {
            Ok((storage.try_clone(result.layout())?, result.shape().clone()))
        }
        _ => bail!("the result is on another device than its argument"),
    }
}

/// An operation of one argument. Its gradient needs only the gradient of the result.
pub(crate) struct One<F> {
    result: Tensor,
    backward: F,
}

impl<F: Fn(&Tensor) -> Result<Tensor>> One<F> {
    pub(crate) fn new(result: Tensor, backward: F) -> Self {
        Self { result, backward }
    }
}

impl<F: Fn(&Tensor) -> Result<Tensor>> CustomOp1 for One<F> {
    fn name(&self) -> &'static str {
        "known"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        cpu(&self.result)
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda(&self.result)
    }
    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        metal(&self.result)
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        (self.backward)(grad).map(Some)
    }
}

/// An operation of three arguments. The gradients need the first argument and the gradient of the result.
pub(crate) struct Three<F> {
    result: Tensor,
    backward: F,
}

impl<F: Fn(&Tensor, &Tensor) -> crate::error::Result<[Option<Tensor>; 3]>> Three<F> {
    pub(crate) fn new(result: Tensor, backward: F) -> Self {
        Self { result, backward }
    }
}

impl<F: Fn(&Tensor, &Tensor) -> crate::error::Result<[Option<Tensor>; 3]>> CustomOp3 for Three<F> {
    fn name(&self) -> &'static str {
        "known"
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        cpu(&self.result)
    }
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        cuda(&self.result)
    }
    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        metal(&self.result)
    }
    fn bwd(
        &self,
        first: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = (self.backward)(first, grad).map_err(candle_core::Error::wrap)?;
        Ok((a, b, c))
    }
}

/// `value`, computed from `x` outside the graph. `backward` maps the gradient of the value to that of `x`.
///
/// This is for functions whose ordinary operations would pass through ∞ − ∞ or 0 · ∞.
pub(crate) fn with_slope(
    x: &Tensor,
    value: Tensor,
    backward: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    match x.track_op() {
        true => x.apply_op1(One::new(value, backward)),
        false => Ok(value),
    }
}

/// The same tensor in a layout that candle can read.
///
/// An empty view may start past the end of its memory, and candle's operations panic there.
pub(crate) fn readable(x: &Tensor) -> crate::error::Result<Tensor> {
    let at_its_start = x.is_contiguous() && x.layout().start_offset() == 0;
    if x.elem_count() > 0 || at_its_start {
        return Ok(x.clone());
    }
    let nothing = Tensor::zeros(x.shape(), x.dtype(), x.device())?;
    Ok(with_slope(x, nothing, |grad| Ok(grad.clone()))?)
}
