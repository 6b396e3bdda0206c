use super::super::super::{Input, Row, constant, index, mask, trained};
use super::{below, pair, row, tokens};
use candle_align::Result;
use candle_align::online::reward_models::*;
use candle_core::{D, Tensor};

fn scores() -> Vec<Input> {
    vec![
        trained("scores.chosen", &[3], &[1.5, -0.7, 0.2]),
        trained("scores.rejected", &[3], &[0.5, 0.8, 0.25]),
    ]
}

fn at_start() -> Vec<Input> {
    let mut inputs = scores();
    inputs[1].data = inputs[0].data.clone();
    inputs
}

fn both() -> Vec<Input> {
    let mut inputs = scores();
    inputs.push(trained("policy.chosen", &[3], &[-3.5, -2.7, -8.0]));
    inputs.push(trained("policy.rejected", &[3], &[-4.5, -4.8, -5.0]));
    inputs.push(constant("reference.chosen", &[3], &[-3.1, -3.0, -6.0]));
    inputs.push(constant("reference.rejected", &[3], &[-4.0, -4.9, -5.5]));
    inputs
}

fn chosen_only() -> Vec<Input> {
    let mut inputs = both()[..4].to_vec();
    inputs[3] = constant("policy.rejected", &[3], &[-4.5, -4.8, -5.0]);
    inputs
}

fn grm(x: &[Tensor], auxiliary: GrmAuxiliary) -> Result<Tensor> {
    let reference = x.get(4).map(|chosen| pair(chosen, &x[5]));
    let config = GrmConfig {
        weight: 0.3,
        auxiliary,
    };
    let (scores, policy) = (pair(&x[0], &x[1]), pair(&x[2], &x[3]));
    Ok(grm_loss(&scores, &policy, reference.as_ref(), &config)?.loss)
}

fn labels() -> Vec<Input> {
    vec![
        trained("scores", &[4], &[1.5, -0.7, 0.2, 0.0]),
        constant("labels", &[4], &[1.0, 0.0, 0.3, 1.0]),
    ]
}

fn steps() -> Vec<Input> {
    vec![
        trained("scores", &[2, 3], &[1.5, -0.7, 0.2, 0.4, -2.0, 0.6]),
        constant("labels", &[2, 3], &[1.0, 0.0, 0.3, 0.0, 1.0, 1.0]),
        mask("step_ends", &[2, 3], &[0, 1, 1, 1, 0, 1]),
    ]
}

fn implicit_answers() -> Vec<Input> {
    vec![
        trained("values", &[2, 3], &[-0.3, -1.1, -0.4, -2.0, -0.7, -0.1]),
        index("mask", &[2, 3], &[1, 1, 1, 1, 1, 0]),
        constant("values", &[2, 3], &[-0.6, -0.9, -0.5, -1.0, -0.9, -0.3]),
        constant("labels", &[2], &[1.0, 0.0]),
    ]
}

fn implicit(x: &[Tensor], beta: f64) -> Result<Tensor> {
    let (policy, reference) = (tokens(&x[0], &x[1])?, tokens(&x[2], &x[1])?);
    Ok(implicit_reward_loss(&policy, &reference, &x[3], &ImplicitRewardConfig { beta })?.loss)
}

fn verdicts() -> Vec<Input> {
    vec![
        trained("accept", &[3], &[0.4, -0.7, 2.0]),
        constant("reject", &[3], &[-1.0, -0.2, -3.0]),
    ]
}

fn both_verdicts() -> Vec<Input> {
    vec![
        trained("accept", &[3], &[-0.4, -0.7, -2.0]),
        trained("reject", &[3], &[-1.0, -0.2, -3.0]),
    ]
}

pub fn rows() -> Vec<Row> {
    vec![
        row("smoothed reward", scores(), |x| {
            Ok(smoothed_reward_loss(&pair(&x[0], &x[1]), &SmoothedRewardConfig::default())?.loss)
        }),
        row("smoothed reward, at its start", at_start(), |x| {
            Ok(smoothed_reward_loss(
                &pair(&x[0], &x[1]),
                &SmoothedRewardConfig {
                    label_smoothing: 0.3,
                },
            )?
            .loss)
        }),
        row("grm, likelihood", chosen_only(), |x| {
            grm(x, GrmAuxiliary::Sft)
        }),
        row("grm, log sigmoid", chosen_only(), |x| {
            grm(x, GrmAuxiliary::LogSigmoid { beta: 0.4 })
        }),
        row("grm, dpo", both(), |x| {
            grm(x, GrmAuxiliary::Dpo { beta: 0.4 })
        }),
        row("outcome reward", labels(), |x| {
            outcome_reward_loss(&x[0], &x[1])
        }),
        row("process reward", steps(), |x| {
            Ok(process_reward_loss(&x[0], &x[1], &x[2])?
                .loss
                .sum(D::Minus1)?)
        }),
        row("implicit reward", implicit_answers(), |x| implicit(x, 0.05)),
        row("implicit reward, beta 0.7", implicit_answers(), |x| {
            implicit(x, 0.7)
        }),
        row("verdict, of all words", verdicts(), |x| {
            verdict_score(&below(&x[0])?, &x[1], VerdictShare::AllWords)
        }),
        row("verdict, of two", both_verdicts(), |x| {
            verdict_score(&x[0], &x[1], VerdictShare::TwoVerdicts)
        }),
    ]
}
