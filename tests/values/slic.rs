use crate::common::lists::{lists, pair};
use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::{
    Candidates, SlicConfig, slic_expected_reward_loss, slic_kl_regularizer, slic_list_loss,
    slic_margin_loss, slic_rank_loss,
};
use candle_core::{DType, Device, Tensor, Var};

fn list_loss(c: &Candidates, delta: f64) -> Vec<f64> {
    numbers(&slic_list_loss(c, &SlicConfig { delta }).unwrap())
}

#[test]
fn rank() {
    // leads of 0.5, −2, 3, and exactly 1
    let policy = pair(&[-3.0, -6.0, -1.0, -2.0], &[-3.5, -4.0, -4.0, -3.0]);
    let got = slic_rank_loss(&policy, &SlicConfig::default())
        .unwrap()
        .loss;
    assert_close(
        &numbers(&got),
        &[1.0 - 0.5, 1.0 + 2.0, 0.0, 0.0],
        EXACT,
        "rank",
    );
    let got = slic_rank_loss(&policy, &SlicConfig { delta: 2.5 })
        .unwrap()
        .loss;
    assert_close(
        &numbers(&got),
        &[2.5 - 0.5, 2.5 + 2.0, 0.0, 2.5 - 1.0],
        EXACT,
        "rank, delta 2.5",
    );
}

#[test]
fn margin() {
    // required leads of 1.2, 0.6, 0 and −0.6 against leads of 0.5, −2, −0.1 and −0.1
    let policy = pair(&[-3.0, -6.0, -4.1, -4.1], &[-3.5, -4.0, -4.0, -4.0]);
    let similarity = pair(&[0.9, 0.5, 0.4, 0.2], &[0.5, 0.3, 0.4, 0.4]);
    let got = slic_margin_loss(&policy, &similarity, &SlicConfig { delta: 3.0 })
        .unwrap()
        .loss;
    assert_close(
        &numbers(&got),
        &[3.0 * 0.4 - 0.5, 3.0 * 0.2 + 2.0, 0.1, 0.0],
        EXACT,
        "margin",
    );
}

#[test]
fn list_uses_sums_and_the_distance_of_ranks() {
    // from the best: −4, −3, −3.2, −7; their length means would be in order
    let c = lists(
        &[&[-3.2, -4.0, -7.0, -3.0]],
        &[&[2.0, 8.0, 1.0, 3.0]],
        &[&[0.4, 0.9, 0.1, 0.6]],
    );
    let want = |d: f64| {
        (d + 4.0 - 3.0) // 1 before 2
            + (2.0 * d + 4.0 - 3.2) // 1 before 3
            + f64::max(0.0, 3.0 * d + 4.0 - 7.0) // 1 before 4
            + f64::max(0.0, d + 3.0 - 3.2) // 2 before 3
            + f64::max(0.0, 2.0 * d + 3.0 - 7.0) // 2 before 4
            + f64::max(0.0, d + 3.2 - 7.0) // 3 before 4
    };
    for delta in [0.1, 1.0, 1.5, 4.0] {
        assert_close(&list_loss(&c, delta), &[want(delta)], EXACT, "list");
    }
}

#[test]
fn list_with_ties_skips_a_place_and_makes_no_pair() {
    // places 0, 0, 2, 3: the two bests share the first, nobody has the second
    let c = lists(
        &[&[-1.0, -2.0, -1.5, -1.2]],
        &[&[1.0; 4]],
        &[&[5.0, 5.0, 2.0, 1.0]],
    );
    let d = 0.7;
    let first = (2.0 * d + 1.0 - 1.5) + (3.0 * d + 1.0 - 1.2);
    let second = (2.0 * d + 2.0 - 1.5) + (3.0 * d + 2.0 - 1.2);
    let third = d + 1.5 - 1.2;
    assert_close(
        &list_loss(&c, d),
        &[first + second + third],
        EXACT,
        "list, ties at the top",
    );
    // places 0, 1, 1: a tie at the bottom
    let c = lists(&[&[-1.0, -2.0, -0.5]], &[&[1.0; 3]], &[&[5.0, 2.0, 2.0]]);
    assert_close(
        &list_loss(&c, 1.3),
        &[(1.3 + 1.0 - 2.0) + (1.3 + 1.0 - 0.5)],
        EXACT,
        "list, ties at the bottom",
    );
    let c = lists(&[&[-1.0, -2.0, -0.5]], &[&[1.0; 3]], &[&[2.0; 3]]);
    assert_close(&list_loss(&c, 1.3), &[0.0], EXACT, "list, all tied");
}

#[test]
fn list_of_one_and_short_lists() {
    let c = lists(&[&[-3.0]], &[&[2.0]], &[&[4.0]]);
    assert_close(&list_loss(&c, 2.0), &[0.0], EXACT, "list of one");
    let c = Candidates::new(
        &matrix(&[&[-0.1, -3.0, f64::NAN, -2.0]]),
        &matrix(&[&[1.0, 2.0, f64::NAN, 4.0]]),
        &matrix(&[&[0.5, 1.0, f64::NAN, 0.25]]),
        Some(&bits(&[&[0, 1, 0, 1]])),
    )
    .unwrap();
    // the answer under the mask stands between the two and takes no place
    assert_close(
        &list_loss(&c, 0.75),
        &[0.75 + 3.0 - 2.0],
        EXACT,
        "short list",
    );
}

#[test]
fn expected_reward() {
    let sums = [0.2f64.ln() - 3.0, 0.1f64.ln() - 3.0, 0.5f64.ln() - 3.0];
    let c = lists(&[&sums], &[&[3.0, 9.0, 1.0]], &[&[1.0, -2.0, 0.4]]);
    let got = slic_expected_reward_loss(&c).unwrap();
    let want = -(0.2 * 1.0 + 0.1 * -2.0 + 0.5 * 0.4) / 0.8;
    assert_close(&numbers(&got), &[want], EXACT, "expected reward");
}

#[test]
fn expected_reward_of_one_and_of_short_lists() {
    let c = lists(&[&[-3.0]], &[&[2.0]], &[&[4.0]]);
    let got = slic_expected_reward_loss(&c).unwrap();
    assert_close(&numbers(&got), &[-4.0], EXACT, "one answer");
    let c = Candidates::new(
        &matrix(&[&[-0.1, 0.3f64.ln(), f64::NAN, 0.1f64.ln()]]),
        &matrix(&[&[1.0, 2.0, f64::NAN, 4.0]]),
        &matrix(&[&[9.0, 1.0, f64::NAN, 2.0]]),
        Some(&bits(&[&[0, 1, 0, 1]])),
    )
    .unwrap();
    let got = slic_expected_reward_loss(&c).unwrap();
    assert_close(
        &numbers(&got),
        &[-(0.75 * 1.0 + 0.25 * 2.0)],
        EXACT,
        "short list",
    );
}

/// `[1, 1, v]`
fn logits(data: &[f64]) -> Tensor {
    Tensor::new(data, &Device::Cpu)
        .unwrap()
        .reshape((1, 1, data.len()))
        .unwrap()
}

/// The two values of KL regularizers of one position.
fn kl(policy: &[f64], reference: &[f64]) -> f64 {
    let out = slic_kl_regularizer(&logits(policy), &logits(reference), &bits(&[&[1]])).unwrap();
    numbers(&out.loss)[0]
}

#[test]
fn kl_has_the_policy_in_front() {
    let (p, q) = ([0.9, 0.05, 0.05], [0.2, 0.2, 0.6]);
    let formula = |p: &[f64], q: &[f64]| -> f64 {
        p.iter()
            .zip(q)
            .map(|(p, q): (&f64, &f64)| p * (p / q).ln())
            .sum()
    };
    let (forward, backward) = (formula(&p, &q), formula(&q, &p));
    assert!((forward - backward).abs() > 0.3, "{forward} {backward}");
    let (log_p, log_q) = (p.map(|x: f64| x.ln() + 5.0), q.map(|x: f64| x.ln() - 2.0));
    assert_close(&[kl(&log_p, &log_q)], &[forward], EXACT, "KL(p ‖ q)");
    assert_close(&[kl(&log_q, &log_p)], &[backward], EXACT, "KL(q ‖ p)");
}

#[test]
fn kl_per_token_and_only_where_the_mask_counts() {
    let third = 3.0f64.ln();
    let data = [third, 0.0, 0.0, 0.0, f64::NAN, f64::NAN, third, 0.0];
    let policy = Tensor::new(&data, &Device::Cpu).unwrap();
    let policy = policy.reshape((2, 2, 2)).unwrap();
    let reference = policy.zeros_like().unwrap();
    let mask = bits(&[&[1, 1], &[0, 7]]);
    let out = slic_kl_regularizer(&policy, &reference, &mask).unwrap();
    let want = 0.75 * (0.75f64 / 0.5).ln() + 0.25 * (0.25f64 / 0.5).ln();
    assert_close(&numbers(&out.loss), &[want, 0.0, 0.0, want], EXACT, "kl");
    assert_eq!(numbers(&out.mask), numbers(&mask));
}

#[test]
fn kl_of_excluded_tokens() {
    let out = f64::NEG_INFINITY;
    let two = 0.75 * (0.75f64 / 0.5).ln() + 0.25 * (0.25f64 / 0.5).ln();
    assert_close(
        &[kl(&[3.0f64.ln(), out, 0.0], &[0.0, out, 0.0])],
        &[two],
        EXACT,
        "excluded by both",
    );
    // the reference spreads over three, the policy over two of them
    assert_close(
        &[kl(&[3.0f64.ln(), out, 0.0], &[0.0, 0.0, 0.0])],
        &[0.75 * (0.75f64 * 3.0).ln() + 0.25 * (0.25f64 * 3.0).ln()],
        EXACT,
        "excluded by the policy",
    );
    assert_eq!(kl(&[0.0, 0.0], &[out, 0.0]), f64::INFINITY);

    // what the policy excludes gets no gradient, and spoils no other
    let policy = Var::from_tensor(&logits(&[3.0f64.ln(), out, 0.0])).unwrap();
    let loss = slic_kl_regularizer(&policy, &logits(&[0.0, 0.0, 0.0]), &bits(&[&[1]])).unwrap();
    let grads = loss.loss.sum_all().unwrap().backward().unwrap();
    let l = 0.75 * (0.75f64 * 3.0).ln() + 0.25 * (0.25f64 * 3.0).ln();
    assert_close(
        &numbers(grads.get(&policy).unwrap()),
        &[
            0.75 * ((0.75f64 * 3.0).ln() - l),
            0.0,
            0.25 * ((0.25f64 * 3.0).ln() - l),
        ],
        EXACT,
        "gradient beside an excluded token",
    );
}

#[test]
fn kl_of_half_precision_is_computed_in_single() {
    // 4096 equal logits: a sum of 4096 ones is 256 in bf16
    let v = 4096;
    let policy = Tensor::zeros((1, 1, v), DType::F32, &Device::Cpu).unwrap();
    let mut halves = vec![0.0f32; v];
    halves[..v / 2].fill(1.0);
    let reference = Tensor::from_vec(halves, (1, 1, v), &Device::Cpu).unwrap();
    // q = e/(v/2·(e + 1)) on one half, 1/(v/2·(e + 1)) on the other
    let want = ((1.0f64.exp() + 1.0) / 2.0).ln() - 0.5;
    let mask = bits(&[&[1]]);
    let types = [DType::F32, DType::BF16, DType::F16];
    for (p, q) in types.iter().flat_map(|p| types.iter().map(move |q| (p, q))) {
        let out = slic_kl_regularizer(
            &policy.to_dtype(*p).unwrap(),
            &reference.to_dtype(*q).unwrap(),
            &mask,
        )
        .unwrap();
        assert_eq!(out.loss.dtype(), DType::F32);
        assert_close(&numbers(&out.loss), &[want], 1e-5, "half precision");
    }
}
