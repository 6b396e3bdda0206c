use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::{
    Candidates, Reduction, RrhfConfig, SftConfig, SlicConfig, TokenLogProbs, rrhf_loss, sft_loss,
    slic_list_loss,
};
use candle_core::Var;

const SUMS: [f64; 4] = [-2.5, -4.1, -3.3, -0.9];
const LENGTHS: [f64; 4] = [2.0, 3.0, 5.0, 1.0];

fn ranking_only() -> RrhfConfig {
    RrhfConfig {
        sft_weight: 0.0,
        ..Default::default()
    }
}

fn gradient(sums: &[f64], lengths: &[f64], rewards: &[f64], config: &RrhfConfig) -> Vec<f64> {
    let sums = Var::from_tensor(&matrix(&[sums])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[lengths]), &matrix(&[rewards]), None).unwrap();
    let grads = rrhf_loss(&c, config).unwrap().loss.backward().unwrap();
    numbers(grads.get(&sums).unwrap())
}

#[test]
fn it_is_the_slic_list_without_a_margin_on_the_means() {
    let means: Vec<f64> = SUMS.iter().zip(LENGTHS).map(|(s, n)| s / n).collect();
    for rewards in [[0.2, 1.5, -0.3, 0.8], [1.0, 1.0, 0.0, 0.0], [2.0; 4]] {
        let rewards = matrix(&[&rewards]);
        let c = Candidates::new(&matrix(&[&SUMS]), &matrix(&[&LENGTHS]), &rewards, None).unwrap();
        let rrhf = rrhf_loss(&c, &ranking_only()).unwrap().loss;
        let ones = matrix(&[&[1.0; 4]]);
        let c = Candidates::new(&matrix(&[&means]), &ones, &rewards, None).unwrap();
        let list = slic_list_loss(&c, &SlicConfig { delta: 0.0 }).unwrap();
        assert_close(&numbers(&rrhf), &numbers(&list), EXACT, "RRHF = list");
    }
}

#[test]
fn each_violated_pair_pushes_by_one_over_the_length() {
    // means −1.25, −1.3667, −0.66, −0.9; rewards order them 1, 3, 0, 2 from the best
    let got = gradient(&SUMS, &LENGTHS, &[0.2, 1.5, -0.3, 0.8], &ranking_only());
    // violated (better, worse): (1, 0), (1, 2), (1, 3), (3, 2), (0, 2)
    assert_close(
        &got,
        &[
            1.0 / 2.0 - 1.0 / 2.0,
            -3.0 / 3.0,
            3.0 / 5.0,
            1.0 / 1.0 - 1.0 / 1.0,
        ],
        EXACT,
        "gradient",
    );
}

#[test]
fn equal_means_are_no_violation() {
    // the start of a uniform policy: a loss and a gradient of exactly 0
    let sums: Vec<f64> = LENGTHS.iter().map(|n| -0.75 * n).collect();
    let rewards = [0.2, 1.5, -0.3, 0.8];
    assert_eq!(
        gradient(&sums, &LENGTHS, &rewards, &ranking_only()),
        [0.0; 4]
    );
}

#[test]
fn only_the_order_of_the_rewards_counts() {
    let with = |rewards: [f64; 4]| {
        let c = Candidates::new(
            &matrix(&[&SUMS]),
            &matrix(&[&LENGTHS]),
            &matrix(&[&rewards]),
            None,
        );
        numbers(&rrhf_loss(&c.unwrap(), &RrhfConfig::default()).unwrap().loss)
    };
    assert_eq!(with([0.2, 1.5, -0.3, 0.8]), with([1.0, 3.0, 0.0, 2.0]));
}

#[test]
fn the_order_of_the_answers_changes_nothing() {
    let order = [2, 0, 3, 1];
    let rewards = [0.2, 1.5, -0.3, 0.8];
    let pick = |x: &[f64; 4]| order.map(|i| x[i]);
    let whole = gradient(&SUMS, &LENGTHS, &rewards, &RrhfConfig::default());
    let moved = gradient(
        &pick(&SUMS),
        &pick(&LENGTHS),
        &pick(&rewards),
        &RrhfConfig::default(),
    );
    assert_close(&moved, &order.map(|i| whole[i]), EXACT, "order");
}

#[test]
fn the_supervised_part_is_sft_on_the_best_answer() {
    let values = matrix(&[&[-0.5, -0.7, 0.0], &[-0.1, -0.2, -0.9]]);
    let mask = bits(&[&[1, 1, 0], &[1, 1, 1]]);
    let rows = TokenLogProbs::new(&values, &mask).unwrap();
    let c = Candidates::from_token_log_probs(&rows, &matrix(&[&[0.3, 0.8]]), None).unwrap();
    let best = TokenLogProbs::new(&values.narrow(0, 1, 1).unwrap(), &bits(&[&[1, 1, 1]])).unwrap();
    let sft = sft_loss(&best, None, &SftConfig::default()).unwrap();
    let out = rrhf_loss(&c, &RrhfConfig::default()).unwrap();
    assert_close(
        &numbers(&out.sft),
        &numbers(&sft.reduce(Reduction::Sum).unwrap()),
        EXACT,
        "sft",
    );
}

#[test]
fn the_supervised_gradient_is_shared_by_the_best() {
    let config = RrhfConfig {
        rank_weight: 0.0,
        sft_weight: 0.6,
    };
    assert_close(
        &gradient(&SUMS, &LENGTHS, &[0.2, 1.5, -0.3, 0.8], &config),
        &[0.0, -0.6, 0.0, 0.0],
        EXACT,
        "one best",
    );
    assert_close(
        &gradient(&SUMS, &LENGTHS, &[1.5, 1.5, -0.3, 0.8], &config),
        &[-0.3, -0.3, 0.0, 0.0],
        EXACT,
        "two bests",
    );
}

#[test]
fn the_parts_are_reported_without_their_history() {
    let sums = Var::from_tensor(&matrix(&[&SUMS])).unwrap();
    let rewards = matrix(&[&[0.2, 1.5, -0.3, 0.8]]);
    let c = Candidates::new(&sums, &matrix(&[&LENGTHS]), &rewards, None).unwrap();
    let out = rrhf_loss(&c, &RrhfConfig::default()).unwrap();
    for part in [&out.ranking, &out.sft] {
        let grads = (part * 1.0).unwrap().backward().unwrap();
        assert!(grads.get(&sums).is_none());
    }
}
