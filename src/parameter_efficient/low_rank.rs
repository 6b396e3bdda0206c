//! s·B·A, which the LoRA layers add: its initial state and the checks of merging.

use crate::error::{Error, Result};
use crate::math::{masked, to_host};
use crate::parameter_efficient::{LoraConfig, LoraInit};
use crate::shape::made;
use candle_core::{DType, Device, Tensor, Var};
use rand::distr::{Distribution, Uniform};
use rand::{Rng, RngCore};
use rand_distr::StandardNormal;

/// A `[rank, in]`, B `[out, rank]` and s.
#[derive(Clone, Debug)]
pub(crate) struct LowRank {
    pub(crate) a: Var,
    pub(crate) b: Var,
    pub(crate) scale: f64,
}

impl LowRank {
    /// A drawn as the settings say, B = 0, beside a base weight `[out, in]`.
    pub(crate) fn start(
        function: &'static str,
        config: &LoraConfig,
        (outputs, inputs): (usize, usize),
        (dtype, device): (DType, &Device),
        rng: &mut impl Rng,
    ) -> Result<Self> {
        made(function, "rank", &[config.rank, inputs])?;
        made(function, "rank", &[outputs, config.rank])?;
        let shape = (config.rank, inputs);
        let a = match config.init {
            LoraInit::KaimingUniform => uniform(
                1.0 / (inputs.max(1) as f64).sqrt(),
                shape,
                dtype,
                device,
                rng,
            )?,
            LoraInit::Gaussian => normal(1.0 / config.rank as f64, shape, dtype, device, rng)?,
        };
        Ok(Self {
            a,
            b: Var::zeros((outputs, config.rank), dtype, device)?,
            scale: config.scale(),
        })
    }

    /// s·B·A·x for rows of x: `[n, in]` to `[n, out]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        // The scale is applied to `rank` numbers per row, the fewest along the way.
        self.project((x.matmul(&self.a.t()?)? * self.scale)?)
    }

    /// The columns `ids` of s·B·A as rows: `[n]` to `[n, out]`.
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

/// x with each element set to 0 with probability p, and the rest scaled by 1/(1 − p).
pub(crate) fn dropped(x: &Tensor, p: f64, rng: &mut dyn RngCore) -> Result<Tensor> {
    let keep: Vec<u8> = (0..x.elem_count())
        .map(|_| u8::from(!rng.random_bool(p)))
        .collect();
    let keep = Tensor::from_vec(keep, x.shape(), x.device())?;
    Ok((masked(x, &keep)? * (1.0 / (1.0 - p)))?)
}

/// `base + change`, in the type of `change`.
pub(crate) fn changed(base: &Tensor, change: &Tensor) -> Result<Tensor> {
    Ok((base.to_dtype(change.dtype())? + change)?)
}

/// A merged tensor in its stored type, detached.
///
/// # Errors
/// [`Error::Argument`] if an element is not finite: either a weight is not, or the value exceeds the range
/// of the stored type.
pub(crate) fn stored(
    function: &'static str,
    argument: &str,
    value: &Tensor,
    dtype: DType,
) -> Result<Tensor> {
    let value = value.to_dtype(dtype)?.detach();
    let values = to_host::<f64>(&value.to_dtype(DType::F64)?)?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(value),
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

/// How many numbers these variables hold.
pub(crate) fn counted(vars: &[(String, Var)]) -> usize {
    vars.iter().map(|(_, var)| var.elem_count()).sum()
}

/// `prefix.name`, or `name` for an empty prefix.
pub(crate) fn named(prefix: &str, name: &str, var: &Var) -> (String, Var) {
    let name = match prefix {
        "" => name.to_string(),
        prefix => format!("{prefix}.{name}"),
    };
    (name, var.clone())
}
