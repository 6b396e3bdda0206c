//! AdaLoRA: a change of the weight made of triplets that can be removed and restored (survey §3.3).
//!
//! In one sentence: write the change as singular vectors around singular values, and let all
//! matrices share one budget of nonzero values.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | W⁽⁰⁾ | [`AdaLoraLinear::base`]: frozen | `[out, in]` |
//! | P | [`AdaLoraLinear::p`]: left singular vectors | `[out, rank]` |
//! | Λ | [`AdaLoraLinear::lambda`]: its diagonal | `[rank, 1]` |
//! | Q | [`AdaLoraLinear::q`]: right singular vectors | `[rank, in]` |
//! | R(P, Q) | [`orthogonality_penalty`] | number |
//! | 𝒢ₖ,ᵢ | the triplet of row i of Q, element i of Λ and column i of P of matrix k | |
//! | b⁽ᵗ⁾, S⁽ᵗ⁾ | [`RankAllocator`](crate::parameter_efficient::RankAllocator) | numbers |
//!
//! Read next: [`allocator`], which decides where the rank goes;
//! [`lora`](crate::parameter_efficient::lora).

pub mod allocator;
mod orthogonality;
pub mod schedule;
mod state;

pub use orthogonality::{Orthogonality, orthogonality_penalty};

use crate::error::{Error, Result, positive, require};
use crate::parameter_efficient::adapter::{Adapter, AdapterState, LinearAdapter, names};
use crate::parameter_efficient::frozen_linear::{FrozenLinear, rows};
use crate::parameter_efficient::low_rank::{changed, normal};
use crate::shape::{Axes, made, same_type, size};
use candle_core::{Tensor, Var};
use candle_nn::{Linear, Module};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Settings of [`AdaLoraLinear`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaLoraConfig {
    /// r ≥ 1, the initial rank: PEFT's `init_r`. Default 12, as in PEFT: one and a half times the 8 that
    /// remain on average, the paper's proportion.
    pub rank: usize,
    /// α > 0, the numerator of the scale. Default 8, as in PEFT.
    pub alpha: f64,
    /// How the scale s follows from α and r. Default as in the authors' code.
    pub scaling: AdaLoraScaling,
    /// p in [0, 1), the share of Q's inputs that is dropped in training. Default 0.
    pub dropout: f64,
}

impl Default for AdaLoraConfig {
    fn default() -> Self {
        Self {
            rank: 12,
            alpha: 8.0,
            scaling: AdaLoraScaling::RankWithEpsilon,
            dropout: 0.0,
        }
    }
}

impl AdaLoraConfig {
    /// s. r is the initial rank: pruning triplets does not change the scale.
    pub fn scale(&self) -> f64 {
        match self.scaling {
            AdaLoraScaling::RankWithEpsilon => self.alpha / (self.rank as f64 + 1e-5),
            AdaLoraScaling::Rank => self.alpha / self.rank as f64,
        }
    }

    pub(crate) fn check(&self, function: &'static str) -> Result<()> {
        size(function, "rank", self.rank)?;
        positive(function, "alpha", self.alpha)?;
        let p = self.dropout;
        require((0.0..1.0).contains(&p), function, "dropout", "in [0, 1)", p)
    }
}

/// How the scale s of an [`AdaLoraLinear`] follows from α and its initial rank r.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdaLoraScaling {
    /// s = α/(r + 10⁻⁵): the authors' code and PEFT, so that their files mean the same here.
    #[default]
    RankWithEpsilon,
    /// s = α/r: LoRA's, which the paper refers to.
    Rank,
}

/// The standard deviation with which P and Q are drawn: the authors' code's.
const START: f64 = 0.02;

/// A frozen linear layer with a trained change in the form of a singular value decomposition.
///
/// # Equation
/// ```text
/// h = W⁽⁰⁾ x + b + s · P Λ Q dropout(x)      s = α/(r + 10⁻⁵), or α/r
/// Λ = 0,   P, Q ~ N(0, 0.02²)                at the start
/// ```
/// # Shapes
/// Inputs, outputs and types as for [`LoraLinear`](crate::parameter_efficient::LoraLinear); P `[out, r]`, Λ's diagonal
/// `[r, 1]`, Q `[r, in]`.
/// # Errors
/// As for [`LoraLinear`](crate::parameter_efficient::LoraLinear), for the settings of [`AdaLoraConfig`].
/// # Properties
/// * At the start h is the base layer's output bit for bit, as for LoRA; ∂L/∂P = ∂L/∂Q = 0, ∂L/∂Λ ≠ 0.
/// * r(in + out + 1) numbers are trained; W⁽⁰⁾ gets no gradient.
/// * A triplet whose λ is 0 adds nothing. Yet its λ gets a gradient and its vectors stay, so it can
///   return. [`AdaLoraLinear::cut`] makes the pruning final.
/// * With Λ fixed it is LoRA with A = ΛQ and B = P.
/// * Merged and unmerged layers agree to rounding. Unmerging and disabling restore the base bit for
///   bit.
/// * Only [`orthogonality_penalty`] keeps P and Q orthogonal: (cP, λ/c², cQ) is the same layer.
/// # Departures
/// The survey describes AdaLoRA in words: importance from gradients, then a rank per matrix. The paper's
/// eq. 3 has no scale; its experiments keep LoRA's α/r. The authors' code and PEFT divide by r + 10⁻⁵
/// and keep the initial r; that is the default here. Dropout and the bias are as in LoRA.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{AdaLoraConfig, AdaLoraLinear, AdaLoraScaling};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
///
/// let at = |data: &[f64], shape| Tensor::from_slice(data, shape, &Device::Cpu);
/// let base = Linear::new(at(&[1.0, 2.0, 3.0, 4.0], (2, 2))?, None);
/// let config = AdaLoraConfig { rank: 2, alpha: 6.0, scaling: AdaLoraScaling::Rank, ..Default::default() };
/// let p = at(&[1.0, 0.0, 0.0, 1.0], (2, 2))?;
/// let q = at(&[0.0, 1.0, 1.0, 0.0], (2, 2))?;
/// let layer = AdaLoraLinear::from_factors(&base, &config, &p, &at(&[5.0, 0.0], (2, 1))?, &q)?;
///
/// // the second triplet is pruned; the first takes the second input to the first output
/// let h = layer.forward(&at(&[10.0, 100.0], (1, 2))?)?;
/// assert_eq!(h.to_vec2::<f64>()?, [[210.0 + 6.0 / 2.0 * 5.0 * 100.0, 430.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * λ: all 0 at the start. If they stay 0, the optimizer does not have
///   [`Adapter::trainable`].
/// * [`orthogonality_penalty`] on its own: if it stays near its initial value, it is missing from the
///   loss or its weight is too small. Then λ alone no longer tells how large a triplet is.
/// # Try
/// * Show that the layer with a fixed Λ is LoRA.
///   `tests/identities/adalora.rs::with_its_singular_values_held_still_it_is_lora`
/// * Remove a pruned triplet from the layer: what changes?
///   `tests/identities/adalora.rs::a_pruned_triplet_adds_nothing_and_cutting_it_changes_nothing`
/// # Source
/// Zhang et al. 2023, arXiv:2303.10512, eq. 3; authors' code QingruZhang/AdaLoRA, `loralib/adalora.py`,
/// `SVDLinear`; PEFT 0.21.2, `tuners/adalora/layer.py`, with which values and gradients were compared.
#[doc(alias = "AdaLoRA")]
#[derive(Clone, Debug)]
pub struct AdaLoraLinear {
    base: FrozenLinear,
    p: Var,
    lambda: Var,
    q: Var,
    scale: f64,
    state: AdapterState,
}

impl AdaLoraLinear {
    /// A layer at its start. The base weight is shared, not copied; `rng` draws P and Q.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a setting out of its range; [`Error::Shape`] and [`Error::DType`] for a
    /// base that is not `[out, in]` in f32, f64, bf16 or f16.
    pub fn new(base: &Linear, config: &AdaLoraConfig, rng: &mut impl Rng) -> Result<Self> {
        let function = "AdaLoraLinear::new";
        config.check(function)?;
        let base = FrozenLinear::of(function, base)?;
        let (outputs, inputs) = base.weight().dims2()?;
        let (dtype, device) = (base.wide(), base.weight().device());
        made(function, "rank", &[config.rank, inputs])?;
        made(function, "rank", &[outputs, config.rank])?;
        let (r, lambda) = (config.rank, Var::zeros((config.rank, 1), dtype, device)?);
        let q = normal(START, (r, inputs), dtype, device, rng)?;
        let p = normal(START, (outputs, r), dtype, device, rng)?;
        Ok(Self::of(base, config, p, lambda, q))
    }

    /// A layer with the factors of a file, which are copied: P `[out, k]` (`lora_B`), Λ's diagonal
    /// `[k, 1]` (`lora_E`) and Q `[k, in]` (`lora_A`).
    ///
    /// k is what remains of the rank that `config` names, 0 included. The scale is that of the initial
    /// rank.
    ///
    /// # Errors
    /// As for [`AdaLoraLinear::new`], and [`Error::Shape`] and [`Error::DType`] for the factors too;
    /// [`Error::Argument`] if k is above the initial rank.
    pub fn from_factors(
        base: &Linear,
        config: &AdaLoraConfig,
        p: &Tensor,
        lambda: &Tensor,
        q: &Tensor,
    ) -> Result<Self> {
        let function = "AdaLoraLinear::from_factors";
        config.check(function)?;
        let base = FrozenLinear::of(function, base)?;
        let mut axes = Axes::new(function);
        axes.axes("base.weight", base.weight(), &["out", "in"])?;
        let dtype = base.wide();
        for (name, factor, shape) in [
            ("p", p, ["out", "rank"]),
            ("lambda", lambda, ["rank", "one"]),
            ("q", q, ["rank", "in"]),
        ] {
            axes.axes(name, factor, &shape)?;
            same_type(function, name, factor, (dtype, "`base.weight`"))?;
        }
        if lambda.dim(1)? != 1 {
            return Err(Error::Shape {
                function,
                argument: "lambda".to_string(),
                shape: lambda.dims().to_vec(),
                expected: "rank, 1".to_string(),
            });
        }
        if q.dim(0)? > config.rank {
            let text = format!("has {} rows, and `rank` is {}", q.dim(0)?, config.rank);
            return Err(Error::argument(function, "q", text));
        }
        let copy = |t: &Tensor| Var::from_tensor(&t.detach().copy()?);
        Ok(Self::of(base, config, copy(p)?, copy(lambda)?, copy(q)?))
    }

    fn of(base: FrozenLinear, config: &AdaLoraConfig, p: Var, lambda: Var, q: Var) -> Self {
        let state = AdapterState::named(names!("AdaLoraLinear"), base.clone(), config.dropout);
        Self {
            base,
            p,
            lambda,
            q,
            scale: config.scale(),
            state,
        }
    }

    /// A copy of the layer with only the triplets that are kept. The others are gone for good. The scale
    /// stays. PEFT writes an adapter in this form after training.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `kept` has one entry for every triplet.
    pub fn cut(&self, kept: &[bool]) -> Result<Self> {
        if kept.len() != self.rank() {
            let text = format!("has {} entries, for {} triplets", kept.len(), self.rank());
            return Err(Error::argument("AdaLoraLinear::cut", "kept", text));
        }
        let kept: Vec<u32> = (0..)
            .zip(kept)
            .filter(|(_, k)| **k)
            .map(|(i, _)| i)
            .collect();
        let kept = Tensor::new(kept, self.q.device())?;
        let chosen = |var: &Var, axis| Var::from_tensor(&var.detach().index_select(&kept, axis)?);
        Ok(Self {
            base: self.base.clone(),
            p: chosen(&self.p, 1)?,
            lambda: chosen(&self.lambda, 0)?,
            q: chosen(&self.q, 0)?,
            scale: self.scale,
            state: self.state.unmerged(),
        })
    }

    /// ΔW = s·P·Λ·Q `[out, in]`, differentiable.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn delta(&self) -> Result<Tensor> {
        if self.rank() == 0 {
            return Ok(self
                .base
                .weight()
                .zeros_like()?
                .to_dtype(self.base.wide())?);
        }
        let triplets = self.q.broadcast_mul(&self.lambda)?;
        Ok((self.p.matmul(&triplets)? * self.scale)?)
    }

    /// The frozen base layer.
    pub fn base(&self) -> &FrozenLinear {
        &self.base
    }

    /// P `[out, rank]`.
    pub fn p(&self) -> &Var {
        &self.p
    }

    /// Λ's diagonal `[rank, 1]`.
    pub fn lambda(&self) -> &Var {
        &self.lambda
    }

    /// Q `[rank, in]`.
    pub fn q(&self) -> &Var {
        &self.q
    }

    /// How many triplets the layer holds, pruned ones included.
    pub fn rank(&self) -> usize {
        self.lambda.dims()[0]
    }

    /// s.
    pub fn scale(&self) -> f64 {
        self.scale
    }
}

impl Adapter for AdaLoraLinear {
    /// `lora_A` (Q), `lora_B` (P), `lora_E` (Λ), without a `.weight`.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        vec![
            ("lora_A", &self.q),
            ("lora_B", &self.p),
            ("lora_E", &self.lambda),
        ]
    }

    fn adapted(&self, x: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        // W⁽⁰⁾ x + b
        let base = self.base.forward(x)?;
        if self.rank() == 0 {
            return Ok(base);
        }
        // Q x̃
        let rows = (rows(x), self.q.dim(1)?);
        let inner = dropped.reshape(rows)?.matmul(&self.q.t()?)?;
        // s · P Λ …
        let inner = (inner.broadcast_mul(&self.lambda.t()?)? * self.scale)?;
        let update = inner.matmul(&self.p.t()?)?;
        Ok((&base + update.reshape(base.shape())?)?)
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

impl LinearAdapter for AdaLoraLinear {}

impl Module for AdaLoraLinear {
    /// [`Adapter::forward_eval`].
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(x)?)
    }
}
