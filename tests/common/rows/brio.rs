use super::super::{Input, Row};
use super::{candidates, lists_of, reference};
use candle_align::ranking::ReferenceTokens;
use candle_align::ranking::brio::BrioPairs;
use candle_align::{BrioConfig, Result, brio_loss};
use candle_core::Tensor;

fn with(config: BrioConfig, x: &[Tensor]) -> Result<Tensor> {
    let reference = reference(&x[4..]);
    Ok(brio_loss(&candidates(x)?, reference.as_ref(), &config)?.loss)
}

fn lists() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, lengths) = (
        [-2.5, -4.1, -3.3, -0.9,   -3.0, -2.2, -6.4, -0.4,   -0.7, -5.0, -2.9, -5.6],
        [ 2.0,  3.0,  5.0,  1.0,    2.0,  2.0,  4.0,  1.0,    1.0,  6.0,  2.0,  3.0],
    );
    lists_of(&sums, &lengths)
}

/// As the authors ran it, but for the weight, which is theirs divided by 10.
fn authors() -> BrioConfig {
    BrioConfig {
        rank_weight: 1.0,
        pairs: BrioPairs::MeanPerDistance,
        reference: ReferenceTokens::Mean,
        ..Default::default()
    }
}

pub fn rows() -> Vec<Row> {
    let mut near = lists();
    // scores of the first list within 0.001 of their leads, on both sides
    near[1].data[..4].fill(1.0);
    near[0].data[..4].copy_from_slice(&[-2.0, -1.001, -2.499, -1.502]);
    let mut tied = lists();
    tied[2].data = vec![
        1.0, 1.0, -0.5, -0.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, -1.0, 1.0,
    ];
    let beside = |mut lists: Vec<Input>, time| {
        lists.extend(super::reference_of(time));
        lists
    };
    vec![
        Row {
            name: "brio",
            inputs: beside(lists(), 3),
            loss: |x| with(BrioConfig::default(), x),
            independent: true,
        },
        Row {
            name: "brio, as the authors ran it",
            inputs: beside(lists(), 4),
            loss: |x| with(authors(), x),
            independent: true,
        },
        Row {
            name: "brio, ranking only, lambda 0.3, gamma 2, alpha 0.6",
            inputs: lists(),
            loss: |x| {
                let config = BrioConfig {
                    margin: 0.3,
                    rank_weight: 2.0,
                    length_power: 0.6,
                    ..Default::default()
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "brio, near its kinks",
            inputs: near,
            loss: |x| {
                let config = BrioConfig {
                    margin: 0.5,
                    rank_weight: 1.0,
                    ..Default::default()
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "brio, ties, mean per distance, lambda 0.3",
            inputs: beside(tied, 4),
            loss: |x| {
                let config = BrioConfig {
                    margin: 0.3,
                    ..authors()
                };
                with(config, x)
            },
            independent: true,
        },
    ]
}
