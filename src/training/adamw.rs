//! AdamW: adaptive moments with decoupled weight decay, in place.
//!
//! ```text
//! θ ← θ · (1 − η λ)
//! m ← β₁ m + (1 − β₁) g            v ← β₂ v + (1 − β₂) g²
//! θ ← θ − η · ( m / (1 − β₁ᵗ) ) / ( √v / √(1 − β₂ᵗ) + ε )
//! ```
//! One parallel pass over each variable updates it and both moments; nothing is allocated. Moments
//! are f32 (f64 for f64 variables). A bf16 or f16 variable has an f32 master copy, without which
//! rounding loses small steps. t counts the steps in which a variable had a gradient.
//! Source: Loshchilov and Hutter 2019, arXiv:1711.05101v3, algorithm 2, except that the decay is also
//! multiplied by the learning rate, as in PyTorch: λ here is the paper's λ divided by its α.

use super::groups::{AdamWConfig, NonFinite, ParameterGroup};
use super::state::Moments;
use super::step::{Update, is_finite};
use crate::error::{Error, Result, non_negative, positive, require};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use std::collections::{HashMap, HashSet};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) var: Var,
    rate: f64,
    weight_decay: f64,
    pub(super) steps: u64,
    pub(super) moments: Moments,
}

impl Slot {
    /// A gradient that this variable can use: of its shape, and in its type or, for a half type, in f32.
    fn checked(&self, grad: &Tensor) -> Result<Tensor> {
        let function = "AdamW::step";
        let argument = format!("grads[{}]", self.name);
        if grad.dims() != self.var.dims() {
            return Err(Error::Shape {
                function,
                argument,
                shape: grad.dims().to_vec(),
                expected: join(self.var.dims()),
            });
        }
        let own = self.var.dtype();
        let narrow = matches!(own, DType::BF16 | DType::F16);
        if grad.dtype() != own && !(narrow && grad.dtype() == DType::F32) {
            let also = if narrow { " or f32" } else { "" };
            return Err(Error::DType {
                function,
                argument,
                found: grad.dtype().as_str(),
                expected: format!("{}{also}", own.as_str()),
            });
        }
        Ok(grad.contiguous()?)
    }
}

/// Axis sizes, as the error writes them between brackets.
fn join(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    dims.join(", ")
}

/// The optimizer and its state.
#[doc(alias = "Adam")]
#[doc(alias = "optimizer")]
#[doc(alias = "weight decay")]
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    pub(super) slots: Vec<Slot>,
    skipped: u64,
}

impl AdamW {
    /// An optimizer over one or more groups, with all moments at 0.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a setting out of its range; [`Error::Argument`] if two variables
    /// share a name or one variable has two; [`Error::DType`] for a variable that is not f32,
    /// f64, bf16 or f16.
    pub fn new(groups: Vec<ParameterGroup>, config: AdamWConfig) -> Result<Self> {
        let function = "AdamW::new";
        positive(function, "learning_rate", config.learning_rate)?;
        for (field, beta) in [("beta1", config.beta1), ("beta2", config.beta2)] {
            require(
                (0.0..1.0).contains(&beta),
                function,
                field,
                "in [0, 1)",
                beta,
            )?;
        }
        positive(function, "epsilon", config.epsilon)?;
        let (mut names, mut ids) = (HashSet::new(), HashMap::new());
        let mut slots = Vec::new();
        for group in groups {
            positive(function, "rate", group.rate)?;
            non_negative(function, "weight_decay", group.weight_decay)?;
            for (name, var) in group.vars {
                let other = ids.insert(var.id(), name.clone());
                let problem = match names.insert(name.clone()) {
                    false => Some(format!("holds the variable `{name}` twice")),
                    true => other.map(|other| {
                        format!("holds one variable as `{other}` and as `{name}`: list it once")
                    }),
                };
                if let Some(problem) = problem {
                    return Err(Error::argument(function, "groups", problem));
                }
                let moments = Moments::new(&var).map_err(|found| Error::DType {
                    function,
                    argument: name.clone(),
                    found,
                    expected: "f32, f64, bf16 or f16".to_string(),
                })??;
                slots.push(Slot {
                    moments,
                    name,
                    var,
                    rate: group.rate,
                    weight_decay: group.weight_decay,
                    steps: 0,
                });
            }
        }
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            config,
            slots,
            skipped: 0,
        })
    }

    /// One update from the gradients of a backward pass, or from their sum
    /// ([`GradAccumulator`](super::GradAccumulator)). A variable without a gradient does not change, nor do
    /// its moments. A variable in bf16 or f16 accepts a gradient in its own type or in f32; either way the
    /// step is that of its f32 master copy.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the first variable, in order of names, whose gradient is not
    /// finite, unless [`NonFinite::Skip`]; [`Error::Shape`] or [`Error::DType`] for a gradient of
    /// another shape or type. Nothing has changed then.
    pub fn step(&mut self, grads: &GradStore) -> Result<()> {
        let mut found = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let Some(grad) = grads.get(&slot.var) else {
                found.push(None);
                continue;
            };
            let grad = slot.checked(grad)?;
            if !is_finite(&grad)? {
                if self.config.non_finite == NonFinite::Skip {
                    self.skipped += 1;
                    return Ok(());
                }
                let problem = format!("holds a gradient of `{}` that is not finite", slot.name);
                return Err(Error::argument("AdamW::step", "grads", problem));
            }
            found.push(Some(grad));
        }
        for (slot, grad) in self.slots.iter_mut().zip(found) {
            let Some(grad) = grad else { continue };
            slot.steps += 1;
            let rate = self.config.learning_rate * slot.rate;
            let t = slot.steps as f64;
            let update = Update {
                keep: 1.0 - rate * slot.weight_decay,
                beta1: self.config.beta1,
                beta2: self.config.beta2,
                // η / (1 − β₁ᵗ) and 1 / √(1 − β₂ᵗ)
                rate: rate / (1.0 - self.config.beta1.powf(t)),
                scale: 1.0 / (1.0 - self.config.beta2.powf(t)).sqrt(),
                epsilon: self.config.epsilon,
            };
            slot.moments.update(&slot.var, &grad, update)?;
        }
        Ok(())
    }

    /// The learning rate of the next step, before the factors of the groups.
    pub fn learning_rate(&self) -> f64 {
        self.config.learning_rate
    }

    /// Sets the learning rate, as given by a [`Schedule`](super::Schedule). 0 is allowed here: a step
    /// then changes only the moments.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless the rate is finite and ≥ 0.
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        non_negative("AdamW::set_learning_rate", "rate", rate)?;
        self.config.learning_rate = rate;
        Ok(())
    }

    /// How many steps were skipped because a gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}
