use super::super::{Input, Row, constant, index, mask, trained};
use candle_align::{Result, SftConfig, Statistics, TokenLogProbs, sft_loss};
use candle_core::{D, Tensor};

fn per_example(x: &[Tensor], config: &SftConfig) -> Result<Tensor> {
    let statistics = Statistics {
        vocabulary_mean: config.label_smoothing > 0.0,
        ..Default::default()
    };
    let log_probs = TokenLogProbs::next_token_with(&x[0], &x[1], &x[2], statistics)?;
    Ok(sft_loss(&log_probs, x.get(3), config)?
        .loss
        .sum(D::Minus1)?)
}

fn inputs() -> Vec<Input> {
    #[rustfmt::skip]
    let logits = [
        0.3, -1.0, 2.0,   0.0, 0.0, 0.0,   1.5, 0.2, -0.7,   0.1, 0.2, 0.3,
        -0.4, 0.9, 0.1,   2.2, -2.0, 0.5,  0.6, 0.6, -1.1,   9.0, 8.0, 7.0,
    ];
    vec![
        trained("logits", &[2, 4, 3], &logits),
        index("tokens", &[2, 4], &[0, 2, 1, 0, 1, 1, 0, 2]),
        mask("mask", &[2, 4], &[0, 1, 1, 0, 1, 0, 1, 1]),
    ]
}

pub fn rows() -> Vec<Row> {
    let mut weighted = inputs();
    weighted.push(constant("weights", &[2], &[0.5, 2.0]));
    vec![
        Row {
            name: "sft",
            inputs: inputs(),
            loss: |x| per_example(x, &SftConfig::default()),
            independent: true,
        },
        Row {
            name: "sft, weighted, label smoothing 0.1",
            inputs: weighted,
            loss: |x| {
                per_example(
                    x,
                    &SftConfig {
                        label_smoothing: 0.1,
                    },
                )
            },
            independent: true,
        },
    ]
}
