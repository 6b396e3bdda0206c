use super::super::{Input, Row};
use super::{candidates, lists_of};
use candle_align::{ProConfig, ProTemperature, Result, pro_loss};
use candle_core::Tensor;

fn with(config: ProConfig, x: &[Tensor]) -> Result<Tensor> {
    Ok(pro_loss(&candidates(x)?, &config)?.loss)
}

fn inputs() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, lengths) = (
        [-2.5, -4.1, -3.3, -0.9,   -1.0, -2.2, -6.0, -0.4,   -0.7, -5.0, -2.9, -3.6],
        [ 2.0,  3.0,  5.0,  1.0,    2.0,  1.0,  4.0,  1.0,    1.0,  6.0,  2.0,  3.0],
    );
    lists_of(&sums, &lengths)
}

pub fn rows() -> Vec<Row> {
    let mut start = inputs();
    // every token as likely as any other: all means are equal
    start[0].data = start[1].data.iter().map(|n| -1.3 * n).collect();
    let mut tied = inputs();
    tied[2].data = vec![
        1.0, 1.0, -0.5, -0.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, -1.0, 1.0,
    ];
    vec![
        Row {
            name: "pro",
            inputs: inputs(),
            loss: |x| with(ProConfig::default(), x),
            independent: true,
        },
        Row {
            name: "pro, T = 1, sft weight 0.3",
            inputs: inputs(),
            loss: |x| {
                let config = ProConfig {
                    temperature: ProTemperature::One,
                    sft_weight: 0.3,
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "pro, without sft",
            inputs: inputs(),
            loss: |x| {
                let config = ProConfig {
                    sft_weight: 0.0,
                    ..Default::default()
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "pro, at its start",
            inputs: start,
            loss: |x| with(ProConfig::default(), x),
            independent: true,
        },
        Row {
            name: "pro, ties",
            inputs: tied,
            loss: |x| with(ProConfig::default(), x),
            independent: true,
        },
    ]
}
