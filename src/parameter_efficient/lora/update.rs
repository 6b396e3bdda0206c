//! What LoRA trains beside a frozen linear layer, however that layer stores its weight.

use crate::error::{Error, Result};
use crate::parameter_efficient::frozen_linear::{FrozenLinear, rows};
use crate::parameter_efficient::low_rank::{LowRank, dropped, merged, named};
use crate::parameter_efficient::{LoraBias, LoraConfig};
use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;

/// A, B, s, the trained bias and the dropout rate.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) factors: LowRank,
    bias: Bias,
    dropout: f64,
}

/// Which bias is trained.
#[derive(Clone, Debug)]
enum Bias {
    Frozen,
    Base(Var),
    Update(Var),
}

impl Update {
    /// The initial state, for a base of `[out, in]` with this bias. The settings are already checked.
    pub(crate) fn start(
        function: &'static str,
        config: &LoraConfig,
        (outputs, inputs): (usize, usize),
        base_bias: Option<&Tensor>,
        (dtype, device): (DType, &Device),
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let factors = LowRank::start(function, config, (outputs, inputs), (dtype, device), rng)?;
        let bias = match (config.bias, base_bias) {
            (LoraBias::Frozen, _) => Bias::Frozen,
            (LoraBias::Update, _) => Bias::Update(Var::zeros(outputs, dtype, device)?),
            (LoraBias::Base, Some(bias)) => {
                // A copy: the base must not change with it.
                Bias::Base(Var::from_tensor(&bias.to_dtype(dtype)?)?)
            }
            (LoraBias::Base, None) => {
                return Err(Error::argument(
                    function,
                    "base",
                    "has no bias, which LoraBias::Base would train",
                ));
            }
        };
        Ok(Self {
            factors,
            bias,
            dropout: config.dropout,
        })
    }

    /// Whether a trained bias replaces the base layer's.
    pub(crate) fn replaces_bias(&self) -> bool {
        matches!(self.bias, Bias::Base(_))
    }

    /// Whether training draws random numbers.
    pub(crate) fn drops(&self) -> bool {
        self.dropout > 0.0
    }

    /// `base` + s · B A x for a wide x, and the trained bias. `base` is W₀x, with b unless b is replaced.
    /// With `rng`, dropout is applied to x before A.
    pub(crate) fn added_to<R: Rng>(
        &self,
        base: Tensor,
        x: &Tensor,
        rng: Option<&mut R>,
    ) -> Result<Tensor> {
        let base = match &self.bias {
            Bias::Base(bias) => base.broadcast_add(bias)?,
            Bias::Frozen | Bias::Update(_) => base,
        };
        let x = match rng {
            Some(rng) => dropped(x, self.dropout, rng)?,
            None => x.clone(),
        };
        // s · B A dropout(x)
        let rows = (rows(&x), self.factors.a.dim(1)?);
        let mut update = self.factors.apply(&x.reshape(rows)?)?;
        // + s · b_B
        if let Bias::Update(bias) = &self.bias {
            update = update.broadcast_add(&(bias.as_tensor() * self.factors.scale)?)?;
        }
        Ok((&base + update.reshape(base.shape())?)?)
    }

    /// The layer that results from merging into a base weight and bias.
    pub(crate) fn merged_into(
        &self,
        function: &'static str,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<FrozenLinear> {
        // W = W₀ + s · B A
        let weight = merged(function, "weight", weight, &self.factors.delta()?)?;
        // b, its trained copy, or b + s · b_B
        let zero = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
        let bias = match &self.bias {
            Bias::Frozen => bias.cloned(),
            Bias::Base(bias) => Some(merged(function, "bias", &zero, bias)?),
            Bias::Update(change) => {
                let change = (change.as_tensor() * self.factors.scale)?;
                Some(merged(function, "bias", bias.unwrap_or(&zero), &change)?)
            }
        };
        FrozenLinear::new(weight, bias)
    }

    /// The trained variables under PEFT's names, sorted by name.
    pub(crate) fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        let mut vars = vec![
            named(prefix, "lora_A.weight", &self.factors.a),
            named(prefix, "lora_B.weight", &self.factors.b),
        ];
        match &self.bias {
            Bias::Frozen => {}
            Bias::Base(bias) => vars.insert(0, named(prefix, "base_layer.bias", bias)),
            Bias::Update(bias) => vars.insert(1, named(prefix, "lora_B.bias", bias)),
        }
        vars
    }
}
