//! PPO: answers of the current policy, scored by the reward model, with the KL in the reward.

use super::reward::Scorer;
use super::{BETA, Title};
use crate::Result;
use crate::lab::{
    Adam, Lab, Optimization, Ran, Score, answer_logits, bar, generator, look_up, looks, point, rows,
};
use crate::report::Entry;
use crate::world::{Answer, END, PROMPTS, choose, log_softmax};
use candle_align::{Reduction, RlhfConfig, Rollout, rlhf_loss};
use candle_core::{DType, Device, Tensor};
use indicatif::MultiProgress;
use rand::rngs::StdRng;
use serde::Serialize;
use std::time::Instant;
use support::transformer::Transformer;

/// Optimizer steps on each set of answers.
pub const EPOCHS: usize = 4;

#[derive(Serialize)]
struct PpoSettings<'a> {
    loss: &'a RlhfConfig,
    answers_per_round: usize,
    steps_per_round: usize,
    #[serde(flatten)]
    plan: Optimization,
}

pub fn run(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let learned = lab.wait_for_learned()?;
    let start = Instant::now();
    let policy = lab.reference.trainable()?;
    // The critic starts as the reward model, as in InstructGPT.
    let critic = learned.model.trainable()?;
    let plan = lab.plan(6e-3);
    let rounds = plan.steps.div_ceil(EPOCHS);
    let answers_per_round = lab.sizes.batch * 2;
    let mut config = RlhfConfig::default();
    config.experience.rewards.beta = BETA;
    config.experience.reward_whitening = None;
    config.value_weight = 1.0;

    let mut rng = generator(lab.seed, 14);
    let mut policy_optimizer = Adam::new(plan, policy.vars())?;
    let mut critic_optimizer = Adam::new(plan, critic.vars())?;
    let bar = bar(bars, title.label, rounds);
    let looks = looks(rounds, lab.sizes.points);
    let mut curve = Vec::new();
    for round in 0..rounds {
        // The policy answers, the reward model scores, and each token pays its KL penalty.
        let answers = generate(lab, &policy, answers_per_round, &mut rng)?;
        let (tokens, mask) = lab.world.batch(&answers)?;
        let rollout = Rollout {
            old: rows(&policy, &tokens, &mask)?.1.detach(),
            reference: rows(&lab.reference, &tokens, &mask)?.1.values().detach(),
            values: values(&critic, &tokens)?.detach(),
            scores: look_up(&learned.scores, &answers)?,
            ended: None,
        };
        let experience = rollout.experience(&config.experience)?;

        for epoch in 0..EPOCHS {
            if round * EPOCHS + epoch == plan.steps {
                break;
            }
            let (_, new) = rows(&policy, &tokens, &mask)?;
            let out = rlhf_loss(&new, &values(&critic, &tokens)?, &experience, &config)?;
            // Policy and critic share no weights; each has its own optimizer and loss.
            let loss = out.policy.loss.reduce(Reduction::TokenMean)?;
            if epoch == 0 && looks.contains(&round) {
                curve.push(point(round * EPOCHS, Some(&loss), lab.place(&policy)?)?);
            }
            policy_optimizer.step(&loss)?;
            critic_optimizer.step(&out.value.reduce(Reduction::TokenMean)?)?;
        }
        bar.inc(1);
    }
    curve.push(point(plan.steps, None, lab.place(&policy)?)?);
    bar.finish();
    let settings = PpoSettings {
        loss: &config,
        answers_per_round,
        steps_per_round: EPOCHS,
        plan,
    };
    let ran = Ran::new(title, &settings, curve, start)?;
    lab.policy_entry(ran, &policy, Score::LogRatio)
}

/// V(sₜ) beside each log-probability: what the critic expects before the token is written.
fn values(critic: &Scorer, tokens: &Tensor) -> Result<Tensor> {
    let before = tokens.narrow(1, 0, tokens.dim(1)? - 1)?;
    let hidden = critic.body.hidden(&before)?;
    let (batch, time, dim) = hidden.dims3()?;
    Ok(hidden
        .reshape((batch * time, dim))?
        .matmul(&critic.head.weight().t()?)?
        .reshape((batch, time))?)
}

/// Answers of the policy; all rows advance by one token at a time.
pub fn generate(
    lab: &Lab,
    policy: &Transformer,
    count: usize,
    rng: &mut StdRng,
) -> Result<Vec<Answer>> {
    let prompts: Vec<usize> = (0..count).map(|i| i % PROMPTS).collect();
    let mut rows: Vec<Vec<u32>> = prompts
        .iter()
        .map(|&p| lab.world.prompt(p).to_vec())
        .collect();
    let mut content = vec![Vec::new(); count];
    let mut ended = vec![false; count];
    for _ in 0..lab.world.tokens {
        let time = rows[0].len();
        let tokens = Tensor::from_vec(rows.concat(), (count, time), &Device::Cpu)?;
        let logits = answer_logits(policy, &tokens)?.detach();
        let last = logits
            .narrow(1, time - 1, 1)?
            .squeeze(1)?
            .to_dtype(DType::F64)?
            .to_vec2::<f64>()?;
        for i in 0..count {
            // Drawn for finished rows too, so that each row's random numbers do not depend on the others.
            let symbol = choose(&log_softmax(&last[i]), rng);
            ended[i] |= symbol == END;
            if !ended[i] {
                content[i].push(symbol);
            }
            rows[i].push(if ended[i] { END } else { symbol });
        }
    }
    Ok(prompts
        .iter()
        .zip(&content)
        .map(|(&prompt, content)| Answer {
            prompt,
            outcome: lab.world.number(content),
        })
        .collect())
}
