use super::super::{Input, Row};
use super::{candidates, lists_of, reference, reference_of};
use candle_align::ranking::ReferenceTokens;
use candle_align::{ExpectedRiskConfig, Result, expected_risk_loss};
use candle_core::Tensor;

fn with(config: ExpectedRiskConfig, x: &[Tensor]) -> Result<Tensor> {
    let reference = reference(&x[4..]);
    Ok(expected_risk_loss(&candidates(x)?, reference.as_ref(), &config)?.loss)
}

fn lists() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, lengths) = (
        [-2.5, -4.1, -3.3, -0.9,   -3.0, -2.2, -6.0, -0.4,   -0.7, -5.0, -2.9, -3.6],
        [ 2.0,  3.0,  5.0,  1.0,    2.0,  2.0,  4.0,  1.0,    1.0,  6.0,  2.0,  3.0],
    );
    lists_of(&sums, &lengths)
}

pub fn rows() -> Vec<Row> {
    let mut start = lists();
    // every token as likely as any other: all shares are equal
    start[0].data = start[1].data.iter().map(|n| -1.3 * n).collect();
    let mut tied = lists();
    tied[2].data = vec![
        1.0, 1.0, -0.5, -0.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, -1.0, 1.0,
    ];
    let mut beside = lists();
    beside.extend(reference_of(4));
    let mut short = lists();
    short.extend(reference_of(2));
    vec![
        Row {
            name: "expected risk",
            inputs: lists(),
            loss: |x| with(ExpectedRiskConfig::default(), x),
            independent: true,
        },
        Row {
            name: "expected risk, beside a reference, a 0.4, alpha 0.3",
            inputs: beside,
            loss: |x| {
                let config = ExpectedRiskConfig {
                    length_power: 0.4,
                    token_weight: 0.3,
                    reference: ReferenceTokens::Sum,
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "expected risk, beside the mean of a reference, on sums",
            inputs: short,
            loss: |x| {
                let config = ExpectedRiskConfig {
                    length_power: 0.0,
                    token_weight: 0.6,
                    reference: ReferenceTokens::Mean,
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "expected risk, at its start",
            inputs: start,
            loss: |x| with(ExpectedRiskConfig::default(), x),
            independent: true,
        },
        Row {
            name: "expected risk, ties",
            inputs: tied,
            loss: |x| with(ExpectedRiskConfig::default(), x),
            independent: true,
        },
    ]
}
