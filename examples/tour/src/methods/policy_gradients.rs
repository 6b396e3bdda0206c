//! Policy gradients since the survey (`--since`): PPO's successors without a critic.
//!
//! Each round draws the same number of answers of the policy to every prompt. The learned reward scores them, and
//! [`EPOCHS`] steps are taken on them. Everything else is as each paper has it, but β = ½ where there is a KL, as for
//! PPO:
//!
//! | method | an answer is judged by | ratio of | KL to the reference | its optimum here |
//! |---|---|---|---|---|
//! | RLOO | the mean of the others | the answer, its sum | k₁ in the reward | π_ref · e^(r̂/β), as PPO's |
//! | GRPO | the group's mean and deviation | the token | k₃ in the loss | none in closed form |
//! | Dr. GRPO | the group's mean | the token | none | the best answers alone, by r̂ |
//! | GSPO | the group's mean and deviation | the answer, its geometric mean | none | the same |
//! | CISPO | the group's mean and deviation | the token, as a weight | none | the same |
//! | REINFORCE++ | all tokens of the batch | the token | k₁ in the reward of each token | π_ref · e^(r̂/β) |
//!
//! GRPO's β counts in deviations of a group. They shrink as the policy settles, and the price of the KL with them.

use super::ppo::{EPOCHS, generate};
use super::{BETA, Section, Title};
use crate::Result;
use crate::lab::{
    Adam, Lab, Optimization, Ran, Score, bar, generator, look_up, looks, point, rows,
};
use crate::report::Entry;
use crate::world::PROMPTS;
use candle_align::online::group_advantages::*;
use candle_align::online::policy_gradient::*;
use candle_align::online::raft::kl_adjusted_rewards;
use candle_align::online::ratio::RatioLevel;
use candle_align::{
    KlEstimator, RaftConfig, Reduction, ShapedRewardsConfig, TokenLogProbs, kl_loss, shaped_rewards,
};
use candle_core::Tensor;
use indicatif::MultiProgress;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Instant;

/// The random numbers of the answers: the same for all.
const ANSWERS: u64 = 51;

/// A policy gradient since the survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyGradient {
    Rloo,
    Grpo,
    DrGrpo,
    Gspo,
    Cispo,
    ReinforcePlusPlus,
}

/// Where the KL to the reference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kl {
    InReward,
    InLoss,
    Nowhere,
}

impl PolicyGradient {
    /// In the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Rloo,
        Self::Grpo,
        Self::DrGrpo,
        Self::Gspo,
        Self::Cispo,
        Self::ReinforcePlusPlus,
    ];

    pub fn title(self) -> Title {
        let (name, label) = match self {
            Self::Rloo => ("rloo", "RLOO"),
            Self::Grpo => ("grpo", "GRPO"),
            Self::DrGrpo => ("dr-grpo", "Dr. GRPO"),
            Self::Gspo => ("gspo", "GSPO"),
            Self::Cispo => ("cispo", "CISPO"),
            Self::ReinforcePlusPlus => ("reinforce-plus-plus", "REINFORCE++"),
        };
        Title {
            name,
            label,
            section: Section::Online,
        }
    }

    pub fn kl(self) -> Kl {
        match self {
            Self::Rloo | Self::ReinforcePlusPlus => Kl::InReward,
            Self::Grpo => Kl::InLoss,
            Self::DrGrpo | Self::Gspo | Self::Cispo => Kl::Nowhere,
        }
    }

    pub fn run(self, lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
        let learned = lab.wait_for_learned()?;
        let (start, title) = (Instant::now(), self.title());
        let policy = lab.reference.trainable()?;
        let plan = lab.plan(6e-3);
        let rounds = plan.steps.div_ceil(EPOCHS);
        let count = (2 * lab.sizes.batch).next_multiple_of(PROMPTS);
        let mut rng = generator(lab.seed, ANSWERS);
        let mut optimizer = Adam::new(plan, policy.vars())?;
        let bar = bar(bars, title.label, rounds);
        let looks = looks(rounds, lab.sizes.points);
        let mut curve = Vec::new();
        for round in 0..rounds {
            let answers = generate(lab, &policy, count, &mut rng)?;
            let (tokens, mask) = lab.world.batch(&answers)?;
            let drawn = Drawn {
                old: rows(&policy, &tokens, &mask)?.1.detach(),
                reference: rows(&lab.reference, &tokens, &mask)?.1.detach(),
                scores: look_up(&learned.scores, &answers)?,
                most: count * lab.world.tokens,
            };
            let advantages = self.advantages(&drawn)?;
            for epoch in 0..EPOCHS.min(plan.steps - round * EPOCHS) {
                let new = rows(&policy, &tokens, &mask)?.1;
                let loss = self.loss(&new, &drawn, &advantages)?;
                if epoch == 0 && looks.contains(&round) {
                    curve.push(point(round * EPOCHS, Some(&loss), lab.place(&policy)?)?);
                }
                optimizer.step(&loss)?;
            }
            bar.inc(1);
        }
        curve.push(point(plan.steps, None, lab.place(&policy)?)?);
        bar.finish();
        let settings = Settings {
            method: self.settings(),
            answers_to_a_prompt: count / PROMPTS,
            steps_per_round: EPOCHS,
            plan,
        };
        let ran = Ran::new(title, &settings, curve, start)?;
        lab.policy_entry(ran, &policy, Score::LogRatio)
    }

    /// Of each answer `[answers]`, or of each token `[answers, time]`.
    fn advantages(self, drawn: &Drawn) -> candle_align::Result<Tensor> {
        let scores = of_prompts(&drawn.scores)?;
        match self {
            Self::Rloo => {
                let sums = |x: &TokenLogProbs| of_prompts(&x.sum()?);
                let (old, reference) = (sums(&drawn.old)?, sums(&drawn.reference)?);
                let rewards = kl_adjusted_rewards(&scores, &old, &reference, &price())?;
                of_answers(&rloo_advantages(&rewards, None)?)
            }
            Self::ReinforcePlusPlus => {
                let (old, reference) = (&drawn.old, drawn.reference.values());
                let rewards = shaped_rewards(old, reference, &drawn.scores, &token_price())?;
                reinforce_plus_plus_advantages(&rewards, old.mask(), &Default::default())
            }
            _ => of_answers(&grpo_advantages(&scores, None, &self.advantage_config())?),
        }
    }

    fn advantage_config(self) -> GrpoAdvantageConfig {
        GrpoAdvantageConfig {
            deviation: match self {
                Self::DrGrpo => Deviation::None,
                _ => Deviation::Group,
            },
            ..Default::default()
        }
    }

    fn loss(
        self,
        new: &TokenLogProbs,
        drawn: &Drawn,
        advantages: &Tensor,
    ) -> candle_align::Result<Tensor> {
        let old = drawn.old.values();
        let loss = match self {
            Self::Gspo => gspo_loss(new, old, advantages, &GspoConfig::default())?,
            Self::Cispo => cispo_loss(new, old, advantages, &CispoConfig::default())?,
            _ => grpo_loss(new, old, advantages, &self.clip())?,
        };
        let loss = loss.loss.reduce(self.reduction(drawn.most))?;
        match self {
            Self::Grpo => {
                let kl = kl_loss(new, drawn.reference.values(), KlEstimator::K3)?;
                let kl = kl.reduce(self.reduction(drawn.most))?;
                Ok((loss + (kl * BETA)?)?)
            }
            _ => Ok(loss),
        }
    }

    /// The clip of those that share PPO's.
    fn clip(self) -> GrpoConfig {
        GrpoConfig {
            level: match self {
                Self::Rloo => RatioLevel::SequenceSum,
                _ => RatioLevel::Token,
            },
            ..Default::default()
        }
    }

    /// Dr. GRPO divides by a constant, the most tokens that the answers could have.
    fn reduction(self, most: usize) -> Reduction {
        match self {
            Self::DrGrpo => Reduction::SumOver { count: most as f64 },
            Self::Cispo | Self::ReinforcePlusPlus => Reduction::TokenMean,
            Self::Rloo | Self::Grpo | Self::Gspo => Reduction::MeanOfSequenceMeans,
        }
    }

    fn settings(self) -> Value {
        let loss = match self {
            Self::Gspo => json!(GspoConfig::default()),
            Self::Cispo => json!(CispoConfig::default()),
            _ => json!(self.clip()),
        };
        let advantages = match self {
            Self::Rloo => json!("leave one out"),
            Self::ReinforcePlusPlus => json!(ReinforcePlusPlusConfig::default()),
            _ => json!(self.advantage_config()),
        };
        let kl = match self.kl() {
            Kl::InReward if self == Self::Rloo => json!({"in_the_reward": price()}),
            Kl::InReward => json!({"in_the_reward": token_price()}),
            Kl::InLoss => json!({"in_the_loss": {"beta": BETA, "estimator": KlEstimator::K3}}),
            Kl::Nowhere => json!("none"),
        };
        json!({"loss": loss, "advantages": advantages, "kl": kl})
    }
}

/// β of whole answers.
fn price() -> RaftConfig {
    RaftConfig { beta: BETA }
}

/// β of each token.
fn token_price() -> ShapedRewardsConfig {
    ShapedRewardsConfig {
        beta: BETA,
        ..Default::default()
    }
}

#[derive(Serialize)]
struct Settings {
    #[serde(flatten)]
    method: Value,
    answers_to_a_prompt: usize,
    steps_per_round: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// The answers of a round.
struct Drawn {
    old: TokenLogProbs,
    reference: TokenLogProbs,
    scores: Tensor,
    /// The most tokens that these answers could have.
    most: usize,
}

/// `[prompts, answers to each]` of `[answers]`, where answer i is to prompt i modulo their number.
pub fn of_prompts(x: &Tensor) -> candle_align::Result<Tensor> {
    let answers = x.dim(0)? / PROMPTS;
    Ok(x.reshape((answers, PROMPTS))?.t()?.contiguous()?)
}

/// And back.
pub fn of_answers(x: &Tensor) -> candle_align::Result<Tensor> {
    Ok(x.t()?.contiguous()?.flatten_all()?)
}
