use crate::common::lists::{assert_parts, lists};
use crate::common::{assert_close, bits, logistic_loss, matrix, numbers};
use candle_align::{Candidates, ProConfig, ProTemperature, pro_loss};

fn config(temperature: ProTemperature, sft_weight: f64) -> ProConfig {
    ProConfig {
        temperature,
        sft_weight,
    }
}

/// log Σ eˣ in f64, for expectations at moderate x.
fn lse(x: &[f64]) -> f64 {
    x.iter().map(|x| x.exp()).sum::<f64>().ln()
}

#[test]
fn three_answers_with_reward_gaps() {
    // from the best: means −1.2, −1.1, −1.5
    let c = lists(
        &[&[-6.0, -2.4, -1.1]],
        &[&[4.0, 2.0, 1.0]],
        &[&[0.2, 2.0, 1.8]],
    );
    let out = pro_loss(&c, &ProConfig::default()).unwrap();
    let first = lse(&[-1.2 * 1.8, -1.1 * 0.2, -1.5 * 1.8]) + 1.2 * 1.8;
    let second = lse(&[-1.1 * 1.6, -1.5 * 1.6]) + 1.1 * 1.6;
    assert_parts(
        &out,
        &[first + second],
        &[0.05 * 4.0 * 2.4],
        "pro, reward gaps",
    );
}

#[test]
fn three_answers_at_temperature_one() {
    // means 0, −0.4, −1.2, and the same scores against the ranking reversed
    let sums = [0.0, -0.8, -3.6];
    let lengths = [1.0, 2.0, 3.0];
    let c = lists(
        &[&sums, &sums],
        &[&lengths, &lengths],
        &[&[3.0, 2.0, 1.0], &[1.0, 2.0, 3.0]],
    );
    let out = pro_loss(&c, &config(ProTemperature::One, 0.2)).unwrap();
    let forwards = lse(&[0.0, -0.4, -1.2]) - 0.0 + lse(&[-0.4, -1.2]) + 0.4;
    let backwards = lse(&[0.0, -0.4, -1.2]) + 1.2 + lse(&[0.0, -0.4]) + 0.4;
    assert_parts(
        &out,
        &[forwards, backwards],
        &[0.2 * 4.0 * 0.0, 0.2 * 4.0 * 3.6],
        "pro, T = 1",
    );
}

#[test]
fn two_answers() {
    let (sums, lengths, rewards) = ([-3.0, -2.5], [2.0, 5.0], [0.3, 1.7]);
    let c = lists(&[&sums], &[&lengths], &[&rewards]);
    let lead = -0.5 + 1.5;
    assert_parts(
        &pro_loss(&c, &config(ProTemperature::RewardGaps, 0.7)).unwrap(),
        &[logistic_loss((1.7 - 0.3) * lead)],
        &[0.7 * 1.0 * 2.5],
        "pro, two answers",
    );
    assert_parts(
        &pro_loss(&c, &config(ProTemperature::One, 0.7)).unwrap(),
        &[logistic_loss(lead)],
        &[0.7 * 1.0 * 2.5],
        "pro, two answers, T = 1",
    );
}

#[test]
fn one_answer_has_no_loss() {
    for temperature in [ProTemperature::RewardGaps, ProTemperature::One] {
        let c = lists(&[&[-3.0]], &[&[2.0]], &[&[4.0]]);
        let out = pro_loss(&c, &config(temperature, 0.5)).unwrap();
        assert_parts(&out, &[0.0], &[0.0], "pro, one answer");
    }
}

#[test]
fn tied_answers_do_not_compete_and_share_the_supervised_term() {
    // two bests, two in the middle, one worst
    let (s, rewards) = ([-0.5, -0.9, -1.1, -0.2, -0.7], [2.0, 2.0, 1.5, 1.5, 0.0]);
    let c = lists(&[&s], &[&[1.0; 5]], &[&rewards]);
    let best = |own: f64| lse(&[2.0 * own, -1.1 * 0.5, -0.2 * 0.5, -0.7 * 2.0]) - 2.0 * own;
    let middle = |own: f64| lse(&[1.5 * own, -0.7 * 1.5]) - 1.5 * own;
    assert_parts(
        &pro_loss(&c, &ProConfig::default()).unwrap(),
        &[best(-0.5) + best(-0.9) + middle(-1.1) + middle(-0.2)],
        &[0.05 * 16.0 * (0.5 + 0.9) / 2.0],
        "pro, ties",
    );
    let best = |own: f64| lse(&[own, -1.1, -0.2, -0.7]) - own;
    let middle = |own: f64| lse(&[own, -0.7]) - own;
    assert_parts(
        &pro_loss(&c, &config(ProTemperature::One, 0.05)).unwrap(),
        &[best(-0.5) + best(-0.9) + middle(-1.1) + middle(-0.2)],
        &[0.05 * 16.0 * (0.5 + 0.9) / 2.0],
        "pro, ties, T = 1",
    );
}

#[test]
fn all_answers_tied_leaves_the_supervised_term() {
    let c = lists(&[&[-3.0, -1.0, -5.0]], &[&[2.0; 3]], &[&[0.4; 3]]);
    let out = pro_loss(&c, &ProConfig::default()).unwrap();
    assert_parts(
        &out,
        &[0.0],
        &[0.05 * 4.0 * (3.0 + 1.0 + 5.0) / 3.0],
        "pro, tied",
    );
}

#[test]
fn a_short_list_counts_the_answers_it_has() {
    // the best and the likeliest are under the mask
    let c = Candidates::new(
        &matrix(&[&[-0.1, -3.0, f64::NAN, -2.0]]),
        &matrix(&[&[1.0, 2.0, f64::NAN, 4.0]]),
        &matrix(&[&[9.0, 1.0, f64::NAN, 0.25]]),
        Some(&bits(&[&[0, 1, 0, 1]])),
    )
    .unwrap();
    assert_parts(
        &pro_loss(&c, &ProConfig::default()).unwrap(),
        &[logistic_loss(0.75 * (-1.5 + 0.5))],
        &[0.05 * 1.0 * 3.0],
        "pro, short list",
    );
}

#[test]
fn a_long_list_is_counted_beyond_a_byte() {
    // 300 answers of one score: the answer in place k competes with the 299 − k after it
    let k = 300;
    let rewards: Vec<f64> = (0..k).map(|i| i as f64).collect();
    let c = lists(&[&vec![-1.0; k]], &[&vec![1.0; k]], &[&rewards]);
    let ranking: f64 = (1..=k).map(|n| (n as f64).ln()).sum();
    let out = pro_loss(&c, &config(ProTemperature::One, 0.001)).unwrap();
    let close = 1e-9;
    assert_close(&numbers(&out.ranking), &[ranking], close, "300 answers");
    assert_close(
        &numbers(&out.sft),
        &[0.001 * 299.0 * 299.0],
        close,
        "300 answers",
    );
}
