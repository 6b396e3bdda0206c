use super::super::super::{Input, Row, constant, index, mask, trained};
use super::{moved, pair, ratios, row, start, tokens, with};
use candle_align::Pair;
use candle_align::Result;
use candle_align::ranking::*;
use candle_core::Tensor;

fn lengths() -> Vec<Input> {
    with(
        ["lengths.chosen", "lengths.rejected"],
        [4.0, 2.0, 3.0],
        [3.0, 5.0, 3.0],
    )
}

fn divergences() -> Vec<Input> {
    let mut inputs = moved();
    inputs.push(trained("divergences.chosen", &[3], &[0.2, 0.1, 0.0]));
    inputs.push(trained("divergences.rejected", &[3], &[0.05, 0.3, 0.4]));
    inputs
}

fn fixed_divergence() -> Vec<Input> {
    let mut inputs = divergences();
    inputs[4] = constant("divergences.chosen", &[3], &[0.2, 0.1, 0.0]);
    inputs
}

/// Chosen log-ratios of −0.001 and 0.001.
fn beside() -> Vec<Input> {
    let mut inputs = start();
    inputs[2].data = inputs[0].data.iter().map(|x| x + 0.001).collect();
    inputs[2].data[1] -= 0.002;
    inputs
}

fn logits() -> Vec<Input> {
    #[rustfmt::skip]
    let (policy, reference) = (
        [
            0.3, -1.0, 2.0,   0.7, 0.0, 0.0,   0.0, 0.0, 1.5,
            0.2, -0.7, 0.4,   -0.4, 0.9, 0.1,  -1.6, 2.2, -2.0,
        ],
        [
            0.1, 0.4, 1.0,    -0.7, 0.5, -0.9, 0.2, 1.3, 1.1,
            0.2, -0.7, 0.4,   -0.4, 0.3, 0.1,  2.0, -1.0, 1.5,
        ],
    );
    vec![
        trained("policy_logits", &[2, 3, 3], &policy),
        constant("reference_logits", &[2, 3, 3], &reference),
        mask("mask", &[2, 3], &[1, 1, 0, 1, 1, 1]),
    ]
}

/// Policy and reference of two pairs, one of which has the longer chosen answer.
fn answers() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (at, (role, counted)) in [
        (true, [1, 1, 1, 0, 1, 0]),
        (true, [0, 1, 0, 1, 1, 1]),
        (false, [1, 1, 1, 0, 1, 0]),
        (false, [0, 1, 0, 1, 1, 1]),
    ]
    .into_iter()
    .enumerate()
    {
        let data: Vec<f64> = (0..6)
            .map(|i| -0.3 - 0.37 * ((i * 5 + at * 3) % 7) as f64)
            .collect();
        inputs.push(match role {
            true => trained("values", &[2, 3], &data),
            false => constant("values", &[2, 3], &data),
        });
        inputs.push(index("mask", &[2, 3], &counted));
    }
    inputs
}

fn ld_dpo(x: &[Tensor], config: LdDpoConfig) -> Result<Tensor> {
    let of = |at: usize| -> Result<Pair<_>> {
        Ok(Pair {
            chosen: tokens(&x[at], &x[at + 1])?,
            rejected: tokens(&x[at + 2], &x[at + 3])?,
        })
    };
    Ok(ld_dpo_loss(&of(0)?, &of(4)?, &config)?.loss)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("r-dpo", lengths(), |x| {
            Ok(r_dpo_loss(&ratios(x)?, &pair(&x[4], &x[5]), &RDpoConfig::default())?.loss)
        }),
        row("r-dpo, beta 0.7, alpha -0.2", lengths(), |x| {
            Ok(r_dpo_loss(
                &ratios(x)?,
                &pair(&x[4], &x[5]),
                &RDpoConfig {
                    beta: 0.7,
                    alpha: -0.2,
                },
            )?
            .loss)
        }),
        row("dpop", moved(), |x| {
            Ok(dpop_loss(&ratios(x)?, &DpopConfig::default())?.loss)
        }),
        row("dpop, beta 0.7, lambda 5, beside its kink", beside(), |x| {
            Ok(dpop_loss(
                &ratios(x)?,
                &DpopConfig {
                    beta: 0.7,
                    lambda: 5.0,
                },
            )?
            .loss)
        }),
        row("tdpo1", divergences(), |x| {
            Ok(tdpo1_loss(&ratios(x)?, &pair(&x[4], &x[5]), &Tdpo1Config::default())?.loss)
        }),
        row("tdpo2", fixed_divergence(), |x| {
            Ok(tdpo2_loss(&ratios(x)?, &pair(&x[4], &x[5]), &Tdpo2Config::default())?.loss)
        }),
        row("tdpo2, beta 0.7, alpha 1.5", fixed_divergence(), |x| {
            Ok(tdpo2_loss(
                &ratios(x)?,
                &pair(&x[4], &x[5]),
                &Tdpo2Config {
                    beta: 0.7,
                    alpha: 1.5,
                },
            )?
            .loss)
        }),
        row("sequential kl", logits(), |x| {
            sequential_kl(&x[0], &x[1], &x[2])
        }),
        row("ld-dpo", answers(), |x| ld_dpo(x, LdDpoConfig::default())),
        row("ld-dpo, beta 0.7, alpha 0", answers(), |x| {
            ld_dpo(
                x,
                LdDpoConfig {
                    beta: 0.7,
                    alpha: 0.0,
                },
            )
        }),
    ]
}
