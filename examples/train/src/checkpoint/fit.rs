//! The steps of a run on a decoder: micro-batches, clipping, AdamW, the schedule, as TRL's trainers do
//! them.

use super::super::error::{Error, Result};
use super::budget::Budget;
use super::objective::{Labels, Objective, Reference, Rewards};
use super::order::{Order, Step, Steps, parts};
use super::schedule::{Kind, schedule};
use candle_align::decoder::Decoder;
use candle_align::ranking::RewardShift;
use candle_align::training::{
    AdamW, AdamWConfig, GradAccumulator, ParameterGroup, Schedule, clip_grad_norm, grad_coverage,
};
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

/// The settings of the steps, with TRL's names for what TRL names, and its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fit {
    /// Steps of the optimizer.
    pub max_steps: usize,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// The most tokens that go through the model at a time, counted before common prompts are shared; null: a
    /// whole micro-batch. Loss and gradient are those of the whole micro-batch.
    pub max_tokens: Option<usize>,
    /// The highest learning rate; null: the default of the objective.
    pub learning_rate: Option<f64>,
    /// How it falls.
    pub lr_scheduler_type: Kind,
    /// Steps of warm-up; below 1, a share of the steps.
    pub warmup_steps: f64,
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
            max_steps: 100,
            batch: 8,
            accumulation: 1,
            max_tokens: None,
            learning_rate: None,
            lr_scheduler_type: Kind::Linear,
            warmup_steps: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            order: Order::Random { seed: 42 },
            seed: 42,
            disable_dropout: None,
        }
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Logged {
    /// Counted from 1.
    pub step: usize,
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// The rate of this step.
    pub learning_rate: f64,
    /// AdaLoRA's penalty, which is not part of `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<f64>,
    #[serde(flatten)]
    pub rewards: Option<Rewards>,
    /// Of answers with a label, in place of `rewards`.
    #[serde(flatten)]
    pub labels: Option<Labels>,
}

/// A run between two steps.
pub struct Fitting<'a> {
    settings: Fit,
    learning_rate: f64,
    dropout: bool,
    objective: &'a Objective,
    reference: Reference,
    vars: Vec<(String, Var)>,
    optimizer: AdamW,
    budget: Option<Budget>,
    shift: RewardShift,
    schedule: Schedule,
    steps: Steps,
}

impl<'a> Fitting<'a> {
    /// `reference` is asked by DPO, and by SLiC's KL.
    pub fn new(
        decoder: &Decoder,
        objective: &'a Objective,
        reference: Reference,
        settings: &Fit,
    ) -> Result<Self> {
        let mut vars = decoder.vars();
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
        let off = settings
            .disable_dropout
            .unwrap_or(objective.disables_dropout());
        let config = AdamWConfig {
            learning_rate,
            ..AdamWConfig::default()
        };
        Ok(Self {
            objective,
            reference,
            optimizer: AdamW::new(groups, config)?,
            budget: Budget::new(decoder, settings.max_steps)?,
            shift: RewardShift::default(),
            schedule: schedule(
                settings.lr_scheduler_type,
                settings.warmup_steps,
                settings.max_steps,
            )?,
            steps: Steps::new(
                objective.len(),
                settings.batch,
                settings.accumulation,
                settings.order,
            )?,
            settings: settings.clone(),
            learning_rate,
            dropout: !off,
            vars,
        })
    }

    /// All steps from `first` on, counted from 0; `show` is called after each.
    pub fn run(
        &mut self,
        decoder: &mut Decoder,
        first: usize,
        mut show: impl FnMut(&Logged) -> Result<()>,
    ) -> Result<()> {
        for step in self.steps(first) {
            show(&self.step(decoder, &step)?)?;
        }
        Ok(())
    }

    /// The steps from `first` on, counted from 0.
    pub fn steps(&self, first: usize) -> impl Iterator<Item = Step> + use<> {
        self.steps
            .from(first)
            .take(self.settings.max_steps.saturating_sub(first))
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

    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    pub fn budget_mut(&mut self) -> Option<&mut Budget> {
        self.budget.as_mut()
    }

    /// The mean reward of all answers so far: BCO's δ.
    pub fn shift(&self) -> &RewardShift {
        &self.shift
    }

    pub fn shift_mut(&mut self) -> &mut RewardShift {
        &mut self.shift
    }

    /// Whether steps move it.
    pub fn shifts(&self) -> bool {
        self.objective.shifts()
    }

    /// One step.
    pub fn step(&mut self, decoder: &mut Decoder, step: &Step) -> Result<Logged> {
        let mut total = GradAccumulator::new();
        let (mut loss, mut rewards, mut seeds) = (0.0, Vec::new(), 0);
        let (mut labels, mut judged) = (Vec::new(), Vec::new());
        for batch in &step.micro_batches {
            let (mut pairs, mut of_batch) = (Vec::new(), Vec::new());
            let given = self.objective.given(
                decoder,
                &self.reference,
                batch,
                self.settings.max_tokens,
                &self.shift,
            )?;
            for rows in parts(batch, self.settings.max_tokens, |row| {
                self.objective.tokens(row)
            }) {
                let seed = self
                    .settings
                    .seed
                    .wrapping_add((step.step as u64) << 20)
                    .wrapping_add(seeds);
                seeds += 1;
                let seed = self.dropout.then_some(seed);
                let window = &step.micro_batches;
                let measured = self.objective.loss_with(
                    decoder,
                    &self.reference,
                    rows,
                    window,
                    seed,
                    given,
                )?;
                let grads = measured.loss.backward()?;
                if step.step == 0 && seeds == 1 {
                    let coverage = grad_coverage(&self.vars, &grads)?;
                    if !coverage.missing.is_empty() || !coverage.non_finite.is_empty() {
                        return Err(Error::Usage(format!("the first gradient: {coverage}")));
                    }
                }
                total.add(&self.vars, &grads)?;
                loss += measured.loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                pairs.extend(measured.pairs);
                of_batch.extend(measured.judged);
            }
            rewards.extend(Rewards::of(&pairs));
            labels.extend(Labels::of(&of_batch, given));
            judged.extend(of_batch.iter().map(|one| one.reward));
        }
        // once per step, not per micro-batch
        let mut penalty = None;
        if let Some(budget) = &self.budget {
            let added = budget.penalty()?;
            total.add(&self.vars, &added.backward()?)?;
            penalty = Some(added.to_dtype(DType::F64)?.to_scalar::<f64>()?);
        }
        let mut grads = total.take();
        let grad_norm = clip_grad_norm(&self.vars, &mut grads, f64::MAX)?;
        // PyTorch divides by the norm plus 10⁻⁶
        let bound = self.settings.max_grad_norm;
        if bound > 0.0 && grad_norm + 1e-6 > bound {
            clip_grad_norm(
                &self.vars,
                &mut grads,
                grad_norm * bound / (grad_norm + 1e-6),
            )?;
        }
        let learning_rate = self.learning_rate * self.schedule.factor(step.step);
        self.optimizer.set_learning_rate(learning_rate)?;
        self.optimizer.step(&grads)?;
        if let Some(budget) = &mut self.budget {
            budget.after(step.step + 1, &grads)?;
        }
        if self.objective.shifts() {
            self.shift.update(&Tensor::new(judged, &Device::Cpu)?)?;
        }
        Ok(Logged {
            step: step.step + 1,
            loss,
            grad_norm,
            learning_rate,
            penalty,
            rewards: Rewards::mean(&rewards),
            labels: Labels::mean(&labels),
        })
    }
}

/// Whether AdamW's decay acts on a weight, by the names that Transformers spares.
pub fn decays(name: &str) -> bool {
    let name = name.to_lowercase();
    let spared = ["bias", "layernorm", "rmsnorm"]
        .iter()
        .any(|word| name.contains(word));
    let norm = |part: &str| part == "norm" || part.ends_with("_norm");
    !spared && !name.split('.').any(norm)
}
