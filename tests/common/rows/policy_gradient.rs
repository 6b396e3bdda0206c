//! Policy losses without a critic. Those whose weight is a constant have a gradient that is not the slope of their
//! value; beside each is the function whose slope it is.

use super::super::{Input, Row, constant, mask, trained};
use candle_align::online::policy_gradient::*;
use candle_align::online::ratio::RatioLevel;
use candle_align::online::rollout_correction::*;
use candle_align::{KlEstimator, Result, TokenLogProbs, TokenLoss};
use candle_core::{D, Tensor};

/// A loss with a constant weight, and the function whose gradient it has.
pub struct Surrogate {
    pub row: Row,
    pub primitive: fn(&[Tensor]) -> Result<Tensor>,
}

#[rustfmt::skip]
const POLICY: [f64; 12] = [
    -0.4, -1.3, -2.0, -0.7,   -1.1, -0.2, -2.5, -3.0,   -0.9, -1.6, -0.3, -2.2,
];

/// Log-ratios new − old inside and beyond the usual bounds.
#[rustfmt::skip]
const MOVED: [f64; 12] = [
    0.0, 0.05, 0.6, -0.65,   -0.1, 1.0, 0.45, 0.0,   0.9, -0.9, 0.02, -0.3,
];

#[rustfmt::skip]
const OF_TOKENS: [f64; 12] = [
    9.0, 1.5, 0.7, 0.8,   -1.2, 2.0, -0.6, 4.0,   -2.0, -0.4, 0.0, 1.1,
];

fn counted() -> Input {
    mask("mask", &[3, 4], &[0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1])
}

/// Log-probabilities of the policy, the mask, and those of another policy.
fn two(name: &'static str, scale: f64) -> Vec<Input> {
    let other: Vec<f64> = POLICY
        .iter()
        .zip(MOVED)
        .map(|(p, d)| p - d * scale)
        .collect();
    vec![
        trained("values", &[3, 4], &POLICY),
        counted(),
        constant(name, &[3, 4], &other),
    ]
}

fn of_tokens(scale: f64) -> Vec<Input> {
    let mut inputs = two("old", scale);
    inputs.push(constant("advantages", &[3, 4], &OF_TOKENS));
    inputs
}

fn of_answers(scale: f64) -> Vec<Input> {
    let mut inputs = two("old", scale);
    inputs.push(constant("advantages", &[3], &[1.2, -0.7, 0.4]));
    inputs
}

/// With another constant of each token.
fn and(mut inputs: Vec<Input>, name: &'static str, scale: f64) -> Vec<Input> {
    let other: Vec<f64> = MOVED.iter().map(|d| (d * scale).exp()).collect();
    inputs.push(constant(name, &[3, 4], &other));
    inputs
}

fn new(x: &[Tensor]) -> Result<TokenLogProbs> {
    TokenLogProbs::new(&x[0], &x[1])
}

fn per_example(loss: TokenLoss) -> Result<Tensor> {
    Ok(loss.loss.sum(D::Minus1)?)
}

fn grpo(x: &[Tensor], config: GrpoConfig) -> Result<Tensor> {
    per_example(grpo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
}

fn gspo(x: &[Tensor], config: GspoConfig) -> Result<Tensor> {
    per_example(gspo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
}

fn unbiased(x: &[Tensor], estimator: KlEstimator, level: RatioLevel) -> Result<Tensor> {
    let config = UnbiasedKlConfig { estimator, level };
    per_example(unbiased_kl_loss(&new(x)?, &x[2], &x[3], &config)?)
}

/// The old policy, and a reference that agrees with the policy in places.
fn with_reference(scale: f64) -> Vec<Input> {
    let mut inputs = two("old", 1.0);
    let mut reference = two("reference", scale).pop().unwrap();
    reference.data.reverse();
    for (r, p) in reference.data.iter_mut().zip(POLICY) {
        *r = 0.5 * *r + 0.5 * p;
    }
    inputs.push(reference);
    inputs
}

fn row(name: &'static str, inputs: Vec<Input>, loss: fn(&[Tensor]) -> Result<Tensor>) -> Row {
    Row {
        name,
        inputs,
        loss,
        independent: true,
    }
}

pub fn rows() -> Vec<Row> {
    vec![
        row("grpo", of_tokens(1.0), |x| grpo(x, GrpoConfig::default())),
        row("grpo, at its start", of_tokens(0.0), |x| {
            grpo(x, GrpoConfig::default())
        }),
        row(
            "grpo, dapo, one advantage for each answer",
            of_answers(1.0),
            |x| grpo(x, GrpoConfig::dapo()),
        ),
        row("grpo, delta 1.25", of_tokens(1.0), |x| {
            let delta = Some(1.25);
            grpo(
                x,
                GrpoConfig {
                    delta,
                    ..GrpoConfig::dapo()
                },
            )
        }),
        row("grpo, delta 1.7", of_tokens(1.0), |x| {
            let delta = Some(1.7);
            grpo(
                x,
                GrpoConfig {
                    delta,
                    ..GrpoConfig::default()
                },
            )
        }),
        row("grpo, clip 10", of_tokens(1.0), |x| {
            grpo(
                x,
                GrpoConfig {
                    clip: 10.0,
                    ..GrpoConfig::default()
                },
            )
        }),
        row("grpo, ratio of answers, sum", of_answers(1.0), |x| {
            let level = RatioLevel::SequenceSum;
            grpo(
                x,
                GrpoConfig {
                    clip: 0.7,
                    level,
                    ..GrpoConfig::default()
                },
            )
        }),
        row("grpo, ratio of answers, mean", of_tokens(1.0), |x| {
            let level = RatioLevel::SequenceMean;
            grpo(
                x,
                GrpoConfig {
                    level,
                    ..GrpoConfig::default()
                },
            )
        }),
        row("gspo", of_answers(1.0), |x| gspo(x, GspoConfig::default())),
        row("gspo, at its start", of_answers(0.0), |x| {
            gspo(x, GspoConfig::default())
        }),
        row("gspo, luspo", of_answers(0.003), |x| {
            gspo(x, GspoConfig::luspo())
        }),
        row("gspo, clips 0.3 and 0.4", of_answers(1.0), |x| {
            let (clip, clip_high) = (0.3, 0.4);
            gspo(
                x,
                GspoConfig {
                    clip,
                    clip_high,
                    ..GspoConfig::default()
                },
            )
        }),
        row("gspo, token form", of_answers(1.0), |x| {
            let (clip, clip_high, form) = (0.3, 0.4, GspoForm::Token);
            gspo(
                x,
                GspoConfig {
                    clip,
                    clip_high,
                    form,
                },
            )
        }),
        row("sapo", of_tokens(1.0), |x| {
            per_example(sapo_loss(&new(x)?, &x[2], &x[3], &SapoConfig::default())?.loss)
        }),
        row(
            "sapo, ratio of answers, temperatures 0.5 and 3",
            of_answers(1.0),
            |x| {
                let config = SapoConfig {
                    temperature_positive: 0.5,
                    temperature_negative: 3.0,
                    level: RatioLevel::SequenceMean,
                };
                per_example(sapo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
            },
        ),
        row("gmpo", of_answers(1.0), |x| {
            per_example(gmpo_loss(&new(x)?, &x[2], &x[3], &GmpoConfig::default())?.loss)
        }),
        row("gmpo, clips 0.08 and 0.7", of_answers(1.0), |x| {
            let config = GmpoConfig {
                clip: 0.08,
                clip_high: Some(0.7),
            };
            per_example(gmpo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
        }),
        row("token dro", of_tokens(1.0), |x| {
            let config = TokenDroConfig { beta: 0.7 };
            per_example(token_dro_loss(&new(x)?, &x[2], &x[3], &config)?)
        }),
        row(
            "reinforce",
            {
                let mut inputs = of_answers(1.0);
                inputs.remove(2);
                inputs
            },
            |x| per_example(reinforce_loss(&new(x)?, &x[2])?),
        ),
        row(
            "kl-cov",
            {
                let mut inputs = of_tokens(1.0);
                inputs.push(mask(
                    "paying",
                    &[3, 4],
                    &[0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0],
                ));
                inputs
            },
            |x| {
                let config = KlCovConfig { coefficient: 0.6 };
                per_example(kl_cov_loss(&new(x)?, &x[2], &x[3], &x[4], &config)?.loss)
            },
        ),
        row("added nll", two("old", 1.0)[..2].to_vec(), |x| {
            let config = AddedNllConfig { weight: 0.3 };
            per_example(added_nll_loss(&new(x)?, None, &config)?)
        }),
        row(
            "added nll, of right answers",
            {
                let mut inputs = two("old", 1.0)[..2].to_vec();
                inputs.push(mask(
                    "counted",
                    &[3, 4],
                    &[1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0, 1],
                ));
                inputs
            },
            |x| {
                let config = AddedNllConfig { weight: 0.3 };
                per_example(added_nll_loss(&new(x)?, Some(&x[2]), &config)?)
            },
        ),
        row("unbiased kl", with_reference(1.0), |x| {
            unbiased(x, KlEstimator::K3, RatioLevel::Token)
        }),
        row(
            "unbiased kl, k2, ratio of answers",
            with_reference(0.4),
            |x| unbiased(x, KlEstimator::K2, RatioLevel::SequenceMean),
        ),
        row("unbiased kl, k1", with_reference(1.0), |x| {
            unbiased(x, KlEstimator::K1, RatioLevel::Token)
        }),
        row(
            "grpo, corrected by the sampler's weights",
            and(of_answers(1.0), "weights", 1.0),
            |x| {
                let loss = grpo_loss(&new(x)?, &x[2], &x[3], &GrpoConfig::default())?.loss;
                per_example(corrected(&loss, &x[4])?)
            },
        ),
    ]
}

/// Σₜ of −Âₜ times what is given, over the tokens that count.
fn weighted(x: &[Tensor], of_token: Tensor) -> Result<Tensor> {
    let mask = x[1].ne(0u8)?.to_dtype(of_token.dtype())?;
    let advantages = match x[3].rank() {
        1 => x[3].unsqueeze(1)?,
        _ => x[3].clone(),
    };
    Ok((of_token * mask)?
        .broadcast_mul(&advantages)?
        .neg()?
        .sum(D::Minus1)?)
}

/// ∫ clip(eᵘ, low, high) du from where it is low to the log-ratio.
fn clipped_integral(x: &[Tensor], low: f64, high: f64) -> Result<Tensor> {
    let d = (&x[0] - &x[2])?;
    let within = d.clamp(low.max(1e-30).ln(), high.ln())?;
    let outside = (&d - &within)?;
    let (above, below) = (outside.relu()?, outside.neg()?.relu()?);
    Ok(((within.exp()? + (above * high)?)? - (below * low)?)?)
}

/// ∫ φ(W) d log W of VESPO: of W^{k−1} e^{λ(1−W)} for whole k.
fn vespo_integral(x: &[Tensor], power: usize, decay: f64) -> Result<Tensor> {
    let mask = x[1].ne(0u8)?.to_dtype(x[0].dtype())?;
    let mut exponent = ((&x[0] - &x[2])? * &mask)?;
    if let Some(weights) = x.get(4) {
        exponent = (exponent + (weights.log()? * &mask)?)?;
    }
    let w = exponent.sum_keepdim(D::Minus1)?.exp()?;
    // −e^{λ(1−W)} Σⱼ (k−1)!/(k−1−j)! W^{k−1−j} λ^{−j−1}
    let (mut sum, mut factor) = (w.zeros_like()?, 1.0 / decay);
    for j in 0..power {
        sum = (sum + (w.powf((power - 1 - j) as f64)? * factor)?)?;
        factor *= (power - 1 - j) as f64 / decay;
    }
    Ok((sum * w.affine(-decay, decay)?.exp()?)?.neg()?)
}

pub fn surrogates() -> Vec<Surrogate> {
    vec![
        Surrogate {
            row: row("cispo", of_tokens(1.0), |x| {
                let clip = CispoClip::Absolute { high: 1.5 };
                let config = CispoConfig {
                    clip,
                    ..CispoConfig::default()
                };
                per_example(cispo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
            }),
            primitive: |x| weighted(x, clipped_integral(x, 0.0, 1.5)?),
        },
        Surrogate {
            row: row("cispo, around one", of_answers(1.0), |x| {
                let clip = CispoClip::AroundOne {
                    low: 0.2,
                    high: 0.28,
                };
                let config = CispoConfig {
                    clip,
                    ..CispoConfig::default()
                };
                per_example(cispo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
            }),
            primitive: |x| weighted(x, clipped_integral(x, 0.8, 1.28)?),
        },
        Surrogate {
            row: row("vespo", of_answers(1.0), |x| {
                let config = VespoConfig::default();
                per_example(vespo_loss(&new(x)?, &x[2], &x[3], None, &config)?.loss)
            }),
            primitive: vespo_primitive,
        },
        Surrogate {
            row: row(
                "vespo, with the sampler's weights",
                and(of_answers(0.5), "sampler_weights", -0.4),
                |x| {
                    let config = VespoConfig::default();
                    per_example(vespo_loss(&new(x)?, &x[2], &x[3], Some(&x[4]), &config)?.loss)
                },
            ),
            primitive: vespo_primitive,
        },
        Surrogate {
            row: row("dppo", of_tokens(1.0), |x| {
                let config = DppoConfig {
                    low: 0.1,
                    high: 0.05,
                    ..DppoConfig::default()
                };
                per_example(dppo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
            }),
            primitive: |x| weighted(x, kept_ratio(x)?),
        },
        Surrogate {
            row: row("dppo, kl", of_tokens(1.0), |x| {
                let divergence = BinaryDivergence::Kl;
                let config = DppoConfig {
                    divergence,
                    low: 0.02,
                    high: 0.01,
                    ..DppoConfig::default()
                };
                per_example(dppo_loss(&new(x)?, &x[2], &x[3], &config)?.loss)
            }),
            primitive: |x| weighted(x, kept_ratio(x)?),
        },
        Surrogate {
            row: row("straight-through kl", two("reference", 1.0), |x| {
                per_example(straight_through_kl_loss(&new(x)?, &x[2], KlEstimator::K3)?)
            }),
            primitive: |x| {
                let mask = x[1].ne(0u8)?.to_dtype(x[0].dtype())?;
                let square = ((&x[0] - &x[2])?.sqr()? * 0.5)?;
                Ok((square * mask)?.sum(D::Minus1)?)
            },
        },
    ]
}

fn vespo_primitive(x: &[Tensor]) -> Result<Tensor> {
    let better = x[3].ge(0.0)?.unsqueeze(1)?;
    let (up, down) = (vespo_integral(x, 2, 3.0)?, vespo_integral(x, 3, 2.0)?);
    let of_answer = better.where_cond(&up, &down)?.squeeze(1)?;
    Ok((of_answer * &x[3])?.neg()?)
}

/// The tokens of [`of_tokens`] that DPPO stops: p rises from 0.074 to 0.135 where Â > 0, and falls from 0.50 to 0.20
/// where Â < 0. Both binary divergences bound these two alone.
#[rustfmt::skip]
const STOPPED: [bool; 12] = [
    false, false, true, false,   false, false, false, false,   false, true, false, false,
];

/// e^d of the tokens that are not stopped.
fn kept_ratio(x: &[Tensor]) -> Result<Tensor> {
    let kept: Vec<f64> = STOPPED.iter().map(|stop| f64::from(!stop)).collect();
    let kept = Tensor::from_vec(kept, (3, 4), x[0].device())?;
    Ok(((&x[0] - &x[2])?.exp()? * kept)?)
}
