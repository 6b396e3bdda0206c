//! DPO and SLiC's losses on pairs: which of two answers of the reference is better?
//!
//! DPO and the rank loss learn from the labeled pairs, without a reward model. The margin loss needs
//! to know how much better an answer is, so it takes the same answers in the order of their scores.

use super::{BETA, Title};
use crate::Result;
use crate::lab::{Lab, Optimization, Score, generator, look_up, rows};
use crate::report::Entry;
use crate::world::{Answer, PROMPT, SYMBOLS};
use candle_align::{
    DpoConfig, Pair, Reduction, SlicConfig, TokenLogProbs, dpo_loss, slic_kl_regularizer,
    slic_margin_loss, slic_rank_loss,
};
use candle_core::{Device, Tensor};
use indicatif::MultiProgress;
use serde::Serialize;
use support::transformer::Transformer;

/// The seed of DPO's pairs, the same whatever parameters are trained.
pub const DPO_PAIRS: u64 = 10;

/// Settings of a run on pairs.
#[derive(Serialize)]
struct PairSettings<L> {
    loss: L,
    #[serde(skip_serializing_if = "Option::is_none")]
    regularizer: Option<KlRegularizer>,
    order: &'static str,
    pairs_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

/// SLiC's KL to the reference, along the better answers.
#[derive(Clone, Copy, Serialize)]
pub struct KlRegularizer {
    pub kl_weight: f64,
}

/// The regularizer of all four losses of SLiC; the survey reports rank with KL as the best.
pub const SLIC_KL: KlRegularizer = KlRegularizer { kl_weight: 0.5 };

/// The settings of the DPO run, with and without an adapter.
pub fn dpo_config() -> DpoConfig {
    DpoConfig {
        beta: BETA,
        label_smoothing: 0.0,
    }
}

/// One batch of pairs through the policy and the loss.
pub fn dpo_step(lab: &Lab, policy: &Transformer, answers: &[Answer]) -> Result<Tensor> {
    let policy = Pair::from_rows(&lab.log_probs(policy, answers)?.sum()?)?;
    let reference = Pair::from_rows(&lab.reference_sums(answers)?)?;
    Ok(dpo_loss(&policy, Some(&reference), &dpo_config())?
        .loss
        .mean_all()?)
}

pub fn dpo(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let plan = lab.plan(6e-3);
    let settings = PairSettings {
        loss: dpo_config(),
        regularizer: None,
        order: "labels",
        pairs_per_step: lab.sizes.batch,
        plan,
    };
    let mut rng = generator(lab.seed, DPO_PAIRS);
    lab.run(
        title,
        &settings,
        plan,
        bars,
        Score::LogRatio,
        |policy, _| dpo_step(lab, policy, &lab.pair_batch(&mut rng)),
    )
}

pub fn slic_rank(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = SlicConfig::default();
    let mut rng = generator(lab.seed, 11);
    let answers = || lab.pair_batch(&mut rng);
    slic(lab, title, bars, (&config, "labels"), answers, |pair, _| {
        Ok(slic_rank_loss(pair, &config)?.loss)
    })
}

/// A unit of reward is worth 1/β nats: the lead of the frontier policy over the reference.
pub fn slic_margin(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let scores = &lab.wait_for_learned()?.scores;
    let config = SlicConfig { delta: 1.0 / BETA };
    let mut rng = generator(lab.seed, 16);
    let answers = || {
        let mut answers = lab.pair_batch(&mut rng);
        let (first, second) = answers.split_at_mut(lab.sizes.batch);
        for (one, other) in first.iter_mut().zip(second) {
            if scores[one.prompt][one.outcome] < scores[other.prompt][other.outcome] {
                std::mem::swap(one, other);
            }
        }
        answers
    };
    let order = (&config, "scores of the reward model");
    slic(lab, title, bars, order, answers, |pair, answers| {
        let similarity = Pair::from_rows(&look_up(scores, answers)?)?;
        Ok(slic_margin_loss(pair, &similarity, &config)?.loss)
    })
}

/// A calibration loss on pairs, first all better answers and then all others, with the regularizer.
fn slic(
    lab: &Lab,
    title: Title,
    bars: &MultiProgress,
    (config, order): (&SlicConfig, &'static str),
    mut answers: impl FnMut() -> Vec<Answer>,
    loss: impl Fn(&Pair<Tensor>, &[Answer]) -> Result<Tensor>,
) -> Result<Entry> {
    let plan = lab.plan(6e-3);
    let settings = PairSettings {
        loss: config.clone(),
        regularizer: Some(SLIC_KL),
        order,
        pairs_per_step: lab.sizes.batch,
        plan,
    };
    lab.run(title, &settings, plan, bars, Score::Sum, |policy, _| {
        let answers = answers();
        let (tokens, mask) = lab.world.batch(&answers)?;
        let (logits, log_probs) = rows(policy, &tokens, &mask)?;
        let calibration = loss(&Pair::from_rows(&log_probs.sum()?)?, &answers)?.mean_all()?;
        let better: Vec<usize> = (0..answers.len() / 2).collect();
        let kl = along(lab, &answers, &better, &logits, &log_probs)?;
        Ok((calibration + (kl * SLIC_KL.kl_weight)?)?)
    })
}

/// How far the next-token distributions along some of the answers have moved, summed per answer.
pub fn along(
    lab: &Lab,
    answers: &[Answer],
    rows: &[usize],
    logits: &Tensor,
    log_probs: &TokenLogProbs,
) -> Result<Tensor> {
    let targets: Vec<Answer> = rows.iter().map(|&row| answers[row]).collect();
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    let rows = Tensor::from_vec(rows, targets.len(), &Device::Cpu)?;
    let kl = slic_kl_regularizer(
        &logits.contiguous()?.index_select(&rows, 0)?,
        &reference_logits(lab, &targets)?,
        &log_probs.mask().contiguous()?.index_select(&rows, 0)?,
    )?;
    Ok(kl.reduce(Reduction::SequenceMean)?)
}

/// log π_ref of every next symbol along some answers, from the table: `[answers, time − 1, symbols]`.
fn reference_logits(lab: &Lab, answers: &[Answer]) -> Result<Tensor> {
    let time = PROMPT + lab.world.tokens - 1;
    let mut logits = Vec::with_capacity(answers.len() * time * SYMBOLS);
    for answer in answers {
        let content = lab.world.content(answer.outcome);
        for t in 0..time {
            // Position PROMPT − 1 predicts the answer's first token; positions that do not count are 0.
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
