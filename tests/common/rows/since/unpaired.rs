use super::super::super::{Input, Row, constant, index, trained};
use super::{as_mask, moved, ratios, row, start};
use candle_align::Result;
use candle_align::ranking::*;
use candle_core::Tensor;

fn answers() -> Vec<Input> {
    vec![
        trained("policy", &[3], &[-3.5, -2.7, -8.0]),
        constant("reference", &[3], &[-3.1, -3.0, -6.0]),
        index("desirable", &[3], &[1, 0, 1]),
    ]
}

fn at_start() -> Vec<Input> {
    let mut inputs = answers();
    inputs[1].data = inputs[0].data.clone();
    inputs
}

/// A number that the caller passes.
fn scalar(x: &[Tensor], value: f64) -> Result<Tensor> {
    Ok(Tensor::new(value, x[0].device())?.to_dtype(x[0].dtype())?)
}

fn kto(x: &[Tensor], config: KtoConfig, baseline: f64) -> Result<Tensor> {
    let baseline = scalar(x, baseline)?;
    Ok(kto_loss(&x[0], &x[1], &as_mask(&x[2])?, &baseline, &config)?.loss)
}

fn bco(x: &[Tensor], beta: f64, shift: f64) -> Result<Tensor> {
    let shift = scalar(x, shift)?;
    Ok(bco_loss(&x[0], &x[1], &as_mask(&x[2])?, &shift, &BcoConfig { beta })?.loss)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("kto", answers(), |x| kto(x, KtoConfig::default(), 0.25)),
        row("kto, beta 0.7, weights 0.5 and 1.33", answers(), |x| {
            kto(
                x,
                KtoConfig {
                    beta: 0.7,
                    desirable_weight: 0.5,
                    undesirable_weight: 1.33,
                },
                0.1,
            )
        }),
        row("kto, at its start", at_start(), |x| {
            kto(x, KtoConfig::default(), 0.0)
        }),
        row("apo zero unpaired", answers(), |x| {
            Ok(apo_zero_unpaired_loss(
                &x[0],
                &x[1],
                &as_mask(&x[2])?,
                &ApoUnpairedConfig { beta: 0.7 },
            )?
            .loss)
        }),
        row("apo zero unpaired, at its start", at_start(), |x| {
            Ok(apo_zero_unpaired_loss(
                &x[0],
                &x[1],
                &as_mask(&x[2])?,
                &ApoUnpairedConfig::default(),
            )?
            .loss)
        }),
        row("bco", answers(), |x| bco(x, 0.1, 0.25)),
        row("bco, beta 0.7, at its start", at_start(), |x| {
            bco(x, 0.7, 0.0)
        }),
        row("bco pair", moved(), |x| {
            Ok(bco_pair_loss(&ratios(x)?, &scalar(x, 0.3)?, &BcoConfig::default())?.loss)
        }),
        row("bco pair, beta 0.7, at its start", start(), |x| {
            Ok(bco_pair_loss(&ratios(x)?, &scalar(x, 0.0)?, &BcoConfig { beta: 0.7 })?.loss)
        }),
    ]
}
