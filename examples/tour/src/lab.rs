//! Shared by all methods: the world, the reference, the labeled pairs, and one training loop.

use super::methods::{BETA, SFT, Title};
use super::report::{CurvePoint, Entry};
use super::world::{
    Answer, Frontier, PROMPTS, PerAnswer, Policy, SYMBOLS, VOCABULARY, World, expectation, kl,
};
use super::{Options, Result};
use support::transformer::{Config, Transformer};
use candle_align::training::{AdamW, AdamWConfig, Decay, ParameterGroup, Schedule, clip_grad_norm};
use candle_align::{Reduction, SftConfig, Statistics, TokenLogProbs, sft_loss};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::sync::OnceLock;
use std::time::Instant;

/// The longest row that any method writes: Second Thoughts, three tokens taken out and three put in.
const LONGEST: usize = 29;

/// The sizes of a run.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The most tokens of an answer.
    pub tokens: usize,
    pub model: Config,
    /// Labeled pairs for training, and the same number for testing.
    pub pairs: usize,
    /// Answers per step of SFT.
    pub demonstrations: usize,
    /// Pairs per step, or half as many lists of four.
    pub batch: usize,
    pub sft_steps: usize,
    pub steps: usize,
    /// The same for methods that write more than an answer.
    pub chain_steps: usize,
    /// Answers per round of RAFT, before the selection.
    pub raft_answers: usize,
    /// Sampled chains per prompt, for policies that are estimated instead of summed.
    pub chains: usize,
    /// First drafts per prompt, over which the probability of a final answer is averaged.
    pub drafts: usize,
    /// Points of a training curve.
    pub points: usize,
    /// Steps of every point of the second picture.
    pub point_steps: usize,
    /// Pairs in each of them.
    pub point_batch: usize,
}

impl Sizes {
    pub fn standard() -> Self {
        Self {
            tokens: 4,
            model: Config {
                vocabulary: VOCABULARY,
                dim: 32,
                heads: 2,
                layers: 2,
                max_len: LONGEST,
                feed_forward: 96,
            },
            pairs: 65536,
            demonstrations: 256,
            batch: 128,
            sft_steps: 600,
            steps: 500,
            chain_steps: 400,
            raft_answers: 16384,
            chains: 128,
            drafts: 16,
            points: 8,
            point_steps: 120,
            point_batch: 64,
        }
    }

    pub fn quick() -> Self {
        let standard = Self::standard();
        Self {
            tokens: 3,
            model: Config {
                dim: 16,
                feed_forward: 32,
                ..standard.model
            },
            pairs: 4096,
            demonstrations: 64,
            batch: 32,
            sft_steps: 150,
            steps: 100,
            chain_steps: 300,
            raft_answers: 2048,
            chains: 64,
            drafts: 8,
            points: 4,
            point_steps: 40,
            point_batch: 32,
        }
    }
}

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

/// How a run is optimized: AdamW without decay, the gradient clipped at norm 1.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Optimisation {
    pub steps: usize,
    pub learning_rate: f64,
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
        let plan = Optimisation {
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

    /// The plan of a method, with the common number of steps.
    pub fn plan(&self, learning_rate: f64) -> Optimisation {
        Optimisation {
            steps: self.steps,
            learning_rate,
        }
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

    /// The share of held-out labels that a score agrees with.
    pub fn accuracy(&self, score: &PerAnswer) -> f64 {
        let of = |a: Answer| score[a.prompt][a.outcome];
        let right = self.held_out.iter().map(|c| {
            let margin = of(c.chosen) - of(c.rejected);
            if margin > 0.0 {
                1.0
            } else if margin == 0.0 {
                0.5
            } else {
                0.0
            }
        });
        right.sum::<f64>() / self.held_out.len() as f64
    }

    /// E r and KL(π‖π_ref) of a model, exactly.
    pub fn place(&self, model: &Transformer) -> Result<Option<Place>> {
        self.place_of(&self.world.tabulate(model)?)
    }

    /// Like [`Self::place`], for a table.
    pub fn place_of(&self, policy: &Policy) -> Result<Option<Place>> {
        let log_p = self.world.log_probs(policy);
        Ok(Some(Place {
            reward: expectation(&log_p, &self.world.rewards),
            kl: kl(&log_p, &self.reference_log_probs),
        }))
    }

    /// The common form of a method: start at the reference and minimize `loss` over all weights.
    pub fn run(
        &self,
        title: Title,
        settings: &impl Serialize,
        plan: Optimisation,
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
        plan: Optimisation,
        vars: Vec<(String, Var)>,
        bars: &MultiProgress,
        mut loss: impl FnMut(usize) -> Result<Tensor>,
        place: impl Fn(&Self) -> Result<Option<Place>>,
    ) -> Result<Vec<CurvePoint>> {
        let bar = bar(bars, name, plan.steps);
        let mut optimiser = Adam::new(plan, vars)?;
        let mut curve = Vec::new();
        let looks = looks(plan.steps, self.sizes.points);
        for step in 0..plan.steps {
            let loss = loss(step)?;
            if looks.contains(&step) {
                curve.push(point(step, Some(&loss), place(self)?)?);
            }
            optimiser.step(&loss)?;
            bar.inc(1);
        }
        curve.push(point(plan.steps, None, place(self)?)?);
        bar.finish();
        Ok(curve)
    }

    /// All numbers about one policy.
    pub fn entry(&self, ran: Ran, log_p: &PerAnswer, score: &PerAnswer) -> Entry {
        let frontier = self.frontier();
        let reward = expectation(log_p, &self.world.rewards);
        let moved = kl(log_p, &self.reference_log_probs);
        let best = frontier.at_kl(moved);
        // regret = b · KL(π‖π_b), with b the β of the frontier at the same KL
        let identity = match best.eta > 0.0 {
            true => kl(log_p, &frontier.policy(best.eta)) / best.eta,
            false => 0.0,
        };
        let total: f64 = log_p.iter().flatten().map(|l| l.exp()).sum();
        Entry {
            reward: Some(reward),
            kl: Some(moved),
            regret: Some(best.reward - reward),
            identity: Some(identity),
            win_rate: Some(self.world.win_rate(log_p, &self.reference_log_probs)),
            total: Some(total / log_p.len() as f64),
            accuracy: Some(self.accuracy(score)),
            ..Entry::of(ran)
        }
    }

    /// The largest E r − β·KL that any policy has, less this one's: β·KL(π‖π_β).
    pub fn shortfall(&self, log_p: &PerAnswer) -> f64 {
        BETA * kl(log_p, &self.frontier().policy(1.0 / BETA))
    }

    /// The entry of a policy that a method trained from the reference.
    pub fn policy_entry(&self, ran: Ran, model: &Transformer, score: Score) -> Result<Entry> {
        let log_p = self.world.log_probs(&self.world.tabulate(model)?);
        let scores = self.score(&log_p, score);
        Ok(self.entry(ran, &log_p, &scores))
    }

    pub fn score(&self, log_p: &PerAnswer, score: Score) -> PerAnswer {
        let of = |prompt: usize, outcome: usize| {
            let l = log_p[prompt][outcome];
            match score {
                Score::LogRatio => l - self.reference_log_probs[prompt][outcome],
                Score::Sum => l,
                Score::Mean => l / self.world.length(outcome) as f64,
            }
        };
        (0..PROMPTS)
            .map(|prompt| (0..self.world.outcomes()).map(|o| of(prompt, o)).collect())
            .collect()
    }
}

/// The place of a policy: E r, and KL to the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub reward: f64,
    pub kl: f64,
}

/// The results of a run besides its policy.
pub struct Ran {
    pub title: Title,
    pub settings: serde_json::Value,
    pub curve: Vec<CurvePoint>,
    /// The start of the run.
    pub start: Instant,
}

impl Ran {
    pub fn new(
        title: Title,
        settings: &impl Serialize,
        curve: Vec<CurvePoint>,
        start: Instant,
    ) -> Result<Self> {
        Ok(Self {
            title,
            settings: serde_json::to_value(settings)?,
            curve,
            start,
        })
    }
}

/// Settings of the reference.
#[derive(Serialize)]
struct SftSettings {
    loss: SftConfig,
    demonstrations_per_step: usize,
    #[serde(flatten)]
    plan: Optimisation,
}

/// The score by which a method ranks answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// log π − log π_ref.
    LogRatio,
    /// log π.
    Sum,
    /// log π per token.
    Mean,
}

/// AdamW with a warm-up, a cosine decay to a tenth, and a clipped gradient.
pub struct Adam {
    optimiser: AdamW,
    vars: Vec<(String, Var)>,
    schedule: Schedule,
    learning_rate: f64,
    step: usize,
}

impl Adam {
    pub fn new(plan: Optimisation, vars: Vec<(String, Var)>) -> Result<Self> {
        let settings = AdamWConfig {
            learning_rate: plan.learning_rate,
            beta2: 0.99,
            ..Default::default()
        };
        let warmup = (plan.steps / 20).min(20);
        let group = ParameterGroup::new(vars.clone(), 0.0);
        Ok(Self {
            optimiser: AdamW::new(vec![group], settings)?,
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
        self.optimiser.set_learning_rate(rate)?;
        self.optimiser.step(&grads)?;
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

/// A model's logits for the symbols of answers; the softmax excludes all other symbols.
pub fn answer_logits(model: &Transformer, tokens: &Tensor) -> Result<Tensor> {
    Ok(model.forward(tokens)?.logits.narrow(2, 0, SYMBOLS)?)
}

/// Token log-probabilities of rows of one length, and their logits. Nothing follows the last token,
/// so the model does not read it.
pub fn rows(
    model: &Transformer,
    tokens: &Tensor,
    mask: &Tensor,
) -> Result<(Tensor, TokenLogProbs)> {
    let time = tokens.dim(1)? - 1;
    let logits = answer_logits(model, &tokens.narrow(1, 0, time)?)?;
    let (targets, mask) = (tokens.narrow(1, 1, time)?, mask.narrow(1, 1, time)?);
    let log_probs = TokenLogProbs::aligned(&logits, &targets, &mask, Statistics::default())?;
    Ok((logits, log_probs))
}

/// Numbers of some answers from a table, f32 `[answers]`.
pub fn look_up(table: &PerAnswer, answers: &[Answer]) -> Result<Tensor> {
    let values: Vec<f32> = answers
        .iter()
        .map(|a| table[a.prompt][a.outcome] as f32)
        .collect();
    Ok(Tensor::from_vec(values, answers.len(), &Device::Cpu)?)
}

/// A progress bar that is drawn only on a terminal.
pub fn bar(bars: &MultiProgress, name: &str, steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>14} {bar:40} {pos:>5}/{len} {elapsed:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bars.add(ProgressBar::new(steps as u64))
        .with_style(style)
        .with_prefix(name.to_string())
}
