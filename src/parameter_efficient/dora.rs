//! DoRA: low-rank adaptation of a weight's direction, with a trained length per row (not in the survey).
//!
//! In one sentence: split each row of the weight into its length and its direction; LoRA changes the
//! direction, and the length is trained as a separate number.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | W₀, b | [`DoraLinear::base`]: frozen | `[out, in]`, `[out]` |
//! | A, B | [`DoraLinear::a`], [`DoraLinear::b`] | `[rank, in]`, `[out, rank]` |
//! | m | [`DoraLinear::magnitude`] | `[out]` |
//! | ΔV | s·B·A | `[out, in]` |
//! | ‖V + ΔV‖_c | n, [`DoraLinear::norm`]: constant in the backward pass | `[out]` |
//!
//! Read next: [`lora`](crate::parameter_efficient::lora), which DoRA contains.

use crate::error::{Error, Result, require};
use crate::parameter_efficient::adapter::{Adapter, AdapterState, LinearAdapter, names};
use crate::parameter_efficient::frozen_linear::{FrozenLinear, rows};
use crate::parameter_efficient::low_rank::{LowRank, changed};
use crate::parameter_efficient::{LoraBias, LoraConfig};
use candle_core::{D, Tensor, Var};
use candle_nn::{Linear, Module};
use rand::Rng;

/// A frozen linear layer with a trained low-rank change of its rows' directions and a trained length
/// for each row.
///
/// # Equation
/// ```text
/// V = W₀ + s · B A,      nₒ = ‖Vₒ‖, a constant in the backward pass
/// hₒ = mₒ/nₒ · (W₀ x + s · B A x)ₒ + bₒ
/// m = ‖W₀‖ by rows,   B = 0,   A as in LoRA          at the start
/// ```
/// With [`LoraBias::Base`] b is a trained copy of the base bias. A row with nₒ = 0 has the factor 1
/// instead of mₒ/nₒ.
///
/// With dropout, placed as in PEFT, hₒ = (W₀ x + b)ₒ + (mₒ/nₒ − 1)·(W₀ x̃)ₒ + mₒ/nₒ · s·(B A x̃)ₒ, where x̃
/// is the input after dropout.
/// # Shapes
/// Inputs, outputs and types as for [`LoraLinear`](crate::parameter_efficient::LoraLinear); m is `[out]`, in the type of
/// A and B.
/// # Errors
/// As for [`LoraLinear`](crate::parameter_efficient::LoraLinear); and [`Error::Parameter`] if [`LoraConfig::bias`] is
/// [`LoraBias::Update`].
/// # Properties
/// * At the start h is the base layer's output bit for bit, as for LoRA; ∂L/∂A = 0.
/// * r(in + out) + out numbers are trained, and out more with a trained bias. W₀ gets no gradient, nor
///   does b.
/// * Where m = n the layer is LoRA with the same A and B.
/// * Gradients are those of the equation with n held constant: ∂L/∂B is LoRA's with m/n times the slope
///   of the output, ∂L/∂mₒ = Σ gₒ·(V x)ₒ/nₒ.
/// * Merged and unmerged layers agree to rounding; the merged row has length mₒ. Unmerging and disabling
///   restore the base bit for bit.
/// * A row of zeros stays defined. At the start its B moves as in LoRA, and its m, which is 0, gets no
///   gradient. Once B has moved, the direction is a unit vector and m grows from 0.
/// * A change of every row's length together with a change of rank r is within reach; LoRA of rank r
///   cannot express it.
/// # Departures
/// The survey does not name DoRA. The paper writes the norm over columns; here, as in PEFT, there is one
/// length for each output, that is, for each row of a weight stored as `[out, in]`. The paper suggests
/// the constant n to save memory (its §4.3); it is the only form here, as in PEFT. In PEFT a row of zeros
/// gives NaN. PEFT sums (m/n − 1)·W₀x and W₀x; here m/n multiplies once. Every forward pass computes the
/// norm again, from a product B·A that the backward pass does not keep.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{DoraLinear, LoraConfig};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let at = |data: &[f64], shape| Tensor::from_slice(data, shape, &Device::Cpu);
/// let base = Linear::new(at(&[3.0, 4.0, 0.0, 2.0], (2, 2))?, None);
/// let config = LoraConfig { rank: 1, alpha: 2.0, ..Default::default() };
/// let layer = DoraLinear::new(&base, &config, &mut StdRng::seed_from_u64(0))?;
/// assert_eq!(layer.magnitude().to_vec1::<f64>()?, [5.0, 2.0]); // √(3² + 4²), √(0² + 2²)
///
/// // twice as long, the same direction
/// layer.magnitude().set(&Tensor::new(&[10.0, 4.0], &Device::Cpu)?)?;
/// let h = layer.forward(&at(&[1.0, 10.0], (1, 2))?)?;
/// assert_eq!(h.to_vec2::<f64>()?, [[2.0 * (3.0 + 40.0), 2.0 * 20.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * m/n for each row, from [`DoraLinear::magnitude`] and [`DoraLinear::norm`]: 1 at the start. An m that
///   crosses 0 turns its row around.
/// * Weight decay on m shrinks the rows themselves.
///   [`ParameterGroup::decay_matrices`](crate::training::ParameterGroup::decay_matrices) leaves m
///   without decay, since m has one axis.
/// * [`gradient_agreement`](crate::training::gradient_agreement) reports `Differs` where n depends on
///   the variable: the constant n is intended.
/// # Try
/// * Find a change that DoRA of rank 1 reaches and LoRA of rank 1 does not.
///   `tests/optimum/dora.rs::lengths_and_a_change_of_one_rank_are_learnt_together`
/// * Does the length of a row of V matter?
///   `tests/identities/dora.rs::the_length_of_a_row_of_v_does_not_count`
/// # Source
/// Liu et al. 2024, arXiv:2402.09353, eq. 5, and §4.3 on the constant norm (both as PEFT's code quotes
/// them); PEFT 0.21.2, `tuners/lora/dora.py`, with which values and gradients were compared.
#[doc(alias = "DoRA")]
#[doc(alias = "weight-decomposed low-rank adaptation")]
#[derive(Clone, Debug)]
pub struct DoraLinear {
    base: FrozenLinear,
    update: LowRank,
    magnitude: Var,
    bias: Option<Var>,
    state: AdapterState,
}

impl DoraLinear {
    /// A layer at its start. The base weight is shared, not copied; `rng` draws A.
    ///
    /// # Errors
    /// As [`LoraLinear::new`](crate::parameter_efficient::LoraLinear::new), and [`Error::Parameter`] for [`LoraBias::Update`].
    pub fn new(base: &Linear, config: &LoraConfig, rng: &mut impl Rng) -> Result<Self> {
        let function = "DoraLinear::new";
        config.check(function)?;
        require(
            config.bias != LoraBias::Update,
            function,
            "bias",
            "Frozen or Base: DoRA has no bias of B",
            format!("{:?}", config.bias),
        )?;
        let base = FrozenLinear::of(function, base)?;
        let (outputs, inputs) = base.weight().dims2()?;
        let kind = (base.wide(), base.weight().device());
        let update = LowRank::start(function, config, (outputs, inputs), kind, rng)?;
        let bias = match (config.bias, base.bias()) {
            // a copy: the base must not change with it
            (LoraBias::Base, Some(bias)) => Some(Var::from_tensor(&bias.to_dtype(kind.0)?)?),
            (LoraBias::Base, None) => {
                let text = "has no bias, which LoraBias::Base would train";
                return Err(Error::argument(function, "base", text));
            }
            _ => None,
        };
        let layer = Self {
            bias,
            magnitude: Var::zeros(outputs, update.a.dtype(), base.weight().device())?,
            update,
            state: AdapterState::named(names!("DoraLinear"), base.clone(), config.dropout),
            base,
        };
        // m = ‖W₀‖, by the same operations that give n: their quotient is then exactly 1
        layer.magnitude.set(&layer.norm()?)?;
        Ok(layer)
    }

    /// n = ‖W₀ + s·B·A‖ of each row `[out]`, detached.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn norm(&self) -> Result<Tensor> {
        let v = changed(self.base.weight(), &self.update.delta()?.detach())?;
        Ok(v.sqr()?.sum(D::Minus1)?.sqrt()?)
    }

    /// m/n, and 1 where n = 0.
    fn factor(&self) -> Result<Tensor> {
        let norm = self.norm()?;
        let none = norm.eq(0.0)?;
        let one = norm.ones_like()?;
        let factor = (self.magnitude.as_tensor() / none.where_cond(&one, &norm)?)?;
        Ok(none.where_cond(&one, &factor)?)
    }

    /// The frozen base layer.
    pub fn base(&self) -> &FrozenLinear {
        &self.base
    }

    /// A `[rank, in]`.
    pub fn a(&self) -> &Var {
        &self.update.a
    }

    /// B `[out, rank]`.
    pub fn b(&self) -> &Var {
        &self.update.b
    }

    /// m `[out]`.
    pub fn magnitude(&self) -> &Var {
        &self.magnitude
    }

    /// s.
    pub fn scale(&self) -> f64 {
        self.update.scale
    }
}

impl Adapter for DoraLinear {
    /// `lora_A.weight`, `lora_B.weight`, `lora_magnitude_vector`, before them `base_layer.bias` for a trained
    /// bias.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        let bias = self.bias.iter();
        let mut vars: Vec<_> = bias.map(|bias| ("base_layer.bias", bias)).collect();
        vars.extend([
            ("lora_A.weight", &self.update.a),
            ("lora_B.weight", &self.update.b),
            ("lora_magnitude_vector", &self.magnitude),
        ]);
        vars
    }

    fn adapted(&self, x: &Tensor, dropped: &Tensor) -> Result<Tensor> {
        let factor = self.factor()?;
        let directions = self.base.without_bias();
        // s · B A x̃
        let rows = (rows(x), self.update.a.dim(1)?);
        let update = self.update.apply(&dropped.reshape(rows)?)?;
        // W₀ x̃
        let product = directions.forward(dropped)?;
        let update = update.reshape(product.shape())?;
        // m/n · (W₀ x̃ + s · B A x̃)
        let mut h = (&product + update)?.broadcast_mul(&factor)?;
        // + W₀ (x − x̃)
        if dropped.id() != x.id() {
            h = (h + (directions.forward(x)? - product)?)?;
        }
        // + b
        match (&self.bias, self.base.bias()) {
            (Some(bias), _) => Ok(h.broadcast_add(bias)?),
            (None, Some(bias)) => Ok(h.broadcast_add(&bias.to_dtype(h.dtype())?)?),
            (None, None) => Ok(h),
        }
    }

    fn state(&self) -> &AdapterState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        &mut self.state
    }

    fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        // W = m/n · (W₀ + s · B A)
        let v = changed(weight, &self.update.delta()?)?;
        Ok(Some(v.broadcast_mul(&self.factor()?.unsqueeze(1)?)?))
    }

    fn merge_bias(&self, _: Option<&Tensor>) -> Result<Option<Tensor>> {
        Ok(self.bias.as_ref().map(|bias| bias.as_tensor().clone()))
    }
}

impl LinearAdapter for DoraLinear {}

impl Module for DoraLinear {
    /// [`Adapter::forward_eval`].
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(x)?)
    }
}
