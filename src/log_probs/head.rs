//! The output layer, which turns hidden states into logits.

use crate::error::{Error, Result, positive};
use crate::shape::Axes;
use candle_core::{DType, Tensor};

/// The output layer of a language model: `logits = cap · tanh( (h Wᵀ + b) / cap ) / temperature`.
#[doc(alias = "lm_head")]
#[derive(Clone, Debug)]
pub struct OutputHead {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    pub(super) temperature: f64,
    pub(super) soft_cap: Option<f64>,
}

impl OutputHead {
    /// From the output matrix `[vocabulary, dim]` and, if there is one, its bias `[vocabulary]`.
    ///
    /// A matrix with a history (a variable, or a tensor computed from one) gets a gradient. Any other
    /// matrix is frozen, and nothing is computed or kept for it.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the two agree, [`Error::Argument`] for a vocabulary of 0.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let function = "OutputHead::new";
        let mut axes = Axes::new(function);
        let weight = axes.axes("weight", weight, &["vocabulary", "dim"])?;
        let bias = match bias {
            Some(bias) => Some(axes.axes("bias", bias, &["vocabulary"])?),
            None => None,
        };
        if weight.dim(0)? == 0 {
            return Err(Error::argument(function, "weight", "has a vocabulary of 0"));
        }
        Ok(Self {
            weight,
            bias,
            temperature: 1.0,
            soft_cap: None,
        })
    }

    /// Divides the logits by a temperature.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless it is finite and > 0.
    pub fn with_temperature(mut self, temperature: f64) -> Result<Self> {
        positive("OutputHead::with_temperature", "temperature", temperature)?;
        self.temperature = temperature;
        Ok(self)
    }

    /// Keeps the logits within ±cap by a hyperbolic tangent, before the temperature.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless it is finite and > 0.
    #[doc(alias = "logit softcapping")]
    pub fn with_soft_cap(mut self, cap: f64) -> Result<Self> {
        positive("OutputHead::with_soft_cap", "cap", cap)?;
        self.soft_cap = Some(cap);
        Ok(self)
    }

    /// The logits of these rows, from the current weights of `self`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let mut logits = hidden.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            logits = logits.broadcast_add(bias)?;
        }
        if let Some(cap) = self.soft_cap {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        match self.temperature {
            1.0 => Ok(logits),
            temperature => logits / temperature,
        }
    }

    /// The output matrix `[vocabulary, dim]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Its bias `[vocabulary]`, if there is one.
    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Whether the logits are kept within a cap.
    pub(crate) fn caps(&self) -> bool {
        self.soft_cap.is_some()
    }

    /// The same layer with its matrix and bias changed.
    fn with(&self, change: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self {
            weight: change(&self.weight)?,
            bias: self.bias.as_ref().map(change).transpose()?,
            ..self.clone()
        })
    }

    /// In another type.
    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        self.with(|x| x.to_dtype(dtype))
    }

    /// Without its history.
    pub(crate) fn detach(&self) -> Result<Self> {
        self.with(|x| Ok(x.detach()))
    }

    /// For a part of the vocabulary.
    pub(crate) fn symbols(&self, from: usize, count: usize) -> Result<Self> {
        self.with(|x| x.narrow(0, from, count))
    }

    /// From the gradient of the logits to that of h Wᵀ + b.
    pub(crate) fn before_cap(
        &self,
        gradient: Tensor,
        logits: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let gradient = match self.soft_cap {
            // 1 − tanh²
            Some(cap) => {
                let tanh = (logits * (self.temperature / cap))?;
                (gradient * tanh.sqr()?.affine(-1.0, 1.0)?)?
            }
            None => gradient,
        };
        match self.temperature {
            1.0 => Ok(gradient),
            temperature => gradient / temperature,
        }
    }
}
