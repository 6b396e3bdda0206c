//! VeRA: two random matrices for all layers, two trained vectors for each (not in the survey).
//!
//! In one sentence: LoRA whose A and B are drawn once, shared and never trained; only a factor for each
//! of their r directions and for each output is trained.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | A, B | [`VeraProjections`]: frozen, shared by all layers | `[rank, most inputs]`, `[most outputs, rank]` |
//! | d | [`VeraLinear::lambda_d`] | `[rank]` |
//! | b | [`VeraLinear::lambda_b`] | `[out]` |
//!
//! Read next: [`lora`](crate::parameter_efficient::lora), which trains A and B.

use crate::error::{Error, Result, require};
use crate::math::to_host;
use crate::parameter_efficient::adapter::{Adapter, AdapterState, LinearAdapter, names};
use crate::parameter_efficient::frozen_linear::FrozenLinear;
use crate::parameter_efficient::low_rank::{changed, uniform};
use crate::shape::{Axes, made, same_type, size};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Settings of [`VeraProjections`] and [`VeraLinear`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VeraConfig {
    /// r ≥ 1. Default 256, PEFT's: a row of A and a column of B together cost one trained number.
    pub rank: usize,
    /// The initial value of d, finite. Default 0.1, as in PEFT.
    pub d_initial: f64,
    /// p in [0, 1), the share of A's inputs that is dropped in training. Default 0.
    pub dropout: f64,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self {
            rank: 256,
            d_initial: 0.1,
            dropout: 0.0,
        }
    }
}

/// A and B, drawn once for all layers of a model.
///
/// A layer takes the first `in` columns of A and the first `out` rows of B. Save them with the adapter
/// (PEFT's `save_projection=true`): PEFT can draw them again from a seed of torch's generator, which this
/// crate does not reproduce.
#[derive(Clone, Debug)]
pub struct VeraProjections {
    a: Tensor,
    b: Tensor,
}

impl VeraProjections {
    /// Drawn for layers of at most `inputs` inputs and `outputs` outputs: U(±√(6/inputs)) for A,
    /// U(±√(6/r)) for B, which is kaiming-uniform with gain √2.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless r, `inputs` and `outputs` are at least 1 and [within the
    /// limits](super#sizes).
    pub fn new(
        config: &VeraConfig,
        inputs: usize,
        outputs: usize,
        dtype: DType,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let function = "VeraProjections::new";
        size(function, "rank", config.rank)?;
        size(function, "inputs", inputs)?;
        size(function, "outputs", outputs)?;
        made(function, "rank", &[config.rank, inputs])?;
        made(function, "rank", &[outputs, config.rank])?;
        let bound = |fan_in: usize| (6.0 / fan_in as f64).sqrt();
        let a = uniform(bound(inputs), (config.rank, inputs), dtype, device, rng)?;
        let b = uniform(
            bound(config.rank),
            (outputs, config.rank),
            dtype,
            device,
            rng,
        )?;
        Self::from_tensors(a.as_detached_tensor(), b.as_detached_tensor())
    }

    /// From A `[rank, inputs]` and B `[outputs, rank]`, both f32 or both f64: `vera_A` and `vera_B` of a
    /// file.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] as above.
    pub fn from_tensors(a: Tensor, b: Tensor) -> Result<Self> {
        let mut axes = Axes::new("VeraProjections::from_tensors");
        axes.float("a", &a, &["rank", "inputs"])?;
        axes.float("b", &b, &["outputs", "rank"])?;
        Ok(Self {
            a: a.detach(),
            b: b.detach(),
        })
    }

    /// A `[rank, inputs]`.
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// B `[outputs, rank]`.
    pub fn b(&self) -> &Tensor {
        &self.b
    }
}

/// A frozen linear layer beside a frozen random one, with trained factors inside and after it.
///
/// # Equation
/// ```text
/// h = W₀ x + bias + λ_b ⊙ B ( λ_d ⊙ A x )
/// λ_b = 0,   λ_d = 0.1                       at the start
/// ```
/// # Shapes
/// Inputs, outputs and types as for [`LoraLinear`](crate::parameter_efficient::LoraLinear); λ_d `[rank]`, λ_b `[out]`.
/// [`VeraProjections`] are f64 for an f64 base and f32 for any other. A layer that uses them whole shares
/// them; a layer that uses a part copies it.
/// # Errors
/// As for [`LoraLinear`](crate::parameter_efficient::LoraLinear); [`Error::Parameter`] unless the initial λ_d is finite and
/// 0 ≤ p < 1; [`Error::Argument`] for projections smaller than the layer, or of another rank than that
/// of the settings.
/// # Properties
/// * At the start h is the base layer's output bit for bit, as for LoRA; ∂L/∂λ_d = 0 and ∂L/∂λ_b ≠ 0.
/// * out + r numbers are trained; W₀, A and B get no gradient.
/// * It is LoRA with A, diag(λ_b)·B·diag(λ_d) and s = 1: (c·λ_d, λ_b/c) is the same layer for any c.
/// * Merged and unmerged layers agree to rounding. Unmerging and disabling restore the base bit for
///   bit.
/// * In linear regression it recovers a change of that form.
/// # Departures
/// The survey does not name VeRA. There is no α. The paper draws A and B with kaiming-uniform and
/// starts d at 10⁻¹ or 10⁻⁷, depending on the task; the default is PEFT's.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{VeraConfig, VeraLinear, VeraProjections};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
///
/// let at = |data: &[f64], shape| Tensor::from_slice(data, shape, &Device::Cpu);
/// let base = Linear::new(at(&[1.0, 2.0, 3.0, 4.0], (2, 2))?, None);
/// // wider than the layer: its third column and third row belong to other layers
/// let shared = VeraProjections::from_tensors(at(&[5.0, 6.0, 99.0], (1, 3))?, at(&[7.0, 8.0, 99.0], (3, 1))?)?;
/// let config = VeraConfig { rank: 1, d_initial: 0.5, ..Default::default() };
/// let layer = VeraLinear::new(&base, &shared, &config)?;
///
/// layer.lambda_b().set(&Tensor::new(&[2.0, 3.0], &Device::Cpu)?)?;
/// let h = layer.forward(&at(&[10.0, 100.0], (1, 2))?)?;
/// let ax = 0.5 * (5.0 * 10.0 + 6.0 * 100.0);
/// assert_eq!(h.to_vec2::<f64>()?, [[210.0 + 2.0 * 7.0 * ax, 430.0 + 3.0 * 8.0 * ax]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * [`VeraLinear::delta`] rather than the two vectors: one can grow while the other shrinks, and the
///   layer stays the same.
/// * [`grad_coverage`](crate::training::grad_coverage) after the first backward pass: `zero` lists λ_d,
///   `learning` lists λ_b.
/// * The saved projections: the two vectors mean nothing beside another A and B.
/// # Try
/// * Recover a change of VeRA's form, up to the factor that the vectors share.
///   `tests/optimum/vera.rs::a_change_within_reach_is_recovered_from_random_projections`
/// * Which LoRA layer is a given VeRA layer?
///   `tests/identities/vera.rs::it_is_lora_with_scaled_projections_and_scale_one`
/// # Source
/// Kopiczko et al. 2023, arXiv:2310.11454, eq. 2. The equation was checked against PEFT 0.21.2,
/// `tuners/vera/layer.py`, in values and gradients, not against the text of the paper.
#[doc(alias = "VeRA")]
#[derive(Clone, Debug)]
pub struct VeraLinear {
    base: FrozenLinear,
    a: FrozenLinear,
    b: FrozenLinear,
    lambda_d: Var,
    lambda_b: Var,
    state: AdapterState,
}

impl VeraLinear {
    /// A layer at its start. The base weight is shared, not copied.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for a base that is not `[out, in]` in f32, f64, bf16 or f16, and
    /// for projections of another type; [`Error::Parameter`] for a setting out of its range;
    /// [`Error::Argument`] for projections smaller than the layer or of another rank.
    pub fn new(base: &Linear, shared: &VeraProjections, config: &VeraConfig) -> Result<Self> {
        let function = "VeraLinear::new";
        let (d, p) = (config.d_initial, config.dropout);
        require(d.is_finite(), function, "d_initial", "finite", d)?;
        require((0.0..1.0).contains(&p), function, "dropout", "in [0, 1)", p)?;
        let base = FrozenLinear::of(function, base)?;
        let (outputs, inputs) = base.weight().dims2()?;
        let dtype = base.wide();

        let ((rank, most_inputs), most_outputs) = (shared.a.dims2()?, shared.b.dim(0)?);
        let problem = |text: String| Error::argument(function, "shared", text);
        if rank != config.rank {
            let text = format!("is of rank {rank}, and `rank` is {}", config.rank);
            return Err(problem(text));
        }
        if most_inputs < inputs || most_outputs < outputs {
            return Err(problem(format!(
                "is for at most {most_inputs} inputs and {most_outputs} outputs; the layer has \
                 {inputs} and {outputs}"
            )));
        }
        same_type(function, "shared", &shared.a, (dtype, "`base.weight`"))?;
        let a = shared.a.narrow(1, 0, inputs)?.contiguous()?;
        let b = shared.b.narrow(0, 0, outputs)?.contiguous()?;
        let device = base.weight().device();
        Ok(Self {
            lambda_d: Var::from_tensor(&Tensor::full(d, rank, device)?.to_dtype(dtype)?)?,
            lambda_b: Var::zeros(outputs, dtype, device)?,
            state: AdapterState::named(names!("VeraLinear"), base.clone(), p),
            base,
            a: FrozenLinear::new(a, None)?,
            b: FrozenLinear::new(b, None)?,
        })
    }

    /// ΔW = diag(λ_b)·B·diag(λ_d)·A `[out, in]`, differentiable.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn delta(&self) -> Result<Tensor> {
        let b = self
            .b
            .weight()
            .broadcast_mul(&self.lambda_b.unsqueeze(1)?)?;
        let a = self
            .a
            .weight()
            .broadcast_mul(&self.lambda_d.unsqueeze(1)?)?;
        Ok(b.matmul(&a)?)
    }

    /// Whether A and B are parts of these projections.
    pub(crate) fn uses(&self, shared: &VeraProjections) -> Result<bool> {
        let part = |own: &Tensor, whole: &Tensor, axis: usize| -> Result<bool> {
            let (size, across) = (own.dim(axis)?, 1 - axis);
            if size > whole.dim(axis)? || own.dim(across)? != whole.dim(across)? {
                return Ok(false);
            }
            let whole = whole.narrow(axis, 0, size)?.to_device(own.device())?;
            let bits = |x: &Tensor| -> Result<Vec<u64>> {
                let values = to_host::<f64>(&x.to_dtype(DType::F64)?)?;
                Ok(values.into_iter().map(f64::to_bits).collect())
            };
            Ok(bits(own)? == bits(&whole)?)
        };
        Ok(part(self.a.weight(), shared.a(), 1)? && part(self.b.weight(), shared.b(), 0)?)
    }

    /// The frozen base layer.
    pub fn base(&self) -> &FrozenLinear {
        &self.base
    }

    /// λ_d `[rank]`.
    pub fn lambda_d(&self) -> &Var {
        &self.lambda_d
    }

    /// λ_b `[out]`.
    pub fn lambda_b(&self) -> &Var {
        &self.lambda_b
    }
}

impl Adapter for VeraLinear {
    /// `vera_lambda_b`, `vera_lambda_d`.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        vec![
            ("vera_lambda_b", &self.lambda_b),
            ("vera_lambda_d", &self.lambda_d),
        ]
    }

    fn adapted(&self, x: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        // λ_d ⊙ A x
        let inner = self.a.forward(dropped)?.broadcast_mul(&self.lambda_d)?;
        // λ_b ⊙ B ( … )
        let update = self.b.forward(&inner)?.broadcast_mul(&self.lambda_b)?;
        // W₀ x + bias + …
        Ok((self.base.forward(x)? + update)?)
    }

    fn state(&self) -> &AdapterState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        &mut self.state
    }

    fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(changed(weight, &self.delta()?)?))
    }

    fn merge_bias(&self, _: Option<&Tensor>) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

impl LinearAdapter for VeraLinear {}

impl Module for VeraLinear {
    /// [`Adapter::forward_eval`].
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(x)?)
    }
}
