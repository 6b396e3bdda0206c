//! PRO and RRHF: lists of the reference's answers, ranked by the reward model.

use crate::support::transformer::Transformer;
use crate::tour::Result;
use crate::tour::lab::{Lab, Optimisation, Ran, Score, generator, look_up};
use crate::tour::report::Entry;
use crate::tour::world::{Answer, PROMPTS};
use candle_align::{Candidates, ListLoss, ProConfig, RrhfConfig, pro_loss, rrhf_loss};
use indicatif::MultiProgress;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::time::Instant;

/// Answers in a list.
const LIST: usize = 4;

pub fn pro(lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
    let config = ProConfig::default();
    let settings = json!(config);
    let loss = |c: &Candidates| pro_loss(c, &config);
    on_lists(lab, bars, ("pro", "PRO"), 12, settings, loss)
}

pub fn rrhf(lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
    let config = RrhfConfig::default();
    let settings = json!(config);
    let loss = |c: &Candidates| rrhf_loss(c, &config);
    on_lists(lab, bars, ("rrhf", "RRHF"), 13, settings, loss)
}

fn on_lists(
    lab: &Lab,
    bars: &MultiProgress,
    (name, label): (&'static str, &'static str),
    purpose: u64,
    loss_settings: Value,
    loss: impl Fn(&Candidates) -> candle_align::Result<ListLoss>,
) -> Result<Entry> {
    let learned = &lab.wait_for_learned()?.scores;
    let start = Instant::now();
    let policy = lab.reference.trainable()?;
    let plan = Optimisation {
        steps: lab.steps,
        learning_rate: 6e-3,
    };
    // As many answers per step as the methods that learn from pairs.
    let lists = lab.sizes.batch * 2 / LIST;
    let mut rng = generator(lab.seed, purpose);
    let curve = lab.train(
        label,
        plan,
        policy.vars(),
        bars,
        |_| {
            let answers = draw_lists(lab, lists, &mut rng);
            let rewards = look_up(learned, &answers)?.reshape((lists, LIST))?;
            let candidates = candidates(lab, &policy, &answers, &rewards)?;
            Ok(loss(&candidates)?.loss.mean_all()?)
        },
        |lab| lab.place(&policy),
    )?;
    let settings = json!({
        "loss": loss_settings, "steps": plan.steps, "learning_rate": plan.learning_rate,
        "lists per step": lists, "answers per list": LIST,
        "rewards": "of the reward model",
    });
    lab.policy_entry(
        Ran {
            name,
            label,
            settings,
            curve,
            start,
        },
        &policy,
        Score::Mean,
    )
}

/// Lists of answers of the reference, each to one prompt.
fn draw_lists(lab: &Lab, lists: usize, rng: &mut StdRng) -> Vec<Answer> {
    (0..lists)
        .flat_map(|_| {
            let prompt = rng.random_range(0..PROMPTS);
            [(); LIST].map(|()| lab.world.sample(&lab.reference_policy, prompt, rng))
        })
        .collect()
}

fn candidates(
    lab: &Lab,
    policy: &Transformer,
    answers: &[Answer],
    rewards: &candle_core::Tensor,
) -> Result<Candidates> {
    let log_probs = lab.log_probs(policy, answers)?;
    Ok(Candidates::from_token_log_probs(&log_probs, rewards, None)?)
}
