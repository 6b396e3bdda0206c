use crate::common::lists::pair;
use crate::common::policy::{BETA, REFERENCE, REWARDS, log};
use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::{
    Candidates, Pair, Result, SlicConfig, Statistics, TokenLogProbs, slic_expected_reward_loss,
    slic_kl_regularizer, slic_list_loss, slic_margin_loss, slic_rank_loss,
};
use candle_core::{D, Device, Tensor, Var};

const SUMS: [f64; 4] = [-2.5, -4.1, -3.3, -0.9];
const RANKED: [f64; 4] = [0.2, 1.5, -0.3, 0.8];

fn list(sums: &[f64], rewards: &[f64]) -> Candidates {
    let ones = vec![1.0; sums.len()];
    Candidates::new(
        &matrix(&[sums]),
        &matrix(&[&ones]),
        &matrix(&[rewards]),
        None,
    )
    .unwrap()
}

fn gradient(
    sums: &[f64],
    rewards: &[f64],
    loss: impl Fn(&Candidates) -> Result<Tensor>,
) -> Vec<f64> {
    let sums = Var::from_tensor(&matrix(&[sums])).unwrap();
    let ones = sums.ones_like().unwrap();
    let c = Candidates::new(&sums, &ones, &matrix(&[rewards]), None).unwrap();
    let grads = loss(&c).unwrap().backward().unwrap();
    numbers(grads.get(&sums).unwrap())
}

/// The gradients of a loss over pairs with respect to both log-probabilities.
fn pair_gradients(
    chosen: &[f64],
    rejected: &[f64],
    loss: impl Fn(&Pair<Tensor>) -> Result<Tensor>,
) -> (Vec<f64>, Vec<f64>) {
    let var = |x: &[f64]| Var::new(x, &Device::Cpu).unwrap();
    let (chosen, rejected) = (var(chosen), var(rejected));
    let pair = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let grads = loss(&pair).unwrap().sum_all().unwrap().backward().unwrap();
    (
        numbers(grads.get(&chosen).unwrap()),
        numbers(grads.get(&rejected).unwrap()),
    )
}

#[test]
fn a_list_of_two_is_the_rank_loss() {
    for (chosen, rejected) in [(-3.0, -2.0), (-3.0, -3.5), (-1.0, -4.0)] {
        let config = SlicConfig { delta: 1.7 };
        let rank = slic_rank_loss(&pair(&[chosen], &[rejected]), &config)
            .unwrap()
            .loss;
        for c in [
            list(&[chosen, rejected], &[9.0, 1.0]),
            list(&[rejected, chosen], &[1.0, 1.5]),
        ] {
            let list = slic_list_loss(&c, &config).unwrap();
            assert_close(&numbers(&list), &numbers(&rank), EXACT, "list = rank");
        }
    }
}

#[test]
fn a_list_is_the_rank_losses_of_its_pairs_with_their_distances() {
    let places = [2.0, 0.0, 3.0, 1.0];
    let mut want = 0.0;
    for i in 0..4 {
        for j in (0..4).filter(|&j| RANKED[i] > RANKED[j]) {
            let config = SlicConfig {
                delta: 0.4 * (places[j] - places[i]),
            };
            let rank = slic_rank_loss(&pair(&[SUMS[i]], &[SUMS[j]]), &config)
                .unwrap()
                .loss;
            want += numbers(&rank)[0];
        }
    }
    let got = slic_list_loss(&list(&SUMS, &RANKED), &SlicConfig { delta: 0.4 }).unwrap();
    assert_close(&numbers(&got), &[want], EXACT, "list = Σ rank");
}

#[test]
fn a_margin_of_one_size_is_the_rank_loss() {
    let policy = pair(&[-3.0, -3.0, -1.0], &[-2.0, -3.5, -4.0]);
    let similarity = pair(&[0.75, 1.25, 0.5], &[0.25, 0.75, 0.0]);
    let margin = slic_margin_loss(&policy, &similarity, &SlicConfig { delta: 3.0 })
        .unwrap()
        .loss;
    let rank = slic_rank_loss(&policy, &SlicConfig { delta: 1.5 })
        .unwrap()
        .loss;
    assert_close(&numbers(&margin), &numbers(&rank), EXACT, "margin = rank");
}

#[test]
fn a_hinge_pushes_by_one_until_its_lead_and_not_at_it() {
    // leads of 0.5, exactly 1, and 3, against a required 1
    let (chosen, rejected) = ([-3.0, -2.0, -1.0], [-3.5, -3.0, -4.0]);
    let want = ([-1.0, 0.0, 0.0].to_vec(), [1.0, 0.0, 0.0].to_vec());
    let config = SlicConfig { delta: 1.0 };
    let rank = pair_gradients(&chosen, &rejected, |p| Ok(slic_rank_loss(p, &config)?.loss));
    assert_eq!(rank, want);
    let similarity = pair(&[0.75; 3], &[0.25; 3]);
    let config = SlicConfig { delta: 2.0 };
    let margin = pair_gradients(&chosen, &rejected, |p| {
        Ok(slic_margin_loss(p, &similarity, &config)?.loss)
    });
    assert_eq!(margin, want);
    // neighbors exactly at their lead, the outer pair short of its own
    let config = SlicConfig { delta: 1.0 };
    let list = |sums: &[f64]| gradient(sums, &[3.0, 2.0, 1.0], |c| slic_list_loss(c, &config));
    assert_eq!(list(&[-1.0, -2.0, -3.0]), [0.0; 3]);
    assert_eq!(list(&[-1.0, -2.0, -2.75]), [-1.0, -1.0, 2.0]);
}

#[test]
fn only_differences_of_log_probabilities_count() {
    let moved = SUMS.map(|s| s + 0.5);
    let config = SlicConfig { delta: 0.4 };
    type Loss<'a> = &'a dyn Fn(&Candidates) -> Result<Tensor>;
    let losses: [Loss; 2] = [&|c| slic_list_loss(c, &config), &|c| {
        slic_expected_reward_loss(c)
    }];
    for loss in losses {
        let (a, b) = (list(&SUMS, &RANKED), list(&moved, &RANKED));
        assert_close(
            &numbers(&loss(&a).unwrap()),
            &numbers(&loss(&b).unwrap()),
            EXACT,
            "shift",
        );
        let total: f64 = gradient(&SUMS, &RANKED, loss).iter().sum();
        assert_close(&[total], &[0.0], EXACT, "Σ gradient");
    }
}

#[test]
fn the_list_sees_the_order_of_the_rewards_only() {
    let config = SlicConfig::default();
    let a = slic_list_loss(&list(&SUMS, &RANKED), &config).unwrap();
    let b = slic_list_loss(&list(&SUMS, &[1.0, 3.0, 0.0, 2.0]), &config).unwrap();
    assert_eq!(numbers(&a), numbers(&b));
}

#[test]
fn the_order_of_the_answers_changes_nothing() {
    let order = [2, 0, 3, 1];
    let pick = |x: &[f64; 4]| order.map(|i| x[i]);
    let config = SlicConfig::default();
    let (a, b) = (list(&SUMS, &RANKED), list(&pick(&SUMS), &pick(&RANKED)));
    for (a, b) in [
        (slic_list_loss(&a, &config), slic_list_loss(&b, &config)),
        (slic_expected_reward_loss(&a), slic_expected_reward_loss(&b)),
    ] {
        assert_close(&numbers(&a.unwrap()), &numbers(&b.unwrap()), EXACT, "order");
    }
}

#[test]
fn expected_reward_of_all_answers_is_the_policy_gradient() {
    // −π(r − E r), at a policy that is not uniform
    let mean: f64 = REFERENCE.iter().zip(REWARDS).map(|(p, r)| p * r).sum();
    let want: Vec<f64> = REFERENCE
        .iter()
        .zip(REWARDS)
        .map(|(p, r)| -p * (r - mean))
        .collect();
    let got = gradient(&log(&REFERENCE), &REWARDS, slic_expected_reward_loss);
    assert_close(&got, &want, EXACT, "policy gradient");
    // the usual estimator −(r − b) · log π, each answer weighted by its probability
    let theta = Var::new(&log(&REFERENCE)[..], &Device::Cpu).unwrap();
    let log_pi = candle_nn::ops::log_softmax(theta.as_tensor(), D::Minus1).unwrap();
    let weights: Vec<f64> = REFERENCE.iter().zip(REWARDS).map(|(p, r)| -p * r).collect();
    let surrogate = (log_pi * vector(&weights)).unwrap().sum_all().unwrap();
    let grads = surrogate.backward().unwrap();
    assert_close(
        &got,
        &numbers(grads.get(&theta).unwrap()),
        EXACT,
        "estimator",
    );
}

#[test]
fn expected_reward_and_minimum_risk() {
    let risk = REWARDS.map(|r| r - 1.0);
    let reward = slic_expected_reward_loss(&list(&SUMS, &REWARDS)).unwrap();
    let minus_cost = slic_expected_reward_loss(&list(&SUMS, &risk)).unwrap();
    assert_close(
        &numbers(&minus_cost),
        &[numbers(&reward)[0] + 1.0],
        EXACT,
        "risk",
    );
    assert_close(
        &gradient(&SUMS, &risk, slic_expected_reward_loss),
        &gradient(&SUMS, &REWARDS, slic_expected_reward_loss),
        EXACT,
        "same gradient",
    );
}

/// `[1, 1, 4]`
fn logits(data: &[f64]) -> Tensor {
    vector(data).reshape((1, 1, data.len())).unwrap()
}

#[test]
fn kl_against_uniform_is_what_the_entropy_lacks() {
    let policy = logits(&[0.3, -1.0, 2.0, 0.7]);
    let mask = bits(&[&[1]]);
    let kl = slic_kl_regularizer(&policy, &logits(&[4.0; 4]), &mask).unwrap();
    let statistics = Statistics {
        entropy: true,
        ..Default::default()
    };
    let token = Tensor::new(&[[0u32]], &Device::Cpu).unwrap();
    let log_probs = TokenLogProbs::aligned(&policy, &token, &mask, statistics).unwrap();
    let entropy = numbers(log_probs.entropy().unwrap())[0];
    assert_close(
        &numbers(&kl.loss),
        &[4.0f64.ln() - entropy],
        EXACT,
        "log V − H",
    );
}

#[test]
fn the_gradient_of_the_kl() {
    // P (log P/Q − KL), not P − Q
    let log_p = log(&REFERENCE);
    let q = crate::common::policy::tilted(&REFERENCE, &REWARDS, BETA);
    let policy = Var::from_tensor(&logits(&log_p)).unwrap();
    let reference = Var::from_tensor(&logits(&log(&q))).unwrap();
    let out = slic_kl_regularizer(&policy, &reference, &bits(&[&[1]])).unwrap();
    let kl = numbers(&out.loss)[0];
    let grads = out.loss.sum_all().unwrap().backward().unwrap();
    let want: Vec<f64> = REFERENCE
        .iter()
        .zip(&q)
        .map(|(p, q)| p * ((p / q).ln() - kl))
        .collect();
    assert_close(
        &numbers(grads.get(&policy).unwrap()),
        &want,
        EXACT,
        "gradient",
    );
    assert!(grads.get(&reference).is_none());
}

#[test]
fn the_kl_starts_at_zero_and_ignores_a_shift_of_the_logits() {
    let policy = Var::from_tensor(&logits(&[0.3, -1.0, 2.0, 0.7])).unwrap();
    let reference = logits(&[1.3, 0.0, 3.0, 1.7]);
    let out = slic_kl_regularizer(&policy, &reference, &bits(&[&[1]])).unwrap();
    assert_close(&numbers(&out.loss), &[0.0], EXACT, "KL");
    let grads = out.loss.sum_all().unwrap().backward().unwrap();
    assert_close(
        &numbers(grads.get(&policy).unwrap()),
        &[0.0; 4],
        EXACT,
        "gradient",
    );
}

#[test]
fn the_kl_of_shifted_logits_lines_up_with_next_token() {
    // position t of the logits predicts token t + 1
    let all = Tensor::new(&[[[0.3f64, -1.0], [2.0, 0.7], [0.1, 0.4]]], &Device::Cpu).unwrap();
    let reference = all.zeros_like().unwrap();
    let tokens = Tensor::new(&[[0u32, 1, 0]], &Device::Cpu).unwrap();
    let log_probs = TokenLogProbs::next_token(&all, &tokens, &bits(&[&[0, 0, 1]])).unwrap();
    let predicting = |x: &Tensor| x.narrow(1, 0, 2).unwrap();
    let kl =
        slic_kl_regularizer(&predicting(&all), &predicting(&reference), log_probs.mask()).unwrap();
    let p = 1.0 / (1.0 + (0.7f64 - 2.0).exp());
    let want = p * (2.0 * p).ln() + (1.0 - p) * (2.0 * (1.0 - p)).ln();
    assert_close(&numbers(&kl.loss), &[0.0, want], EXACT, "aligned");
}
