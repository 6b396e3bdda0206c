//! One point: DPO with only these parameters trained, and its result.

use super::{Family, Point};
use crate::Result;
use crate::lab::{Adam, Lab, Optimization, Ran, Score, bar, generator, looks, point as look};
use crate::methods::pairs::{DPO_PAIRS, dpo_config, dpo_step};
use crate::report::Entry;
use candle_align::DpoConfig;
use candle_align::parameter_efficient::{
    AdaLoraLinear, Orthogonality, RankAllocator, RankAllocatorConfig, orthogonality_penalty,
};
use candle_core::Var;
use indicatif::MultiProgress;
use serde::Serialize;
use std::time::Instant;
use support::adapters::{Adapted, AdapterSettings, adapt};
use support::transformer::Transformer;

/// The result of a point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placed {
    pub method: Family,
    /// Rank, length or width; none if the method has no size.
    pub size: Option<usize>,
    /// The number of trained parameters.
    pub trained: usize,
    /// How many triplets AdaLoRA left; none under the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<usize>,
    /// How far E r − β·KL falls below its maximum: β·KL(π‖π_β), the distance to the optimum of DPO.
    pub shortfall: f64,
    #[serde(flatten)]
    pub entry: Entry,
}

#[derive(Serialize)]
struct PointSettings<'a> {
    loss: DpoConfig,
    adapter: Option<&'a AdapterSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<&'a Budget>,
    pairs_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// What AdaLoRA adds to a loss.
#[derive(Serialize)]
struct Budget {
    orthogonality: f64,
    form: Orthogonality,
    schedule: RankAllocatorConfig,
}

/// The trained parameters, and their model.
enum Learner {
    Everything(Transformer),
    Part(Adapted),
}

impl Learner {
    fn new(lab: &Lab, point: Point, adapter: Option<&AdapterSettings>) -> Result<Self> {
        Ok(match adapter {
            None => Self::Everything(lab.reference.trainable()?),
            Some(adapter) => {
                let mut init = generator(lab.seed, point.purpose());
                Self::Part(adapt(&lab.reference, adapter, &mut init)?)
            }
        })
    }

    fn model(&self) -> &Transformer {
        match self {
            Self::Everything(model) => model,
            Self::Part(adapted) => &adapted.model,
        }
    }

    fn vars(&self) -> Vec<(String, Var)> {
        match self {
            Self::Everything(model) => model.vars(),
            Self::Part(adapted) => adapted.vars(),
        }
    }

    /// AdaLoRA's layers; none under the others.
    fn triplets(&self) -> &[(String, AdaLoraLinear)] {
        match self {
            Self::Everything(_) => &[],
            Self::Part(adapted) => adapted.triplets(),
        }
    }
}

impl Budget {
    /// The paper's schedule: some steps to warm up, and some for the final ranks.
    fn new(point: Point, steps: usize) -> Option<Self> {
        let schedule = RankAllocatorConfig {
            target_rank: point.size,
            initial_steps: steps / 10,
            final_steps: steps / 2,
            interval: (steps / 40).max(1),
            total_steps: steps,
            ..Default::default()
        };
        (point.family == Family::AdaLora).then_some(Self {
            orthogonality: 0.1,
            form: Orthogonality::NormMean,
            schedule,
        })
    }
}

/// Trains one point on the batches that all points share.
pub fn run(point: Point, lab: &Lab, bars: &MultiProgress) -> Result<Placed> {
    let start = Instant::now();
    let adapter = point.adapter();
    let learner = Learner::new(lab, point, adapter.as_ref())?;
    let model = learner.model();
    let plan = Optimization {
        steps: lab.point_steps,
        learning_rate: point.family.learning_rate(),
    };
    let budget = Budget::new(point, plan.steps);
    let mut allocator = match &budget {
        Some(budget) => Some(RankAllocator::new(learner.triplets(), &budget.schedule)?),
        None => None,
    };
    let triplets: Vec<&AdaLoraLinear> = learner.triplets().iter().map(|(_, l)| l).collect();

    let label = point.label();
    let bar = bar(bars, &label, plan.steps);
    let mut optimizer = Adam::new(plan, learner.vars())?;
    let mut rng = generator(lab.seed, DPO_PAIRS);
    let mut curve = Vec::new();
    let looks = looks(plan.steps, lab.sizes.points);
    for step in 0..plan.steps {
        let pairs = lab.some_pairs(lab.sizes.point_batch, &mut rng);
        let dpo = dpo_step(lab, model, &pairs)?;
        if looks.contains(&step) {
            curve.push(look(step, Some(&dpo), None)?);
        }
        let loss = match &budget {
            Some(b) => (dpo + (orthogonality_penalty(&triplets, b.form)? * b.orthogonality)?)?,
            None => dpo,
        };
        let grads = optimizer.step(&loss)?;
        if let Some(allocator) = &mut allocator {
            allocator.update(step, &grads)?;
        }
        bar.inc(1);
    }
    bar.finish();

    let settings = PointSettings {
        loss: dpo_config(),
        adapter: adapter.as_ref(),
        budget: budget.as_ref(),
        pairs_per_step: lab.sizes.point_batch,
        plan,
    };
    let ran = Ran::new(point.family.title(), &settings, curve, start)?;
    let log_p = lab.world.log_probs(&lab.world.tabulate(model)?);
    let mut entry = lab.entry(ran, &log_p, &lab.score(&log_p, Score::LogRatio));
    (entry.name, entry.label) = (point.name(), label);
    let left = allocator.map(|allocator| {
        let kept = allocator.kept().into_iter().flat_map(|(_, kept)| kept);
        kept.filter(|kept| *kept).count()
    });
    if let Some(left) = left {
        entry.note = format!("{left} of its triplets are left");
    }
    let vars = learner.vars();
    Ok(Placed {
        method: point.family,
        size: point.family.unit().map(|_| point.size),
        trained: vars.iter().map(|(_, var)| var.elem_count()).sum(),
        left,
        shortfall: lab.shortfall(&log_p),
        entry,
    })
}
