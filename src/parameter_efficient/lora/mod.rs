//! Low-rank adaptation of a linear layer (survey §3.3, Eq. 4).
//!
//! In one sentence: keep the weight and learn a change of it that is a product of a narrow matrix, B,
//! and a short one, A.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | W₀, b | [`LoraLinear::base`]: frozen | `[out, in]`, `[out]` |
//! | A | [`LoraLinear::a`] | `[rank, in]` |
//! | B | [`LoraLinear::b`] | `[out, rank]` |
//! | ΔW | [`LoraLinear::delta`]: s·B·A | `[out, in]` |
//! | r, α | [`LoraConfig::rank`], [`LoraConfig::alpha`] | numbers |
//! | α/r | [`LoraConfig::scale`]: s | number |
//!
//! Read next: [`frozen_linear`](crate::parameter_efficient::frozen_linear) (why the base costs nothing),
//! [`embedding`], [`plus`].

mod accumulate;
pub mod config;
pub mod embedding;
pub mod for_model;
pub mod plus;
mod product;
pub(crate) mod update;

use crate::error::Result;
use crate::parameter_efficient::LoraConfig;
use crate::parameter_efficient::adapter::{
    Adapter, AdapterState, FrozenBase, LinearAdapter, Names, names,
};
use crate::parameter_efficient::frozen_linear::FrozenLinear;
use crate::parameter_efficient::lora::update::Update;
use candle_core::{Tensor, Var};
use candle_nn::{Linear, Module};
use rand::Rng;

/// A frozen linear layer with a trained low-rank change.
///
/// # Equation
/// ```text
/// h = W₀ x + b + s · B A dropout(x)          s = α/r, or α/√r
/// A ~ U(±1/√in) or N(0, 1/r²),   B = 0       at the start
/// ```
/// s is α/√r with [`Scaling::RankSqrt`]. With [`LoraBias::Base`] b is a trained copy of the base bias;
/// with [`LoraBias::Update`] the last term is s · (B A dropout(x) + b_B), b_B = 0 at the start.
/// # Shapes
/// `x` `[.., in]` with any number of leading axes; the result is `[.., out]` in the type of `x`.
/// A, B and a trained bias are f64 for an f64 base and f32 for any other. A bf16 or f16 weight is
/// widened when it is used; the sum is computed in f32 and rounded once at the end. Types of `x` as for
/// [`FrozenLinear`].
/// # Errors
/// [`Error::Shape`] and [`Error::DType`] as above. From [`LoraLinear::new`] [`Error::Parameter`]
/// unless r ≥ 1 and [within the limits](super#sizes), α > 0 and 0 ≤ p < 1; [`Error::Argument`] for [`LoraBias::Base`] over a base
/// without a bias. From [`Adapter::forward_train`] [`Error::Argument`] while merged. From
/// [`Adapter::merge`] [`Error::Argument`] if a merged weight would not be finite. A rank above
/// min(in, out) is allowed, though it cannot express more.
/// # Properties
/// * At the start h is the base layer's output bit for bit (except that −0 may become 0, and that an
///   infinite input becomes NaN), ∂L/∂A = 0 and ∂L/∂B ≠ 0.
/// * r(in + out) numbers are trained. W₀ gets no gradient and no entry among the gradients.
/// * Merged and unmerged layers agree to rounding. Unmerging restores the base bit for bit, since the
///   base is kept and nothing is subtracted. While merged, the layer holds two weights.
/// * Disabled, the layer is the base layer bit for bit, merged or not, however long A, B and a bias
///   were trained: it is the reference policy of DPO. [`LoraLinear::base`] is that layer without a
///   switch.
/// * Without dropout and a trained bias the layer is one operation: for the backward pass the graph keeps x
///   and h, and no output beside h. An x without a gradient costs none. With dropout or a trained bias the
///   graph keeps each summand, and dropout(x).
/// * A clone shares A, B and a trained bias with its original.
/// * (M⁻¹A, BM) is the same layer as (A, B). Gradient flow conserves BᵀB − AAᵀ.
/// * In linear regression toward a change of rank ≤ r the optimum is that change. For a change of
///   higher rank it is the best one of rank r, weighted by the inputs' covariance.
/// # Departures
/// The survey's Eq. 4 is h = W₀x + BAx: it copies the paper's eq. 3 and omits the α/r that the paper adds
/// in the next sentence. The paper draws A from a Gaussian of unstated width; the default here is the
/// uniform distribution of the authors' code and PEFT. Dropout on the input of A is in the authors'
/// code, not in the paper's equation. The bias of the base is part of the layer, as in that code. PEFT
/// subtracts to unmerge, which in bf16 changed one weight in fourteen of a 256 × 256 layer (PEFT 0.21);
/// with a trained base bias its disabled model is not the base model. With half types PEFT rounds W₀x
/// and then the sum; here the sum is rounded once.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{Adapter, LoraConfig, LoraLinear};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let at = |data: &[f64], shape| Tensor::from_slice(data, shape, &Device::Cpu);
/// let base = Linear::new(at(&[1.0, 2.0, 3.0, 4.0], (2, 2))?, None);
/// let config = LoraConfig { rank: 1, alpha: 3.0, ..Default::default() };
/// let mut layer = LoraLinear::new(&base, &config, &mut StdRng::seed_from_u64(0))?;
/// let x = at(&[10.0, 100.0], (1, 2))?;
/// assert_eq!(layer.forward(&x)?.to_vec2::<f64>()?, base.forward(&x)?.to_vec2::<f64>()?);
///
/// // training would do this: A = (5, 6), B = (7, 8)ᵀ
/// layer.a().set(&at(&[5.0, 6.0], (1, 2))?)?;
/// layer.b().set(&at(&[7.0, 8.0], (2, 1))?)?;
/// let ax = 5.0 * 10.0 + 6.0 * 100.0;
/// let h = [[210.0 + 3.0 / 1.0 * 7.0 * ax, 430.0 + 3.0 / 1.0 * 8.0 * ax]];
/// assert_eq!(layer.forward(&x)?.to_vec2::<f64>()?, h);
/// layer.merge()?;
/// assert_eq!(layer.forward(&x)?.to_vec2::<f64>()?, h);
///
/// layer.set_enabled(false); // the reference policy
/// assert_eq!(layer.forward(&x)?.to_vec2::<f64>()?, [[210.0, 430.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * [`grad_coverage`](crate::training::grad_coverage) after the first backward pass: `zero` lists
///   `lora_A.weight`, `learning` lists `lora_B.weight`. If A is still in `zero` after a step, the
///   optimizer did not move B.
/// * The norm of [`LoraLinear::delta`] beside that of W₀. It starts at 0 and stays there if the optimizer
///   does not have [`Adapter::trainable`]. If it becomes as large as W₀, the learning rate or α is too
///   high.
/// * The KL to the disabled layer. If it is not 0 at the first step, the reference is another model.
/// # Try
/// * Start both factors at 0: what is learned?
///   `tests/optimum/lora.rs::with_both_factors_at_zero_nothing_is_learnt`
/// * Which part of a change does a rank that is too small find?
///   `cargo run --example lora`
/// # Source
/// Hu et al. 2021, arXiv:2106.09685v2, eq. 3 and the sentence after it; authors' code
/// microsoft/LoRA, `loralib/layers.py`, `Linear`.
///
/// [`Error::Shape`]: crate::Error::Shape
/// [`Error::DType`]: crate::Error::DType
/// [`Error::Parameter`]: crate::Error::Parameter
/// [`Error::Argument`]: crate::Error::Argument
/// [`Scaling::RankSqrt`]: crate::parameter_efficient::Scaling::RankSqrt
/// [`LoraBias::Base`]: crate::parameter_efficient::LoraBias::Base
/// [`LoraBias::Update`]: crate::parameter_efficient::LoraBias::Update
#[doc(alias = "LoRA")]
#[doc(alias = "low-rank adaptation")]
pub type LoraLinear = Lora<FrozenLinear>;

impl LoraLinear {
    /// A layer at its start. The base weight is shared, not copied; `rng` draws A.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) for a base that is not
    /// `[out, in]` in f32, f64, bf16 or f16; [`Error::Parameter`](crate::Error::Parameter) for a setting out
    /// of its range; [`Error::Argument`](crate::Error::Argument) for
    /// [`LoraBias::Base`](crate::parameter_efficient::LoraBias::Base) over a base without a bias.
    pub fn new(base: &Linear, config: &LoraConfig, rng: &mut impl Rng) -> Result<Self> {
        let function = "LoraLinear::new";
        config.check(function)?;
        let base = FrozenLinear::of(function, base)?;
        let sizes = base.weight().dims2()?;
        let kind = (base.wide(), base.weight().device());
        let update = Update::start(function, config, sizes, base.bias(), kind, rng)?;
        let names = Names {
            untrained: "A and B would get no gradient",
            ..names!("LoraLinear")
        };
        Ok(Self::over_base(names, base, update, config.dropout))
    }
}

/// The low-rank change over a base of either kind: [`LoraLinear`],
/// [`QloraLinear`](crate::parameter_efficient::QloraLinear).
#[derive(Clone, Debug)]
pub struct Lora<B> {
    base: B,
    update: Update,
    state: AdapterState,
}

impl LoraLinear {
    /// As [`Adapter::forward_eval`] for rows `[n, in]` in the type of A, with W₀ x by `product`, which has x and W₀.
    pub(crate) fn forward_by(
        &self,
        x: &Tensor,
        product: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        if !self.is_enabled() || self.is_merged() {
            return self.forward_eval(x);
        }
        let mut y = product(x, self.base.weight())?;
        if let (Some(bias), false) = (self.base.bias(), self.update.replaces_bias()) {
            y = y.broadcast_add(&bias.to_dtype(y.dtype())?)?;
        }
        self.update.added_to(y, x)
    }
}

impl<B> Lora<B> {
    pub(crate) fn over_base(names: Names, base: B, update: Update, dropout: f64) -> Self
    where
        B: Clone + Into<FrozenBase>,
    {
        Self {
            state: AdapterState::named(names, base.clone(), dropout),
            base,
            update,
        }
    }

    /// The same layer over `base`, another copy of the same weights.
    pub(crate) fn over_same(self, base: B) -> Self
    where
        B: Clone + Into<FrozenBase>,
    {
        Self {
            state: self.state.over(base.clone()),
            base,
            ..self
        }
    }

    /// The frozen base layer.
    pub fn base(&self) -> &B {
        &self.base
    }

    /// A `[rank, in]`.
    pub fn a(&self) -> &Var {
        &self.update.factors.a
    }

    /// B `[out, rank]`.
    pub fn b(&self) -> &Var {
        &self.update.factors.b
    }

    /// s.
    pub fn scale(&self) -> f64 {
        self.update.factors.scale
    }

    /// ΔW = s·B·A `[out, in]`, differentiable.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn delta(&self) -> Result<Tensor> {
        self.update.factors.delta()
    }
}

impl<B> Adapter for Lora<B> {
    /// `lora_A.weight`, `lora_B.weight`, and `base_layer.bias` or `lora_B.bias` for a trained bias.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        self.update.vars()
    }

    fn adapted(&self, x: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        let base = self.frozen();
        if let (FrozenBase::Linear(base), Some(factors)) = (base, self.update.only_factors())
            && dropped.id() == x.id()
            && !product::is_empty(factors, x)
        {
            return product::whole(base, factors, x);
        }
        // W₀ x + b
        let base = match self.update.replaces_bias() {
            true => base.without_bias().forward(x)?,
            false => base.forward(x)?,
        };
        // + s · B A dropout(x)
        self.update.added_to(base, dropped)
    }

    fn state(&self) -> &AdapterState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        &mut self.state
    }

    fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        self.update.merge_weight(weight)
    }

    fn merge_bias(&self, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
        self.update.merge_bias(bias)
    }
}

impl<B> LinearAdapter for Lora<B> {}

impl<B> Module for Lora<B> {
    /// [`Adapter::forward_eval`].
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(x)?)
    }
}
