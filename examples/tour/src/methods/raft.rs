//! RAFT: sample answers from the policy, keep the best, fine-tune on them, repeat.
//!
//! There are two selections: the best of K answers to each prompt, as in the paper, and the top share
//! of all answers so far, whatever their prompts, as the survey describes it.

use super::Title;
use crate::Result;
use crate::lab::{Lab, Optimization, Score, answer_logits, generator, look_up};
use crate::report::Entry;
use crate::world::{Answer, END, PROMPTS, PerAnswer};
use candle_align::online::raft::{RefreshedSet, best_of_k, kl_adjusted_rewards, top_share};
use candle_align::{RaftConfig, Reduction, SamplingConfig, SftConfig, sample, sft_loss};
use candle_core::{Device, Tensor};
use indicatif::MultiProgress;
use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;
use support::transformer::Transformer;

/// How many times new answers are sampled.
const ROUNDS: usize = 3;

#[derive(Serialize)]
struct RaftSettings {
    loss: SftConfig,
    ranking: RaftConfig,
    sampling: SamplingConfig,
    choice: Choice,
    rounds: usize,
    answers_per_round: usize,
    answers_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// Which answers are kept.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Choice {
    /// One answer per prompt.
    BestOfK,
    /// This share of all answers; a set keeps the best over the rounds.
    TopShare(f64),
}

pub fn best(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    raft(lab, title, bars, (Choice::BestOfK, 17))
}

pub fn top(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    raft(lab, title, bars, (Choice::TopShare(0.25), 18))
}

fn raft(
    lab: &Lab,
    title: Title,
    bars: &MultiProgress,
    (choice, purpose): (Choice, u64),
) -> Result<Entry> {
    let scores = &lab.wait_for_learned()?.scores;
    let answers_per_round = lab.sizes.raft_answers;
    let plan = lab.plan(6e-3);
    let sampling = SamplingConfig {
        answers: 4,
        max_new_tokens: lab.world.tokens,
        ends: vec![END],
        ..Default::default()
    };
    let settings = RaftSettings {
        loss: SftConfig::default(),
        ranking: RaftConfig::default(),
        sampling,
        choice,
        rounds: ROUNDS,
        answers_per_round,
        answers_per_step: lab.sizes.batch * 2,
        plan,
    };
    let per_round = plan.steps.div_ceil(ROUNDS);
    let mut rng = generator(lab.seed, purpose);
    let mut kept: Vec<Answer> = Vec::new();
    let mut set = RefreshedSet::new(answers_per_round / settings.sampling.answers)?;
    lab.run(
        title,
        &settings,
        plan,
        bars,
        Score::LogRatio,
        |policy, step| {
            if step % per_round == 0 {
                let answers = draw(lab, policy, &settings, &mut rng)?;
                let rewards = ranking(lab, policy, &answers, scores, &settings)?;
                kept = match choice {
                    Choice::BestOfK => best_of_k(&rewards, None)?
                        .into_iter()
                        .map(|row| answers[row])
                        .collect(),
                    Choice::TopShare(share) => {
                        let best = top_share(&rewards, None, share)?.into_iter();
                        let score = |a: Answer| scores[a.prompt][a.outcome];
                        set.merge(best.map(|row| (answers[row], score(answers[row]))))?;
                        set.items().iter().map(|(answer, _)| *answer).collect()
                    }
                };
            }
            let batch: Vec<Answer> = (0..settings.answers_per_step)
                .map(|_| kept[rng.random_range(0..kept.len())])
                .collect();
            let loss = sft_loss(&lab.log_probs(policy, &batch)?, None, &settings.loss)?;
            Ok(loss.reduce(Reduction::SequenceMean)?)
        },
    )
}

/// Answers of the policy, all prompts in turn: row `prompt · K + i` is answer i.
fn draw(
    lab: &Lab,
    policy: &Transformer,
    settings: &RaftSettings,
    rng: &mut StdRng,
) -> Result<Vec<Answer>> {
    let model = |tokens: &Tensor| {
        answer_logits(policy, tokens).map_err(|e| candle_core::Error::Msg(e.to_string()).into())
    };
    let config = &settings.sampling;
    let mut answers = Vec::new();
    while answers.len() < settings.answers_per_round {
        // A few at a time, so that the tensors stay inside the cache.
        let prompts: Vec<usize> = (0..8 * PROMPTS).map(|i| i % PROMPTS).collect();
        let texts: Vec<[u32; 2]> = prompts.iter().map(|&p| lab.world.prompt(p)).collect();
        let drawn = sample(model, &texts, config, &Device::Cpu, rng)?;
        for (row, drawn) in drawn.rows.iter().enumerate() {
            let outcome = lab.world.read(drawn.answer());
            answers.push(Answer {
                prompt: prompts[row / config.answers],
                outcome: outcome.ok_or("a sampled row is not an answer")?,
            });
        }
    }
    Ok(answers)
}

/// The rewards by which answers are ranked, `[prompts, K]`.
fn ranking(
    lab: &Lab,
    policy: &Transformer,
    answers: &[Answer],
    scores: &PerAnswer,
    settings: &RaftSettings,
) -> Result<Tensor> {
    let by_prompt = ((), settings.sampling.answers);
    let rewards = look_up(scores, answers)?.reshape(by_prompt)?;
    let reference = lab.reference_sums(answers)?.reshape(by_prompt)?;
    let log_p = lab.world.log_probs(&lab.world.tabulate(policy)?);
    let policy = look_up(&log_p, answers)?.reshape(by_prompt)?;
    let config = &settings.ranking;
    Ok(kl_adjusted_rewards(&rewards, &policy, &reference, config)?)
}
