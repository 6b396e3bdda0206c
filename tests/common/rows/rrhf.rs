use super::super::{Input, Row, constant, mask, trained};
use candle_align::{Candidates, Result, RrhfConfig, rrhf_loss};
use candle_core::Tensor;

fn with(config: RrhfConfig, x: &[Tensor]) -> Result<Tensor> {
    let candidates = Candidates::new(&x[0], &x[1], &x[2], Some(&x[3]))?;
    Ok(rrhf_loss(&candidates, &config)?.loss)
}

/// Three lists of up to four answers: all four, the last left out, the first two left out.
fn inputs() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, lengths, rewards, counted) = (
        [-2.5, -4.1, -3.3, -0.9,   -3.0, -2.2, -6.4, -0.4,   -0.7, -5.0, -2.9, -5.6],
        [ 2.0,  3.0,  5.0,  1.0,    2.0,  2.0,  4.0,  1.0,    1.0,  6.0,  2.0,  3.0],
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
