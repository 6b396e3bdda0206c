use super::super::{Input, Row, constant, index, mask, trained};
use candle_align::online::reward_model::Ties;
use candle_align::{
    Pair, PairwiseRewardConfig, RankedRewardConfig, Result, choose_best_loss, pairwise_reward_loss,
    plackett_luce_reward_loss, ranked_reward_loss,
};
use candle_core::Tensor;

fn pairwise(x: &[Tensor], centering: f64) -> Result<Tensor> {
    let scores = Pair {
        chosen: x[0].clone(),
        rejected: x[1].clone(),
    };
    Ok(pairwise_reward_loss(&scores, x.get(2), &PairwiseRewardConfig { centering })?.loss)
}

fn off_default(ties: Ties) -> RankedRewardConfig {
    RankedRewardConfig {
        ties,
        margin: 0.3,
        centering: 0.05,
    }
}

fn pair() -> Vec<Input> {
    vec![
        trained("scores.chosen", &[3], &[1.5, -0.7, 0.2]),
        trained("scores.rejected", &[3], &[0.5, 0.8, 0.25]),
    ]
}

/// Four answers in any order; three with a tie; one.
fn lists() -> Vec<Input> {
    #[rustfmt::skip]
    let (scores, rewards) = (
        [0.3, -1.0, 2.0, 0.8,  1.5, 0.2, -0.7, 0.4,  0.9, 9.0, 9.0, 9.0],
        [2.0, 5.0, 1.0, 3.0,   1.0, 4.0, 7.0, 4.0,   1.0, 2.0, 3.0, 4.0],
    );
    vec![
        trained("scores", &[3, 4], &scores),
        constant("rewards", &[3, 4], &rewards),
        mask("mask", &[3, 4], &[1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]),
    ]
}

fn at_the_start(mut inputs: Vec<Input>) -> Vec<Input> {
    inputs[0].data.fill(0.7);
    inputs
}

fn choices() -> Vec<Input> {
    let mut inputs = lists();
    inputs[1] = index("best", &[3], &[3, 2, 0]);
    inputs
}

pub fn rows() -> Vec<Row> {
    let mut rows = pairwise_rows();
    rows.extend(ranked_rows());
    rows.extend(softmax_rows());
    rows
}

fn pairwise_rows() -> Vec<Row> {
    let mut with_margin = pair();
    with_margin.push(constant("margin", &[3], &[0.25, -1.0, 0.0]));
    let mut start = pair();
    start[1].data = start[0].data.clone();
    vec![
        Row {
            name: "pairwise reward",
            inputs: pair(),
            loss: |x| pairwise(x, 0.0),
            independent: true,
        },
        Row {
            name: "pairwise reward, margin, centering 0.05",
            inputs: with_margin,
            loss: |x| pairwise(x, 0.05),
            independent: true,
        },
        Row {
            name: "pairwise reward, at its start",
            inputs: start,
            loss: |x| pairwise(x, 0.0),
            independent: true,
        },
    ]
}

fn ranked_rows() -> Vec<Row> {
    vec![
        Row {
            name: "ranked reward",
            inputs: lists(),
            loss: |x| ranked_reward_loss(&x[0], &x[1], Some(&x[2]), &Default::default()),
            independent: true,
        },
        Row {
            name: "ranked reward, ties skipped, margin 0.3, centering 0.05",
            inputs: lists(),
            loss: |x| ranked_reward_loss(&x[0], &x[1], Some(&x[2]), &off_default(Ties::Skip)),
            independent: true,
        },
        Row {
            name: "ranked reward, ties by half, margin 0.3, centering 0.05",
            inputs: lists(),
            loss: |x| ranked_reward_loss(&x[0], &x[1], Some(&x[2]), &off_default(Ties::Half)),
            independent: true,
        },
        Row {
            name: "ranked reward, at its start, ties by half, without a mask",
            inputs: at_the_start(lists())[..2].to_vec(),
            loss: |x| {
                let config = RankedRewardConfig {
                    ties: Ties::Half,
                    ..Default::default()
                };
                ranked_reward_loss(&x[0], &x[1], None, &config)
            },
            independent: true,
        },
    ]
}

fn softmax_rows() -> Vec<Row> {
    vec![
        Row {
            name: "choose best",
            inputs: choices(),
            loss: |x| choose_best_loss(&x[0], &x[1], Some(&x[2])),
            independent: true,
        },
        Row {
            name: "choose best, at its start, without a mask",
            inputs: at_the_start(choices())[..2].to_vec(),
            loss: |x| choose_best_loss(&x[0], &x[1], None),
            independent: true,
        },
        Row {
            name: "plackett-luce reward",
            inputs: lists(),
            loss: |x| plackett_luce_reward_loss(&x[0], &x[1], Some(&x[2])),
            independent: true,
        },
        Row {
            name: "plackett-luce reward, at its start, without a mask",
            inputs: at_the_start(lists())[..2].to_vec(),
            loss: |x| plackett_luce_reward_loss(&x[0], &x[1], None),
            independent: true,
        },
    ]
}
