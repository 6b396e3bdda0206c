//! What a step does with its gradient: clipping, AdamW, the schedule and AdaLoRA's part.

use super::super::error::{Error, Result};
use super::super::world::World;
use super::super::world::gradients::sum_gradients;
use super::budget::Budget;
use super::fit::{Fit, decays};
use super::schedule::{Schedule, schedule};
use candle_align::decoder::Decoder;
use candle_align::training::{
    AdamW, AdamWConfig, GradAccumulator, ParameterGroup, clip_grad_norm, grad_coverage,
};
use candle_core::backprop::GradStore;
use candle_core::{DType, Var};

/// The trained weights and all that moves them.
pub struct Update {
    vars: Vec<(String, Var)>,
    optimizer: AdamW,
    budget: Option<Budget>,
    schedule: Schedule,
    learning_rate: f64,
    max_grad_norm: f64,
}

/// What a step was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// Before clipping.
    pub grad_norm: f64,
    /// The rate of this step.
    pub learning_rate: f64,
    /// AdaLoRA's penalty, on rank 0.
    pub penalty: Option<f64>,
}

impl Update {
    pub fn new(decoder: &Decoder, settings: &Fit) -> Result<Self> {
        Self::with(decoder, Vec::new(), settings)
    }

    /// The same, which also moves other weights.
    pub fn with(
        decoder: &Decoder,
        others: impl IntoIterator<Item = (String, Var)>,
        settings: &Fit,
    ) -> Result<Self> {
        let mut vars = decoder.vars();
        vars.extend(others);
        // what is left of a layer that AdaLoRA pruned wholly
        vars.retain(|(_, var)| var.elem_count() > 0);
        if vars.is_empty() {
            let text = "nothing is trained: the weights are frozen and there is no adapter";
            return Err(Error::Usage(text.to_string()));
        }
        let (decayed, kept): (Vec<_>, Vec<_>) =
            vars.iter().cloned().partition(|(name, _)| decays(name));
        let mut groups = vec![ParameterGroup::new(decayed, settings.weight_decay)];
        groups.push(ParameterGroup::new(kept, 0.0));
        groups.retain(|group| !group.vars.is_empty());
        let learning_rate = settings.learning_rate.ok_or_else(|| {
            Error::Usage(
                "`fit.learning_rate` is missing, and only a run knows a default".to_string(),
            )
        })?;
        let config = AdamWConfig {
            learning_rate,
            beta1: settings.adam_beta1,
            beta2: settings.adam_beta2,
            epsilon: settings.adam_epsilon,
            ..AdamWConfig::default()
        };
        let steps = settings.steps()?;
        Ok(Self {
            optimizer: AdamW::new(groups, config)?,
            budget: Budget::new(decoder, steps)?,
            schedule: schedule(
                settings.lr_scheduler_type,
                settings.lr_scheduler_kwargs.as_ref(),
                settings.warmup_steps,
                steps,
                learning_rate,
            )?,
            learning_rate,
            max_grad_norm: settings.max_grad_norm,
            vars,
        })
    }

    /// What is trained, by name.
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    pub fn optimizer_mut(&mut self) -> &mut AdamW {
        &mut self.optimizer
    }

    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    pub fn budget_mut(&mut self) -> Option<&mut Budget> {
        self.budget.as_mut()
    }

    /// An error unless the first gradient reaches every trained weight and is finite. False where there is none: rows
    /// whose tokens the loss does not cover have a loss of 0 that depends on nothing.
    pub fn check_first(&self, grads: &GradStore, loss: f64) -> Result<bool> {
        let coverage = grad_coverage(&self.vars, grads)?;
        if loss == 0.0 && coverage.missing.len() == self.vars.len() {
            return Ok(false);
        }
        match coverage.missing.is_empty() && coverage.non_finite.is_empty() {
            true => Ok(true),
            false => Err(Error::Usage(format!("the first gradient: {coverage}"))),
        }
    }

    /// A step, counted from 0, that has nothing to learn from: weights, moments and AdaLoRA's triplets stay as they are.
    pub fn rest(&mut self, step: usize) -> Result<Applied> {
        let learning_rate = self.learning_rate * self.schedule.factor(step);
        self.optimizer.set_learning_rate(learning_rate)?;
        Ok(Applied {
            grad_norm: 0.0,
            learning_rate,
            penalty: None,
        })
    }

    /// One step of the optimizer, counted from 0, with the sum of the gradients of its micro-batches over all ranks.
    /// Every rank makes the same step.
    pub fn apply(
        &mut self,
        step: usize,
        mut total: GradAccumulator,
        world: &dyn World,
    ) -> Result<Applied> {
        // once per step, not per micro-batch or rank
        let mut penalty = None;
        if let (Some(budget), true) = (&self.budget, world.rank() == 0) {
            let added = budget.penalty()?;
            total.add(&self.vars, &added.backward()?)?;
            penalty = Some(added.to_dtype(DType::F64)?.to_scalar::<f64>()?);
        }
        let mut grads = sum_gradients(world, &self.vars, total)?;
        // a step whose loss covers nothing: moments and weight decay go on, as they do for a gradient of 0
        for (_, var) in &self.vars {
            if grads.get(var).is_none() {
                grads.insert(var, var.zeros_like()?);
            }
        }
        let grad_norm = clip_grad_norm(&self.vars, &mut grads, f64::MAX)?;
        // PyTorch divides by the norm plus 10⁻⁶
        let bound = self.max_grad_norm;
        if bound > 0.0 && grad_norm + 1e-6 > bound {
            clip_grad_norm(
                &self.vars,
                &mut grads,
                grad_norm * bound / (grad_norm + 1e-6),
            )?;
        }
        let learning_rate = self.learning_rate * self.schedule.factor(step);
        self.optimizer.set_learning_rate(learning_rate)?;
        self.optimizer.step(&grads)?;
        if let Some(budget) = &mut self.budget {
            budget.after(step + 1, &grads)?;
        }
        Ok(Applied {
            grad_norm,
            learning_rate,
            penalty,
        })
    }
}
