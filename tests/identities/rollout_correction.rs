//! What the pages of `online/rollout_correction` and `online/shaping` list under Properties.

use crate::common::policy::{REFERENCE, log, reference};
use crate::common::{assert_close, bits, matrix, numbers, vector};
use candle_align::online::ratio::RatioLevel;
use candle_align::online::rollout_correction::*;
use candle_align::online::shaping::*;
use candle_align::{KlEstimator, Reduction, TokenLogProbs, TokenLoss, kl_loss};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;

const OLD: [f64; 4] = [0.1, 0.2, 0.3, 0.4];

/// The policy over four answers of one token, and its parameters.
fn policy() -> (Var, TokenLogProbs) {
    let theta = Var::new(&[0.3f64, -0.4, 1.0, 0.2], &Device::Cpu).unwrap();
    let log_p = log_softmax(&theta, D::Minus1).unwrap();
    let mask = bits(&[&[1], &[1], &[1], &[1]]);
    let policy = TokenLogProbs::new(&log_p.unsqueeze(1).unwrap(), &mask).unwrap();
    (theta, policy)
}

/// Value and gradient of Σᵢ wᵢ lᵢ.
fn expectation(theta: &Var, weights: &[f64], loss: &Tensor) -> (f64, Vec<f64>) {
    let loss = (loss.squeeze(1).unwrap() * vector(weights)).unwrap();
    let sum = loss.sum_all().unwrap();
    let grads = sum.backward().unwrap();
    (numbers(&sum)[0], numbers(grads.get(theta).unwrap()))
}

/// KL(π‖π_ref) and its gradient, from the whole distribution.
fn kl(theta: &Var, policy: &TokenLogProbs) -> (f64, Vec<f64>) {
    let log_p = policy.values();
    let kl = (log_p.exp().unwrap() * (log_p - reference()).unwrap()).unwrap();
    let kl = kl.sum_all().unwrap();
    let grads = kl.backward().unwrap();
    (numbers(&kl)[0], numbers(grads.get(theta).unwrap()))
}

#[test]
fn the_kl_times_the_ratio_has_the_gradient_of_the_kl() {
    let (theta, policy) = policy();
    let want = kl(&theta, &policy);
    let old = vector(&log(&OLD)).unsqueeze(1).unwrap();
    for estimator in [KlEstimator::K1, KlEstimator::K3] {
        let level = RatioLevel::Token;
        let config = UnbiasedKlConfig { estimator, level };
        let term = unbiased_kl_loss(&policy, &old, &reference(), &config).unwrap();
        let got = expectation(&theta, &OLD, &term.loss);
        assert_close(&[got.0], &[want.0], 1e-14, "value");
        assert_close(&got.1, &want.1, 1e-14, "gradient");
    }
    // without the ratio k₃ pulls in the other direction, even on fresh draws
    let fresh = numbers(&policy.values().exp().unwrap());
    let k3 = kl_loss(&policy, &reference(), KlEstimator::K3).unwrap();
    let got = expectation(&theta, &fresh, &k3.loss);
    assert_close(&[got.0], &[want.0], 1e-14, "value of k3");
    let other: Vec<f64> = fresh.iter().zip(REFERENCE).map(|(p, r)| p - r).collect();
    assert_close(&got.1, &other, 1e-14, "of KL(π_ref‖π)");
}

#[test]
fn a_straight_through_term_has_its_value_and_the_gradient_of_the_kl() {
    let (theta, policy) = policy();
    let want = kl(&theta, &policy);
    let fresh = numbers(&policy.values().exp().unwrap());
    for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
        let term = straight_through_kl_loss(&policy, &reference(), estimator).unwrap();
        let plain = kl_loss(&policy, &reference(), estimator).unwrap();
        assert_eq!(numbers(&term.loss), numbers(&plain.loss));
        let got = expectation(&theta, &fresh, &term.loss);
        assert_close(&got.1, &want.1, 1e-14, "gradient");
    }
}

fn engines() -> (TokenLogProbs, Tensor) {
    let mask = bits(&[&[1, 1, 1], &[1, 1, 0]]);
    let old = matrix(&[&[-1.0, -2.0, -0.5], &[-1.0, -3.0, 0.0]]);
    let differences = matrix(&[&[0.5, -0.1, 2.0], &[-1.0, 0.2, f64::NAN]]);
    let sampler = (&old - differences).unwrap();
    (TokenLogProbs::new(&old, &mask).unwrap(), sampler)
}

fn weights(level: RatioLevel, low: Option<f64>, high: Option<f64>, beyond: Beyond) -> Vec<f64> {
    let (old, sampler) = engines();
    let config = RolloutWeightConfig {
        level,
        low,
        high,
        beyond,
    };
    numbers(&rollout_weights(&old, &sampler, &config).unwrap())
}

#[test]
fn weights_are_truncated_or_dropped_at_their_bounds() {
    use Beyond::{Drop, Truncate};
    let (w, e) = ([0.5f64, -0.1, 2.0, -1.0, 0.2].map(f64::exp), 1e-15);
    let token = RatioLevel::Token;
    let got = weights(token, None, Some(3.0), Truncate);
    assert_close(&got, &[w[0], w[1], 3.0, w[3], w[4], 0.0], e, "tis");
    let got = weights(token, Some(0.5), Some(5.0), Drop);
    assert_close(&got, &[w[0], w[1], 0.0, 0.0, w[4], 0.0], e, "icepop");
    let got = weights(token, Some(0.5), Some(5.0), Truncate);
    assert_close(&got, &[w[0], w[1], 5.0, 0.5, w[4], 0.0], e, "both bounds");
    // whole answers: sums of 2.4 and −0.8
    let (first, second) = (2.4f64.exp(), (-0.8f64).exp());
    let sum = RatioLevel::SequenceSum;
    let got = weights(sum, None, None, Drop);
    assert_close(
        &got,
        &[first, first, first, second, second, 0.0],
        1e-14,
        "sums",
    );
    let got = weights(sum, None, Some(3.0), Drop);
    assert_close(&got, &[0.0, 0.0, 0.0, second, second, 0.0], e, "dropped");
    let (first, second) = (0.8f64.exp(), (-0.4f64).exp());
    let got = weights(RatioLevel::SequenceMean, None, None, Drop);
    assert_close(
        &got,
        &[first, first, first, second, second, 0.0],
        e,
        "means",
    );
}

#[test]
fn where_both_programs_agree_every_weight_is_one() {
    let (old, _) = engines();
    for level in [
        RatioLevel::Token,
        RatioLevel::SequenceMean,
        RatioLevel::SequenceSum,
    ] {
        for beyond in [Beyond::Drop, Beyond::Truncate] {
            let config = RolloutWeightConfig {
                level,
                beyond,
                ..Default::default()
            };
            let got = rollout_weights(&old, old.values(), &config).unwrap();
            assert_eq!(numbers(&got), [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        }
    }
}

/// TRL's `nan_to_num` of the difference.
#[test]
fn a_token_that_is_impossible_to_both_counts_as_no_difference() {
    let (old, sampler) = engines();
    let never = bits(&[&[0, 1, 0], &[0, 0, 0]]);
    let least = (sampler.zeros_like().unwrap() + f64::NEG_INFINITY).unwrap();
    let without = |x: &Tensor| never.where_cond(&least, x).unwrap();
    let impossible = TokenLogProbs::new(&without(old.values()), old.mask()).unwrap();
    let config = RolloutWeightConfig {
        level: RatioLevel::Token,
        ..Default::default()
    };
    let found = rollout_weights(&impossible, &without(&sampler), &config).unwrap();
    let equal = never.where_cond(old.values(), &sampler).unwrap();
    let expected = rollout_weights(&old, &equal, &config).unwrap();
    assert_eq!(numbers(&found), numbers(&expected));
    assert_eq!(numbers(&found)[1], 1.0);
}

#[test]
fn a_token_without_a_score_counts_as_no_difference() {
    let (old, sampler) = engines();
    let known = bits(&[&[1, 1, 0], &[1, 1, 1]]);
    let none = (sampler.zeros_like().unwrap() * f64::NAN).unwrap();
    let holes = known.where_cond(&sampler, &none).unwrap();
    let filled = known.where_cond(&sampler, old.values()).unwrap();
    for level in [
        RatioLevel::Token,
        RatioLevel::SequenceMean,
        RatioLevel::SequenceSum,
    ] {
        let config = RolloutWeightConfig {
            level,
            ..Default::default()
        };
        let of = |sampler| numbers(&rollout_weights(&old, sampler, &config).unwrap());
        assert_eq!(of(&holes), of(&filled));
    }
    // one such token drops no answer
    let bad = vector(&[-1.0, -1.0]);
    let keep = off_policy_mask(&old, &holes, &bad, 0.5).unwrap();
    let filled = off_policy_mask(&old, &filled, &bad, 0.5).unwrap();
    assert_eq!(bytes(&keep), bytes(&filled));
}

/// A mask, flat.
fn bytes(mask: &Tensor) -> Vec<u8> {
    mask.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_band_of_means_and_weights_of_tokens_are_seq_mask_tis() {
    let (old, sampler) = engines();
    // means of 0.8 and −0.4
    let keep = sequence_band(&old, &sampler, 0.5, 2.0).unwrap();
    assert_eq!(bytes(&keep), [0, 0, 0, 1, 1, 0]);
    let w = RolloutWeightConfig {
        level: RatioLevel::Token,
        low: None,
        high: None,
        beyond: Beyond::Drop,
    };
    let w = rollout_weights(&old, &sampler, &w).unwrap();
    let loss = TokenLoss {
        loss: matrix(&[&[1.0, 2.0, 3.0], &[4.0, 5.0, 0.0]]),
        mask: old.mask().clone(),
    };
    let got = corrected(&corrected(&loss, &w).unwrap(), &keep).unwrap();
    let want = [0.0, 0.0, 0.0, 4.0 * (-1f64).exp(), 5.0 * 0.2f64.exp(), 0.0];
    assert_close(&numbers(&got.loss), &want, 1e-14, "seq-mask-tis");
    // the dropped answer stays in the divisor
    let mean = got.reduce(Reduction::TokenMean).unwrap();
    assert_close(
        &numbers(&mean),
        &[want.iter().sum::<f64>() / 5.0],
        1e-15,
        "mean",
    );
}

#[test]
fn only_bad_answers_that_went_stale_are_dropped() {
    let mask = bits(&[&[1, 1], &[1, 1], &[1, 1], &[1, 0]]);
    let new = matrix(&[&[-2.0, -2.0], &[-2.0, -2.0], &[-1.2, -1.0], &[-9.0, 0.0]]);
    let new = TokenLogProbs::new(&new, &mask).unwrap();
    let sampler = matrix(&[&[-1.0, -1.0], &[-1.0, -1.0], &[-1.0, -1.0], &[-1.0, -1.0]]);
    let keep = |a: &[f64]| bytes(&off_policy_mask(&new, &sampler, &vector(a), 0.5).unwrap());
    assert_eq!(keep(&[-1.0, 1.0, -1.0, -1.0]), [0, 0, 1, 1, 1, 1, 0, 0]);
    assert_eq!(keep(&[0.0, -0.0, 0.0, 0.0]), [1, 1, 1, 1, 1, 1, 1, 0]);
    // the bound belongs to what is kept
    let at = |delta| off_policy_mask(&new, &sampler, &vector(&[-1.0; 4]), delta).unwrap();
    assert_eq!(bytes(&at(1.0))[..2], [1, 1]);
    // advantages of tokens
    let a = matrix(&[&[-1.0, 1.0], &[1.0, 1.0], &[1.0, 1.0], &[1.0, 1.0]]);
    let keep = off_policy_mask(&new, &sampler, &a, 0.5).unwrap();
    assert_eq!(bytes(&keep)[..2], [0, 1]);
}

#[test]
fn cut_off_answers_leave_numerator_and_denominator() {
    let mask = bits(&[&[1, 1, 0], &[1, 1, 1]]);
    let loss = matrix(&[&[1.0, 3.0, 0.0], &[5.0, 5.0, 5.0]]);
    let ended = Tensor::new(&[1u8, 0], &Device::Cpu).unwrap();
    let kept = without_truncated(&mask, &ended).unwrap();
    for (reduction, want) in [
        (Reduction::TokenMean, 4.0 / 2.0),
        (Reduction::MeanOfSequenceMeans, 2.0),
        (Reduction::SequenceMean, 4.0),
    ] {
        let got = reduction.apply(&loss, &kept).unwrap();
        assert_close(&numbers(&got), &[want], 1e-15, "kept alone");
    }
}

#[test]
fn the_overlong_penalty_is_continuous_and_bounded() {
    let config = OverlongConfig {
        limit: 100,
        buffer: 20,
    };
    let lengths = vector(&[0.0, 80.0, 81.0, 90.0, 100.0, 101.0, 1e6]);
    let penalty = overlong_penalty(&lengths, &config).unwrap();
    let want = [0.0, 0.0, -0.05, -0.5, -1.0, -1.0, -1.0];
    assert_close(&numbers(&penalty), &want, 1e-15, "penalty");
}

#[test]
fn a_share_of_one_keeps_every_token_and_ties_stay() {
    let entropy = matrix(&[&[0.5, 0.5, 2.0], &[0.1, f64::NAN, 0.5]]);
    let mask = bits(&[&[1, 1, 1], &[1, 0, 1]]);
    let keep = |share| bytes(&high_entropy_mask(&entropy, &mask, share).unwrap());
    assert_eq!(keep(1.0), [1, 1, 1, 1, 0, 1]);
    // sorted 0.1, 0.5, 0.5, 0.5, 2: the 0.5- and the 0.25-quantile are 0.5, the 0.875-quantile 1.25
    assert_eq!(keep(0.5), [1, 1, 1, 0, 0, 1]);
    assert_eq!(keep(0.75), [1, 1, 1, 0, 0, 1]);
    assert_eq!(keep(0.125), [0, 0, 1, 0, 0, 0]);
}

/// `torch.quantile` (2.15) of 0, ⅛, …, 3⅛ in f32 at 0.6 is 1.87500012, above the token at its rank.
#[test]
fn entropies_in_f32_have_the_quantile_of_pytorch() {
    let entropies: Vec<f64> = (0..26).map(|at| f64::from(at) / 8.0).collect();
    let entropy = matrix(&[&entropies]);
    let mask = bits(&[&[1; 26]]);
    let kept = |dtype| {
        let entropy = entropy.to_dtype(dtype).unwrap();
        let keep = bytes(&high_entropy_mask(&entropy, &mask, 0.4).unwrap());
        keep.iter().filter(|kept| **kept == 1).count()
    };
    assert_eq!((kept(DType::F64), kept(DType::F32)), (11, 10));
    for share in [0.2, 0.35, 0.5, 0.9, 1.0] {
        let of = |dtype| {
            let entropy = entropy.to_dtype(dtype).unwrap();
            bytes(&high_entropy_mask(&entropy, &mask, share).unwrap())
        };
        assert_eq!(of(DType::F32), of(DType::F64), "{share}");
    }
}

#[test]
fn the_coefficient_of_the_bonus_moves_towards_the_target() {
    let config = EntropyControllerConfig {
        target: 0.5,
        step: 0.1,
        least: 0.0,
        largest: 0.25,
    };
    let mut control = EntropyController::new(0.1, &config).unwrap();
    let mut seen = Vec::new();
    for entropy in [0.4, 0.4, 0.5, 0.6, 0.7, 0.1] {
        control.update(entropy).unwrap();
        seen.push(control.coefficient());
    }
    // bounded above; at rest above the target, while the coefficient falls
    assert_close(
        &seen,
        &[0.2, 0.25, 0.25, 0.0, 0.0, 0.15],
        1e-15,
        "coefficient",
    );
    // an entropy that says nothing moves nothing
    let before = control.clone();
    for entropy in [f64::NAN, f64::INFINITY] {
        assert!(control.update(entropy).is_err());
        assert_eq!(control, before);
    }
    let text = serde_json::to_string(&control).unwrap();
    assert_eq!(
        serde_json::from_str::<EntropyController>(&text).unwrap(),
        control
    );
}
