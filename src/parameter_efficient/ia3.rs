//! (IA)³: one trained factor per activation (not in the survey).
//!
//! In one sentence: multiply the keys, the values, and the inner activations of the feed-forward network,
//! each by a vector that starts at ones.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | l_k, l_v | [`Ia3Linear::scale`] with [`Ia3Place::Output`], on the key and value projections | `[out, 1]` |
//! | l_ff | [`Ia3Linear::scale`] with [`Ia3Place::Input`], on the second linear layer of the network | `[1, in]` |
//!
//! Read next: [`lora`](crate::parameter_efficient::lora); [`vera`](crate::parameter_efficient::vera), which trains vectors too.

use crate::error::{Error, Result, require, shown};
use crate::parameter_efficient::adapter::{Adapter, AdapterState, LinearAdapter, names};
use crate::parameter_efficient::expressions::Expressions;
use crate::parameter_efficient::frozen_linear::FrozenLinear;
use crate::parameter_efficient::targets::Targets;
use crate::parameter_efficient::targets::matcher::Matcher;
use crate::parameter_efficient::targets::modules::{Choice, TargetModules};
use candle_core::{Tensor, Var};
use candle_nn::{Linear, Module};
use serde::{Deserialize, Serialize};

/// Which side of an [`Ia3Linear`] has the factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ia3Place {
    /// The layer's output: for keys and values.
    Output,
    /// The layer's input: for the second layer of a feed-forward network.
    Input,
}

/// Settings of (IA)³ for a whole model: which modules get a layer, and on which side its factors are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ia3ForModel {
    /// Which modules get a layer. Default none.
    pub targets: Targets,
    /// The modules among them that get [`Ia3Place::Input`]. By PEFT's rule a name here needs no dot before it:
    /// `proj` matches every path that ends in it. Default none.
    pub feedforward_modules: TargetModules,
}

impl Ia3ForModel {
    /// The place of the factors in the module at `path`; `None` if it gets no layer. A name that matches no
    /// module at all is not an error here.
    ///
    /// # Errors
    /// As for [`Targets`]; [`Error::Parameter`] if `feedforward_modules` is "all-linear".
    pub fn for_module(&self, path: &str) -> Result<Option<Ia3Place>> {
        Ia3Rules::new("Ia3ForModel::for_module", self)?.of(path)
    }

    /// The place of the factors in every module that gets a layer, among the `paths` of a model's modules
    /// and in their order.
    ///
    /// # Errors
    /// As [`Ia3ForModel::for_module`]; and [`Error::Argument`] if no module is chosen, or if a name or an
    /// expression has no effect: it matches none of the chosen modules.
    pub fn for_modules(&self, paths: &[impl AsRef<str>]) -> Result<Vec<(String, Ia3Place)>> {
        let function = "Ia3ForModel::for_modules";
        let rules = Ia3Rules::new(function, self)?;
        let chosen = (rules.targets).chosen(function, paths, |path| rules.place(path))?;
        let idle = match &self.feedforward_modules {
            TargetModules::Names(names) => {
                let fits = |name: &str| chosen.iter().any(|(path, _)| path.ends_with(name));
                names.iter().find(|name| !fits(name))
            }
            TargetModules::Pattern(pattern) => {
                let inner = chosen.iter().any(|(_, place)| *place == Ia3Place::Input);
                Some(pattern).filter(|_| !inner)
            }
            TargetModules::AllLinear => None, // refused above
        };
        match idle {
            None => Ok(chosen),
            Some(idle) => {
                let text = format!("holds `{}`, which fits no chosen module", shown(idle));
                Err(Error::argument(function, "feedforward_modules", text))
            }
        }
    }
}

/// [`Ia3ForModel`] with its expressions compiled.
pub(crate) struct Ia3Rules<'a> {
    targets: Matcher<'a>,
    inner: Choice<'a>,
}

impl<'a> Ia3Rules<'a> {
    pub(crate) fn new(function: &'static str, config: &'a Ia3ForModel) -> Result<Self> {
        let field = "feedforward_modules";
        require(
            config.feedforward_modules != TargetModules::AllLinear,
            function,
            field,
            "a list of names or an expression",
            "all-linear",
        )?;
        let mut expressions = Expressions::new(function);
        Ok(Self {
            inner: Choice::new(&mut expressions, field, &config.feedforward_modules)?,
            targets: Matcher::new(&mut expressions, &config.targets)?,
        })
    }

    /// The place in the module at `path`, if it gets a layer.
    pub(crate) fn of(&self, path: &str) -> Result<Option<Ia3Place>> {
        let place = self.place(path)?;
        Ok(self.targets.matches(path)?.then_some(place))
    }

    fn place(&self, path: &str) -> Result<Ia3Place> {
        let inner = match &self.inner {
            Choice::Names(names) => names.iter().any(|name| path.ends_with(name.as_str())),
            pattern => pattern.takes(path)?,
        };
        Ok(match inner {
            true => Ia3Place::Input,
            false => Ia3Place::Output,
        })
    }
}

/// A frozen linear layer with a trained factor for each output, or for each input.
///
/// # Equation
/// ```text
/// h = l ⊙ (W x + b)          Ia3Place::Output
/// h = W (l ⊙ x) + b          Ia3Place::Input
/// l = 1                      at the start
/// ```
/// # Shapes
/// Inputs, outputs and types as for [`LoraLinear`](crate::parameter_efficient::LoraLinear); l is `[out, 1]` or `[1, in]`, in
/// f64 over an f64 base and in f32 over any other.
/// # Errors
/// As for [`LoraLinear`](crate::parameter_efficient::LoraLinear), except for its settings.
/// # Properties
/// * At the start h is the base layer's output bit for bit, without exceptions.
/// * `out` or `in` numbers are trained; W and b get no gradient.
/// * Merged and unmerged layers agree to rounding: the factors go into the rows of W and into b, or
///   into the columns of W. Unmerging and disabling restore the base bit for bit, even after a factor
///   of 0.
/// * It is linear in l. In linear regression the optimum is that of least squares; for the output form
///   each factor is separate, l_o = ⟨yₒ, tₒ⟩/⟨yₒ, yₒ⟩ with y = W x + b and targets t.
/// # Departures
/// The survey does not name (IA)³. The paper multiplies keys and values, which are outputs of linear
/// layers, and the activations inside the feed-forward network, which are inputs of its second linear
/// layer; these layers have no biases there. With a bias the output form scales the bias too, as in PEFT.
/// PEFT unmerges by dividing by l + 10⁻⁸, which cannot restore what a factor of 0 has deleted.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{Ia3Linear, Ia3Place};
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
///
/// let at = |data: &[f64], shape| Tensor::from_slice(data, shape, &Device::Cpu);
/// let base = Linear::new(at(&[1.0, 2.0, 3.0, 4.0], (2, 2))?, Some(Tensor::new(&[0.5, 0.0], &Device::Cpu)?));
/// let x = at(&[10.0, 100.0], (1, 2))?;
///
/// let keys = Ia3Linear::new(&base, Ia3Place::Output)?;
/// keys.scale().set(&at(&[2.0, 3.0], (2, 1))?)?;
/// assert_eq!(keys.forward(&x)?.to_vec2::<f64>()?, [[2.0 * 210.5, 3.0 * 430.0]]);
///
/// let inner = Ia3Linear::new(&base, Ia3Place::Input)?;
/// inner.scale().set(&at(&[2.0, 3.0], (1, 2))?)?;
/// assert_eq!(inner.forward(&x)?.to_vec2::<f64>()?, [[20.0 + 600.0 + 0.5, 60.0 + 1200.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The factors, from [`Ia3Linear::scale`]: 1 at the start. A factor near 0 removes its output or
///   input, a negative one flips it.
/// * Weight decay pulls the factors to 0, not to 1. l has two axes, so
///   [`ParameterGroup::decay_matrices`](crate::training::ParameterGroup::decay_matrices) counts it as a
///   matrix: put it into a group without decay.
/// # Try
/// * Compute the optimal output factors of a linear regression.
///   `tests/optimum/ia3.rs::factors_of_outputs_are_one_projection_each`
/// * When do output factors and input factors give the same model?
///   `tests/identities/ia3.rs::the_factors_of_one_layers_output_are_those_of_the_next_layers_input`
/// # Source
/// Liu et al. 2022, arXiv:2205.05638, §3.3. The equations were checked against PEFT 0.21.2,
/// `tuners/ia3/layer.py`, in values and gradients, not against the text of the paper.
#[doc(alias = "IA3")]
#[doc(alias = "(IA)^3")]
#[derive(Clone, Debug)]
pub struct Ia3Linear {
    base: FrozenLinear,
    place: Ia3Place,
    scale: Var,
    state: AdapterState,
}

impl Ia3Linear {
    /// A layer at its start. The base weight is shared, not copied.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for a base that is not `[out, in]` in f32, f64, bf16 or f16.
    pub fn new(base: &Linear, place: Ia3Place) -> Result<Self> {
        let base = FrozenLinear::of("Ia3Linear::new", base)?;
        let (outputs, inputs) = base.weight().dims2()?;
        let shape = match place {
            Ia3Place::Output => (outputs, 1),
            Ia3Place::Input => (1, inputs),
        };
        Ok(Self {
            scale: Var::ones(shape, base.wide(), base.weight().device())?,
            state: AdapterState::named(names!("Ia3Linear"), base.clone(), 0.0),
            base,
            place,
        })
    }

    /// The frozen base layer.
    pub fn base(&self) -> &FrozenLinear {
        &self.base
    }

    /// l, `[out, 1]` or `[1, in]`.
    pub fn scale(&self) -> &Var {
        &self.scale
    }

    /// Which side l multiplies.
    pub fn place(&self) -> Ia3Place {
        self.place
    }
}

impl Adapter for Ia3Linear {
    /// `ia3_l`.
    fn vars(&self) -> Vec<(&'static str, &Var)> {
        vec![("ia3_l", &self.scale)]
    }

    fn adapted(&self, x: &Tensor, _: &Tensor) -> Result<Tensor> {
        let l = self.scale.flatten_all()?;
        Ok(match self.place {
            // l ⊙ (W x + b)
            Ia3Place::Output => self.base.forward(x)?.broadcast_mul(&l)?,
            // W (l ⊙ x) + b
            Ia3Place::Input => self.base.forward(&x.broadcast_mul(&l)?)?,
        })
    }

    fn state(&self) -> &AdapterState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut AdapterState {
        &mut self.state
    }

    fn merge_weight(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let weight = weight.to_dtype(self.base.wide())?;
        Ok(Some(weight.broadcast_mul(&self.scale)?))
    }

    fn merge_bias(&self, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
        Ok(match (self.place, bias) {
            (Ia3Place::Output, Some(bias)) => {
                Some((bias.to_dtype(self.base.wide())? * self.scale.flatten_all()?)?)
            }
            _ => None,
        })
    }
}

impl LinearAdapter for Ia3Linear {}

impl Module for Ia3Linear {
    /// [`Adapter::forward_eval`].
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_eval(x)?)
    }
}
