//! The steps of a run on a decoder: micro-batches, clipping, AdamW, the schedule, as TRL's trainers do
//! them.

use super::super::error::Result;
use super::super::world::World;
use super::super::world::parts::of_each;
use super::super::world::single::Single;
use super::objective::{Labels, Objective, Part, Reference, Rewards};
use super::order::{Step, Steps, parts};
use super::record::Record;
pub use super::settings::fit::Fit;
use super::update::Update;
use candle_align::decoder::Decoder;
use candle_align::ranking::RewardShift;
use candle_align::training::GradAccumulator;
use candle_core::{DType, Device, Tensor, Var};
use serde::Serialize;

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
    dropout: bool,
    objective: &'a Objective,
    reference: Reference,
    update: Update,
    shift: RewardShift,
    steps: Steps,
    last: usize,
    world: &'a dyn World,
    /// Whether a gradient reached every trained weight.
    checked: bool,
}

impl<'a> Fitting<'a> {
    /// `reference` is asked by DPO, and by SLiC's KL.
    pub fn new(
        decoder: &Decoder,
        objective: &'a Objective,
        reference: Reference,
        settings: &Fit,
    ) -> Result<Self> {
        let off = settings
            .disable_dropout
            .unwrap_or(objective.disables_dropout());
        Ok(Self {
            objective,
            reference,
            update: Update::new(decoder, settings)?,
            checked: false,
            shift: RewardShift::default(),
            steps: settings.steps_on(objective.len())?,
            last: settings.steps()?,
            settings: settings.clone(),
            dropout: !off,
            world: &Single,
        })
    }

    /// The same steps, of which each rank takes a part.
    pub fn shared_by(mut self, world: &'a dyn World) -> Self {
        self.world = world;
        self
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
        self.steps.from(first).take(self.last.saturating_sub(first))
    }

    /// What is trained, by name.
    pub fn vars(&self) -> &[(String, Var)] {
        self.update.vars()
    }

    pub fn update(&self) -> &Update {
        &self.update
    }

    /// What moves the weights, and BCO's δ.
    pub fn moved(&mut self) -> (&mut Update, Option<&mut RewardShift>) {
        let shift = self.objective.shifts().then_some(&mut self.shift);
        (&mut self.update, shift)
    }

    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The mean reward of all answers so far: BCO's δ.
    pub fn shift(&self) -> &RewardShift {
        &self.shift
    }

    /// The same, if steps move it.
    pub fn moving_shift(&self) -> Option<&RewardShift> {
        self.objective.shifts().then_some(&self.shift)
    }

    /// One step. Each rank takes a part of its rows; the update is that of all of them.
    pub fn step(&mut self, decoder: &mut Decoder, step: &Step) -> Result<Logged> {
        let (objective, most) = (self.objective, self.settings.max_tokens);
        let window = &step.micro_batches;
        let own = of_each(window, |row| objective.tokens(row), self.world);
        let mut total = GradAccumulator::new();
        let (mut record, mut given) = (Record::default(), Vec::new());
        // ranks draw other dropout
        let mut passes = (self.world.rank() as u64) << 10;
        for (at, (batch, own)) in window.iter().zip(own).enumerate() {
            let part = Part {
                batch,
                own: own.clone(),
                world: self.world,
            };
            let number = objective.given_to(decoder, &self.reference, &part, most, &self.shift)?;
            given.push(number);
            for rows in parts(&batch[own], most, |row| objective.tokens(row)) {
                let seed = self
                    .settings
                    .seed
                    .wrapping_add((step.step as u64) << 20)
                    .wrapping_add(passes);
                let seed = self.dropout.then_some(seed);
                let measured =
                    objective.loss_with(decoder, &self.reference, rows, window, seed, number)?;
                let grads = measured.loss.backward()?;
                let loss = measured.loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                if !self.checked {
                    self.checked = self.update.check_first(&grads, loss)?;
                }
                passes += 1;
                total.add(self.update.vars(), &grads)?;
                record.add(at, loss, &measured);
            }
        }
        let applied = self.update.apply(step.step, total, self.world)?;
        let record = record.of_all(self.world)?;
        if objective.shifts() {
            self.shift
                .update(&Tensor::new(record.judged(), &Device::Cpu)?)?;
        }
        Ok(Logged {
            step: step.step + 1,
            loss: record.loss,
            grad_norm: applied.grad_norm,
            learning_rate: applied.learning_rate,
            penalty: applied.penalty,
            rewards: record.rewards(window.len()),
            labels: record.labels(&given),
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
