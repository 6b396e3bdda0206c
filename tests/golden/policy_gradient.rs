//! Policy losses without a critic, against TRL's trainers: the table of `src/since.md`, row by row.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::online::group_advantages::*;
use candle_align::online::policy_gradient::*;
use candle_align::online::ratio::RatioLevel;
use candle_align::online::rollout_correction::*;
use candle_align::online::shaping::*;
use candle_align::{
    EntropyConfig, KlEstimator, Reduction, Result, Statistics, TokenLogProbs, TokenLoss,
    entropy_loss, kl_loss,
};
use candle_core::{DType, Tensor, Var};

fn or(case: &Case, key: &str, default: f64) -> f64 {
    case.optional(key).unwrap_or(default)
}

fn level(case: &Case) -> RatioLevel {
    match case.word("importance_sampling_level") {
        "sequence" => RatioLevel::SequenceMean,
        _ => RatioLevel::Token,
    }
}

/// TRL's window: the whole batch, which has a token in every row.
fn reduction(case: &Case, rows: usize) -> Reduction {
    match case.word("loss_type") {
        "bnpo" | "dapo" | "cispo" | "vespo" => Reduction::TokenMean,
        "dr_grpo" => Reduction::SumOver {
            count: rows as f64 * 7.0,
        },
        "luspo" => Reduction::SequenceMean,
        _ => Reduction::MeanOfSequenceMeans,
    }
}

/// The policy's term, by TRL's name.
fn policy(case: &Case, new: &TokenLogProbs) -> Result<TokenLoss> {
    let (old, advantages) = (case.input("old")?, case.input("advantages")?);
    let (low, high) = (or(case, "epsilon_low", 0.2), or(case, "epsilon_high", 0.28));
    let level = level(case);
    let out = match case.word("loss_type") {
        "cispo" => {
            let clip = CispoClip::Absolute { high };
            cispo_loss(new, &old, &advantages, &CispoConfig { clip, level })?
        }
        "sapo" => {
            let config = SapoConfig {
                temperature_positive: or(case, "sapo_temperature_pos", 1.0),
                temperature_negative: or(case, "sapo_temperature_neg", 1.05),
                level,
            };
            sapo_loss(new, &old, &advantages, &config)?
        }
        "vespo" => {
            let config = VespoConfig {
                power_positive: or(case, "vespo_k_pos", 2.0),
                decay_positive: or(case, "vespo_lambda_pos", 3.0),
                power_negative: or(case, "vespo_k_neg", 3.0),
                decay_negative: or(case, "vespo_lambda_neg", 2.0),
            };
            let weights = match case.has("weights") {
                true => Some(case.input("weights")?),
                false => None,
            };
            vespo_loss(new, &old, &advantages, weights.as_ref(), &config)?
        }
        "gmpo" => {
            let (clip, clip_high) = (low, Some(high));
            gmpo_loss(new, &old, &advantages, &GmpoConfig { clip, clip_high })?
        }
        kind => {
            let config = GrpoConfig {
                clip: low,
                clip_high: Some(high),
                delta: case.optional("delta"),
                level: match kind {
                    "rloo" => RatioLevel::SequenceSum,
                    _ => level,
                },
            };
            grpo_loss(new, &old, &advantages, &config)?
        }
    };
    Ok(out.loss)
}

/// One weight for each answer comes as `[batch, 1]`.
fn of_answers(weights: Tensor) -> Result<Tensor> {
    match weights.dim(1)? {
        1 => Ok(weights.squeeze(1)?),
        _ => Ok(weights),
    }
}

/// Log-probabilities whose entropies are a variable: −p log p of two symbols is not asked for here.
fn with_entropy(case: &Case, entropies: &Var, mask: &Tensor) -> Result<Tensor> {
    let loss = candle_align::math::masked(entropies, mask)?;
    Ok((loss * -case.number("entropy_coef"))?)
}

#[test]
fn policy_losses_are_those_of_trl() {
    each("policy_gradient", |case| {
        let values = case.var("values")?;
        let mask = case.mask("mask")?;
        let new = TokenLogProbs::new(&values, &mask)?;
        let reduction = reduction(case, mask.dim(0)?);
        let mut loss = policy(case, &new)?;
        if let Some(threshold) = case.optional("off_policy_mask_threshold") {
            let sampler = match case.has("sampler") {
                true => case.input("sampler")?,
                false => case.input("old")?,
            };
            let advantages = case.input("advantages")?;
            loss = corrected(
                &loss,
                &off_policy_mask(&new, &sampler, &advantages, threshold)?,
            )?;
        }
        let mut acting = mask.clone();
        if let Some(share) = case.optional("top_entropy_quantile") {
            acting = high_entropy_mask(&case.input("entropies")?, &mask, share)?;
            loss = corrected(&loss, &acting)?;
        }
        if case.has("weights") && case.word("loss_type") != "vespo" {
            loss = corrected(&loss, &of_answers(case.input("weights")?)?)?;
        }
        let mut total = loss.reduce(reduction)?;
        if let Some(beta) = case.optional("beta") {
            let reference = case.input("reference")?;
            let gmpo = case.word("loss_type") == "gmpo";
            let plain = gmpo || !with_ratio(case);
            let kl = match plain {
                true => kl_loss(&new, &reference, KlEstimator::K3)?,
                false => {
                    let level = level(case);
                    let config = UnbiasedKlConfig {
                        level,
                        ..Default::default()
                    };
                    unbiased_kl_loss(&new, &case.input("old")?, &reference, &config)?
                }
            };
            total = (total + (kl.reduce(reduction)? * beta)?)?;
        }
        if case.optional("entropy_coef").is_some() {
            let entropies = case.var("entropies")?;
            let bonus = with_entropy(case, &entropies, &acting)?;
            total = (total + Reduction::TokenMean.apply(&bonus, &acting)?)?;
            case.check_gradient("entropies", &total, &entropies, EXACT)?;
        }
        case.check("loss", &total, EXACT)?;
        case.check_gradient("values", &total, &values, EXACT)
    });
}

fn with_ratio(case: &Case) -> bool {
    case.part::<Option<bool>>("use_bias_correction_kl")
        .unwrap_or(true)
}

#[test]
fn the_entropy_bonus_is_entropy_loss_on_the_acting_tokens() -> Result<()> {
    let logits = Tensor::new(&[[[1.0f64, 0.0], [0.0, 3.0]]], &candle_core::Device::Cpu)?;
    let targets = Tensor::zeros((1, 2), DType::U32, logits.device())?;
    let mask = Tensor::ones((1, 2), DType::U8, logits.device())?;
    let asked = Statistics {
        entropy: true,
        ..Default::default()
    };
    let log_probs = TokenLogProbs::aligned(&logits, &targets, &mask, asked)?;
    let bonus = entropy_loss(&log_probs, &EntropyConfig { coefficient: 0.3 })?;
    let entropy = log_probs.entropy().expect("asked for");
    let want = (entropy * -0.3)?.to_vec2::<f64>()?;
    assert_eq!(bonus.loss.to_vec2::<f64>()?, want);
    Ok(())
}

#[test]
fn advantages_are_those_of_trl() {
    each("group_advantages", |case| {
        let rewards = case.input("rewards")?;
        let count = rewards.dim(0)?;
        let each: Vec<Tensor> = (0..count)
            .map(|k| rewards.get(k))
            .collect::<Result<_, _>>()?;
        let weights: Vec<f64> = case.part("weights");
        let mask = Some(case.mask("mask")?);
        let mut sum = each[0].zeros_like()?;
        for (reward, weight) in each.iter().zip(&weights) {
            sum = (sum + (reward * *weight)?)?;
        }
        let of = |deviation| {
            let config = GrpoAdvantageConfig {
                deviation,
                ..Default::default()
            };
            grpo_advantages(&sum, mask.as_ref(), &config)
        };
        let got = match case.word("kind") {
            "group" => of(Deviation::Group)?,
            "batch" => of(Deviation::Batch)?,
            "none" => of(Deviation::None)?,
            "rloo" => rloo_advantages(&sum, mask.as_ref())?,
            _ => {
                let all: Vec<&Tensor> = each.iter().collect();
                let config = GdpoConfig {
                    weights,
                    ..Default::default()
                };
                gdpo_advantages(&all, mask.as_ref(), &config)?
            }
        };
        case.check("advantages", &got, EXACT)
    });
}

#[test]
fn the_sampler_s_weights_and_the_overlong_penalty_are_those_of_trl() {
    each("rollout_correction", |case| {
        let mode = case.word("mode");
        if mode == "overlong" {
            let of = |key| case.number(key) as usize;
            let config = OverlongConfig {
                limit: of("limit"),
                buffer: of("buffer"),
            };
            let got = overlong_penalty(&case.input("lengths")?, &config)?;
            return case.check("penalty", &got, EXACT);
        }
        let config = RolloutWeightConfig {
            level: match mode.starts_with("token") {
                true => RatioLevel::Token,
                false => RatioLevel::SequenceSum,
            },
            low: case.optional("low"),
            high: case.optional("high"),
            beyond: match mode.ends_with("truncate") {
                true => Beyond::Truncate,
                false => Beyond::Drop,
            },
        };
        let old = TokenLogProbs::new(&case.input("old")?, &case.mask("mask")?)?;
        let got = rollout_weights(&old, &case.input("sampler")?, &config)?;
        case.check("weights", &got, EXACT)
    });
}
