use super::super::{Input, Row, constant, mask, trained};
use super::{candidates, lists_of};
use candle_align::{
    Pair, SlicConfig, slic_expected_reward_loss, slic_kl_regularizer, slic_list_loss,
    slic_margin_loss, slic_rank_loss,
};
use candle_core::{D, Tensor};

fn pair(chosen: &Tensor, rejected: &Tensor) -> Pair<Tensor> {
    Pair {
        chosen: chosen.clone(),
        rejected: rejected.clone(),
    }
}

/// Leads of 0.9, −0.6, 2.4 and 0.999.
fn pairs() -> Vec<Input> {
    vec![
        trained("policy.chosen", &[4], &[-3.5, -5.4, -2.6, -7.0]),
        trained("policy.rejected", &[4], &[-4.4, -4.8, -5.0, -7.999]),
    ]
}

fn lists() -> Vec<Input> {
    #[rustfmt::skip]
    let (sums, lengths) = (
        [-2.5, -4.1, -3.3, -0.9,   -3.0, -2.2, -6.0, -0.4,   -0.7, -5.0, -2.9, -3.6],
        [ 2.0,  3.0,  5.0,  1.0,    2.0,  2.0,  4.0,  1.0,    1.0,  6.0,  2.0,  3.0],
    );
    lists_of(&sums, &lengths)
}

fn tied_lists() -> Vec<Input> {
    let mut tied = lists();
    tied[2].data = vec![
        1.0, 1.0, -0.5, -0.5, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, -1.0, 1.0,
    ];
    tied
}

fn logits() -> Vec<Input> {
    #[rustfmt::skip]
    let (policy, reference) = (
        [
            0.3, -1.0, 2.0, 0.7,   0.0, 0.0, 0.0, 0.0,    1.5, 0.2, -0.7, 0.4,
            -0.4, 0.9, 0.1, -1.6,  2.2, -2.0, 0.5, 0.3,   0.6, 0.6, -1.1, 0.0,
        ],
        [
            0.1, 0.4, 1.0, -0.7,   0.5, -0.9, 0.2, 1.3,   1.1, 0.0, -1.2, 0.8,
            -0.4, 0.9, 0.1, -1.6,  2.0, -1.0, 1.5, 0.0,   -0.3, 0.6, -1.0, 0.4,
        ],
    );
    vec![
        trained("policy_logits", &[2, 3, 4], &policy),
        constant("reference_logits", &[2, 3, 4], &reference),
        mask("mask", &[2, 3], &[1, 1, 0, 1, 1, 1]),
    ]
}

pub fn rows() -> Vec<Row> {
    let mut margins = pairs();
    margins.push(constant("similarity.chosen", &[4], &[0.9, 0.4, 0.7, 0.5]));
    margins.push(constant("similarity.rejected", &[4], &[0.1, 0.3, 0.7, 0.0]));
    let mut start = logits();
    start[1].data = start[0].data.clone();
    vec![
        Row {
            name: "slic rank",
            inputs: pairs(),
            loss: |x| Ok(slic_rank_loss(&pair(&x[0], &x[1]), &SlicConfig::default())?.loss),
            independent: true,
        },
        Row {
            name: "slic rank, delta 2.7",
            inputs: pairs(),
            loss: |x| Ok(slic_rank_loss(&pair(&x[0], &x[1]), &SlicConfig { delta: 2.7 })?.loss),
            independent: true,
        },
        Row {
            name: "slic margin",
            inputs: margins.clone(),
            loss: |x| {
                let similarity = pair(&x[2], &x[3]);
                Ok(
                    slic_margin_loss(&pair(&x[0], &x[1]), &similarity, &SlicConfig::default())?
                        .loss,
                )
            },
            independent: true,
        },
        Row {
            name: "slic margin, delta 2.5",
            inputs: margins,
            loss: |x| {
                let similarity = pair(&x[2], &x[3]);
                Ok(
                    slic_margin_loss(&pair(&x[0], &x[1]), &similarity, &SlicConfig { delta: 2.5 })?
                        .loss,
                )
            },
            independent: true,
        },
        Row {
            name: "slic list",
            inputs: lists(),
            loss: |x| slic_list_loss(&candidates(x)?, &SlicConfig::default()),
            independent: true,
        },
        Row {
            name: "slic list, ties, delta 0.7",
            inputs: tied_lists(),
            loss: |x| slic_list_loss(&candidates(x)?, &SlicConfig { delta: 0.7 }),
            independent: true,
        },
        Row {
            name: "slic expected reward",
            inputs: lists(),
            loss: |x| slic_expected_reward_loss(&candidates(x)?),
            independent: true,
        },
        Row {
            name: "slic expected reward, ties",
            inputs: tied_lists(),
            loss: |x| slic_expected_reward_loss(&candidates(x)?),
            independent: true,
        },
        Row {
            name: "slic kl",
            inputs: logits(),
            loss: |x| {
                Ok(slic_kl_regularizer(&x[0], &x[1], &x[2])?
                    .loss
                    .sum(D::Minus1)?)
            },
            independent: true,
        },
        Row {
            name: "slic kl, at its start",
            inputs: start,
            loss: |x| {
                Ok(slic_kl_regularizer(&x[0], &x[1], &x[2])?
                    .loss
                    .sum(D::Minus1)?)
            },
            independent: true,
        },
    ]
}
