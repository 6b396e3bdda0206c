use super::super::{Input, Row};
use super::{candidates, lists_of};
use candle_align::{Result, StableAlignmentConfig, StableAlignmentForm, stable_alignment_loss};
use candle_core::Tensor;

fn with(config: StableAlignmentConfig, x: &[Tensor]) -> Result<Tensor> {
    Ok(stable_alignment_loss(&candidates(x)?, &config)?.loss)
}

fn max() -> StableAlignmentConfig {
    StableAlignmentConfig {
        form: StableAlignmentForm::Max,
        ..Default::default()
    }
}

fn off_default(form: StableAlignmentForm) -> StableAlignmentConfig {
    StableAlignmentConfig {
        margin: 0.6,
        ratio: 1.5,
        rating_scale: 2.0,
        form,
    }
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
    // every token as likely as any other: all cross-entropies are equal
    let mut start = inputs();
    start[0].data = start[1].data.iter().map(|n| -1.3 * n).collect();
    // the hinge of each list within 0.001 of its kink, and on both sides: with a margin of 0 the
    // mean of the others' cross-entropies nearly is the best one's
    let mut near = inputs();
    near[0].data = vec![
        -2.0, -3.003, -5.0, -1.0, -2.0, -2.002, -4.0, -0.4, -0.7, -5.0, -2.0, -3.002,
    ];
    let mut tied = inputs();
    tied[2].data = vec![
        1.0, 1.0, -0.5, -0.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, -1.0, 1.0,
    ];
    vec![
        Row {
            name: "stable alignment",
            inputs: inputs(),
            loss: |x| with(StableAlignmentConfig::default(), x),
            independent: true,
        },
        Row {
            name: "stable alignment, max",
            inputs: inputs(),
            loss: |x| with(max(), x),
            independent: true,
        },
        Row {
            name: "stable alignment, margin 0.6, ratio 1.5, scale 2",
            inputs: inputs(),
            loss: |x| with(off_default(StableAlignmentForm::Mean), x),
            independent: true,
        },
        Row {
            name: "stable alignment, max, margin 0.6, ratio 1.5, scale 2",
            inputs: inputs(),
            loss: |x| with(off_default(StableAlignmentForm::Max), x),
            independent: true,
        },
        Row {
            name: "stable alignment, at its start",
            inputs: start,
            loss: |x| with(StableAlignmentConfig::default(), x),
            independent: true,
        },
        Row {
            name: "stable alignment, near its kink",
            inputs: near,
            loss: |x| {
                let config = StableAlignmentConfig {
                    margin: 0.0,
                    ..Default::default()
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "stable alignment, ties",
            inputs: tied.clone(),
            loss: |x| with(StableAlignmentConfig::default(), x),
            independent: true,
        },
        Row {
            name: "stable alignment, max, ties of the best",
            inputs: tied,
            loss: |x| with(max(), x),
            independent: true,
        },
    ]
}
