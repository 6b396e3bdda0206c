//! The settings of the steps.

use super::super::super::error::{Error, Result};
use super::super::order::{Order, Steps, of_epochs};
use super::super::schedule::{Kind, Kwargs, schedule};
use serde::{Deserialize, Serialize};

/// The steps of a run that gives neither `max_steps` nor `num_train_epochs`.
const STEPS: usize = 100;

/// The settings of the steps, with TRL's names for what TRL names, and its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fit {
    /// Steps of the optimizer; null: those of `num_train_epochs`, or 100 without it.
    pub max_steps: Option<usize>,
    /// How often the rows are taken, in place of `max_steps`. A run puts `max_steps` in its place once the rows are
    /// read: epochs times the steps of an epoch, rounded up.
    pub num_train_epochs: Option<f64>,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Whether an epoch leaves out its last micro-batch if it is smaller than the others; where answers are drawn, its
    /// last round. Held-out rows are measured all the same.
    pub dataloader_drop_last: bool,
    /// The most tokens that go through the model at a time, counted before common prompts are shared; null: a
    /// whole micro-batch. Loss and gradient are those of the whole micro-batch.
    pub max_tokens: Option<usize>,
    /// The highest learning rate; null: the default of the objective.
    pub learning_rate: Option<f64>,
    /// How it falls.
    pub lr_scheduler_type: Kind,
    /// The settings of `lr_scheduler_type`; null: its defaults.
    pub lr_scheduler_kwargs: Option<Kwargs>,
    /// Steps of warm-up; below 1, a share of the steps.
    pub warmup_steps: f64,
    /// AdamW's β₁, of the mean of gradients.
    pub adam_beta1: f64,
    /// AdamW's β₂, of the mean of their squares.
    pub adam_beta2: f64,
    /// AdamW's ε.
    pub adam_epsilon: f64,
    /// AdamW's weight decay. Biases and norms do not decay.
    pub weight_decay: f64,
    /// The bound of the gradient's norm; 0: none.
    pub max_grad_norm: f64,
    /// The order of rows.
    pub order: Order,
    /// The seed of dropout.
    pub seed: u64,
    /// Whether the adapter's dropout is off; null: where answers are compared,
    /// as in TRL's `reward` and `dpo`.
    pub disable_dropout: Option<bool>,
}

impl Default for Fit {
    fn default() -> Self {
        Self {
            max_steps: None,
            num_train_epochs: None,
            batch: 8,
            accumulation: 1,
            dataloader_drop_last: false,
            max_tokens: None,
            learning_rate: None,
            lr_scheduler_type: Kind::Linear,
            lr_scheduler_kwargs: None,
            warmup_steps: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            order: Order::Random { seed: 42 },
            seed: 42,
            disable_dropout: None,
        }
    }
}

impl Fit {
    /// The number of steps.
    pub fn steps(&self) -> Result<usize> {
        match (self.max_steps, self.num_train_epochs) {
            (Some(steps), _) => Ok(steps),
            (None, None) => Ok(STEPS),
            (None, Some(epochs)) => Err(Error::Usage(format!(
                "`fit.num_train_epochs` is {epochs}, and the number of steps is needed before the rows are read, as \
                 by a fresh AdaLoRA adapter without `total_step`: give `fit.max_steps` in its place"
            ))),
        }
    }

    /// Puts the number of steps in the place of epochs.
    pub fn resolve(&mut self, steps_per_epoch: usize) -> Result<()> {
        let steps = match self.num_train_epochs {
            Some(epochs) => of_epochs(epochs, steps_per_epoch)?,
            None => self.steps()?,
        };
        (self.max_steps, self.num_train_epochs) = (Some(steps), None);
        Ok(())
    }

    /// How rows become micro-batches and steps.
    pub fn steps_on(&self, rows: usize) -> Result<Steps> {
        let steps = Steps::new(rows, self.batch, self.accumulation, self.order)?;
        steps.dropping_last(self.dataloader_drop_last)
    }

    /// Checks the settings that nothing else checks. `learning_rate` is the default.
    pub fn check(&self, learning_rate: f64) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        if let (Some(steps), Some(epochs)) = (self.max_steps, self.num_train_epochs) {
            return usage(format!(
                "`fit.max_steps` is {steps} and `fit.num_train_epochs` {epochs}: give one of them, and null for the other"
            ));
        }
        for (name, value) in [
            ("max_steps", self.max_steps.unwrap_or(1)),
            ("max_tokens", self.max_tokens.unwrap_or(1)),
        ] {
            if value == 0 {
                return usage(format!("`fit.{name}` must be at least 1, got 0"));
            }
        }
        let rate = self.learning_rate.unwrap_or(learning_rate);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let non_negative = |value: f64| value.is_finite() && value >= 0.0;
        let epochs = self.num_train_epochs.unwrap_or(1.0);
        for (name, value, must, holds) in [
            ("learning_rate", rate, "finite and > 0", positive(rate)),
            (
                "num_train_epochs",
                epochs,
                "finite and > 0",
                positive(epochs),
            ),
            (
                "adam_epsilon",
                self.adam_epsilon,
                "finite and > 0",
                positive(self.adam_epsilon),
            ),
            (
                "weight_decay",
                self.weight_decay,
                "finite and >= 0",
                non_negative(self.weight_decay),
            ),
            (
                "max_grad_norm",
                self.max_grad_norm,
                "finite and >= 0",
                non_negative(self.max_grad_norm),
            ),
            (
                "adam_beta1",
                self.adam_beta1,
                "in [0, 1)",
                (0.0..1.0).contains(&self.adam_beta1),
            ),
            (
                "adam_beta2",
                self.adam_beta2,
                "in [0, 1)",
                (0.0..1.0).contains(&self.adam_beta2),
            ),
        ] {
            if !holds {
                return usage(format!("`fit.{name}` must be {must}, got {value}"));
            }
        }
        // no bound of a schedule depends on the steps
        let steps = self.max_steps.unwrap_or(STEPS);
        let (kind, kwargs) = (self.lr_scheduler_type, self.lr_scheduler_kwargs.as_ref());
        schedule(kind, kwargs, self.warmup_steps, steps, rate)?;
        Ok(())
    }
}
