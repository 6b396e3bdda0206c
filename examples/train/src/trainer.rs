//! The steps of one objective: micro-batches with the gradient of one batch, clipping, a schedule, and
//! an evaluation before, during and after.

use super::adapter::budget::{Budget, Kept};
use super::batch::{Batch, Example};
use super::error::{Error, Result};
use super::held_out::scores;
use super::metric::{Mean, Metric};
use super::micro_batches::{Order, micro_batches, window};
use super::model::Model;
use super::objectives::order::Ordered;
use super::objectives::{Objective, Task, forward};
use super::optimizer::{budget, optimizer};
use super::progress::Progress;
use super::report::Scores;
use candle_align::language::forgetful::forgetful_mask;
use candle_align::training::{Decay, GradAccumulator, Schedule, clip_grad_norm, grad_coverage};
use candle_core::backprop::GradStore;
use candle_core::{Device, Var};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Instant;

/// Training of a model by one objective, with its own schedule and optimizer.
pub struct Phase<'a> {
    /// Its name in the metrics and in messages.
    pub name: String,
    pub task: Task<'a>,
    pub model: &'a Model,
    /// The reference of DPO and of SLiC's KL; none under an adapter, whose base is the reference.
    pub reference: Option<Model>,
    pub train: Vec<Example>,
    /// Evaluated before, during and after; not if empty.
    pub held_out: Vec<Example>,
    /// Probes for the same evaluations, for an objective whose loss compares no answers.
    pub probes: Vec<Example>,
    pub steps: usize,
}

/// The state across all phases.
pub struct Trainer<'a> {
    progress: &'a dyn Progress,
    /// All measurements.
    pub metrics: Vec<Metric>,
    /// Training tokens, without padding.
    pub tokens: usize,
    /// The triplets after AdaLoRA's last pruning.
    pub kept: Kept,
    start: Instant,
}

impl<'a> Trainer<'a> {
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            metrics: Vec::new(),
            tokens: 0,
            kept: Kept::new(),
            start: Instant::now(),
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Trains, and returns the held-out scores before and after.
    pub fn train(&mut self, phase: &Phase, rng: &mut StdRng) -> Result<(Scores, Scores)> {
        let settings = phase.task.settings;
        let warmup = (phase.steps as f64 * settings.warmup).round() as usize;
        let schedule = Schedule::new(phase.steps, warmup, Decay::Cosine, settings.floor)?;
        let peak = phase.task.objective.peak(settings);
        let vars = phase.model.vars();
        let mut optimizer = optimizer(phase, &vars)?;
        let mut budget = budget(phase)?;
        let every = match settings.eval_every {
            0 => phase.steps.div_ceil(4).max(1),
            every => every,
        };
        let before = self.evaluate(0, phase)?;
        let mut after = before;
        let mut order = Order::new(phase.train.len());
        for step in 1..=phase.steps {
            let rate = peak * schedule.factor(step - 1);
            optimizer.set_learning_rate(rate)?;
            let dropout = phase.model.adapted();
            if let Some(adapted) = dropout {
                adapted.set_dropout(Some(StdRng::seed_from_u64(rng.random())));
            }
            let examples: Vec<&Example> = (0..settings.batch)
                .map(|_| &phase.train[order.next(rng)])
                .collect();
            let metric = micro_batches(&examples, settings.micro_batch)
                .and_then(|batches| {
                    let batches = forget(batches, phase, rng)?;
                    self.step(step, batches, phase, &vars, budget.as_ref())
                })
                .and_then(|(metric, grads)| {
                    optimizer.step(&grads)?;
                    if let Some(budget) = &mut budget {
                        budget.after(step, &grads)?;
                    }
                    Ok(metric)
                })
                .map_err(|error| Error::Usage(format!("{} step {step}: {error}", phase.name)))?;
            if let Some(adapted) = dropout {
                adapted.set_dropout(None);
            }
            self.show(&metric);
            self.metrics.push(Metric {
                learning_rate: Some(rate),
                ..metric
            });
            if step % every == 0 || step == phase.steps {
                after = self.evaluate(step, phase)?;
            }
        }
        self.kept = budget.map_or_else(Kept::new, |budget| budget.kept());
        Ok((before, after))
    }

    /// The gradient of one step: the sum over micro-batches, each divided by the count of the whole batch.
    fn step(
        &mut self,
        step: usize,
        batches: Vec<Batch>,
        phase: &Phase,
        vars: &[(String, Var)],
        budget: Option<&Budget>,
    ) -> Result<(Metric, GradStore)> {
        let (task, reference) = (&phase.task, phase.reference.as_ref());
        let reduction = task.objective.reduction().over(window(task, &batches)?);

        let mut total = GradAccumulator::new();
        let mut loss = 0.0;
        let mut ordered = Ordered::default();
        let mut best = Mean::default();
        for batch in &batches {
            let out = forward(task, phase.model, reference, batch)?;
            let part = reduction.apply(&out.loss, &out.mask)?;
            let grads = part.backward()?;
            if step == 1 {
                check_coverage(vars, &grads)?;
            }
            total.add(vars, &grads)?;
            loss += f64::from(part.to_scalar::<f32>()?);
            ordered.add(&out.scores, batch)?;
            best.add(out.best.as_ref())?;
            self.tokens += batch.token_count;
        }
        // once per step, not per micro-batch
        let mut penalty = None;
        if let Some(budget) = budget {
            let added = budget.penalty()?;
            total.add(vars, &added.backward()?)?;
            penalty = Some(f64::from(added.to_scalar::<f32>()?));
        }
        if !loss.is_finite() {
            return Err(Error::Usage(format!("the loss is {loss}")));
        }
        let mut grads = total.take();
        let norm = clip_grad_norm(vars, &mut grads, task.settings.clip)?;
        let metric = Metric {
            step,
            phase: phase.name.clone(),
            split: "train",
            loss,
            penalty,
            accuracy: ordered.accuracy(),
            best_log_prob: best.value(),
            best_log_prob_bad_words: None,
            learning_rate: None,
            gradient_norm: Some(norm),
        };
        Ok((metric, grads))
    }

    /// Evaluates on all held-out examples; zeros if there are none.
    fn evaluate(&mut self, step: usize, phase: &Phase) -> Result<Scores> {
        if phase.held_out.is_empty() {
            return Ok(Scores::default());
        }
        let scores = scores(phase)?;
        self.metrics.push(Metric {
            step,
            phase: phase.name.clone(),
            split: "held_out",
            loss: scores.loss,
            penalty: None,
            accuracy: scores.accuracy,
            best_log_prob: scores.best_log_prob,
            best_log_prob_bad_words: scores.best_log_prob_bad_words,
            learning_rate: None,
            gradient_norm: None,
        });
        Ok(scores)
    }

    fn show(&self, metric: &Metric) {
        let speed = self.tokens as f64 / self.seconds();
        let accuracy = match metric.accuracy {
            Some(accuracy) => format!("  accuracy {:3.0} %", 100.0 * accuracy),
            None => String::new(),
        };
        self.progress.show(&format!(
            "{}  loss {:.4}{accuracy}  {speed:.0} tokens/s",
            metric.phase, metric.loss
        ));
        self.progress.advance(1);
    }
}

/// Chain of Hindsight hides some past tokens during training.
fn forget(mut batches: Vec<Batch>, phase: &Phase, rng: &mut StdRng) -> Result<Vec<Batch>> {
    if phase.task.objective == Objective::ChainOfHindsight {
        let config = &phase.task.settings.chain_of_hindsight.forgetful;
        for batch in &mut batches {
            let shape = batch.tokens.dims2()?;
            batch.visible = Some(forgetful_mask(shape, config, rng, &Device::Cpu)?);
        }
    }
    Ok(batches)
}

/// Candle cuts gradients without an error. An error is better than a model that silently does not
/// learn.
fn check_coverage(vars: &[(String, Var)], grads: &GradStore) -> Result<()> {
    let coverage = grad_coverage(vars, grads)?;
    if coverage.missing.is_empty() && coverage.non_finite.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(coverage.to_string()))
}
