use crate::common::policy::{REFERENCE, REWARDS, log};
use crate::common::{EXACT, assert_close, matrix, numbers, sigma};
use candle_align::{Candidates, ExpectedRiskConfig, expected_risk_loss, slic_expected_reward_loss};
use candle_core::{Tensor, Var};

const SUMS: [f64; 4] = [-2.5, -4.1, -3.3, -0.9];
const LENGTHS: [f64; 4] = [2.0, 3.0, 5.0, 1.0];
const BLEU: [f64; 4] = [0.2, 0.9, 0.3, 0.6];

fn on(length_power: f64) -> ExpectedRiskConfig {
    ExpectedRiskConfig {
        length_power,
        ..Default::default()
    }
}

/// Loss and gradient.
fn risk(sums: &[f64], lengths: &[f64], rewards: &[f64], length_power: f64) -> (f64, Vec<f64>) {
    let sums = Var::from_tensor(&matrix(&[sums])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[lengths]), &matrix(&[rewards]), None).unwrap();
    let loss = expected_risk_loss(&c, None, &on(length_power))
        .unwrap()
        .loss;
    let grads = loss.backward().unwrap();
    (numbers(&loss)[0], numbers(grads.get(&sums).unwrap()))
}

fn shares(scores: &[f64]) -> Vec<f64> {
    crate::common::policy::normalized(&scores.iter().map(|s| s.exp()).collect::<Vec<_>>())
}

#[test]
fn on_sums_it_is_one_minus_the_expected_reward() {
    for rewards in [BLEU, REWARDS, [1.0, 1.0, -2.0, -2.0]] {
        let sums = Var::from_tensor(&matrix(&[&SUMS])).unwrap();
        let c = Candidates::new(&sums, &matrix(&[&LENGTHS]), &matrix(&[&rewards]), None).unwrap();
        let reward = slic_expected_reward_loss(&c).unwrap();
        let (value, gradient) = risk(&SUMS, &LENGTHS, &rewards, 0.0);
        assert_close(&[value], &[1.0 + numbers(&reward)[0]], EXACT, "risk");
        let grads = reward.backward().unwrap();
        assert_close(
            &gradient,
            &numbers(grads.get(&sums).unwrap()),
            EXACT,
            "gradient",
        );
    }
}

#[test]
fn the_gradient_is_a_share_of_the_excess_cost() {
    for power in [0.0, 0.7, 1.0] {
        let weight = LENGTHS.map(|n| n.powf(power));
        let scores: Vec<f64> = SUMS.iter().zip(weight).map(|(s, w)| s / w).collect();
        let p = shares(&scores);
        let mean: f64 = p.iter().zip(BLEU).map(|(p, r)| p * (1.0 - r)).sum();
        let want: Vec<f64> = (0..4)
            .map(|i| p[i] * (1.0 - BLEU[i] - mean) / weight[i])
            .collect();
        let (value, got) = risk(&SUMS, &LENGTHS, &BLEU, power);
        assert_close(&[value], &[mean], EXACT, "risk");
        assert_close(&got, &want, EXACT, "gradient");
    }
}

#[test]
fn two_answers_pull_most_at_the_tie_and_hardly_when_hopeless() {
    let pull = |z: f64| risk(&[z, 0.0], &[1.0, 1.0], &[1.0, 0.0], 1.0).1;
    for z in [-6.0, -1.0, 0.0, 0.5, 4.0] {
        let want = sigma(z) * sigma(-z);
        assert_close(&pull(z), &[-want, want], EXACT, "pull");
    }
    assert!(pull(-20.0)[0].abs() < 1e-8);
}

#[test]
fn a_number_added_to_all_rewards_moves_the_loss_alone() {
    let (value, gradient) = risk(&SUMS, &LENGTHS, &BLEU, 1.0);
    let (moved, same) = risk(&SUMS, &LENGTHS, &BLEU.map(|r| r + 0.4), 1.0);
    assert_close(&[moved], &[value - 0.4], EXACT, "value");
    assert_close(&same, &gradient, EXACT, "gradient");
}

#[test]
fn differences_alone_count_for_answers_of_one_length() {
    let sum =
        |lengths: &[f64], power: f64| risk(&SUMS, lengths, &BLEU, power).1.iter().sum::<f64>();
    assert_close(&[sum(&[3.0; 4], 1.0)], &[0.0], EXACT, "one length");
    assert_close(&[sum(&LENGTHS, 0.0)], &[0.0], EXACT, "sums");
    assert!(sum(&LENGTHS, 1.0).abs() > 1e-3);
}

#[test]
fn a_share_of_an_exponential_of_an_exponential_stays_below_its_cap() {
    // the authors' softmax of e^{s}, s = ℓ/n: this loss on candidates whose log-probabilities are e^{s}
    let code = |scores: &[f64], rewards: &[f64]| {
        let exp: Vec<f64> = scores.iter().map(|s| s.exp()).collect();
        risk(&exp, &vec![1.0; scores.len()], rewards, 1.0).0
    };
    let scores: Vec<f64> = SUMS.iter().zip(LENGTHS).map(|(s, n)| s / n).collect();
    let twice = shares(&scores.iter().map(|s| s.exp()).collect::<Vec<_>>());
    let want: f64 = twice.iter().zip(BLEU).map(|(p, r)| p * (1.0 - r)).sum();
    assert_close(&[code(&scores, &BLEU)], &[want], EXACT, "as written");

    // all mass on the best of K: its share is e/(e + K − 1), its cost 0 beside costs of 1
    let e = 1.0f64.exp();
    for k in 2..7usize {
        let mut scores = vec![-800.0; k];
        scores[0] = 0.0;
        let mut rewards = vec![0.0; k];
        rewards[0] = 1.0;
        let cap = e / (e + k as f64 - 1.0);
        assert_close(&[code(&scores, &rewards)], &[1.0 - cap], EXACT, "cap");
        let (right, _) = risk(&scores, &vec![1.0; k], &rewards, 1.0);
        assert_close(&[right], &[0.0], EXACT, "the equation has none");
        // what is less than certain has less
        scores[0] = -0.1;
        assert!(code(&scores, &rewards) > 1.0 - cap);
    }
    // four answers of rewards 0, 1, 0.5, 2: 1 − 1.2130503296, far from 1 − 2
    let got = code(&[-800.0, -800.0, -800.0, 0.0], &REWARDS);
    assert_close(&[got], &[1.0 - (2.0 * e + 1.5) / (e + 3.0)], EXACT, "S4");
}

#[test]
fn a_list_of_one_has_no_gradient() {
    let (value, gradient) = risk(&[-3.0], &[2.0], &[0.7], 1.0);
    assert_close(&[value], &[1.0 - 0.7], EXACT, "value");
    assert_eq!(gradient, [0.0]);
}

#[test]
fn over_all_answers_it_is_the_policy_gradient() {
    let mean: f64 = REFERENCE.iter().zip(REWARDS).map(|(p, r)| p * r).sum();
    let want: Vec<f64> = REFERENCE
        .iter()
        .zip(REWARDS)
        .map(|(p, r)| -p * (r - mean))
        .collect();
    let (_, got) = risk(&log(&REFERENCE), &[1.0; 4], &REWARDS, 1.0);
    assert_close(&got, &want, EXACT, "policy gradient");
}

#[test]
fn the_parts_are_reported_without_their_history() {
    let sums = Var::from_tensor(&matrix(&[&SUMS])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[&LENGTHS]), &matrix(&[&BLEU]), None).unwrap();
    let out = expected_risk_loss(&c, None, &on(1.0)).unwrap();
    let detached = |t: &Tensor| (t * 1.0).unwrap().backward().unwrap().get(&sums).is_none();
    assert!(detached(&out.ranking) && detached(&out.sft));
}
