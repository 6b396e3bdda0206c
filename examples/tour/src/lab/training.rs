//! One training loop for all methods.

use super::{Lab, Place, Ran, Score};
use crate::Result;
use crate::methods::Title;
use crate::report::{CurvePoint, Entry};
use candle_align::training::{AdamW, AdamWConfig, Decay, ParameterGroup, Schedule, clip_grad_norm};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::time::Instant;
use support::transformer::Transformer;

/// How a run is optimized: AdamW without decay, the gradient clipped at norm 1.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Optimization {
    pub steps: usize,
    pub learning_rate: f64,
}

impl Lab {
    /// The plan of a method, with the common number of steps.
    pub fn plan(&self, learning_rate: f64) -> Optimization {
        Optimization {
            steps: self.steps,
            learning_rate,
        }
    }

    /// The common form of a method: start at the reference and minimize `loss` over all weights.
    pub fn run(
        &self,
        title: Title,
        settings: &impl Serialize,
        plan: Optimization,
        bars: &MultiProgress,
        score: Score,
        mut loss: impl FnMut(&Transformer, usize) -> Result<Tensor>,
    ) -> Result<Entry> {
        let start = Instant::now();
        let policy = self.reference.trainable()?;
        let curve = self.train(
            title.label,
            plan,
            policy.vars(),
            bars,
            |step| loss(&policy, step),
            |lab| lab.place(&policy),
        )?;
        self.policy_entry(Ran::new(title, settings, curve, start)?, &policy, score)
    }

    /// `plan.steps` optimizer steps on `loss`; `place` evaluates the policy.
    pub fn train(
        &self,
        name: &str,
        plan: Optimization,
        vars: Vec<(String, Var)>,
        bars: &MultiProgress,
        mut loss: impl FnMut(usize) -> Result<Tensor>,
        place: impl Fn(&Self) -> Result<Option<Place>>,
    ) -> Result<Vec<CurvePoint>> {
        let bar = bar(bars, name, plan.steps);
        let mut optimizer = Adam::new(plan, vars)?;
        let mut curve = Vec::new();
        let looks = looks(plan.steps, self.sizes.points);
        for step in 0..plan.steps {
            let loss = loss(step)?;
            if looks.contains(&step) {
                curve.push(point(step, Some(&loss), place(self)?)?);
            }
            optimizer.step(&loss)?;
            bar.inc(1);
        }
        curve.push(point(plan.steps, None, place(self)?)?);
        bar.finish();
        Ok(curve)
    }
}

/// AdamW with a warm-up, a cosine decay to a tenth, and a clipped gradient.
pub struct Adam {
    optimizer: AdamW,
    vars: Vec<(String, Var)>,
    schedule: Schedule,
    learning_rate: f64,
    step: usize,
}

impl Adam {
    pub fn new(plan: Optimization, vars: Vec<(String, Var)>) -> Result<Self> {
        let settings = AdamWConfig {
            learning_rate: plan.learning_rate,
            beta2: 0.99,
            ..Default::default()
        };
        let warmup = (plan.steps / 20).min(20);
        let group = ParameterGroup::new(vars.clone(), 0.0);
        Ok(Self {
            optimizer: AdamW::new(vec![group], settings)?,
            vars,
            schedule: Schedule::new(plan.steps, warmup, Decay::Cosine, 0.05)?,
            learning_rate: plan.learning_rate,
            step: 0,
        })
    }

    /// Takes one step and returns its gradients.
    pub fn step(&mut self, loss: &Tensor) -> Result<GradStore> {
        let mut grads = loss.backward()?;
        clip_grad_norm(&self.vars, &mut grads, 1.0)?;
        let rate = self.learning_rate * self.schedule.factor(self.step);
        self.optimizer.set_learning_rate(rate)?;
        self.optimizer.step(&grads)?;
        self.step += 1;
        Ok(grads)
    }
}

/// The steps before which the policy is evaluated: closer together at the start, where it moves
/// fastest.
pub fn looks(steps: usize, points: usize) -> Vec<usize> {
    (0..points)
        .map(|i| (steps * i * i).div_ceil(points * points))
        .collect()
}

pub fn point(step: usize, loss: Option<&Tensor>, place: Option<Place>) -> Result<CurvePoint> {
    let loss = match loss {
        Some(loss) => Some(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?),
        None => None,
    };
    Ok(CurvePoint {
        step,
        loss,
        reward: place.map(|p| p.reward),
        kl: place.map(|p| p.kl),
    })
}

/// A progress bar that is drawn only on a terminal.
pub fn bar(bars: &MultiProgress, name: &str, steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>14} {bar:40} {pos:>5}/{len} {elapsed:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bars.add(ProgressBar::new(steps as u64))
        .with_style(style)
        .with_prefix(name.to_string())
}
