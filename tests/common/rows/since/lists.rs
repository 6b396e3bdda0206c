use super::super::super::{Input, Row, constant};
use super::super::{candidates, lists_of};
use super::{moved, pair, ratios, row};
use candle_align::Result;
use candle_align::ranking::*;
use candle_core::Tensor;

fn lists() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, reference) = (
        [-2.5, -4.1, -3.3, -0.9,   -3.0, -2.2, -6.0, -0.4,   -0.7, -5.0, -2.9, -3.6],
        [-2.0, -4.0, -3.9, -1.5,   -3.3, -2.0, -5.0, -0.1,   -0.2, -5.5, -3.0, -3.1],
    );
    let mut inputs = lists_of(&sums, &[2.0; 12]);
    inputs.push(constant("reference", &[3, 4], &reference));
    inputs
}

fn at_start() -> Vec<Input> {
    let mut inputs = lists();
    inputs[4].data = inputs[0].data.clone();
    inputs
}

/// The losses of quantiles, each of which sees the whole batch.
pub fn of_the_batch() -> Vec<Row> {
    let mut rows = vec![
        row("aot", moved(), |x| aot(x, AotConfig::default())),
        row("aot, beta 0.7, smoothing 0.2", moved(), |x| {
            aot(
                x,
                AotConfig {
                    beta: 0.7,
                    label_smoothing: 0.2,
                },
            )
        }),
        row("aot unpaired", moved(), |x| {
            Ok(aot_unpaired_loss(&ratios(x)?, &AotConfig::default())?.loss)
        }),
    ];
    rows.iter_mut().for_each(|row| row.independent = false);
    rows
}

fn aot(x: &[Tensor], config: AotConfig) -> Result<Tensor> {
    Ok(aot_loss(&pair(&x[0], &x[1]), &pair(&x[2], &x[3]), &config)?.loss)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("exo", lists(), |x| {
            exo_loss(&candidates(x)?, &x[4], &ExoListConfig::default())
        }),
        row(
            "exo, beta 0.7, reward beta 0.4, at its start",
            at_start(),
            |x| {
                exo_loss(
                    &candidates(x)?,
                    &x[4],
                    &ExoListConfig {
                        beta: 0.7,
                        reward_beta: 0.4,
                    },
                )
            },
        ),
        row("nca", lists(), |x| {
            nca_loss(&candidates(x)?, &x[4], &NcaConfig::default())
        }),
        row("nca, beta 0.7, alpha 0.4, at its start", at_start(), |x| {
            nca_loss(
                &candidates(x)?,
                &x[4],
                &NcaConfig {
                    beta: 0.7,
                    alpha: 0.4,
                },
            )
        }),
        row("info nca", lists(), |x| {
            info_nca_loss(&candidates(x)?, &x[4], &NcaConfig::default())
        }),
        row(
            "info nca, beta 0.7, alpha 0.4, at its start",
            at_start(),
            |x| {
                info_nca_loss(
                    &candidates(x)?,
                    &x[4],
                    &NcaConfig {
                        beta: 0.7,
                        alpha: 0.4,
                    },
                )
            },
        ),
    ]
}
