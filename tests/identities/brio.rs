use crate::common::lists::list;
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::ranking::ReferenceTokens;
use candle_align::ranking::brio::BrioPairs;
use candle_align::{
    BrioConfig, Candidates, Pair, RrhfConfig, SlicConfig, TokenLoss, brio_loss, rrhf_loss,
    slic_list_loss, slic_rank_loss,
};
use candle_core::{DType, Tensor, Var};

const SUMS: [f64; 4] = [-2.5, -4.1, -3.3, -0.9];
const LENGTHS: [f64; 4] = [2.0, 3.0, 5.0, 1.0];
const ORDERED: [f64; 4] = [0.2, 1.5, -0.3, 0.8];
const EVERY: [[f64; 4]; 3] = [ORDERED, [1.0, 1.0, 0.0, 0.0], [2.0; 4]];

fn config(margin: f64, length_power: f64) -> BrioConfig {
    BrioConfig {
        margin,
        rank_weight: 1.0,
        length_power,
        ..Default::default()
    }
}

fn brio(c: &Candidates, config: &BrioConfig) -> Vec<f64> {
    numbers(&brio_loss(c, None, config).unwrap().loss)
}

fn gradient(sums: &[f64], lengths: &[f64], rewards: &[f64], config: &BrioConfig) -> Vec<f64> {
    let sums = Var::from_tensor(&matrix(&[sums])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[lengths]), &matrix(&[rewards]), None).unwrap();
    let grads = brio_loss(&c, None, config)
        .unwrap()
        .loss
        .backward()
        .unwrap();
    numbers(grads.get(&sums).unwrap())
}

#[test]
fn on_sums_it_is_the_slic_list() {
    for rewards in EVERY {
        let c = list(&SUMS, &LENGTHS, &rewards);
        for delta in [0.0, 0.4, 1.7] {
            let slic = slic_list_loss(&c, &SlicConfig { delta }).unwrap();
            assert_close(
                &brio(&c, &config(delta, 0.0)),
                &numbers(&slic),
                EXACT,
                "list",
            );
        }
    }
}

#[test]
fn on_means_without_a_margin_it_is_the_ranking_of_rrhf() {
    for rewards in EVERY {
        let c = list(&SUMS, &LENGTHS, &rewards);
        let rrhf = rrhf_loss(&c, &RrhfConfig::default()).unwrap().ranking;
        assert_close(&brio(&c, &config(0.0, 1.0)), &numbers(&rrhf), EXACT, "rrhf");
    }
}

#[test]
fn two_answers_are_the_slic_rank_loss_on_scores() {
    let f = |i: usize| SUMS[i] / LENGTHS[i].powf(0.6);
    for (better, worse) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        let at = |x: [f64; 4]| [x[better], x[worse]];
        let c = list(&at(SUMS), &at(LENGTHS), &[0.9, 0.3]);
        let pair = Pair {
            chosen: vector(&[f(better)]),
            rejected: vector(&[f(worse)]),
        };
        let rank = slic_rank_loss(&pair, &SlicConfig { delta: 0.8 })
            .unwrap()
            .loss;
        for pairs in [BrioPairs::Sum, BrioPairs::MeanPerDistance] {
            let config = BrioConfig {
                pairs,
                ..config(0.8, 0.6)
            };
            assert_close(&brio(&c, &config), &numbers(&rank), EXACT, "rank");
        }
    }
}

#[test]
fn each_pair_pushes_by_one_over_the_power_of_its_lengths() {
    // two answers, the better one behind
    let config = BrioConfig {
        rank_weight: 3.0,
        ..config(0.1, 2.0)
    };
    let got = gradient(&[-9.0, -0.2], &[3.0, 2.0], &[1.0, 0.0], &config);
    assert_close(&got, &[-3.0 / 9.0, 3.0 / 4.0], EXACT, "gradient");
    // exactly at its lead, and beyond it
    let at = |better: f64| {
        gradient(
            &[better, -1.0],
            &[1.0, 1.0],
            &[1.0, 0.0],
            &self::config(0.5, 1.0),
        )
    };
    assert_eq!(at(-0.5), [0.0, 0.0]);
    assert_eq!(at(-0.25), [0.0, 0.0]);
    assert_eq!(at(-0.75), [-1.0, 1.0]);
}

#[test]
fn a_mean_over_each_distance_weighs_by_one_over_what_is_left() {
    // uniform scores: each of the six pairs is short of its lead
    let lambda = 0.3;
    let means = BrioConfig {
        pairs: BrioPairs::MeanPerDistance,
        ..config(lambda, 1.0)
    };
    let rewards = [4.0, 3.0, 2.0, 1.0];
    let flat = LENGTHS.map(|n| -1.3 * n);
    let c = list(&flat, &LENGTHS, &rewards);
    // Σ_d (1/(K − d)) (K − d) d λ
    assert_close(&brio(&c, &means), &[lambda * 6.0], EXACT, "value");
    let got = gradient(&flat, &LENGTHS, &rewards, &means);
    // the best leads at distances 1, 2, 3, the second is behind at 1 and leads at 1 and 2
    let want = [
        -(1.0 / 3.0 + 1.0 / 2.0 + 1.0),
        1.0 / 3.0 - 1.0 / 3.0 - 1.0 / 2.0,
        1.0 / 3.0 + 1.0 / 2.0 - 1.0 / 3.0,
        1.0 / 3.0 + 1.0 / 2.0 + 1.0,
    ];
    let want: Vec<f64> = want.iter().zip(LENGTHS).map(|(w, n)| w / n).collect();
    assert_close(&got, &want, EXACT, "gradient");
}

#[test]
fn only_the_order_of_the_rewards_counts() {
    for pairs in [BrioPairs::Sum, BrioPairs::MeanPerDistance] {
        let config = BrioConfig {
            pairs,
            ..config(0.4, 0.6)
        };
        let with = |rewards: &[f64]| brio(&list(&SUMS, &LENGTHS, rewards), &config);
        assert_eq!(with(&ORDERED), with(&[1.0, 3.0, 0.0, 2.0]));
    }
}

#[test]
fn the_zero_set_is_that_of_neighbors() {
    // leads of exactly λ between neighbors leave no pair short, in either weighting
    for pairs in [BrioPairs::Sum, BrioPairs::MeanPerDistance] {
        let config = BrioConfig {
            pairs,
            ..config(0.25, 1.0)
        };
        let with = |sums: &[f64]| brio(&list(sums, &[1.0; 4], &[4.0, 3.0, 2.0, 1.0]), &config)[0];
        assert_eq!(with(&[-1.0, -1.25, -1.5, -1.75]), 0.0);
        assert!(with(&[-1.0, -1.25, -1.49, -1.75]) > 0.0);
    }
}

#[test]
fn the_authors_settings_are_a_tenth() {
    let c = list(&SUMS, &LENGTHS, &ORDERED);
    let reference = TokenLoss {
        loss: matrix(&[&[0.7, 0.2, 1.8]]),
        mask: Tensor::ones((1, 3), DType::U8, &candle_core::Device::Cpu).unwrap(),
    };
    let config = BrioConfig {
        pairs: BrioPairs::MeanPerDistance,
        reference: ReferenceTokens::Mean,
        ..Default::default()
    };
    let out = brio_loss(&c, Some(&reference), &config).unwrap();
    let contrastive = brio(
        &c,
        &BrioConfig {
            rank_weight: 1.0,
            ..config
        },
    )[0];
    let authors = 10.0 * contrastive + 0.1 * (0.7 + 0.2 + 1.8) / 3.0;
    assert_close(&numbers(&out.loss), &[10.0 * authors], 1e-11, "ten times");
}

#[test]
fn the_parts_are_reported_without_their_history() {
    let sums = Var::from_tensor(&matrix(&[&SUMS])).unwrap();
    let tokens = Var::from_tensor(&matrix(&[&[0.5, 0.25]])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[&LENGTHS]), &matrix(&[&ORDERED]), None).unwrap();
    let reference = TokenLoss {
        loss: tokens.as_tensor().clone(),
        mask: tokens.as_tensor().ne(0.0).unwrap(),
    };
    let out = brio_loss(&c, Some(&reference), &BrioConfig::default()).unwrap();
    for part in [&out.ranking, &out.sft] {
        let grads = (part * 1.0).unwrap().backward().unwrap();
        assert!(grads.get(&sums).is_none() && grads.get(&tokens).is_none());
    }
    let grads = out.loss.backward().unwrap();
    assert_eq!(numbers(grads.get(&tokens).unwrap()), [1.0, 1.0]);
}
