//! The steps of one objective: micro-batches with the gradient of one batch, clipping, a schedule, and
//! the held-out evaluation before, during and after.

use super::adapter::budget::{Budget, Kept};
use super::batch::{Batch, Example};
use super::error::{Error, Result};
use super::model::Model;
use super::objectives::language::opinion;
use super::objectives::order::Ordered;
use super::objectives::{Objective, Task, counted, forward};
use super::optimiser::{budget, optimiser};
use super::report::Scores;
use candle_align::forgetful_mask;
use candle_align::training::{Decay, GradAccumulator, Schedule, clip_grad_norm, grad_coverage};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::time::Instant;

/// One line of `metrics.jsonl`. Nothing in it depends on the machine's speed: the same seed writes
/// the same file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Counted from 1 within a phase; 0 is before it.
    pub step: usize,
    /// `sft` for the supervised steps at the start, or `base` if an adapter follows; then the objective's
    /// name.
    pub phase: String,
    /// `train`: of this step's batch. `held_out`: of all held-out examples.
    pub split: &'static str,
    pub loss: f64,
    /// AdaLoRA's penalty; not part of `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<f64>,
    /// The share of pairs that are ordered correctly, if there are pairs.
    pub accuracy: Option<f64>,
    /// Mean log-probability of a whole best answer. Preference losses may lower it.
    pub best_log_prob: Option<f64>,
    /// The same after bad words, if there are such words; `best_log_prob` is then after good ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_log_prob_bad_words: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
}

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
    progress: &'a ProgressBar,
    /// All measurements.
    pub metrics: Vec<Metric>,
    /// Training tokens, without padding.
    pub tokens: usize,
    /// The triplets after AdaLoRA's last pruning.
    pub kept: Kept,
    start: Instant,
}

impl<'a> Trainer<'a> {
    pub fn new(progress: &'a ProgressBar) -> Self {
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
        let mut optimiser = optimiser(phase, &vars)?;
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
            optimiser.set_learning_rate(rate)?;
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
                    optimiser.step(&grads)?;
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

    /// The scores of all held-out examples; zeros if there are none.
    fn evaluate(&mut self, step: usize, phase: &Phase) -> Result<Scores> {
        if phase.held_out.is_empty() {
            return Ok(Scores::default());
        }
        let (task, reference) = (&phase.task, phase.reference.as_ref());
        let size = task.settings.micro_batch;
        let frozen = phase.model.frozen()?;
        let model = frozen.as_ref().unwrap_or(phase.model);
        let batches = micro_batches(&phase.held_out.iter().collect::<Vec<_>>(), size)?;
        let reduction = task.objective.reduction().over(window(task, &batches)?);
        let mut loss = 0.0;
        let mut ordered = Ordered::default();
        let (mut best, mut best_bad_words) = (Mean::default(), Mean::default());
        for batch in &batches {
            let out = forward(task, model, reference, batch)?;
            let part = reduction.apply(&out.loss, &out.mask)?;
            loss += f64::from(part.to_scalar::<f32>()?);
            ordered.add(&out.scores, batch)?;
            best.add(out.best.as_ref())?;
        }
        for batch in &micro_batches(&phase.probes.iter().collect::<Vec<_>>(), size)? {
            let opinion = opinion(task, model, batch)?;
            ordered.add(&opinion.scores, batch)?;
            if let Some([good, bad]) = opinion.best {
                best.add(Some(&good))?;
                best_bad_words.add(Some(&bad))?;
            }
        }
        let scores = Scores {
            loss,
            accuracy: ordered.accuracy(),
            best_log_prob: best.value(),
            best_log_prob_bad_words: best_bad_words.value(),
        };
        self.metrics.push(Metric {
            step,
            phase: phase.name.clone(),
            split: "held_out",
            loss,
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
        self.progress.set_message(format!(
            "{}  loss {:.4}{accuracy}  {speed:.0} tokens/s",
            metric.phase, metric.loss
        ));
        self.progress.inc(1);
    }
}

/// The mean of numbers that come in tensors `[size]`.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, values: Option<&Tensor>) -> Result<()> {
        if let Some(values) = values {
            self.sum += f64::from(values.sum_all()?.to_scalar::<f32>()?);
            self.count += values.elem_count();
        }
        Ok(())
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
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

/// Batches of examples with similar lengths, so that there is little padding.
fn micro_batches(examples: &[&Example], size: usize) -> Result<Vec<Batch>> {
    let mut sorted = examples.to_vec();
    sorted.sort_by_key(|example| (example.answers.len(), example.longest()));
    sorted.chunks(size).map(Batch::new).collect()
}

/// The common divisor of the losses of all these batches.
fn window(task: &Task, batches: &[Batch]) -> Result<f64> {
    batches.iter().map(|batch| counted(task, batch)).sum()
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

/// Indices in random order; each occurs once before any occurs again.
struct Order {
    indices: Vec<usize>,
    at: usize,
}

impl Order {
    fn new(count: usize) -> Self {
        Self {
            indices: (0..count).collect(),
            at: 0,
        }
    }

    fn next(&mut self, rng: &mut StdRng) -> usize {
        if self.at == 0 {
            self.indices.shuffle(rng);
        }
        let index = self.indices[self.at];
        self.at = (self.at + 1) % self.indices.len();
        index
    }
}
