use crate::common::lists::{assert_parts, lists};
use crate::common::{bits, matrix};
use candle_align::{Candidates, RrhfConfig, rrhf_loss};

#[test]
fn four_answers_of_different_lengths() {
    // means −1, −2, −0.5, −1.5; the rewards order them 3, 1, 2, 0 from the best
    let c = lists(
        &[&[-3.0, -4.0, -2.0, -1.5]],
        &[&[3.0, 2.0, 4.0, 1.0]],
        &[&[0.1, 0.6, 0.3, 0.9]],
    );
    // 3 leads 1, trails 2 and 0; 1 trails both; 2 leads 0
    let ranking = (1.5 - 0.5) + (1.5 - 1.0) + (2.0 - 0.5) + (2.0 - 1.0);
    assert_parts(
        &rrhf_loss(&c, &RrhfConfig::default()).unwrap(),
        &[ranking],
        &[1.5],
        "rrhf",
    );
    let config = RrhfConfig {
        rank_weight: 10.0,
        sft_weight: 0.3,
    };
    assert_parts(
        &rrhf_loss(&c, &config).unwrap(),
        &[10.0 * ranking],
        &[0.3 * 1.5],
        "rrhf, weighted",
    );
}

#[test]
fn the_supervised_term_is_a_sum_over_tokens() {
    let c = lists(&[&[-6.0, -1.0]], &[&[4.0, 1.0]], &[&[2.0, 1.0]]);
    assert_parts(
        &rrhf_loss(&c, &RrhfConfig::default()).unwrap(),
        &[1.5 - 1.0],
        &[6.0],
        "rrhf, two answers",
    );
}

#[test]
fn either_part_can_be_left_out() {
    let c = lists(&[&[-6.0, -1.0]], &[&[4.0, 1.0]], &[&[2.0, 1.0]]);
    for (rank_weight, sft_weight) in [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)] {
        let config = RrhfConfig {
            rank_weight,
            sft_weight,
        };
        assert_parts(
            &rrhf_loss(&c, &config).unwrap(),
            &[rank_weight * 0.5],
            &[sft_weight * 6.0],
            "rrhf, one part",
        );
    }
}

#[test]
fn ordered_answers_and_single_answers_have_no_ranking_loss() {
    let ordered = lists(&[&[-1.0, -2.0, -3.0]], &[&[1.0; 3]], &[&[3.0, 2.0, 1.0]]);
    assert_parts(
        &rrhf_loss(&ordered, &RrhfConfig::default()).unwrap(),
        &[0.0],
        &[1.0],
        "rrhf, ordered",
    );
    let single = lists(&[&[-3.0]], &[&[2.0]], &[&[4.0]]);
    assert_parts(
        &rrhf_loss(&single, &RrhfConfig::default()).unwrap(),
        &[0.0],
        &[3.0],
        "rrhf, one answer",
    );
}

#[test]
fn tied_answers_make_no_pair_and_share_the_supervised_term() {
    // two bests with means −2 and −1, two worse with means −0.5 and −1.5
    let c = lists(
        &[&[-4.0, -1.0, -0.5, -3.0]],
        &[&[2.0, 1.0, 1.0, 2.0]],
        &[&[1.0, 1.0, 0.0, 0.0]],
    );
    assert_parts(
        &rrhf_loss(&c, &RrhfConfig::default()).unwrap(),
        &[(2.0 - 0.5) + (2.0 - 1.5) + (1.0 - 0.5)],
        &[(4.0 + 1.0) / 2.0],
        "rrhf, ties",
    );
}

#[test]
fn a_short_list_is_the_answers_it_has() {
    let c = Candidates::new(
        &matrix(&[&[-0.1, -3.0, f64::NAN, -2.0]]),
        &matrix(&[&[1.0, 2.0, f64::NAN, 4.0]]),
        &matrix(&[&[9.0, 1.0, f64::NAN, 0.25]]),
        Some(&bits(&[&[0, 1, 0, 1]])),
    )
    .unwrap();
    assert_parts(
        &rrhf_loss(&c, &RrhfConfig::default()).unwrap(),
        &[1.5 - 0.5],
        &[3.0],
        "rrhf, short list",
    );
}

#[test]
fn a_long_list_has_one_best_answer() {
    // 300 answers: 299 are better than the first, more than a byte counts
    let k = 300;
    let rewards: Vec<f64> = (0..k).map(|i| i as f64).collect();
    let sums: Vec<f64> = (0..k).map(|i| -((k - i) as f64)).collect();
    let c = lists(&[&sums], &[&vec![1.0; k]], &[&rewards]);
    assert_parts(
        &rrhf_loss(&c, &RrhfConfig::default()).unwrap(),
        &[0.0],
        &[1.0],
        "rrhf, 300 answers",
    );
}
