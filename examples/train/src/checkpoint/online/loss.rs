//! The loss of some answers of a step.

use super::super::super::error::Result;
use super::super::objective::Text;
use super::super::objective::text::{halves, log_probs, log_probs_with};
use super::super::settings::{Learned, Settings};
use super::around::Around;
use super::learned::Part;
use super::prompts::Prompt;
use super::rollout::Answer;
use super::settings::LossType;
use candle_align::decoder::{Decoder, Mode};
use candle_align::online::policy_gradient::{
    CispoClip, CispoConfig, GrpoConfig, SapoConfig, VespoConfig, cispo_loss, grpo_loss, sapo_loss,
    vespo_loss,
};
use candle_align::online::ratio::RatioLevel;
use candle_align::online::rollout_correction::{UnbiasedKlConfig, unbiased_kl_loss};
use candle_align::{
    DpoConfig, EntropyConfig, KlEstimator, Pair, PolicyLoss, Reduction, SftConfig, Statistics,
    TokenLogProbs, TokenLoss, dpo_loss, entropy_loss, kl_loss, sft_loss,
};
use candle_core::{DType, Device, Tensor};

/// What a bonus for entropy, or a choice by it, needs of each token.
pub(super) const ENTROPY: Statistics = Statistics {
    entropy: true,
    vocabulary_mean: false,
    log_collision: false,
};

/// The answers of a round, scored.
pub struct Round {
    pub answers: Vec<Answer>,
    pub parts: Vec<Part>,
    /// The log-probabilities of each answer's tokens under the model at the start; empty until
    /// [`look_back`](super::look_back) knows them.
    pub reference: Option<Vec<Vec<f64>>>,
    /// 1 for tokens of high entropy, else 0, where the loss keeps only them.
    pub forking: Option<Vec<Vec<f64>>>,
}

/// By what sums are divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divisors {
    /// Rows of the step.
    pub rows: f64,
    /// Tokens of the step that count.
    pub tokens: f64,
    /// Tokens of the step that the entropy bonus is a mean over.
    pub uncertain: f64,
    /// Tokens of the micro-batch that count.
    pub of_batch: f64,
    /// Micro-batches of the step.
    pub batches: f64,
}

/// A loss to be differentiated, and sums over its tokens.
pub struct Measured {
    pub loss: Tensor,
    /// Tokens that a clip changed; of CISPO, those whose weight is capped.
    pub clipped: f64,
    /// The KL to the model at the start.
    pub kl: Option<f64>,
    /// Of PPO, the part of the loss that the value model has, before its weight.
    pub value: Option<f64>,
    /// The entropy of the tokens that the bonus is of.
    pub entropy: Option<f64>,
}

/// Whether the loss covers an answer.
pub fn counts(settings: &Settings, answer: &Answer) -> bool {
    answer.ended || !settings.online.mask_truncated_completions
}

/// The answers of some units in the order in which they go through the model, of pairs the better ones first, and their
/// texts.
pub fn rows_of(
    settings: &Settings,
    prompts: &[Prompt],
    answers: &[Answer],
    units: &[Vec<usize>],
) -> (Vec<usize>, Vec<Text>) {
    let width = units.first().map_or(1, Vec::len);
    let rows = (0..width).flat_map(|side| units.iter().map(move |unit| unit[side]));
    let rows: Vec<usize> = rows.collect();
    let text = |row: &usize| {
        let answer = &answers[*row];
        let mut text = answer.after(&prompts[answer.prompt]);
        if !counts(settings, answer) {
            text.learned.fill(false);
        }
        text
    };
    let texts = rows.iter().map(text).collect();
    (rows, texts)
}

/// The loss of some rows; the sum over all parts of a step is the loss of the step.
pub fn loss(
    settings: &Settings,
    decoder: &Decoder,
    prompts: &[Prompt],
    round: &Round,
    units: &[Vec<usize>],
    divisors: &Divisors,
    mode: Mode,
) -> Result<Measured> {
    let (rows, texts) = rows_of(settings, prompts, &round.answers, units);
    let all: Vec<&Text> = texts.iter().collect();
    let new = match settings.online.entropy_coef > 0.0 {
        true => log_probs_with(decoder, &all, mode, ENTROPY)?,
        false => log_probs(decoder, &all, mode)?,
    };
    let reference = match &round.reference {
        Some(all) => {
            let of = rows.iter().map(|row| all[*row].as_slice());
            Some(placed(&texts, of, &new)?)
        }
        None => None,
    };
    let alone = |loss| Measured {
        loss,
        clipped: 0.0,
        kl: None,
        value: None,
        entropy: None,
    };
    match settings.objective {
        Learned::Raft => {
            let tokens = sft_loss(&new, None, &SftConfig::default())?.loss;
            Ok(alone((tokens.sum_all()? / divisors.tokens.max(1.0))?))
        }
        Learned::OnlineDpo => {
            let reference: Option<Pair<Tensor>> = match reference {
                Some(values) => {
                    let sums = TokenLogProbs::new(&values, new.mask())?.sum()?;
                    Some(halves(&sums)?)
                }
                None => None,
            };
            let config = DpoConfig {
                beta: settings.online.beta(settings.objective),
                ..DpoConfig::default()
            };
            let loss = dpo_loss(&halves(&new.sum()?)?, reference.as_ref(), &config)?.loss;
            Ok(alone((loss.sum_all()? / divisors.rows)?))
        }
        _ => {
            let of = rows.iter().map(|row| round.answers[*row].old.as_slice());
            let old = placed(&texts, of, &new)?;
            let advantage = |row: &usize| match round.parts[*row] {
                Part::Advantage(advantage) => advantage,
                _ => 0.0,
            };
            let advantages: Vec<f64> = rows.iter().map(advantage).collect();
            let advantages = Tensor::new(advantages, &Device::Cpu)?.to_dtype(old.dtype())?;
            let sampler = |row: &usize| {
                let answer = &round.answers[*row];
                answer.sampler.as_deref().unwrap_or(&answer.old)
            };
            let sampler = placed(&texts, rows.iter().map(sampler), &new)?;
            let forking = match &round.forking {
                Some(all) => Some(placed(
                    &texts,
                    rows.iter().map(|row| all[*row].as_slice()),
                    &new,
                )?),
                None => None,
            };
            let around = Around::of(
                &settings.online,
                &new,
                [&old, &sampler, &advantages],
                forking,
            )?;
            policy(
                settings,
                &new,
                &old,
                &advantages,
                reference.as_ref(),
                &around,
                divisors,
            )
        }
    }
}

/// GRPO with any `loss_type`, and RLOO.
fn policy(
    settings: &Settings,
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    reference: Option<&Tensor>,
    around: &Around,
    divisors: &Divisors,
) -> Result<Measured> {
    let online = &settings.online;
    let rloo = settings.objective == Learned::Rloo;
    let level = match rloo {
        true => RatioLevel::SequenceSum,
        false => online.importance_sampling_level.into(),
    };
    let clip = GrpoConfig {
        clip: online.epsilon,
        clip_high: online.epsilon_high,
        delta: online.delta,
        level,
    };
    let of: PolicyLoss = match online.loss_type {
        _ if rloo => grpo_loss(new, old, advantages, &clip)?,
        LossType::Cispo => {
            let high = online.epsilon_high.unwrap_or(5.0);
            let clip = CispoClip::Absolute { high };
            cispo_loss(new, old, advantages, &CispoConfig { clip, level })?
        }
        LossType::Sapo => {
            let config = SapoConfig {
                level,
                ..SapoConfig::default()
            };
            sapo_loss(new, old, advantages, &config)?
        }
        LossType::Vespo => {
            let weights = around.weights.as_ref();
            vespo_loss(new, old, advantages, weights, &VespoConfig::default())?
        }
        _ => grpo_loss(new, old, advantages, &clip)?,
    };
    let number =
        |t: Tensor| -> Result<f64> { Ok(t.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
    let clipped = number(of.clipped.clone())?;
    let vespo = !rloo && online.loss_type == LossType::Vespo;
    let (mut loss, mut kl) = (around.apply(&of.loss, !vespo)?, None);
    if let Some(reference) = reference {
        let k1 = (old - reference)?;
        kl = Some(number(TokenLogProbs::new(&k1, new.mask())?.sum()?)?);
        if !rloo {
            // in the loss, where RLOO has it in the reward
            let term = match online.use_bias_correction_kl {
                true => {
                    let config = UnbiasedKlConfig {
                        estimator: KlEstimator::K3,
                        level,
                    };
                    unbiased_kl_loss(new, old, reference, &config)?
                }
                false => kl_loss(new, reference, KlEstimator::K3)?,
            };
            let beta = online.beta(settings.objective);
            loss = TokenLoss {
                loss: (loss.loss + (&term.loss * beta)?)?,
                mask: loss.mask,
            };
            kl = Some(number(term.loss.detach())?);
        }
    }
    let over = |count: f64| Reduction::SumOver {
        count: count.max(1.0),
    };
    let means = Reduction::SequenceMeansOver {
        count: divisors.rows,
    };
    let reduction = match online.loss_type {
        _ if rloo => means,
        LossType::Grpo | LossType::Sapo => means,
        LossType::Bnpo => over(divisors.of_batch.max(1.0) * divisors.batches),
        LossType::DrGrpo => over(divisors.rows * online.max_completion_length as f64),
        LossType::Luspo => over(divisors.rows),
        LossType::Dapo | LossType::Cispo | LossType::Vespo => over(divisors.tokens),
    };
    let mut loss = loss.reduce(reduction)?;
    let mut entropy = None;
    if online.entropy_coef > 0.0 {
        let coefficient = online.entropy_coef;
        let bonus = around.of_forking(&entropy_loss(new, &EntropyConfig { coefficient })?)?;
        let bonus = bonus.reduce(over(divisors.uncertain))?;
        loss = (loss + &bonus)?;
        entropy = Some(-number(bonus.detach())? * divisors.uncertain.max(1.0) / coefficient);
    }
    Ok(Measured {
        loss,
        clipped,
        kl,
        value: None,
        entropy,
    })
}

/// Numbers of each answer's tokens at the places where the model's log-probabilities have them.
pub(super) fn placed<'a>(
    texts: &[Text],
    numbers: impl Iterator<Item = &'a [f64]>,
    like: &TokenLogProbs,
) -> Result<Tensor> {
    let (count, time) = like.values().dims2()?;
    let mut all = vec![0.0; count * time];
    for (at, (text, numbers)) in texts.iter().zip(numbers).enumerate() {
        let first = at * time + text.ids.len() - numbers.len() - 1;
        all[first..first + numbers.len()].copy_from_slice(numbers);
    }
    let all = Tensor::from_vec(all, (count, time), &Device::Cpu)?;
    Ok(all.to_dtype(like.values().dtype())?)
}
