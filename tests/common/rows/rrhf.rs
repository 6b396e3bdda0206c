use super::super::{Input, Row};
use super::{candidates, lists_of};
use candle_align::{Result, RrhfConfig, rrhf_loss};
use candle_core::Tensor;

fn with(config: RrhfConfig, x: &[Tensor]) -> Result<Tensor> {
    Ok(rrhf_loss(&candidates(x)?, &config)?.loss)
}

fn inputs() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, lengths) = (
        [-2.5, -4.1, -3.3, -0.9,   -3.0, -2.2, -6.4, -0.4,   -0.7, -5.0, -2.9, -5.6],
        [ 2.0,  3.0,  5.0,  1.0,    2.0,  2.0,  4.0,  1.0,    1.0,  6.0,  2.0,  3.0],
    );
    lists_of(&sums, &lengths)
}

pub fn rows() -> Vec<Row> {
    let mut near = inputs();
    // means of the first list within 0.001 of each other, on both sides
    near[0].data[..4].copy_from_slice(&[-2.0, -3.003, -4.99, -1.002]);
    let mut tied = inputs();
    tied[2].data = vec![
        1.0, 1.0, -0.5, -0.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, -1.0, 1.0,
    ];
    vec![
        Row {
            name: "rrhf",
            inputs: inputs(),
            loss: |x| with(RrhfConfig::default(), x),
            independent: true,
        },
        Row {
            name: "rrhf, rank weight 3, sft weight 0.2",
            inputs: inputs(),
            loss: |x| {
                let config = RrhfConfig {
                    rank_weight: 3.0,
                    sft_weight: 0.2,
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "rrhf, near its kinks",
            inputs: near,
            loss: |x| with(RrhfConfig::default(), x),
            independent: true,
        },
        Row {
            name: "rrhf, ties",
            inputs: tied,
            loss: |x| with(RrhfConfig::default(), x),
            independent: true,
        },
    ]
}
