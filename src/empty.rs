//! Views of nothing.
//!
//! A view of an empty tensor may start behind the end of its storage, where candle's kernels panic:
//! the first position of `x[:, 3..]` for an `x` of no rows is the third of none. What comes from a
//! user, or is cut here, goes through [`grounded`] before a kernel sees it.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Tensor,
};

/// An empty tensor in a storage of its own, with its history; any other as it is.
pub(crate) fn grounded(x: &Tensor) -> Result<Tensor> {
    match x.elem_count() {
        0 => x.apply_op1(Grounded),
        _ => Ok(x.clone()),
    }
}

struct Grounded;

impl Grounded {
    fn nothing<S: BackendStorage>(x: &S, layout: &Layout) -> Result<(S, Shape)>
    where
        S::Device: BackendDevice<Storage = S>,
    {
        let shape = layout.shape().clone();
        let nothing = x.device().zeros_impl(&shape, x.dtype())?;
        Ok((nothing, shape))
    }
}

impl CustomOp1 for Grounded {
    fn name(&self) -> &'static str {
        "grounded"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Self::nothing(x, layout)
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        Self::nothing(x, layout)
    }

    fn metal_fwd(&self, x: &MetalStorage, layout: &Layout) -> Result<(MetalStorage, Shape)> {
        Self::nothing(x, layout)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, _grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(x.zeros_like()?))
    }
}
