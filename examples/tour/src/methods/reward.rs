//! The reward model: one number per answer, from the labeled pairs.

use super::REWARD_MODEL;
use crate::Result;
use crate::lab::{Lab, Learned, Optimization, Ran, generator};
use crate::report::Entry;
use crate::world::{Answer, PerAnswer, expectation};
use candle_align::online::reward_head::RewardHead;
use candle_align::{Pair, PairwiseRewardConfig, pairwise_reward_loss};
use candle_core::{DType, Device, Tensor, Var};
use indicatif::MultiProgress;
use serde::Serialize;
use std::time::Instant;
use support::transformer::Transformer;

#[derive(Serialize)]
struct RewardSettings {
    loss: PairwiseRewardConfig,
    pairs_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// A body and a head that scores.
pub struct Scorer {
    pub body: Transformer,
    pub head: RewardHead,
}

impl Scorer {
    pub fn vars(&self) -> Vec<(String, Var)> {
        let mut vars = self.body.vars();
        // The output layer of the language model is not used for scores.
        vars.retain(|(name, _)| name != "head.weight");
        vars.extend(self.head.trainable());
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// A copy with its own variables.
    pub fn trainable(&self) -> Result<Self> {
        Ok(Self {
            body: self.body.trainable()?,
            head: RewardHead::from_tensors(self.head.weight(), self.head.bias())?,
        })
    }

    /// The score of each answer, read at its last token: `[answers]`.
    pub fn scores(&self, lab: &Lab, answers: &[Answer]) -> Result<Tensor> {
        let (tokens, mask) = lab.world.batch(answers)?;
        Ok(self.head.forward(&self.body.hidden(&tokens)?, &mask)?)
    }

    /// The scores of all answers of the world.
    fn tabulate(&self, lab: &Lab) -> Result<PerAnswer> {
        let mut scores = Vec::new();
        for chunk in lab.world.answers().chunks(lab.world.outcomes()) {
            let chunk = self.scores(lab, chunk)?.detach().to_dtype(DType::F64)?;
            scores.push(chunk.to_vec1()?);
        }
        Ok(scores)
    }
}

impl Lab {
    /// Trains the reward model and stores it for the methods that wait for it.
    pub fn train_reward_model(&self, bars: &MultiProgress) -> Result<Entry> {
        let trained = self.trained_reward_model(bars);
        let (entry, kept) = match trained {
            Ok((entry, learned)) => (Ok(entry), Ok(learned)),
            Err(error) => {
                let message = format!("the reward model was not trained: {error}");
                (Err(error), Err(message))
            }
        };
        // Trained once per run, so the cell is empty.
        let _ = self.learned.set(kept);
        entry
    }

    fn trained_reward_model(&self, bars: &MultiProgress) -> Result<(Entry, Learned)> {
        let start = Instant::now();
        let head = RewardHead::new(
            self.sizes.model.dim,
            &mut generator(self.seed, 20),
            DType::F32,
            &Device::Cpu,
        )?;
        let scorer = Scorer {
            body: self.reference.trainable()?,
            head,
        };
        let plan = self.plan(6e-3);
        let config = PairwiseRewardConfig::default();
        let mut rng = generator(self.seed, 21);
        let curve = self.train(
            REWARD_MODEL.label,
            plan,
            scorer.vars(),
            bars,
            |_| {
                let scores = scorer.scores(self, &self.pair_batch(&mut rng))?;
                let loss = pairwise_reward_loss(&Pair::from_rows(&scores)?, None, &config)?.loss;
                Ok(loss.mean_all()?)
            },
            |_| Ok(None),
        )?;

        // Only differences of scores are learned, so the mean over the reference's answers is set to 0.
        let mut scores = scorer.tabulate(self)?;
        let mean = expectation(&self.reference_log_probs, &scores);
        scores.iter_mut().flatten().for_each(|s| *s -= mean);

        let settings = RewardSettings {
            loss: config,
            pairs_per_step: self.sizes.batch,
            plan,
        };
        let ran = Ran::new(REWARD_MODEL, &settings, curve, start)?;
        let entry = Entry {
            accuracy: Some(self.accuracy(&scores)),
            note: format!(
                "correlation with the true reward among the reference's answers: {:.3}",
                self.correlation(&scores)
            ),
            ..Entry::of(ran)
        };
        let learned = Learned {
            scores,
            model: scorer,
        };
        Ok((entry, learned))
    }

    /// The reward model, if it was trained.
    pub fn learned(&self) -> Result<&Learned> {
        match self.learned.get() {
            Some(Ok(learned)) => Ok(learned),
            Some(Err(message)) => Err(message.as_str().into()),
            None => Err("no reward model was requested".into()),
        }
    }

    /// The reward model; waits until it is trained.
    pub fn wait_for_learned(&self) -> Result<&Learned> {
        self.learned.wait();
        self.learned()
    }

    /// The correlation of a score with the true reward, within prompts, weighted by the reference.
    pub fn correlation(&self, scores: &PerAnswer) -> f64 {
        let (mut both, mut one, mut other) = (0.0, 0.0, 0.0);
        for (prompt, log_p) in self.reference_log_probs.iter().enumerate() {
            let p: Vec<f64> = log_p.iter().map(|l| l.exp()).collect();
            let centered = |x: &[f64]| -> Vec<f64> {
                let mean: f64 = x.iter().zip(&p).map(|(x, p)| x * p).sum();
                x.iter().map(|x| x - mean).collect()
            };
            let (s, r) = (
                centered(&scores[prompt]),
                centered(&self.world.rewards[prompt]),
            );
            for ((s, r), p) in s.iter().zip(&r).zip(&p) {
                both += p * s * r;
                one += p * s * s;
                other += p * r * r;
            }
        }
        both / (one * other).sqrt()
    }
}
