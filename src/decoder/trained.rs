//! A trained linear map as one operation.
//!
//! Candle's own product has the transposed W as its argument: the gradient of that is transposed, copied and
//! added to zeros, number by number. Here the gradient of W comes out as W is stored.

use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result as Candle, Shape, Tensor,
};

/// W x for all rows `[rows, in]` of x, with W `[out, in]` in the type of x.
pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match x.elem_count() * weight.elem_count() {
        // which only candle's own product allows
        0 => Ok(x.matmul(&weight.t()?)?),
        _ => Ok(x.contiguous()?.apply_op2(weight, Product)?),
    }
}

struct Product;

fn values<S: BackendStorage>(
    (x, x_layout): (&S, &Layout),
    (weight, weight_layout): (&S, &Layout),
) -> Candle<(S, Shape)> {
    let (rows, inputs) = x_layout.shape().dims2()?;
    let (outputs, _) = weight_layout.shape().dims2()?;
    let sizes = (1, rows, outputs, inputs);
    let y = x.matmul(weight, sizes, x_layout, &weight_layout.transpose(0, 1)?)?;
    Ok((y, Shape::from((rows, outputs))))
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Candle<(CpuStorage, Shape)> {
        values((x, x_layout), (weight, weight_layout))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Candle<(CudaStorage, Shape)> {
        values((x, x_layout), (weight, weight_layout))
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        x_layout: &Layout,
        weight: &MetalStorage,
        weight_layout: &Layout,
    ) -> Candle<(MetalStorage, Shape)> {
        values((x, x_layout), (weight, weight_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Candle<(Option<Tensor>, Option<Tensor>)> {
        // ∂L/∂x = Wᵀ ∂L/∂y, if anybody asks for it
        let to_x = match x.track_op() {
            true => Some(grad.matmul(&weight.detach())?),
            false => None,
        };
        // ∂L/∂W = ∂L/∂y xᵀ, summed over the rows
        let to_weight = grad.t()?.matmul(&x.detach())?;
        Ok((to_x, Some(to_weight)))
    }
}
