use crate::common::{EXACT, assert_close, bits, logistic_loss, matrix, numbers, vector};
use candle_align::math::Whiten;
use candle_align::math::{
    hinge, log_sigmoid, mask_count, masked_mean, masked_sum, plackett_luce, preferences, softplus,
    whiten,
};
use candle_core::{DType, Tensor, Var};

#[test]
fn log_sigmoid_and_softplus_are_their_definitions() {
    let x = [0.0, 1.5, -2.5, 30.0, -1e4, 1e4];
    let want = [
        -(2f64.ln()),
        -logistic_loss(1.5),
        -logistic_loss(-2.5),
        -(-30f64).exp().ln_1p(),
        -1e4,
        0.0,
    ];
    assert_close(
        &numbers(&log_sigmoid(&vector(&x)).unwrap()),
        &want,
        EXACT,
        "log σ",
    );
    let negated: Vec<f64> = x.iter().map(|x| -x).collect();
    let want: Vec<f64> = want.iter().map(|y| -y).collect();
    assert_close(
        &numbers(&softplus(&vector(&negated)).unwrap()),
        &want,
        EXACT,
        "softplus",
    );
}

#[test]
fn hinge_is_zero_below_zero_and_hides_no_nan() {
    assert!(numbers(&hinge(&vector(&[f64::NAN])).unwrap())[0].is_nan());
    assert_eq!(
        numbers(&hinge(&vector(&[-2.0, 0.0, 3.0])).unwrap()),
        [0.0, 0.0, 3.0]
    );
}

#[test]
fn masked_sums_and_means_count_what_counts() {
    let x = matrix(&[
        &[1.0, f64::NAN, 4.0],
        &[f64::INFINITY, 2.0, 3.0],
        &[1.0, 1.0, 1.0],
    ]);
    let mask = bits(&[&[1, 0, 7], &[0, 1, 0], &[0, 0, 0]]);
    assert_eq!(numbers(&masked_sum(&x, &mask).unwrap()), [5.0, 2.0, 0.0]);
    assert_eq!(numbers(&masked_mean(&x, &mask).unwrap()), [2.5, 2.0, 0.0]);
    assert_eq!(
        numbers(&mask_count(&mask, DType::F32).unwrap()),
        [2.0, 1.0, 0.0]
    );
}

#[test]
fn a_preference_needs_two_present_answers_and_unequal_rewards() {
    let rewards = matrix(&[&[1.0, 3.0, 3.0, 9.0]]);
    let out = preferences(&rewards, &bits(&[&[5, 1, 1, 0]])).unwrap();
    #[rustfmt::skip]
    let want = [
        0., 0., 0., 0.,
        1., 0., 0., 0.,
        1., 0., 0., 0.,
        0., 0., 0., 0.,
    ];
    assert_eq!(numbers(&out), want);
    assert_eq!(out.dtype(), DType::U8);
}

#[test]
fn plackett_luce_is_a_product_of_softmaxes_over_what_is_left() {
    let e = f64::exp;
    let scores = matrix(&[&[-1.0, 0.3, 2.0], &[-1.0, 0.3, 2.0], &[0.4, 0.1, -0.2]]);
    let rewards = matrix(&[&[2.0, 3.0, 1.0], &[5.0, 5.0, 1.0], &[1.0, 2.0, 9.0]]);
    let mask = bits(&[&[1, 1, 1], &[1, 1, 1], &[1, 0, 0]]);
    let out = plackett_luce(&scores, &rewards, &mask).unwrap();
    let ranked = -(e(0.3) / (e(0.3) + e(-1.0) + e(2.0))).ln() - (e(-1.0) / (e(-1.0) + e(2.0))).ln();
    // the two tied best each compete with the worst alone
    let tied = logistic_loss(-1.0 - 2.0) + logistic_loss(0.3 - 2.0);
    assert_close(&numbers(&out), &[ranked, tied, 0.0], EXACT, "loss");
}

#[test]
fn whitening_with_and_without_the_mean() {
    let x = matrix(&[&[1.0, 2.0, f64::NAN], &[6.0, f64::NAN, f64::NAN]]);
    let mask = bits(&[&[1, 1, 0], &[1, 0, 0]]);
    let std = ((4.0 + 1.0 + 9.0) / 3.0 + 1e-8f64).sqrt();
    let zero = [-2.0 / std, -1.0 / std, 0.0, 3.0 / std, 0.0, 0.0];
    assert_close(
        &numbers(&whiten(&x, &mask, Whiten::ZeroMean).unwrap()),
        &zero,
        EXACT,
        "zero",
    );
    let keep = [
        3.0 - 2.0 / std,
        3.0 - 1.0 / std,
        0.0,
        3.0 + 3.0 / std,
        0.0,
        0.0,
    ];
    assert_close(
        &numbers(&whiten(&x, &mask, Whiten::KeepMean).unwrap()),
        &keep,
        EXACT,
        "keep",
    );
}

#[test]
fn whitening_one_number_or_none_is_finite() {
    let x = matrix(&[&[4.0, 2.0]]);
    let one = whiten(&x, &bits(&[&[1, 0]]), Whiten::ZeroMean).unwrap();
    assert_eq!(numbers(&one), [0.0, 0.0]);
    let none = whiten(&x, &bits(&[&[0, 0]]), Whiten::KeepMean).unwrap();
    assert_eq!(numbers(&none), [0.0, 0.0]);
}

/// A function of some numbers, and Σ of its results' slopes.
fn with_slopes(
    x: &[f64],
    f: impl Fn(&Tensor) -> candle_align::Result<Tensor>,
) -> (Vec<f64>, Vec<f64>) {
    let x = Var::from_tensor(&vector(x)).unwrap();
    let y = f(&x).unwrap();
    let grads = y.sum_all().unwrap().backward().unwrap();
    (numbers(&y), numbers(grads.get(&x).unwrap()))
}

#[test]
fn log_sigmoid_and_softplus_are_right_at_infinity() {
    let inf = f64::INFINITY;
    let x = [-inf, -1e300, 0.0, 1e300, inf];
    let (values, slopes) = with_slopes(&x, log_sigmoid);
    assert_eq!(values, [-inf, -1e300, -(2f64.ln()), 0.0, 0.0]);
    assert_eq!(slopes, [1.0, 1.0, 0.5, 0.0, 0.0]);
    let (values, slopes) = with_slopes(&x, softplus);
    assert_eq!(values, [0.0, 0.0, 2f64.ln(), 1e300, inf]);
    assert_eq!(slopes, [0.0, 0.0, 0.5, 1.0, 1.0]);
    let (values, slopes) = with_slopes(&[f64::NAN, 0.0], softplus);
    assert!(values[0].is_nan() && slopes[0].is_nan());
    assert_eq!((values[1], slopes[1]), (2f64.ln(), 0.5));
}

#[test]
fn in_a_ranking_no_score_is_too_small_to_stand_last() {
    let rewards = matrix(&[&[2.0, 1.0]]);
    let mask = bits(&[&[1, 1]]);
    let loss = |scores: [f64; 2]| {
        let scores = Var::from_tensor(&matrix(&[&scores])).unwrap();
        let loss = plackett_luce(&scores, &rewards, &mask).unwrap();
        let grads = loss.sum_all().unwrap().backward().unwrap();
        (numbers(&loss)[0], numbers(grads.get(&scores).unwrap()))
    };
    // −log σ(s₁ − s₂), and its slopes ∓σ(s₂ − s₁)
    for last in [-1e29, -1e31, -1e300, f64::NEG_INFINITY] {
        assert_eq!(loss([0.5, last]), (0.0, vec![0.0, 0.0]), "last {last}");
        let (value, slopes) = loss([last, 0.5]);
        assert_eq!((value, slopes), (-last, vec![-1.0, 1.0]), "first {last}");
    }
    for first in [1e31, f64::INFINITY] {
        assert_eq!(loss([first, 0.5]), (0.0, vec![0.0, 0.0]), "first {first}");
        let (value, slopes) = loss([0.5, first]);
        assert_eq!((value, slopes), (first, vec![-1.0, 1.0]), "last {first}");
    }
    // two that are infinite have no order that a limit knows
    assert!(loss([f64::NEG_INFINITY; 2]).0.is_nan());
}

#[test]
fn whitening_has_no_number_that_is_too_large() {
    // one number far from three equal ones: its distance is √3 deviations, theirs 1/√3
    let (far, near) = (3f64.sqrt(), -1.0 / 3f64.sqrt());
    let mask = bits(&[&[1, 1, 0], &[1, 1, 0]]);
    for large in [1e9, 1e160, 1e300, f64::INFINITY] {
        for sign in [1.0, -1.0] {
            let x = matrix(&[&[1.0, sign * large, f64::NAN], &[2.0, -3.0, f64::INFINITY]]);
            let zero = numbers(&whiten(&x, &mask, Whiten::ZeroMean).unwrap());
            let want = [near, far, 0.0, near, near, 0.0].map(|w| w * sign);
            assert_close(&zero, &want, 1e-7, "mean 0");
            let keep = numbers(&whiten(&x, &mask, Whiten::KeepMean).unwrap());
            let mean = sign * large / 4.0;
            for (i, counts) in [true, true, false, true, true, false].iter().enumerate() {
                let want = if *counts { mean } else { 0.0 };
                let near = keep[i] == want || (keep[i] / want - 1.0).abs() < 1e-7;
                assert!(near, "{}: {keep:?}", sign * large);
            }
        }
    }
    // equal numbers, however large, have no deviation
    for x in [7.0, 1e300] {
        let x = matrix(&[&[x, x, x], &[x, x, x]]);
        let out = numbers(&whiten(&x, &mask, Whiten::ZeroMean).unwrap());
        assert_close(&out, &[0.0; 6], EXACT, "equal");
    }
}
