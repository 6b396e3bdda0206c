//! What the layers over a frozen base have in common: a switch, merging, and training with dropout.
//!
//! In one sentence: a layer gives its equation, its merged weight and its trained variables, and gets
//! everything else from [`Adapter`].
//!
//! | what | here |
//! |---|---|
//! | any adapted layer of a model | `Box<dyn Adapter>`, `&mut dyn Adapter` |
//! | what is frozen beneath it | [`FrozenBase`] |
//! | its frozen layer, its switch, its merged weight, its dropout rate | [`AdapterState`] |
//! | merged into an ordinary linear layer | [`LinearAdapter`] |
//!
//! Read next: [`lora`](crate::parameter_efficient::lora).

use crate::error::{Error, Result, require};
use crate::known::readable;
use crate::parameter_efficient::frozen_linear::{FrozenLinear, compute_type};
use crate::parameter_efficient::low_rank::{dropped, named, stored};
use crate::parameter_efficient::nf4::Nf4Linear;
use candle_core::{DType, Tensor, Var};
use candle_nn::{Embedding, Linear, Module};
use rand::RngCore;

/// The [`Names`] of a layer, and of its method that returns the merged weights. (Errors hold names that are
/// known at compile time, which only a macro can join.)
macro_rules! names {
    ($layer:literal) => {
        names!($layer, "merged_linear")
    };
    ($layer:literal, $merged:literal) => {
        $crate::parameter_efficient::adapter::Names {
            forward: concat!($layer, "::forward"),
            forward_train: concat!($layer, "::forward_train"),
            merge: concat!($layer, "::merge"),
            merged: concat!($layer, "::", $merged),
            untrained: "nothing would get a gradient",
        }
    };
}

pub(crate) use names;

/// A frozen layer with a trained change.
///
/// The methods are the same for every layer over a frozen base. Only what is trained, what it computes and
/// how it is merged differ. To write your own adapter, keep an [`AdapterState`], which holds the frozen
/// layer, beside the variables, write the six methods without a default, and let [`Module::forward`] call
/// [`Adapter::forward_eval`].
///
/// ```
/// use candle_align::Result;
/// use candle_align::parameter_efficient::{Adapter, AdapterState, FrozenLinear};
/// use candle_core::{Device, Tensor, Var};
/// use candle_nn::Module;
///
/// /// h = g · (W x + b), with one trained number.
/// struct Gain {
///     gain: Var,
///     state: AdapterState,
/// }
///
/// impl Adapter for Gain {
///     fn vars(&self) -> Vec<(&'static str, &Var)> {
///         vec![("gain", &self.gain)]
///     }
///     fn adapted(&self, _: &Tensor, dropped: &Tensor) -> Result<Tensor> {
///         Ok(self.frozen().forward(dropped)?.broadcast_mul(&self.gain)?)
///     }
///     fn state(&self) -> &AdapterState {
///         &self.state
///     }
///     fn state_mut(&mut self) -> &mut AdapterState {
///         &mut self.state
///     }
///     fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
///         Ok(Some(weight.broadcast_mul(&self.gain)?))
///     }
///     fn merge_bias(&self, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
///         Ok(bias.map(|bias| bias.broadcast_mul(&self.gain)).transpose()?)
///     }
/// }
///
/// impl Module for Gain {
///     fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
///         Ok(self.forward_eval(x)?)
///     }
/// }
///
/// let weight = Tensor::new(&[[1.0f64, 2.0]], &Device::Cpu)?;
/// let gain = Var::new(3.0f64, &Device::Cpu)?;
/// let layer = Gain { gain, state: AdapterState::new(FrozenLinear::new(weight, None)?, 0.0)? };
/// let mut model: Vec<Box<dyn Adapter>> = vec![Box::new(layer)]; // beside LoRA and the others
///
/// let x = Tensor::new(&[[10.0f64, 100.0]], &Device::Cpu)?;
/// for layer in &mut model {
///     layer.merge()?;
///     assert_eq!(layer.forward(&x)?.to_vec2::<f64>()?, [[3.0 * 210.0]]);
///     layer.set_enabled(false); // the reference policy
///     assert_eq!(layer.forward(&x)?.to_vec2::<f64>()?, [[210.0]]);
/// }
/// # Ok::<(), candle_align::Error>(())
/// ```
#[doc(alias = "BaseTunerLayer")]
pub trait Adapter: Module {
    /// The trained variables under PEFT's names, sorted by name.
    fn vars(&self) -> Vec<(&'static str, &Var)>;

    /// The layer's equation. `x` is checked and in the type in which the layer trains, and the result is in
    /// that type too. `dropped` is the input of the change: `x` after dropout, or `x` itself where nothing
    /// is dropped.
    ///
    /// # Errors
    /// Only candle's own.
    fn adapted(&self, x: &Tensor, dropped: &Tensor) -> Result<Tensor>;

    /// The frozen layer, the switch, the merged weight and the dropout rate.
    fn state(&self) -> &AdapterState;

    /// As [`Adapter::state`], to change it.
    fn state_mut(&mut self) -> &mut AdapterState;

    /// The base's weight with the change in it, in the type in which the layer trains; `None` if it stays as
    /// it is. A quantized weight is given dequantized, and an embedding table as the `weight`.
    ///
    /// # Errors
    /// Only candle's own.
    fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>>;

    /// As [`Adapter::merge_weight`], for the base's bias.
    ///
    /// # Errors
    /// Only candle's own.
    fn merge_bias(&self, bias: Option<&Tensor>) -> Result<Option<Tensor>>;

    /// What is frozen beneath the change.
    fn frozen(&self) -> &FrozenBase {
        &self.state().base
    }

    /// The layer in evaluation, without dropout: the base layer if disabled, else the merged weight if
    /// merged, else the equation. It is [`Module::forward`] with this crate's error type.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for an `x` that does not fit the base.
    fn forward_eval(&self, x: &Tensor) -> Result<Tensor> {
        let (frozen, state) = (self.frozen(), self.state());
        frozen.check(state.names.forward, x)?;
        let x = &readable(x)?;
        if !state.enabled {
            return Ok(frozen.forward(x)?);
        }
        let wide = frozen.widen(x)?;
        let h = match &state.merged {
            Some(merged) => merged.forward(&wide)?,
            None => self.adapted(&wide, &wide)?,
        };
        Ok(h.to_dtype(frozen.output_type(x))?)
    }

    /// The layer in training, with dropout on the input of the change; `rng` decides what is dropped. The
    /// rest is scaled by 1/(1 − p), so that the expectation over `rng` is that of `forward`. With p = 0 it
    /// is `forward` and draws nothing. Disabled, it is the base layer.
    ///
    /// # Errors
    /// As `forward`, and [`Error::Argument`] while merged: there is nothing to train then.
    fn forward_train(&self, x: &Tensor, rng: &mut dyn RngCore) -> Result<Tensor> {
        let (frozen, state) = (self.frozen(), self.state());
        let function = state.names.forward_train;
        frozen.check(function, x)?;
        if state.enabled && state.merged.is_some() {
            let problem = format!(
                "is merged, so that {}; call `unmerge` first",
                state.names.untrained
            );
            return Err(Error::argument(function, "self", problem));
        }
        if !state.enabled || state.dropout == 0.0 {
            return Ok(self.forward(x)?);
        }
        let x = &readable(x)?;
        let wide = frozen.widen(x)?;
        let dropped = dropped(&wide, state.dropout, rng)?;
        let h = self.adapted(&wide, &dropped)?;
        Ok(h.to_dtype(frozen.output_type(x))?)
    }

    /// The trained variables as an optimizer and a file take them, sorted by name.
    ///
    /// `prefix` is the path of the layer, such as `model.layers.0.self_attn.q_proj`; a dot follows it,
    /// unless it is empty.
    fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        let vars = self.vars().into_iter();
        vars.map(|(name, var)| named(prefix, name, var)).collect()
    }

    /// How many numbers are trained.
    fn parameters(&self) -> usize {
        self.vars().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Switches the adapter off, which gives exactly the base layer, or on again.
    #[doc(alias = "disable_adapter")]
    fn set_enabled(&mut self, enabled: bool) {
        self.state_mut().enabled = enabled;
    }

    /// Whether `forward` uses the adapter.
    fn is_enabled(&self) -> bool {
        self.state().enabled
    }

    /// Merges the current change into the weight: `forward` then costs what the base costs. Over a quantized
    /// base the merged weight is an ordinary one beside it.
    ///
    /// Merging twice has the effect of merging once; after more training it updates the merged weight. A
    /// half weight is rounded, and a merged half layer differs by that.
    ///
    /// # Errors
    /// [`Error::Argument`] if an element of the merged weight or bias would not be finite. Nothing has
    /// changed then.
    #[doc(alias = "merge_adapter")]
    fn merge(&mut self) -> Result<()> {
        let (weight, bias) = merged(self, self.state().names.merge)?;
        let merged = self.frozen().again(weight, bias)?;
        self.state_mut().merged = Some(merged);
        Ok(())
    }

    /// Back to the base weight with the adapter beside it; no effect if the layer is not merged.
    #[doc(alias = "unmerge_adapter")]
    fn unmerge(&mut self) {
        self.state_mut().merged = None;
    }

    /// Whether `forward` uses a merged weight.
    fn is_merged(&self) -> bool {
        self.state().merged.is_some()
    }

    /// The merged weight, in the layer's own layout, and the merged bias. A quantized weight is returned in
    /// the type that it was quantized from.
    ///
    /// # Errors
    /// As [`Adapter::merge`].
    fn merged_weights(&self) -> Result<(Tensor, Option<Tensor>)> {
        merged(self, self.state().names.merged)
    }
}

/// An [`Adapter`] over a linear layer: merged, it is one again.
pub trait LinearAdapter: Adapter {
    /// The merged layer, to save or to serve. It is an ordinary linear layer, over a quantized base in the
    /// type that the base was quantized from.
    ///
    /// # Errors
    /// As [`Adapter::merge`].
    #[doc(alias = "merge_and_unload")]
    fn merged_linear(&self) -> Result<Linear> {
        let (weight, bias) = self.merged_weights()?;
        Ok(Linear::new(weight, bias))
    }
}

/// The merged weight and bias, rounded to the base's type and finite; errors name `function`.
fn merged(
    adapter: &(impl Adapter + ?Sized),
    function: &'static str,
) -> Result<(Tensor, Option<Tensor>)> {
    let frozen = adapter.frozen();
    let (weight, bias) = frozen.dense()?;
    let dtype = weight.dtype();
    let weight = match adapter.merge_weight(&weight)? {
        Some(changed) => stored(function, frozen.argument(), &changed, dtype)?,
        None => weight,
    };
    let bias = match adapter.merge_bias(bias.as_ref())? {
        Some(changed) => Some(stored(function, "bias", &changed, dtype)?),
        None => bias,
    };
    Ok((weight, bias))
}

/// The frozen layer beneath an [`Adapter`].
#[derive(Clone, Debug)]
pub enum FrozenBase {
    /// A linear layer.
    Linear(FrozenLinear),
    /// A linear layer in four bits.
    Nf4(Nf4Linear),
    /// An embedding table.
    Embedding(Embedding),
}

impl From<FrozenLinear> for FrozenBase {
    fn from(base: FrozenLinear) -> Self {
        Self::Linear(base)
    }
}

impl From<Nf4Linear> for FrozenBase {
    fn from(base: Nf4Linear) -> Self {
        Self::Nf4(base)
    }
}

impl From<Embedding> for FrozenBase {
    fn from(base: Embedding) -> Self {
        Self::Embedding(base)
    }
}

impl Module for FrozenBase {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Linear(base) => base.forward(x),
            Self::Nf4(base) => base.forward(x),
            Self::Embedding(base) => base.forward(x),
        }
    }
}

impl FrozenBase {
    fn check(&self, function: &'static str, x: &Tensor) -> Result<()> {
        match self {
            Self::Linear(base) => base.check(function, x),
            Self::Nf4(base) => base.check(function, x),
            Self::Embedding(_) => Ok(()),
        }
    }

    /// The same layer without its bias.
    pub(crate) fn without_bias(&self) -> Self {
        match self {
            Self::Linear(base) => Self::Linear(base.without_bias()),
            Self::Nf4(base) => Self::Nf4(base.without_bias()),
            Self::Embedding(base) => Self::Embedding(base.clone()),
        }
    }

    /// x in the type in which the layer trains; tokens stay as they are.
    fn widen(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Linear(base) => x.to_dtype(base.wide())?,
            Self::Nf4(base) => x.to_dtype(compute_type(base.weight().dtype()))?,
            Self::Embedding(_) => x.clone(),
        })
    }

    /// The type of the result for the input x.
    fn output_type(&self, x: &Tensor) -> DType {
        match self {
            Self::Linear(_) | Self::Nf4(_) => x.dtype(),
            Self::Embedding(base) => base.embeddings().dtype(),
        }
    }

    /// The weight, dequantized if necessary, and the bias in its type.
    fn dense(&self) -> Result<(Tensor, Option<Tensor>)> {
        Ok(match self {
            Self::Linear(base) => (base.weight().clone(), base.bias().cloned()),
            Self::Nf4(base) => {
                let weight = base.weight().dequantize()?;
                // a merged layer has one type; the base's bias may have another
                let bias = base.bias().map(|bias| bias.to_dtype(weight.dtype()));
                (weight, bias.transpose()?)
            }
            Self::Embedding(base) => (base.embeddings().clone(), None),
        })
    }

    /// The same layer over other numbers.
    fn again(&self, weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(match self {
            Self::Linear(_) | Self::Nf4(_) => Self::Linear(FrozenLinear::new(weight, bias)?),
            Self::Embedding(base) => Self::Embedding(Embedding::new(weight, base.hidden_size())),
        })
    }

    /// What errors call the weight.
    fn argument(&self) -> &'static str {
        match self {
            Self::Linear(_) | Self::Nf4(_) => "weight",
            Self::Embedding(_) => "base",
        }
    }
}

/// What every [`Adapter`] holds beside its variables: the frozen layer, whether the change is enabled, the
/// merged layer, and the dropout rate.
///
/// The crate's own layers hold their base a second time, in its own type; the two share their tensors.
#[derive(Clone, Debug)]
pub struct AdapterState {
    base: FrozenBase,
    names: Names,
    enabled: bool,
    merged: Option<FrozenBase>,
    dropout: f64,
}

impl AdapterState {
    /// Over `base`, enabled and not merged; `dropout` is p, the share of the change's inputs that is dropped
    /// in training.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless 0 ≤ p < 1.
    pub fn new(base: impl Into<FrozenBase>, dropout: f64) -> Result<Self> {
        let function = "AdapterState::new";
        let allowed = (0.0..1.0).contains(&dropout);
        require(allowed, function, "dropout", "in [0, 1)", dropout)?;
        Ok(Self::named(
            names!("Adapter", "merged_weights"),
            base,
            dropout,
        ))
    }

    /// As `new`, for a layer with these names in its errors, and a rate that is already checked.
    pub(crate) fn named(names: Names, base: impl Into<FrozenBase>, dropout: f64) -> Self {
        Self {
            base: base.into(),
            names,
            enabled: true,
            merged: None,
            dropout,
        }
    }

    /// The same state over another copy of the base.
    pub(crate) fn over(self, base: impl Into<FrozenBase>) -> Self {
        Self {
            base: base.into(),
            ..self
        }
    }

    /// The same state, not merged.
    pub(crate) fn unmerged(&self) -> Self {
        Self {
            merged: None,
            ..self.clone()
        }
    }
}

/// What the errors of a layer call its methods, and what training it while merged would miss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) forward: &'static str,
    pub(crate) forward_train: &'static str,
    pub(crate) merge: &'static str,
    pub(crate) merged: &'static str,
    pub(crate) untrained: &'static str,
}
