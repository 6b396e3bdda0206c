//! LoRA as one operation.
//!
//! Candle keeps the result of every operation until the graph is dropped. As separate operations W₀x + b, the
//! two products of the change and the sum would be kept beside each other; here only the sum is.

use super::accumulate::{Accumulate, added, added_in_place, pays};
use crate::error::Result;
use crate::parameter_efficient::frozen_linear::{FrozenLinear, on_cpu, on_cuda, on_metal, rows};
use crate::parameter_efficient::low_rank::LowRank;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Shape, Storage, Tensor,
};

/// Whether a product has no rows, columns or summands, which only candle's own operations allow.
pub(super) fn is_empty(factors: &LowRank, x: &Tensor) -> bool {
    x.elem_count() == 0 || factors.b.elem_count() == 0
}

/// W₀ x + b + s · B A x, for an x in the type in which the layer trains.
pub(super) fn whole(base: &FrozenLinear, factors: &LowRank, x: &Tensor) -> Result<Tensor> {
    let product = Product {
        base: base.clone(),
        scale: factors.scale,
    };
    Ok(x.contiguous()?.apply_op3(&factors.a, &factors.b, product)?)
}

/// The equation as an operation on x, A and B: the backward pass does not see W₀ and b.
struct Product {
    base: FrozenLinear,
    scale: f64,
}

/// A tensor's memory and its layout.
type Stored<'a, S> = (&'a S, &'a Layout);

impl Product {
    /// The values; `add` adds the product of two matrices to a third.
    fn values<S: BackendStorage>(
        &self,
        (x, x_layout): Stored<S>,
        (a, a_layout): Stored<S>,
        (b, b_layout): Stored<S>,
        on_device: fn(&Storage) -> Option<&S>,
        add: fn(S, Stored<S>, Stored<S>) -> candle_core::Result<S>,
    ) -> candle_core::Result<(S, Shape)> {
        let (rank, inputs) = a_layout.shape().dims2()?;
        let (outputs, _) = b_layout.shape().dims2()?;
        // W₀ x + b
        let (y, shape) = self.base.values(x, x_layout, on_device)?;
        let rows = shape.elem_count() / outputs;
        // s · A x
        let x_rows = Layout::contiguous_with_offset((rows, inputs), x_layout.start_offset());
        let inner = x.matmul(
            a,
            (1, rows, rank, inputs),
            &x_rows,
            &a_layout.transpose(0, 1)?,
        )?;
        let inner_layout = Layout::contiguous((rows, rank));
        let inner = inner.affine(&inner_layout, self.scale, 0.0)?;
        // … + B …
        let columns = b_layout.transpose(0, 1)?;
        let sum = add(y, (&inner, &inner_layout), (b, &columns))?;
        Ok((sum, shape))
    }
}

impl CustomOp3 for Product {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.values(
            (x, x_layout),
            (a, a_layout),
            (b, b_layout),
            on_cpu,
            added_in_place,
        )
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        self.values((x, x_layout), (a, a_layout), (b, b_layout), on_cuda, added)
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        x_layout: &Layout,
        a: &MetalStorage,
        a_layout: &Layout,
        b: &MetalStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(MetalStorage, Shape)> {
        self.values((x, x_layout), (a, a_layout), (b, b_layout), on_metal, added)
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _h: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (a, b) = (a.detach(), b.detach());
        let grad = grad.reshape((rows(x), b.dim(0)?))?;
        let x_rows = x.detach().reshape((rows(x), a.dim(1)?))?;
        // s · A x, as in the forward pass; s · Bᵀ ∂L/∂h
        let inner = (x_rows.matmul(&a.t()?)? * self.scale)?;
        let inner_grad = (grad.matmul(&b)? * self.scale)?;
        // ∂L/∂A = s · Bᵀ ∂L/∂h xᵀ, ∂L/∂B = s · ∂L/∂h (A x)ᵀ, summed over the rows
        let a_grad = x_rows.t()?.matmul(&inner_grad)?.t()?;
        let b_grad = inner.t()?.matmul(&grad)?.t()?;
        // ∂L/∂x = W₀ᵀ ∂L/∂h + s · Aᵀ Bᵀ ∂L/∂h, if anybody asks for it
        let x_grad = match x.track_op() {
            true => {
                let mut sum = self.base.gradient(&grad)?;
                match pays(a.dim(0)?, sum.device().is_cpu()) {
                    true => sum.inplace_op3(&inner_grad, &a, &Accumulate)?,
                    false => sum = (sum + inner_grad.matmul(&a)?)?,
                }
                Some(sum.reshape(x.shape())?)
            }
            false => None,
        };
        Ok((x_grad, Some(a_grad), Some(b_grad)))
    }
}
