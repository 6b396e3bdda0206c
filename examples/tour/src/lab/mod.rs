//! Shared by all methods: the world, the reference, and the labeled pairs. Beside them: one training loop,
//! and the numbers of a trained policy.

mod numbers;
mod rows;
mod sizes;
mod training;

pub use numbers::{Place, Ran, Score};
pub use rows::{answer_logits, look_up, rows};
pub use sizes::Sizes;
pub use training::{Adam, Optimization, bar, looks, point};

use super::methods::SFT;
use super::report::Entry;
use super::world::{Answer, Frontier, PROMPTS, PerAnswer, Policy, World, expectation, kl};
use super::{Options, Result};
use candle_align::{Reduction, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{DType, Tensor};
use indicatif::MultiProgress;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::sync::OnceLock;
use std::time::Instant;
use support::transformer::Transformer;

/// A labeled comparison of two answers to one prompt.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    pub chosen: Answer,
    pub rejected: Answer,
}

/// The setting in which the methods are compared.
pub struct Lab {
    pub world: World,
    pub sizes: Sizes,
    pub seed: u64,
    pub steps: usize,
    pub chain_steps: usize,
    pub point_steps: usize,
    /// The SFT policy: every method starts from it, and the KL is measured from it.
    pub reference: Transformer,
    pub reference_policy: Policy,
    pub reference_log_probs: PerAnswer,
    pub pairs: Vec<Comparison>,
    pub held_out: Vec<Comparison>,
    /// The reward model once it is trained, or the reason why training failed.
    pub learned: OnceLock<std::result::Result<Learned, String>>,
}

/// A trained reward model.
pub struct Learned {
    /// Its score of every answer; the mean over the reference's answers is 0.
    pub scores: PerAnswer,
    /// The model, from which PPO's critic starts.
    pub model: super::methods::reward::Scorer,
}

/// A random generator for one purpose, so that leaving out a method does not change another.
pub fn generator(seed: u64, purpose: u64) -> StdRng {
    StdRng::seed_from_u64(
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(purpose),
    )
}

impl Lab {
    /// Draws the world, trains the reference on demonstrations, and labels pairs of its answers.
    pub fn new(sizes: Sizes, options: &Options, bars: &MultiProgress) -> Result<(Self, Entry)> {
        let start = Instant::now();
        let seed = options.seed;
        let world = World::new(sizes.tokens, &mut generator(seed, 1));
        let model = Transformer::new(&sizes.model, DType::F32, &mut generator(seed, 2))?;
        let mut lab = Self {
            steps: options.steps.unwrap_or(sizes.steps),
            chain_steps: options.steps.unwrap_or(sizes.chain_steps),
            point_steps: options.steps.unwrap_or(sizes.point_steps),
            reference: model.frozen()?,
            reference_policy: world.tabulate(&model)?,
            reference_log_probs: Vec::new(),
            pairs: Vec::new(),
            held_out: Vec::new(),
            learned: OnceLock::new(),
            seed,
            sizes,
            world,
        };
        let plan = Optimization {
            steps: options.steps.unwrap_or(lab.sizes.sft_steps),
            learning_rate: 1e-2,
        };

        // SFT on demonstrations that are drawn anew at every step, so they cannot be memorized.
        let demonstrated = lab.world.log_probs(&lab.world.demonstrations);
        let mut rng = generator(seed, 3);
        let curve = lab.train(
            SFT.label,
            plan,
            model.vars(),
            bars,
            |_| {
                let answers = lab.demonstrations(lab.sizes.demonstrations, &mut rng);
                let log_probs = lab.log_probs(&model, &answers)?;
                let loss = sft_loss(&log_probs, None, &SftConfig::default())?;
                Ok(loss.reduce(Reduction::SequenceMean)?)
            },
            |lab| {
                let log_p = lab.world.log_probs(&lab.world.tabulate(&model)?);
                Ok(Some(Place {
                    reward: expectation(&log_p, &lab.world.rewards),
                    kl: kl(&demonstrated, &log_p),
                }))
            },
        )?;
        lab.reference = model.frozen()?;
        lab.reference_policy = lab.world.tabulate(&lab.reference)?;
        lab.reference_log_probs = lab.world.log_probs(&lab.reference_policy);

        // Two different answers of the reference, and a label by Bradley–Terry.
        let mut rng = generator(seed, 4);
        lab.pairs = (0..lab.sizes.pairs)
            .map(|i| lab.compare(i, &mut rng))
            .collect();
        lab.held_out = (0..lab.sizes.pairs)
            .map(|i| lab.compare(i, &mut rng))
            .collect();

        let settings = SftSettings {
            loss: SftConfig::default(),
            demonstrations_per_step: lab.sizes.demonstrations,
            plan,
        };
        let ran = Ran::new(SFT, &settings, curve, start)?;
        let log_p = &lab.reference_log_probs;
        let mut entry = lab.entry(ran, log_p, log_p);
        entry.note = "the reference; its curve shows KL(demonstrations‖policy)".into();
        Ok((lab, entry))
    }

    fn compare(&self, i: usize, rng: &mut StdRng) -> Comparison {
        let prompt = i % PROMPTS;
        let one = self.world.sample(&self.reference_policy, prompt, rng);
        let other = loop {
            let other = self.world.sample(&self.reference_policy, prompt, rng);
            if other != one {
                break other;
            }
        };
        let margin = self.reward(one) - self.reward(other);
        match rng.random::<f64>() < 1.0 / (1.0 + (-margin).exp()) {
            true => Comparison {
                chosen: one,
                rejected: other,
            },
            false => Comparison {
                chosen: other,
                rejected: one,
            },
        }
    }

    pub fn reward(&self, answer: Answer) -> f64 {
        self.world.rewards[answer.prompt][answer.outcome]
    }

    /// P(an answer of the reference has a smaller reward) + ½ P(an equal one).
    pub fn beats_reference(&self, answer: Answer) -> f64 {
        let reward = self.reward(answer);
        let others = self.world.rewards[answer.prompt].iter();
        let log_p = &self.reference_log_probs[answer.prompt];
        let counted = others.zip(log_p).map(|(&other, l)| {
            let counts = match reward.total_cmp(&other) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
            counts * l.exp()
        });
        counted.sum()
    }

    pub fn frontier(&self) -> Frontier<'_> {
        Frontier {
            reference: &self.reference_log_probs,
            rewards: &self.world.rewards,
        }
    }

    /// Token log-probabilities of answers under a model, one row each.
    pub fn log_probs(&self, model: &Transformer, answers: &[Answer]) -> Result<TokenLogProbs> {
        let (tokens, mask) = self.world.batch(answers)?;
        Ok(rows(model, &tokens, &mask)?.1)
    }

    /// One answer of the reference.
    pub fn draw(&self, prompt: usize, rng: &mut StdRng) -> Answer {
        self.world.sample(&self.reference_policy, prompt, rng)
    }

    /// Demonstrations for a second term of a loss.
    pub fn demonstrations(&self, count: usize, rng: &mut StdRng) -> Vec<Answer> {
        let prompt = |i| i % PROMPTS;
        (0..count)
            .map(|i| {
                self.world
                    .sample(&self.world.demonstrations, prompt(i), rng)
            })
            .collect()
    }

    /// log π_ref of whole answers, from the table: `[answers]`.
    pub fn reference_sums(&self, answers: &[Answer]) -> Result<Tensor> {
        look_up(&self.reference_log_probs, answers)
    }

    /// Some of the labeled pairs: first all preferred answers, then all others.
    pub fn pair_batch(&self, rng: &mut StdRng) -> Vec<Answer> {
        self.some_pairs(self.sizes.batch, rng)
    }

    /// This number of labeled pairs.
    pub fn some_pairs(&self, count: usize, rng: &mut StdRng) -> Vec<Answer> {
        let some: Vec<Comparison> = (0..count)
            .map(|_| self.pairs[rng.random_range(0..self.pairs.len())])
            .collect();
        let chosen = some.iter().map(|c| c.chosen);
        chosen.chain(some.iter().map(|c| c.rejected)).collect()
    }
}

/// Settings of the reference.
#[derive(Serialize)]
struct SftSettings {
    loss: SftConfig,
    demonstrations_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}
