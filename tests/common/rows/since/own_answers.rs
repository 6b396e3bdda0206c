use super::super::super::{Input, Row, constant, mask, trained};
use super::{moved, pair, ratios, row, start, tokens, with};
use candle_align::Result;
use candle_align::ranking::*;
use candle_core::Tensor;

fn answers() -> Vec<Input> {
    vec![
        trained("policy", &[3, 2], &[-3.5, -4.5, -2.7, -4.8, -8.0, -5.0]),
        constant("reference", &[3, 2], &[-3.1, -4.0, -3.0, -4.9, -6.0, -5.5]),
        constant("scores", &[3, 2], &[0.3, 0.1, -0.2, 0.7, 0.5, 0.5]),
    ]
}

fn drawn() -> Vec<Input> {
    let mut inputs = moved();
    inputs.push(trained("reference_answers", &[3], &[-6.0, -2.0, -9.5]));
    inputs
}

fn rewards() -> Vec<Input> {
    with(
        ["rewards.chosen", "rewards.rejected"],
        [1.0, 0.2, -0.7],
        [0.4, 0.9, -0.7],
    )
}

/// The price of the KL is a constant times a log-probability: its gradient is that of the loss with the
/// log-ratio held, so central differences do not apply.
pub fn surrogates() -> Vec<Row> {
    let inputs = || {
        vec![
            trained("values", &[2, 3], &[-0.3, -1.1, -0.4, -2.0, -0.7, -0.1]),
            mask("mask", &[2, 3], &[1, 1, 0, 1, 1, 1]),
            constant("values", &[2, 3], &[-0.3, -1.1, -0.4, -2.0, -0.7, -0.1]),
            constant("wins", &[2], &[0.9, 0.2]),
        ]
    };
    vec![row("nash-md", inputs(), |x| {
        nash(
            x,
            NashMdConfig {
                beta: 0.0,
                ..Default::default()
            },
        )
    })]
}

fn nash(x: &[Tensor], config: NashMdConfig) -> Result<Tensor> {
    let (policy, reference) = (tokens(&x[0], &x[1])?, tokens(&x[2], &x[1])?);
    nash_md_loss(&policy, &reference, &x[3], &config)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("online dpo", answers(), |x| {
            Ok(online_dpo_loss(&x[0], &x[1], &x[2], &OnlineDpoConfig::default())?.loss)
        }),
        row(
            "online dpo, beta 0.7, the first wins ties",
            answers(),
            |x| {
                let config = OnlineDpoConfig {
                    beta: 0.7,
                    ties: TiedScores::FirstWins,
                };
                Ok(online_dpo_loss(&x[0], &x[1], &x[2], &config)?.loss)
            },
        ),
        row("xpo", drawn(), |x| {
            Ok(xpo_loss(&ratios(x)?, &x[4], &XpoConfig::default())?.loss)
        }),
        row("xpo, beta 0.7, alpha 0.2", drawn(), |x| {
            Ok(xpo_loss(
                &ratios(x)?,
                &x[4],
                &XpoConfig {
                    beta: 0.7,
                    alpha: 0.2,
                },
            )?
            .loss)
        }),
        row("spin, at its start", start(), |x| {
            Ok(spin_loss(&ratios(x)?, &SpinConfig::default())?.loss)
        }),
        row("spin, beta 0.7", moved(), |x| {
            Ok(spin_loss(&ratios(x)?, &SpinConfig { beta: 0.7 })?.loss)
        }),
        row("rebel", rewards(), |x| {
            Ok(rebel_loss(&ratios(x)?, &pair(&x[4], &x[5]), &RebelConfig::default())?.loss)
        }),
        row("rebel, eta 0.3", rewards(), |x| {
            Ok(rebel_loss(&ratios(x)?, &pair(&x[4], &x[5]), &RebelConfig { eta: 0.3 })?.loss)
        }),
    ]
}
