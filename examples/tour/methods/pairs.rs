//! DPO and SLiC: straight from the labelled pairs, without a reward model.

use super::BETA;
use crate::tour::Result;
use crate::tour::lab::{Lab, Optimisation, Ran, Score, generator};
use crate::tour::report::Entry;
use crate::tour::world::{Answer, PROMPT, SYMBOLS};
use candle_align::{
    DpoConfig, Pair, Reduction, SlicConfig, TokenLogProbs, dpo_loss, slic_kl_regulariser,
    slic_rank_loss,
};
use candle_core::{Device, Tensor};
use indicatif::MultiProgress;
use serde_json::json;
use std::time::Instant;

/// The settings of the DPO run, with and without an adapter.
pub fn dpo_config() -> DpoConfig {
    DpoConfig {
        beta: BETA,
        label_smoothing: 0.0,
    }
}

/// One batch of pairs through the policy and the loss.
pub fn dpo_step(
    lab: &Lab,
    policy: &crate::support::transformer::Transformer,
    answers: &[Answer],
) -> Result<Tensor> {
    let policy = Pair::from_rows(&lab.log_probs(policy, answers)?.sum()?)?;
    let reference = Pair::from_rows(&lab.reference_sums(answers)?)?;
    Ok(dpo_loss(&policy, Some(&reference), &dpo_config())?
        .loss
        .mean_all()?)
}

pub fn dpo(lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
    let start = Instant::now();
    let policy = lab.reference.trainable()?;
    let plan = Optimisation {
        steps: lab.steps,
        learning_rate: 6e-3,
    };
    let mut rng = generator(lab.seed, 10);
    let curve = lab.train(
        "DPO",
        plan,
        policy.vars(),
        bars,
        |_| dpo_step(lab, &policy, &lab.pair_batch(&mut rng)),
        |lab| lab.place(&policy),
    )?;
    let settings = json!({
        "loss": dpo_config(), "steps": plan.steps, "learning_rate": plan.learning_rate,
        "pairs per step": lab.sizes.batch,
    });
    lab.policy_entry(
        Ran {
            name: "dpo",
            label: "DPO",
            settings,
            curve,
            start,
        },
        &policy,
        Score::LogRatio,
    )
}

/// The rank loss with the KL regulariser, the combination that the survey reports as best.
pub fn slic(lab: &Lab, bars: &MultiProgress) -> Result<Entry> {
    let start = Instant::now();
    let policy = lab.reference.trainable()?;
    let plan = Optimisation {
        steps: lab.steps,
        learning_rate: 6e-3,
    };
    let config = SlicConfig::default();
    let weight = 0.5;
    let mut rng = generator(lab.seed, 11);
    let curve = lab.train(
        "SLiC",
        plan,
        policy.vars(),
        bars,
        |_| {
            let answers = lab.pair_batch(&mut rng);
            let (tokens, mask) = lab.world.batch(&answers)?;
            let logits = policy.forward(&tokens)?.logits;
            let log_probs = TokenLogProbs::next_token(&logits, &tokens, &mask)?;
            let rank = slic_rank_loss(&Pair::from_rows(&log_probs.sum()?)?, &config)?;
            // The regulariser holds every next-token distribution along the preferred answers.
            let targets = answers.len() / 2;
            let time = mask.dim(1)?;
            let kl = slic_kl_regulariser(
                &logits.narrow(0, 0, targets)?.narrow(1, 0, time - 1)?,
                &reference_logits(lab, &answers[..targets])?,
                &log_probs.mask().narrow(0, 0, targets)?,
            )?;
            let kl = kl.reduce(Reduction::SequenceMean)?;
            Ok((rank.mean_all()? + (kl * weight)?)?)
        },
        |lab| lab.place(&policy),
    )?;
    let settings = json!({
        "loss": config, "regulariser": "KL to the reference along the preferred answers",
        "regulariser weight": weight, "steps": plan.steps, "learning_rate": plan.learning_rate,
        "pairs per step": lab.sizes.batch,
    });
    lab.policy_entry(
        Ran {
            name: "slic",
            label: "SLiC",
            settings,
            curve,
            start,
        },
        &policy,
        Score::Sum,
    )
}

/// log π_ref of every next symbol along some answers, from the table: `[answers, time − 1, symbols]`.
fn reference_logits(lab: &Lab, answers: &[Answer]) -> Result<Tensor> {
    let time = PROMPT + lab.world.tokens - 1;
    let mut logits = Vec::with_capacity(answers.len() * time * SYMBOLS);
    for answer in answers {
        let content = lab.world.content(answer.outcome);
        for t in 0..time {
            // Position PROMPT − 1 predicts the answer's first token; what counts for nothing is 0.
            match (t + 1).checked_sub(PROMPT) {
                Some(length) if length <= content.len() => {
                    let prefix = lab.world.number(&content[..length]);
                    let next = lab.reference_policy.next(answer.prompt, prefix);
                    logits.extend(next.iter().map(|&l| l as f32));
                }
                _ => logits.extend([0f32; SYMBOLS]),
            }
        }
    }
    Ok(Tensor::from_vec(
        logits,
        (answers.len(), time, SYMBOLS),
        &Device::Cpu,
    )?)
}
