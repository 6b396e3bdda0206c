use super::super::{Input, Row, constant, mask, trained};
use candle_align::{Candidates, ProConfig, ProTemperature, Result, pro_loss};
use candle_core::Tensor;

fn with(config: ProConfig, x: &[Tensor]) -> Result<Tensor> {
    let candidates = Candidates::new(&x[0], &x[1], &x[2], Some(&x[3]))?;
    Ok(pro_loss(&candidates, &config)?.loss)
}

/// Three lists of up to four answers: all four, the last left out, the first two left out.
fn inputs() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, lengths, rewards, counted) = (
        [-2.5, -4.1, -3.3, -0.9,   -1.0, -2.2, -6.0, -0.4,   -0.7, -5.0, -2.9, -3.6],
        [ 2.0,  3.0,  5.0,  1.0,    2.0,  1.0,  4.0,  1.0,    1.0,  6.0,  2.0,  3.0],
        [ 0.2,  1.5, -0.3,  0.8,    2.0, -1.0,  0.5,  9.0,    7.0,  8.0, -0.5,  1.1],
        [   1,    1,    1,    1,      1,    1,    1,    0,      0,    0,    1,    1],
    );
    vec![
        trained("sums", &[3, 4], &sums),
        constant("lengths", &[3, 4], &lengths),
        constant("rewards", &[3, 4], &rewards),
        mask("mask", &[3, 4], &counted),
    ]
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
