//! AdamW: adaptive moments with decoupled weight decay, in place.
//!
//! ```text
//! θ ← θ · (1 − η λ)
//! m ← β₁ m + (1 − β₁) g            v ← β₂ v + (1 − β₂) g²
//! θ ← θ − η · ( m / (1 − β₁ᵗ) ) / ( √v / √(1 − β₂ᵗ) + ε )
//! ```
//! One parallel pass over each variable updates it and both moments; nothing is allocated. Moments
//! are f32 (f64 for f64 variables); a bf16 or f16 variable has an f32 master copy, without which
//! small steps are lost to rounding. t counts the steps in which a variable had a gradient.
//! Source: Loshchilov and Hutter 2019, arXiv:1711.05101v3, algorithm 2, but the decay too is
//! multiplied by the learning rate, as in PyTorch: λ here is the paper's λ divided by its α.

use super::state::Moments;
use super::step::{Update, is_finite};
use crate::atomic::Staged;
use crate::error::{non_negative, positive, require};
use crate::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What [`AdamW::step`] does when a gradient holds NaN or an infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// An error that names the variable; nothing is changed.
    #[default]
    Error,
    /// No variable is changed and [`AdamW::skipped`] grows by one.
    Skip,
}

/// Settings of [`AdamW`]. The defaults are those of the common libraries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// η > 0, the learning rate. Default 1e-3.
    pub learning_rate: f64,
    /// β₁ in [0, 1), how long the mean of gradients remembers. Default 0.9.
    pub beta1: f64,
    /// β₂ in [0, 1), how long the mean of their squares remembers. Default 0.999.
    pub beta2: f64,
    /// ε > 0, added to the root. Default 1e-8.
    pub epsilon: f64,
    /// What a gradient that is not finite does. Default: an error.
    pub non_finite: NonFinite,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            non_finite: NonFinite::Error,
        }
    }
}

/// Variables that share a learning rate and a weight decay.
#[derive(Clone, Debug)]
pub struct ParameterGroup {
    /// The variables with their names: unique over all groups.
    pub vars: Vec<(String, Var)>,
    /// Multiplies the learning rate of the config, > 0.
    pub rate: f64,
    /// λ ≥ 0, the decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl ParameterGroup {
    /// One group at the config's own rate.
    pub fn new(vars: Vec<(String, Var)>, weight_decay: f64) -> Self {
        Self {
            vars,
            rate: 1.0,
            weight_decay,
        }
    }

    /// Two groups: matrices with `weight_decay`, vectors and scalars (biases, norms) without.
    pub fn decay_matrices(vars: Vec<(String, Var)>, weight_decay: f64) -> Vec<Self> {
        let (matrices, vectors) = vars.into_iter().partition(|(_, var)| var.rank() >= 2);
        vec![Self::new(matrices, weight_decay), Self::new(vectors, 0.0)]
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    rate: f64,
    weight_decay: f64,
    steps: u64,
    moments: Moments,
}

/// The optimiser and its state.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    skipped: u64,
}

impl AdamW {
    /// Over one or more groups, with all moments at 0.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a setting out of its range; [`Error::Argument`] if two variables
    /// share a name or one variable stands twice; [`Error::DType`] for a variable that is not f32,
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
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        let mut slots = Vec::new();
        for group in groups {
            positive(function, "rate", group.rate)?;
            non_negative(function, "weight_decay", group.weight_decay)?;
            for (name, var) in group.vars {
                if !names.insert(name.clone()) || !ids.insert(var.id()) {
                    let problem = format!("holds the variable `{name}` twice");
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

    /// One update from the gradients of a backward pass. A variable without a gradient stays as it
    /// is, and so do its moments.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the first variable, in order of names, whose gradient is not
    /// finite, unless [`NonFinite::Skip`]; nothing has been changed then.
    pub fn step(&mut self, grads: &GradStore) -> Result<()> {
        let mut found = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let Some(grad) = grads.get(&slot.var) else {
                found.push(None);
                continue;
            };
            let grad = grad.contiguous()?;
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

    /// The learning rate that the next step takes, before the groups' own factors.
    pub fn learning_rate(&self) -> f64 {
        self.config.learning_rate
    }

    /// Sets the learning rate, as a [`Schedule`](super::Schedule) asks. 0 is allowed here: a step
    /// then changes the moments alone.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless the rate is finite and ≥ 0.
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        non_negative("AdamW::set_learning_rate", "rate", rate)?;
        self.config.learning_rate = rate;
        Ok(())
    }

    /// How many steps were left out because a gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Writes steps, moments and master copies as safetensors: to a temporary file first, which
    /// then takes the place of `path`. The settings are the program's to keep.
    ///
    /// # Errors
    /// Candle's own, or that of the file system; `path` is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        for slot in &self.slots {
            let steps = Tensor::new(slot.steps as i64, &Device::Cpu)?;
            tensors.insert(format!("{}.step", slot.name), steps);
            for (part, tensor) in slot.moments.tensors(slot.var.shape())? {
                tensors.insert(format!("{}.{part}", slot.name), tensor);
            }
        }
        let staged = Staged::new(path, |part| candle_core::safetensors::save(&tensors, part))?;
        Ok(staged.put()?)
    }

    /// Reads what [`AdamW::save`] wrote, for the same variables.
    ///
    /// # Errors
    /// [`Error::Argument`] that names a tensor that is missing, of another shape or type, or of no
    /// variable here; nothing has been changed then. The file system's or candle's own.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let problem = |text: String| Error::argument("AdamW::load", "path", text);
        let mut tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let mut loaded = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let mut take = |part: &str, like: Option<&Tensor>| -> Result<Tensor> {
                let name = format!("{}.{part}", slot.name);
                let tensor = tensors
                    .remove(&name)
                    .ok_or_else(|| problem(format!("holds no tensor `{name}`")))?;
                match like {
                    Some(like)
                        if like.dims() != tensor.dims() || like.dtype() != tensor.dtype() =>
                    {
                        Err(problem(format!(
                            "holds `{name}` as {} {:?}, expected {} {:?}",
                            tensor.dtype().as_str(),
                            tensor.dims(),
                            like.dtype().as_str(),
                            like.dims()
                        )))
                    }
                    _ => Ok(tensor),
                }
            };
            let step = Tensor::new(0i64, &Device::Cpu)?;
            let steps = take("step", Some(&step))?.to_scalar::<i64>()?;
            let steps = u64::try_from(steps)
                .map_err(|_| problem(format!("holds `{}.step` = {steps}", slot.name)))?;
            let mut parts = Vec::new();
            for (part, like) in slot.moments.tensors(slot.var.shape())? {
                parts.push(take(part, Some(&like))?);
            }
            loaded.push((steps, slot.moments.restored(parts)?));
        }
        if let Some(name) = tensors.keys().min() {
            return Err(problem(format!(
                "holds `{name}`, which belongs to no variable here"
            )));
        }
        for (slot, (steps, moments)) in self.slots.iter_mut().zip(loaded) {
            (slot.steps, slot.moments) = (steps, moments);
        }
        Ok(())
    }
}
