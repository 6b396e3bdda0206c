//! The loss of some answers of a step.

use super::super::super::super::error::Result;
use super::super::super::objective::Text;
use super::super::super::objective::text::log_probs;
use super::super::super::settings::Settings;
use super::super::loss::{Measured, Round, placed};
use super::super::prompts::Prompt;
use super::critic::Critic;
use super::lesson::Lesson;
use candle_align::decoder::{Decoder, Mode};
use candle_align::{PpoConfig, PpoValueConfig, Reduction, ppo_policy_loss, ppo_value_loss};
use candle_core::{DType, Tensor};

/// The loss of some answers; the sum over all parts of a step is the loss of the step, which has `tokens` tokens.
pub fn loss(
    settings: &Settings,
    (decoder, critic): (&Decoder, &Critic),
    prompts: &[Prompt],
    (round, lesson): (&Round, &Lesson),
    units: &[Vec<usize>],
    tokens: f64,
    mode: Mode,
) -> Result<Measured> {
    let online = &settings.online;
    let rows: Vec<usize> = units.concat();
    let text = |row: &usize| {
        let answer = &round.answers[*row];
        answer.after(&prompts[answer.prompt])
    };
    let texts: Vec<Text> = rows.iter().map(text).collect();
    let all: Vec<&Text> = texts.iter().collect();
    let new = log_probs(decoder, &all, mode)?;
    let of = |numbers: &[Vec<f64>]| {
        placed(
            &texts,
            rows.iter().map(|row| numbers[*row].as_slice()),
            &new,
        )
    };
    let old = placed(
        &texts,
        rows.iter().map(|row| round.answers[*row].old.as_slice()),
        &new,
    )?;

    let clip = PpoConfig {
        clip: online.epsilon,
        clip_high: online.epsilon_high,
        ..PpoConfig::default()
    };
    let policy = ppo_policy_loss(&new, &old, &of(&lesson.advantages)?, &clip)?;
    let clip = PpoValueConfig {
        clip: online.ppo.cliprange_value,
    };
    let values = critic.values(&all, mode)?.to_dtype(old.dtype())?;
    let (old_values, returns) = (of(&lesson.values)?, of(&lesson.returns)?);
    let value = ppo_value_loss(&values, &old_values, &returns, new.mask(), &clip)?;

    let over = Reduction::SumOver {
        count: tokens.max(1.0),
    };
    let value = value.reduce(over)?;
    let number = |t: &Tensor| -> Result<f64> { Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
    let kl = |reference: &Vec<Vec<f64>>| {
        let of = |row: &usize| {
            let both = round.answers[*row].old.iter().zip(&reference[*row]);
            both.map(|(old, reference)| old - reference).sum::<f64>()
        };
        rows.iter().map(of).sum::<f64>()
    };
    Ok(Measured {
        loss: (policy.loss.reduce(over)? + (&value * online.ppo.vf_coef)?)?,
        clipped: number(&policy.clipped.sum_all()?)?,
        kl: round.reference.as_ref().map(kl),
        value: Some(number(&value.detach())?),
        entropy: None,
    })
}
