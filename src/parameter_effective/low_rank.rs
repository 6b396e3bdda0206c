//! s·B·A: what the LoRA layers add, with its start and the checks of its merge.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use rand::distr::{Distribution, Uniform};
use rand_distr::StandardNormal;

/// A `[rank, in]`, B `[out, rank]` and s.
#[derive(Clone, Debug)]
pub(crate) struct LowRank {
    pub(crate) a: Var,
    pub(crate) b: Var,
    pub(crate) scale: f64,
}

impl LowRank {
    /// s·B·A·x for rows of x: `[n, in]` to `[n, out]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        // The scale acts on `rank` numbers a row, the fewest on the way.
        self.project((x.matmul(&self.a.t()?)? * self.scale)?)
    }

    /// s·B·A's columns `ids` as rows: `[n]` to `[n, out]`.
    pub(crate) fn columns(&self, ids: &Tensor) -> Result<Tensor> {
        self.project((self.a.index_select(ids, 1)?.t()? * self.scale)?)
    }

    fn project(&self, x: Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.b.t()?)?)
    }

    /// s·B·A `[out, in]`.
    pub(crate) fn delta(&self) -> Result<Tensor> {
        Ok((self.b.matmul(&self.a)? * self.scale)?)
    }
}

/// A variable with elements from U(−bound, bound).
pub(crate) fn uniform(
    bound: f64,
    shape: (usize, usize),
    dtype: DType,
    device: &Device,
    rng: &mut impl Rng,
) -> Result<Var> {
    let law = Uniform::new_inclusive(-bound, bound)
        .map_err(|e| candle_core::Error::Msg(format!("U(-{bound}, {bound}): {e}")))?;
    drawn(|rng| law.sample(rng), shape, dtype, device, rng)
}

/// A variable with elements from N(0, std²).
pub(crate) fn normal(
    std: f64,
    shape: (usize, usize),
    dtype: DType,
    device: &Device,
    rng: &mut impl Rng,
) -> Result<Var> {
    let draw = |rng: &mut _| std * Distribution::<f64>::sample(&StandardNormal, rng);
    drawn(draw, shape, dtype, device, rng)
}

/// Drawn on the host: candle's generator cannot be seeded on the CPU.
fn drawn<R: Rng>(
    draw: impl Fn(&mut R) -> f64,
    shape: (usize, usize),
    dtype: DType,
    device: &Device,
    rng: &mut R,
) -> Result<Var> {
    let data: Vec<f64> = (0..shape.0 * shape.1).map(|_| draw(rng)).collect();
    let tensor = Tensor::from_vec(data, shape, &Device::Cpu)?;
    Ok(Var::from_tensor(
        &tensor.to_dtype(dtype)?.to_device(device)?,
    )?)
}

/// `base + change`, added in the type of `change` and stored in that of `base`, without a history.
///
/// # Errors
/// [`Error::Argument`] if an element of the sum is not finite: the weights are at fault, or the
/// sum leaves the range of the stored type.
pub(crate) fn merged(
    function: &'static str,
    argument: &str,
    base: &Tensor,
    change: &Tensor,
) -> Result<Tensor> {
    let sum = (base.to_dtype(change.dtype())? + change)?
        .to_dtype(base.dtype())?
        .detach();
    let values = sum.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(sum),
        Some(at) => Err(Error::argument(
            function,
            argument,
            format!(
                "would hold {} at flat position {at} after the merge; nothing was changed",
                values[at]
            ),
        )),
    }
}

/// `prefix.name`, or `name` for an empty prefix.
pub(crate) fn named(prefix: &str, name: &str, var: &Var) -> (String, Var) {
    let name = match prefix {
        "" => name.to_string(),
        prefix => format!("{prefix}.{name}"),
    };
    (name, var.clone())
}
