//! BitFit: train only the biases (a strategy of the design spaces, survey §3.3).
//!
//! In one sentence: y = Wx + b with W frozen and b trained.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | W | [`BiasLinear::base`]: frozen | `[out, in]` |
//! | b | [`BiasLinear::bias`]: trained | `[out]` |
//!
//! Read next: [`design_space`](crate::parameter_efficient::design_space).

use crate::error::Result;
use crate::parameter_efficient::adapter::{Adapter, AdapterState, LinearAdapter, names};
use crate::parameter_efficient::frozen_linear::FrozenLinear;
use crate::parameter_efficient::low_rank::changed;
use candle_core::{Tensor, Var};
use candle_nn::{Linear, Module};

/// A frozen linear layer with a trained bias.
///
/// # Equation
/// ```text
/// y = W x + b        b trained, from the base layer's bias, or from 0 where it has none
/// ```
/// # Shapes
/// `x` `[.., in]`, the result `[.., out]` in the type of `x`; types as for [`FrozenLinear`]. b is f64
/// for an f64 base and f32 for any other.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) as for
/// [`FrozenLinear`]; from [`LinearAdapter::merged_linear`]
/// [`Error::Argument`](crate::Error::Argument) if the merged bias would not be finite.
/// # Properties
/// * At the start it is the base layer bit for bit (save that −0 may become 0).
/// * `out` numbers are trained. W gets no gradient and no entry among the gradients.
/// * Merged, it is an ordinary layer with the same values, at no cost.
/// * Disabled, it is the base layer with its own bias, which training never touches.
/// * A clone shares the bias with its original.
/// # Departures
/// The paper trains the biases that a model has. Recent models have none: here such a layer gets a bias
/// that starts at 0.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::BiasLinear;
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
///
/// let weight = Tensor::new(&[[1.0f64, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let layer = BiasLinear::new(&Linear::new(weight, None))?;
/// layer.bias().set(&Tensor::new(&[0.5f64, -0.5], &Device::Cpu)?)?; // as training would
///
/// let y = layer.forward(&Tensor::new(&[[10.0f64, 100.0]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[10.0 + 2.0 * 100.0 + 0.5, 3.0 * 10.0 + 4.0 * 100.0 - 0.5]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The change of each bias beside the standard deviation of its output. A bias shifts the output by
///   the same amount for every input, so a loss that stops early may need a change that depends on the
///   input.
/// * [`grad_coverage`](crate::training::grad_coverage): the bias of a key projection adds the same
///   number to all scores of a query. Without rotary positions softmax cancels it, and its gradient is
///   rounding error only.
/// # Try
/// * What is the optimal bias in linear regression?
///   `tests/optimum/design_space.rs::a_bias_becomes_the_mean_residual`
/// # Source
/// Ben Zaken, Ravfogel and Goldberg 2022, arXiv:2106.10199v5, §3.
#[doc(alias = "BitFit")]
#[doc(alias = "bias tuning")]
#[derive(Clone, Debug)]
pub struct BiasLinear {
    base: FrozenLinear,
    bias: Var,
    state: AdapterState,
}

impl BiasLinear {
    /// A layer at its start. The base weight is shared, not copied.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::DType`](crate::Error::DType) unless the weight
    /// is `[out, in]` and the bias `[out]`, in one of the types of [`FrozenLinear`].
    pub fn new(base: &Linear) -> Result<Self> {
        let base = FrozenLinear::of("BiasLinear::new", base)?;
        let dtype = base.wide();
        let bias = match base.bias() {
            // A copy: the base must not change with it.
            Some(bias) => Var::from_tensor(&bias.to_dtype(dtype)?.copy()?)?,
            None => Var::zeros(base.weight().dim(0)?, dtype, base.weight().device())?,
        };
        Ok(Self {
            state: AdapterState::named(names!("BiasLinear"), base.clone(), 0.0),
            base,
            bias,
        })
    }

    /// The frozen base layer.
    pub fn base(&self) -> &FrozenLinear {
        &self.base
    }

    /// b `[out]`.
    pub fn bias(&self) -> &Var {
        &self.bias
    }
}

impl Adapter for BiasLinear {
    /// `bias`.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        vec![("bias", &self.bias)]
    }

    fn adapted(&self, x: &Tensor, _: &Tensor) -> Result<Tensor> {
        // W x + b
        let product = self.base.without_bias().forward(x)?;
        Ok(product.broadcast_add(&self.bias)?)
    }

    fn state(&self) -> &AdapterState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        &mut self.state
    }

    fn merge_weight(&self, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn merge_bias(&self, _: Option<&Tensor>) -> Result<Option<Tensor>> {
        Ok(Some(changed(&self.bias.zeros_like()?, &self.bias)?))
    }
}

impl LinearAdapter for BiasLinear {}

impl Module for BiasLinear {
    /// [`Adapter::forward_eval`].
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(x)?)
    }
}
