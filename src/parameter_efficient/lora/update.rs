//! What LoRA trains beside a frozen linear layer, however that layer stores its weight.

use crate::error::{Error, Result};
use crate::parameter_efficient::frozen_linear::rows;
use crate::parameter_efficient::low_rank::{LowRank, changed};
use crate::parameter_efficient::{LoraBias, LoraConfig};
use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;

/// A, B, s and the trained bias.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) factors: LowRank,
    bias: Bias,
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
        Ok(Self { factors, bias })
    }

    /// A, B and s, if nothing else is trained.
    pub(crate) fn only_factors(&self) -> Option<&LowRank> {
        matches!(self.bias, Bias::Frozen).then_some(&self.factors)
    }

    /// Whether a trained bias replaces the base layer's.
    pub(crate) fn replaces_bias(&self) -> bool {
        matches!(self.bias, Bias::Base(_))
    }

    /// `base` + s · B A dropout(x), and the trained bias. `base` is W₀x, with b unless b is replaced; `dropped`
    /// is dropout(x).
    pub(crate) fn added_to(&self, base: Tensor, dropped: &Tensor) -> Result<Tensor> {
        let base = match &self.bias {
            Bias::Base(bias) => base.broadcast_add(bias)?,
            Bias::Frozen | Bias::Update(_) => base,
        };
        // s · B A dropout(x)
        let rows = (rows(dropped), self.factors.a.dim(1)?);
        let mut update = self.factors.apply(&dropped.reshape(rows)?)?;
        // + s · b_B
        if let Bias::Update(bias) = &self.bias {
            update = update.broadcast_add(&(bias.as_tensor() * self.factors.scale)?)?;
        }
        Ok((&base + update.reshape(base.shape())?)?)
    }

    /// W = W₀ + s · B A.
    pub(crate) fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(changed(weight, &self.factors.delta()?)?))
    }

    /// b's trained copy, or b + s · b_B; `None` for a bias that is not trained.
    pub(crate) fn merge_bias(&self, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
        Ok(match &self.bias {
            Bias::Frozen => None,
            Bias::Base(bias) => Some(changed(&bias.zeros_like()?, bias)?),
            Bias::Update(change) => {
                let change = (change.as_tensor() * self.factors.scale)?;
                let zero = change.zeros_like()?;
                Some(changed(bias.unwrap_or(&zero), &change)?)
            }
        })
    }

    /// The trained variables under PEFT's names, sorted by name.
    pub(crate) fn vars(&self) -> Vec<(&'static str, &Var)> {
        let mut vars = vec![
            ("lora_A.weight", &self.factors.a),
            ("lora_B.weight", &self.factors.b),
        ];
        match &self.bias {
            Bias::Frozen => {}
            Bias::Base(bias) => vars.insert(0, ("base_layer.bias", bias)),
            Bias::Update(bias) => vars.insert(1, ("lora_B.bias", bias)),
        }
        vars
    }
}
