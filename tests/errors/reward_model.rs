use crate::common::{bits, matrix, vector};
use candle_align::online::reward_model::ranking_accuracy;
use candle_align::{
    Pair, PairwiseRewardConfig, RankedRewardConfig, choose_best_loss, pairwise_reward_loss,
    plackett_luce_reward_loss, ranked_reward_loss,
};
use candle_core::{DType, Device, Tensor};

fn single(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F32).expect("a cast")
}

fn pairwise(chosen: &[f64], rejected: &Tensor, margin: Option<&Tensor>, centering: f64) -> String {
    let scores = Pair {
        chosen: vector(chosen),
        rejected: rejected.clone(),
    };
    pairwise_reward_loss(&scores, margin, &PairwiseRewardConfig { centering })
        .expect_err("a mistake")
        .to_string()
}

#[test]
fn a_pair_is_two_vectors_of_one_type_and_one_length() {
    let two = vector(&[1.0, 2.0]);
    assert_eq!(
        pairwise(&[1.0, 2.0], &vector(&[1.0]), None, 0.0),
        "pairwise_reward_loss: `scores.rejected` has shape [1], expected [batch=2 (from `scores.chosen`)]"
    );
    assert_eq!(
        pairwise(&[1.0, 2.0], &single(&two), None, 0.0),
        "pairwise_reward_loss: `scores.rejected` is f32, expected f64 (from `scores.chosen`)"
    );
    assert_eq!(
        pairwise(&[1.0, 2.0], &two, Some(&vector(&[1.0])), 0.0),
        "pairwise_reward_loss: `margin` has shape [1], expected [batch=2 (from `scores.chosen`)]"
    );
    assert_eq!(
        pairwise(&[1.0, 2.0], &two, Some(&single(&two)), 0.0),
        "pairwise_reward_loss: `margin` is f32, expected f64 (from `scores.chosen`)"
    );
    let matrices = Pair {
        chosen: matrix(&[&[1.0]]),
        rejected: matrix(&[&[1.0]]),
    };
    let error = pairwise_reward_loss(&matrices, None, &PairwiseRewardConfig::default());
    assert_eq!(
        error.expect_err("a mistake").to_string(),
        "pairwise_reward_loss: `scores.chosen` has shape [1, 1], expected [batch]"
    );
}

#[test]
fn a_setting_of_a_pair_is_not_negative() {
    let one = vector(&[1.0]);
    assert_eq!(
        pairwise(&[1.0], &one, None, -0.1),
        "pairwise_reward_loss: `centering` must be finite and >= 0, got -0.1"
    );
    assert_eq!(
        pairwise(&[1.0], &one, None, f64::NAN),
        "pairwise_reward_loss: `centering` must be finite and >= 0, got NaN"
    );
}

#[test]
fn a_setting_of_a_ranking_is_not_negative() {
    let one = matrix(&[&[1.0]]);
    let with = |config: RankedRewardConfig| {
        ranked_reward_loss(&one, &one, None, &config)
            .expect_err("a mistake")
            .to_string()
    };
    assert_eq!(
        with(RankedRewardConfig {
            margin: -1.0,
            ..Default::default()
        }),
        "ranked_reward_loss: `margin` must be finite and >= 0, got -1"
    );
    assert_eq!(
        with(RankedRewardConfig {
            centering: f64::INFINITY,
            ..Default::default()
        }),
        "ranked_reward_loss: `centering` must be finite and >= 0, got inf"
    );
}

type Lists = fn(&Tensor, &Tensor, Option<&Tensor>) -> candle_align::Result<Tensor>;

/// Every function over ranked lists, by its name.
const LISTS: [(&str, Lists); 3] = [
    ("ranked_reward_loss", |scores, rewards, mask| {
        ranked_reward_loss(scores, rewards, mask, &Default::default())
    }),
    ("plackett_luce_reward_loss", plackett_luce_reward_loss),
    ("ranking_accuracy", ranking_accuracy),
];

#[test]
fn a_ranking_is_matrices_of_one_shape() {
    let two = matrix(&[&[1.0, 2.0]]);
    for (name, function) in LISTS {
        let refused = |scores: &Tensor, rewards: &Tensor, mask: Option<&Tensor>| {
            function(scores, rewards, mask).expect_err(name).to_string()
        };
        assert_eq!(
            refused(&vector(&[1.0]), &two, None),
            format!("{name}: `scores` has shape [1], expected [batch, k]")
        );
        assert_eq!(
            refused(&two, &matrix(&[&[1.0, 2.0, 3.0]]), None),
            format!(
                "{name}: `rewards` has shape [1, 3], expected [batch=1 (from `scores`), k=2 (from `scores`)]"
            )
        );
        assert_eq!(
            refused(&two, &single(&two), None),
            format!("{name}: `rewards` is f32, expected f64 (from `scores`)")
        );
        assert_eq!(
            refused(&two, &two, Some(&bits(&[&[1]]))),
            format!(
                "{name}: `mask` has shape [1, 1], expected [batch=1 (from `scores`), k=2 (from `scores`)]"
            )
        );
        assert_eq!(
            refused(&two, &two, Some(&two)),
            format!("{name}: `mask` is f64, expected u8")
        );
    }
}

fn choice(best: &[u32], mask: Option<&Tensor>) -> String {
    let best = Tensor::new(best, &Device::Cpu).expect("a vector");
    let scores = matrix(&[&[1.0, 2.0], &[3.0, 4.0]]);
    choose_best_loss(&scores, &best, mask)
        .expect_err("a mistake")
        .to_string()
}

#[test]
fn the_best_is_an_answer_of_its_list() {
    assert_eq!(
        choice(&[1, 2], None),
        "choose_best_loss: `best` holds 2 in row 1, outside the 2 answers"
    );
    assert_eq!(
        choice(&[u32::MAX, 0], None),
        "choose_best_loss: `best` holds 4294967295 in row 0, outside the 2 answers"
    );
    assert_eq!(
        choice(&[0, 0], Some(&bits(&[&[0, 1], &[1, 1]]))),
        "choose_best_loss: `best` holds 0 in row 0, which the mask leaves out"
    );
    let best = Tensor::new(&[-1i64, 0], &Device::Cpu).expect("a vector");
    let error = choose_best_loss(&matrix(&[&[1.0], &[1.0]]), &best, None);
    assert_eq!(
        error.expect_err("a mistake").to_string(),
        "choose_best_loss: `best` holds -1 in row 0, outside the 1 answers"
    );
}

#[test]
fn a_choice_is_one_index_for_each_list() {
    assert_eq!(
        choice(&[1], None),
        "choose_best_loss: `best` has shape [1], expected [batch=2 (from `scores`)]"
    );
    assert_eq!(
        choice(&[1, 1], Some(&bits(&[&[1, 1]]))),
        "choose_best_loss: `mask` has shape [1, 2], expected [batch=2 (from `scores`), k=2 (from `scores`)]"
    );
    let error = choose_best_loss(&matrix(&[&[1.0]]), &vector(&[0.0]), None);
    assert_eq!(
        error.expect_err("a mistake").to_string(),
        "choose_best_loss: `best` is f64, expected u32 or i64"
    );
    let scores = matrix(&[&[1.0]]).to_dtype(DType::F16).expect("a cast");
    let error = choose_best_loss(&scores, &vector(&[0.0]), None);
    assert_eq!(
        error.expect_err("a mistake").to_string(),
        "choose_best_loss: `scores` is f16, expected f32 or f64"
    );
}
