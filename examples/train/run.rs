//! A whole run: read, split, warm up, train, compare with what was before and with trivial answers.

use super::batch::{Batch, Example, Shape, VOCABULARY, examples};
use super::data::{self, Item, Reading, Reason, Tally};
use super::error::{Error, Result};
use super::objectives::{Model, Objective, Ordered, Task, forward, loss_mask};
use super::output::Folder;
use super::plot;
use super::report::{Baselines, Scores, Summary, byte_frequencies, peak_memory_mib};
use super::settings::Settings;
use super::support::transformer::{Config, Transformer};
use candle_align::training::{Decay, GradAccumulator, Schedule, clip_grad_norm, grad_coverage};
use candle_align::{Reduction, RewardHead};
use candle_core::{DType, Device, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use std::time::Instant;

/// One line of `metrics.jsonl`. Nothing in it depends on the machine's speed: the same seed writes
/// the same file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Counted from 1 within a phase; 0 is before it.
    pub step: usize,
    /// `sft` for the supervised steps at the start, then the objective's name.
    pub phase: String,
    /// `train`: of this step's batch. `held_out`: of all held-out examples.
    pub split: &'static str,
    pub loss: f64,
    /// The share of pairs ordered right, where there are pairs.
    pub accuracy: Option<f64>,
    /// Mean log-probability of a whole best answer. Preference losses may lower it.
    pub best_log_prob: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
}

/// Runs, writes its results, and says what came of it.
///
/// Nothing is written before the run has succeeded; then each file appears whole.
pub fn run(settings: &Settings, progress: &ProgressBar) -> Result<Summary> {
    let start = Instant::now();
    settings.check()?;
    let reading = Reading {
        max_len: settings.max_len,
        skip_bad_rows: settings.skip_bad_rows,
        max_rows: settings.max_rows,
    };
    let data = data::load(settings.data.as_deref(), &reading)?;
    let mut tally = data.tally;
    let items = usable(data.items, settings.objective, &data.name, &mut tally)?;
    let task = Task {
        objective: settings.objective,
        shape: settings.objective.shape(settings, &items),
        settings,
    };
    // one generator per purpose: another split does not mean other weights
    let rng = |purpose: u64| StdRng::seed_from_u64(settings.seed.wrapping_mul(8) + purpose);
    let (share, most) = (settings.held_out, settings.max_held_out);
    let (train, held_out) = data::split(items, share, most, &mut rng(0))?;
    let folder = Folder::open(&settings.out())?;

    let config = Config {
        vocabulary: VOCABULARY,
        dim: settings.width,
        heads: settings.heads,
        layers: settings.layers,
        max_len: settings.max_len,
        feed_forward: 4 * settings.width,
    };
    let mut model = Model {
        body: Transformer::new(&config, DType::F32, &mut rng(1))?,
        head: None,
    };
    let warm = match settings.objective {
        Objective::Sft => 0,
        _ => settings.sft_steps,
    };
    progress.set_length((warm + settings.steps) as u64);
    let mut trainer = Trainer {
        progress,
        metrics: Vec::new(),
        tokens: 0,
        start: Instant::now(),
    };

    // supervised steps on the best answers: a reference worth staying near
    if warm > 0 {
        let task = Task {
            objective: Objective::Sft,
            shape: Shape::Best,
            settings,
        };
        let phase = Phase {
            task,
            train: all_examples(&train, Shape::Best),
            held_out: Vec::new(),
            steps: warm,
            peak: settings.sft_learning_rate,
        };
        trainer.train(&phase, &model, None, &mut rng(2))?;
    }

    // the objective itself
    if settings.objective == Objective::Reward {
        let head = RewardHead::new(settings.width, &mut rng(3), DType::F32, &Device::Cpu)?;
        model.head = Some(head);
    }
    let reference = match settings.objective {
        Objective::Dpo => Some(model.body.frozen()?),
        _ => None,
    };
    let phase = Phase {
        task,
        train: all_examples(&train, task.shape),
        // held-out lists are kept whole for SFT: its order of answers is of interest too
        held_out: match task.objective {
            Objective::Sft => all_examples(&held_out, Shape::Lists),
            _ => all_examples(&held_out, task.shape),
        },
        steps: settings.steps,
        peak: match settings.objective {
            Objective::Sft => settings.sft_learning_rate,
            _ => settings.learning_rate,
        },
    };
    let (before, after) = trainer.train(&phase, &model, reference.as_ref(), &mut rng(4))?;
    progress.finish_and_clear();

    let seconds = trainer.start.elapsed().as_secs_f64();
    let summary = Summary {
        objective: settings.objective,
        data: data.name,
        tally,
        train_prompts: train.len(),
        held_out_prompts: held_out.len(),
        train_examples: phase.train.len(),
        held_out_examples: phase.held_out.len(),
        parameters: model.vars().iter().map(|(_, var)| var.elem_count()).sum(),
        sft_steps: warm,
        steps: settings.steps,
        before,
        after,
        baselines: Baselines::of(&phase.held_out),
        byte_frequencies: (settings.objective == Objective::Sft)
            .then(|| byte_frequencies(&phase.train, &phase.held_out)),
        tokens: trainer.tokens,
        tokens_per_second: trainer.tokens as f64 / seconds,
        seconds: start.elapsed().as_secs_f64(),
        peak_memory_mib: peak_memory_mib(),
        out: settings.out(),
    };
    let curves = plot::curves(&trainer.metrics, &summary)?;
    folder.weights("model.safetensors", &model.body.vars())?;
    if let Some(head) = &model.head {
        folder.weights("reward_head.safetensors", &head.trainable())?;
    }
    folder.json("model.json", &config)?;
    folder.json("config.json", settings)?;
    folder.lines("metrics.jsonl", &trainer.metrics)?;
    folder.text("curves.svg", &curves)?;
    folder.json("summary.json", &summary)?;
    Ok(summary)
}

/// The items that the objective can learn from; the others are counted.
fn usable(
    items: Vec<Item>,
    objective: Objective,
    name: &str,
    tally: &mut Tally,
) -> Result<Vec<Item>> {
    let found = items.len();
    let singles = items.iter().filter(|item| item.answers.len() == 1).count();
    let keep = |item: &Item| {
        let worst = item
            .answers
            .iter()
            .map(|a| a.reward)
            .fold(f64::INFINITY, f64::min);
        let reason = match item.answers.len() {
            1 if objective == Objective::Sft => return true,
            1 => Reason::SingleAnswer,
            _ if item.answers.iter().any(|a| a.reward > worst) => return true,
            _ => Reason::NoPreference,
        };
        *tally.left_out.entry(reason).or_default() += 1;
        false
    };
    let mut items = items;
    items.retain(keep);
    if !items.is_empty() {
        return Ok(items);
    }
    let formats = tally
        .formats
        .iter()
        .map(|(format, rows)| format!("{format}: {rows}"));
    let formats = formats.collect::<Vec<_>>().join(", ");
    Err(Error::Usage(match (found, objective) {
        (0, _) => format!("{name}: no row is left to learn from: {}", tally.reasons()),
        (_, Objective::Sft) => format!(
            "{name}: sft needs a best answer, and in no row is one answer better than another \
             ({formats})"
        ),
        _ if singles == found => format!(
            "{name}: {objective} needs at least two answers to a prompt, and no row has a second \
             one such as `rejected` ({formats}); use --objective sft"
        ),
        _ => format!(
            "{name}: {objective} needs one answer that is better than another, and all rewards \
             within a row are equal ({formats})"
        ),
    }))
}

fn all_examples(items: &[Item], shape: Shape) -> Vec<Example> {
    items
        .iter()
        .flat_map(|item| examples(item, shape))
        .collect()
}

/// Training by one objective, with its own schedule and optimiser.
struct Phase<'a> {
    task: Task<'a>,
    train: Vec<Example>,
    /// Evaluated before, during and after; not if empty.
    held_out: Vec<Example>,
    steps: usize,
    peak: f64,
}

/// What runs through all phases.
struct Trainer<'a> {
    progress: &'a ProgressBar,
    metrics: Vec<Metric>,
    tokens: usize,
    start: Instant,
}

impl Trainer<'_> {
    /// Trains, and returns the held-out scores before and after.
    fn train(
        &mut self,
        phase: &Phase,
        model: &Model,
        reference: Option<&Transformer>,
        rng: &mut StdRng,
    ) -> Result<(Scores, Scores)> {
        let settings = phase.task.settings;
        let warmup = (phase.steps as f64 * settings.warmup).round() as usize;
        let schedule = Schedule::new(phase.steps, warmup, Decay::Cosine, settings.floor)?;
        let vars = model.vars();
        let params = ParamsAdamW {
            lr: phase.peak,
            weight_decay: settings.weight_decay,
            ..Default::default()
        };
        let mut optimiser = AdamW::new(vars.iter().map(|(_, var)| var.clone()).collect(), params)?;
        let every = match settings.eval_every {
            0 => phase.steps.div_ceil(4).max(1),
            every => every,
        };
        let before = self.evaluate(0, phase, model, reference)?;
        let mut after = before;
        let mut order = Order::new(phase.train.len());
        for step in 1..=phase.steps {
            let rate = phase.peak * schedule.factor(step - 1);
            optimiser.set_learning_rate(rate);
            let batch: Vec<&Example> = (0..settings.batch)
                .map(|_| &phase.train[order.next(rng)])
                .collect();
            let metric = self
                .step(step, &batch, phase, model, reference, &vars, &mut optimiser)
                .map_err(|error| {
                    Error::Usage(format!("{} step {step}: {error}", phase.task.objective))
                })?;
            self.show(&metric);
            self.metrics.push(Metric {
                learning_rate: Some(rate),
                ..metric
            });
            if step % every == 0 || step == phase.steps {
                after = self.evaluate(step, phase, model, reference)?;
            }
        }
        Ok((before, after))
    }

    /// One step: micro-batches, each divided by the count of the whole batch, and their sum.
    #[allow(clippy::too_many_arguments)]
    fn step(
        &mut self,
        step: usize,
        batch: &[&Example],
        phase: &Phase,
        model: &Model,
        reference: Option<&Transformer>,
        vars: &[(String, Var)],
        optimiser: &mut AdamW,
    ) -> Result<Metric> {
        let task = &phase.task;
        let batches = micro_batches(batch, task.settings.micro_batch)?;
        let reduction = task.objective.reduction();
        let window = window(task, reduction, &batches)?;

        let mut total = GradAccumulator::new();
        let mut loss = 0.0;
        let mut ordered = Ordered::default();
        let mut best = None;
        for batch in &batches {
            let out = forward(task, model, reference, batch)?;
            let part = reduction.over(window).apply(&out.loss, &out.mask)?;
            let grads = part.backward()?;
            if step == 1 {
                check_coverage(vars, &grads)?;
            }
            total.add(vars, &grads)?;
            loss += f64::from(part.to_scalar::<f32>()?);
            ordered.add(&out.scores, batch)?;
            if let Some(sums) = out.best {
                *best.get_or_insert(0.0) += f64::from(sums.sum_all()?.to_scalar::<f32>()?);
            }
            self.tokens += batch.token_count;
        }
        if !loss.is_finite() {
            return Err(Error::Usage(format!("the loss is {loss}")));
        }
        let mut grads = total.take();
        let norm = clip_grad_norm(vars, &mut grads, task.settings.clip)?;
        optimiser.step(&grads)?;
        Ok(Metric {
            step,
            phase: task.objective.to_string(),
            split: "train",
            loss,
            accuracy: ordered.accuracy(),
            best_log_prob: best.map(|best: f64| best / batch.len() as f64),
            learning_rate: None,
            gradient_norm: Some(norm),
        })
    }

    /// The scores of all held-out examples; zeros if there are none.
    fn evaluate(
        &mut self,
        step: usize,
        phase: &Phase,
        model: &Model,
        reference: Option<&Transformer>,
    ) -> Result<Scores> {
        if phase.held_out.is_empty() {
            return Ok(Scores::default());
        }
        // a copy without variables: no graph is kept
        let head = model.head.as_ref();
        let head = head.map(|head| RewardHead::from_tensors(head.weight(), head.bias()));
        let frozen = Model {
            body: model.body.frozen()?,
            head: head.transpose()?,
        };
        let all: Vec<&Example> = phase.held_out.iter().collect();
        let batches = micro_batches(&all, phase.task.settings.micro_batch)?;
        let reduction = phase.task.objective.reduction();
        let window = window(&phase.task, reduction, &batches)?;
        let mut loss = 0.0;
        let mut ordered = Ordered::default();
        let mut best = None;
        for batch in &batches {
            let out = forward(&phase.task, &frozen, reference, batch)?;
            let part = reduction.over(window).apply(&out.loss, &out.mask)?;
            loss += f64::from(part.to_scalar::<f32>()?);
            ordered.add(&out.scores, batch)?;
            if let Some(sums) = out.best {
                *best.get_or_insert(0.0) += f64::from(sums.sum_all()?.to_scalar::<f32>()?);
            }
        }
        let scores = Scores {
            loss,
            accuracy: ordered.accuracy(),
            best_log_prob: best.map(|best: f64| best / all.len() as f64),
        };
        self.metrics.push(Metric {
            step,
            phase: phase.task.objective.to_string(),
            split: "held_out",
            loss,
            accuracy: scores.accuracy,
            best_log_prob: scores.best_log_prob,
            learning_rate: None,
            gradient_norm: None,
        });
        Ok(scores)
    }

    fn show(&self, metric: &Metric) {
        let speed = self.tokens as f64 / self.start.elapsed().as_secs_f64();
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

/// Batches of neighbours in length, so that little is padded.
fn micro_batches(examples: &[&Example], size: usize) -> Result<Vec<Batch>> {
    let mut sorted = examples.to_vec();
    sorted.sort_by_key(|example| (example.answers.len(), example.longest()));
    sorted.chunks(size).map(Batch::new).collect()
}

/// What the losses of all these batches together are divided by.
fn window(task: &Task, reduction: Reduction, batches: &[Batch]) -> Result<f64> {
    let mut window = 0.0;
    for batch in batches {
        window += reduction.count(&loss_mask(task, batch)?)?;
    }
    Ok(window)
}

/// Candle cuts gradients without an error; a model that silently does not learn is worse than one
/// that stops.
fn check_coverage(vars: &[(String, Var)], grads: &candle_core::backprop::GradStore) -> Result<()> {
    let coverage = grad_coverage(vars, grads)?;
    if coverage.missing.is_empty() && coverage.non_finite.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(coverage.to_string()))
}

/// Indices in random order, every one once before any a second time.
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
