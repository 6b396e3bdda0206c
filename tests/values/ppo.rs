use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::math::{Whiten, whiten};
use candle_align::online::controller::KlController;
use candle_align::online::kl::LOG_RATIO_BOUND;
use candle_align::online::rewards::missing_eos_penalty;
use candle_align::{
    EntropyConfig, GaeConfig, KlEstimator, PolicyLoss, PpoConfig, PpoValueConfig, PtxConfig,
    ShapedRewardsConfig, Statistics, TokenLogProbs, entropy_loss, gae, kl_loss, ppo_policy_loss,
    ppo_value_loss, ptx_loss, shaped_rewards,
};
use candle_core::{DType, Device, Tensor, Var};

const NAN: f64 = f64::NAN;
/// Relative difference allowed in f32.
const SINGLE: f64 = 1e-6;

fn log_probs(values: &[&[f64]], mask: &[&[u8]]) -> TokenLogProbs {
    TokenLogProbs::new(&matrix(values), &bits(mask)).unwrap()
}

/// Loss and slope in log π_θ at log-ratios `x` = log π_ref − log π_θ, one token per row.
fn kl_at(x: &[f64], estimator: KlEstimator, dtype: DType) -> (Vec<f64>, Vec<f64>) {
    let n = x.len();
    let policy = Var::zeros((n, 1), dtype, &Device::Cpu).unwrap();
    let mask = Tensor::ones((n, 1), DType::U8, &Device::Cpu).unwrap();
    let policy_log_probs = TokenLogProbs::new(&policy, &mask).unwrap();
    let reference = vector(x).to_dtype(dtype).unwrap().unsqueeze(1).unwrap();
    let loss = kl_loss(&policy_log_probs, &reference, estimator)
        .unwrap()
        .loss;
    let grads = loss.sum_all().unwrap().backward().unwrap();
    (numbers(&loss), numbers(grads.get(&policy).unwrap()))
}

#[test]
fn kl_estimators_of_a_log_ratio() {
    let policy = log_probs(
        &[&[-1.0, -2.5, 7.0], &[NAN, -0.3, -4.0]],
        &[&[1, 1, 0], &[0, 1, 1]],
    );
    let reference = matrix(&[&[-1.7, -0.5, NAN], &[3.0, -0.3, -1.0]]);
    let at = |estimator| numbers(&kl_loss(&policy, &reference, estimator).unwrap().loss);
    let k3 = |x: f64| x.exp() - 1.0 - x;
    assert_close(
        &at(KlEstimator::K1),
        &[0.7, -2.0, 0.0, 0.0, 0.0, -3.0],
        EXACT,
        "k1",
    );
    assert_close(
        &at(KlEstimator::K2),
        &[0.49 / 2.0, 4.0 / 2.0, 0.0, 0.0, 0.0, 9.0 / 2.0],
        EXACT,
        "k2",
    );
    assert_close(
        &at(KlEstimator::K3),
        &[k3(-0.7), k3(2.0), 0.0, 0.0, 0.0, k3(3.0)],
        EXACT,
        "k3",
    );
}

#[test]
fn k3_keeps_its_digits_near_zero() {
    let points = [
        1e-8, -1e-6, 1e-4, -1e-4, 1e-3, 0.01, -0.1, 0.3, -0.499, 0.499, 0.501, -0.501,
    ];
    // a series of its own: Σ xⁿ/n!, n from 2, smallest terms first
    let truth = |x: f64| {
        let mut sum = 0.0;
        for n in (2..30).rev() {
            let factorial: f64 = (1..=n).map(f64::from).product();
            sum += x.powi(n) / factorial;
        }
        sum
    };
    for (dtype, relative) in [(DType::F64, 2e-15), (DType::F32, SINGLE)] {
        let (values, slopes) = kl_at(&points, KlEstimator::K3, dtype);
        for ((x, value), slope) in points.iter().zip(values).zip(slopes) {
            // what the type made of x
            let x = match dtype {
                DType::F32 => f64::from(*x as f32),
                _ => *x,
            };
            let (want, want_slope) = (truth(x), -x.exp_m1());
            assert!(
                (value - want).abs() <= relative * want,
                "{dtype:?} {x}: {value} against {want}"
            );
            assert!(
                (slope - want_slope).abs() <= relative * want_slope.abs(),
                "{dtype:?} {x}: slope {slope} against {want_slope}"
            );
        }
    }
    let (values, slopes) = kl_at(&[0.0], KlEstimator::K3, DType::F32);
    assert_eq!((values[0], slopes[0]), (0.0, 0.0));
}

#[test]
fn k3_goes_on_along_its_tangent_beyond_the_bound() {
    let c = LOG_RATIO_BOUND;
    let points = [c - 1.0, c, c + 1.0, 1e4, -1e4];
    let (values, slopes) = kl_at(&points, KlEstimator::K3, DType::F64);
    let tangent = |x: f64| c.exp() * (1.0 + x - c) - 1.0 - x;
    let want = [
        (c - 1.0).exp() - c,
        c.exp() - 1.0 - c,
        tangent(c + 1.0),
        tangent(1e4),
        1e4 - 1.0,
    ];
    let want_slopes = [
        1.0 - (c - 1.0).exp(),
        1.0 - c.exp(),
        1.0 - c.exp(),
        1.0 - c.exp(),
        1.0,
    ];
    for i in 0..points.len() {
        assert!((values[i] / want[i] - 1.0).abs() < EXACT, "{}", points[i]);
        assert!(
            (slopes[i] / want_slopes[i] - 1.0).abs() < EXACT,
            "{}",
            points[i]
        );
    }
    let (values, slopes) = kl_at(&points, KlEstimator::K3, DType::F32);
    assert!(values.iter().chain(&slopes).all(|v| v.is_finite()));
}

#[test]
fn the_score_stands_on_the_last_token_that_counts() {
    // right padding, left padding with a gap, nothing counted
    let mask: [&[u8]; 3] = [&[9, 1, 0, 0], &[0, 7, 0, 1], &[0, 0, 0, 0]];
    let old = log_probs(
        &[
            &[-1.0, -2.0, NAN, 0.0],
            &[5.0, -0.5, NAN, -3.0],
            &[NAN, 0.0, 0.0, 0.0],
        ],
        &mask,
    );
    let reference = matrix(&[
        &[-1.5, -1.8, 3.0, NAN],
        &[NAN, -0.4, 2.0, -4.0],
        &[0.0, 0.0, NAN, 0.0],
    ]);
    let scores = vector(&[2.0, -1.0, NAN]);
    let rewards = |beta, estimator| {
        let config = ShapedRewardsConfig { beta, estimator };
        numbers(&shaped_rewards(&old, &reference, &scores, &config).unwrap())
    };
    let b = 0.3;
    assert_close(
        &rewards(b, KlEstimator::K1),
        &[
            -b * 0.5,
            -b * -0.2 + 2.0,
            0.0,
            0.0,
            0.0,
            -b * -0.1,
            0.0,
            -b - 1.0,
            0.0,
            0.0,
            0.0,
            0.0,
        ],
        EXACT,
        "k1",
    );
    let k3 = |x: f64| x.exp() - 1.0 - x;
    let k3 = [k3(-0.5), k3(0.2), k3(0.1), k3(-1.0)];
    let k2 = [0.25 / 2.0, 0.04 / 2.0, 0.01 / 2.0, 0.5];
    for (estimator, k) in [(KlEstimator::K2, k2), (KlEstimator::K3, k3)] {
        let got = rewards(b, estimator);
        let want = [-b * k[0], -b * k[1] + 2.0, -b * k[2], -b * k[3] - 1.0];
        assert_close(&[got[0], got[1], got[5], got[7]], &want, EXACT, "k2, k3");
    }
    // β = 0: the score alone
    let free = rewards(0.0, KlEstimator::K1);
    assert_eq!(free.iter().sum::<f64>(), 2.0 - 1.0);
    assert_eq!((free[1], free[7]), (2.0, -1.0));
    // the default is InstructGPT's
    let default = ShapedRewardsConfig::default();
    assert_eq!((default.beta, default.estimator), (0.02, KlEstimator::K1));
}

#[test]
fn an_answer_that_did_not_end_pays() {
    let scores = vector(&[1.5, -0.5, 2.0]);
    let ended = Tensor::new(&[1u8, 0, 0], &Device::Cpu).unwrap();
    let got = missing_eos_penalty(&scores, &ended, 0.75).unwrap();
    assert_eq!(numbers(&got), [1.5, -0.5 - 0.75, 2.0 - 0.75]);
}

#[test]
fn generalized_advantages_by_hand() {
    let (g, l) = (0.9, 0.8);
    let config = GaeConfig {
        gamma: g,
        lambda: l,
    };
    let (r, v) = ([0.1, -0.2, 1.5], [0.4, 0.3, 0.9]);
    let a3 = r[2] - v[2];
    let a2 = r[1] + g * v[2] - v[1] + g * l * a3;
    let a1 = r[0] + g * v[1] - v[0] + g * l * a2;

    // alone; padded on the right; on the left, with a gap, and what must not be read under the mask
    let rewards = matrix(&[
        &[r[0], r[1], r[2], 0.0, 0.0],
        &[NAN, r[0], 7.0, r[1], r[2]],
        &[NAN, NAN, 5.0, NAN, NAN],
        &[NAN, NAN, NAN, NAN, NAN],
    ]);
    let values = matrix(&[
        &[v[0], v[1], v[2], 3.0, NAN],
        &[2.0, v[0], NAN, v[1], v[2]],
        &[NAN, NAN, 2.0, NAN, NAN],
        &[NAN, NAN, NAN, NAN, NAN],
    ]);
    let mask = bits(&[
        &[1, 1, 1, 0, 0],
        &[0, 1, 0, 1, 1],
        &[0, 0, 1, 0, 0],
        &[0, 0, 0, 0, 0],
    ]);
    let out = gae(&rewards, &values, &mask, &config).unwrap();
    #[rustfmt::skip]
    let want = [
        a1, a2, a3, 0.0, 0.0,
        0.0, a1, 0.0, a2, a3,
        0.0, 0.0, 5.0 - 2.0, 0.0, 0.0,
        0.0, 0.0, 0.0, 0.0, 0.0,
    ];
    assert_close(&numbers(&out.advantages), &want, EXACT, "advantages");
    let (r1, r2, r3) = (a1 + v[0], a2 + v[1], a3 + v[2]);
    #[rustfmt::skip]
    let want = [
        r1, r2, r3, 0.0, 0.0,
        0.0, r1, 0.0, r2, r3,
        0.0, 0.0, 5.0, 0.0, 0.0,
        0.0, 0.0, 0.0, 0.0, 0.0,
    ];
    assert_close(&numbers(&out.returns), &want, EXACT, "returns");
    let default = GaeConfig::default();
    assert_eq!((default.gamma, default.lambda), (1.0, 0.95));
}

#[test]
fn no_time_and_no_answers_have_no_advantages() {
    for shape in [(2, 0), (0, 3), (0, 0)] {
        let empty = Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let mask = Tensor::zeros(shape, DType::U8, &Device::Cpu).unwrap();
        let out = gae(&empty, &empty, &mask, &GaeConfig::default()).unwrap();
        assert_eq!(out.advantages.dims(), [shape.0, shape.1]);
        assert_eq!(out.returns.dims(), [shape.0, shape.1]);
    }
}

#[test]
fn empty_batches_are_no_accident() {
    for shape in [(2, 0), (0, 3), (0, 0)] {
        let x = Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let mask = Tensor::zeros(shape, DType::U8, &Device::Cpu).unwrap();
        let scores = Tensor::ones(shape.0, DType::F64, &Device::Cpu).unwrap();
        let policy = TokenLogProbs::new(&x, &mask).unwrap();
        let config = ShapedRewardsConfig::default();
        let rewards = shaped_rewards(&policy, &x, &scores, &config).unwrap();
        assert_eq!(rewards.dims(), [shape.0, shape.1]);
        let out = ppo_policy_loss(&policy, &x, &rewards, &PpoConfig::default()).unwrap();
        assert_eq!(out.loss.loss.dims(), [shape.0, shape.1]);
    }
}

/// One row per (ratio, advantage): the outcome and ∂l/∂ log π_θ.
fn surrogate(points: &[(f64, f64)], config: &PpoConfig, dtype: DType) -> (PolicyLoss, Vec<f64>) {
    let n = points.len();
    let column = |x: Vec<f64>| {
        let x = vector(&x).to_dtype(dtype).unwrap();
        x.unsqueeze(1).unwrap()
    };
    let new = Var::from_tensor(&column(points.iter().map(|p| p.0.ln()).collect())).unwrap();
    let old = Tensor::zeros((n, 1), dtype, &Device::Cpu).unwrap();
    let advantages = column(points.iter().map(|p| p.1).collect());
    let mask = Tensor::ones((n, 1), DType::U8, &Device::Cpu).unwrap();
    let log_probs = TokenLogProbs::new(&new, &mask).unwrap();
    let out = ppo_policy_loss(&log_probs, &old, &advantages, config).unwrap();
    let grads = out.loss.loss.sum_all().unwrap().backward().unwrap();
    let slopes = numbers(grads.get(&new).unwrap());
    (out, slopes)
}

#[test]
fn the_clip_stops_the_pull_on_two_sides_of_four() {
    let config = PpoConfig {
        clip: 0.1,
        clip_high: Some(0.3),
        dual_clip: None,
    };
    // (ρ, Â): value, slope in log π, clipped
    let table = [
        ((1.2, 2.0), -2.0 * 1.2, -2.0 * 1.2, 0.0),
        ((1.5, 2.0), -2.0 * 1.3, 0.0, 1.0),
        ((0.5, 2.0), -2.0 * 0.5, -2.0 * 0.5, 0.0),
        ((0.95, -3.0), 3.0 * 0.95, 3.0 * 0.95, 0.0),
        ((0.5, -3.0), 3.0 * 0.9, 0.0, 1.0),
        ((1.5, -3.0), 3.0 * 1.5, 3.0 * 1.5, 0.0),
        ((5.0, -3.0), 3.0 * 5.0, 3.0 * 5.0, 0.0),
        ((5.0, 0.0), 0.0, 0.0, 0.0),
    ];
    let points: Vec<_> = table.iter().map(|row| row.0).collect();
    let (out, slopes) = surrogate(&points, &config, DType::F64);
    let mut values: Vec<f64> = table.iter().map(|row| row.1).collect();
    let mut gradients: Vec<f64> = table.iter().map(|row| row.2).collect();
    let mut clipped: Vec<f64> = table.iter().map(|row| row.3).collect();
    assert_close(&numbers(&out.loss.loss), &values, EXACT, "loss");
    assert_close(&slopes, &gradients, EXACT, "slope");
    assert_eq!(numbers(&out.clipped), clipped);
    let ratios: Vec<f64> = points.iter().map(|p| p.0).collect();
    assert_close(&numbers(&out.ratio), &ratios, EXACT, "ratio");

    // dual clip 4: of these only the ratio 5 with a negative advantage
    let dual = PpoConfig {
        dual_clip: Some(4.0),
        ..config
    };
    let (out, slopes) = surrogate(&points, &dual, DType::F64);
    (values[6], gradients[6], clipped[6]) = (3.0 * 4.0, 0.0, 1.0);
    assert_close(&numbers(&out.loss.loss), &values, EXACT, "loss");
    assert_close(&slopes, &gradients, EXACT, "slope");
    assert_eq!(numbers(&out.clipped), clipped);
}

#[test]
fn one_clip_serves_both_sides() {
    let (out, _) = surrogate(
        &[(1.3, 1.0), (0.7, -1.0)],
        &PpoConfig::default(),
        DType::F64,
    );
    assert_close(&numbers(&out.loss.loss), &[-1.2, 0.8], EXACT, "loss");
}

#[test]
fn at_ratio_one_the_slope_is_minus_the_advantage_exactly() {
    let points = [(1.0, 0.7), (1.0, -1.3), (1.0, 1e4), (1.0, 0.0)];
    for dtype in [DType::F64, DType::F32] {
        for dual_clip in [None, Some(1.5)] {
            let config = PpoConfig {
                dual_clip,
                ..Default::default()
            };
            let (out, slopes) = surrogate(&points, &config, dtype);
            for (slope, (_, advantage)) in slopes.iter().zip(points) {
                let advantage = match dtype {
                    DType::F32 => f64::from(advantage as f32),
                    _ => advantage,
                };
                assert_eq!(*slope, -advantage);
            }
            assert_eq!(numbers(&out.clipped), [0.0; 4]);
        }
    }
}

#[test]
fn at_a_bound_the_slope_is_that_of_the_inner_side() {
    // bounds that floating point meets exactly: ½, 2, and c = 4
    let (up, down, far) = (2f64.ln(), 0.5f64.ln(), 4f64.ln());
    assert_eq!((up.exp(), down.exp(), far.exp()), (2.0, 0.5, 4.0));
    let config = PpoConfig {
        clip: 0.5,
        clip_high: Some(1.0),
        dual_clip: Some(4.0),
    };
    let points = [(2.0, 1.5), (0.5, -1.5), (4.0, -1.5)];
    let (out, slopes) = surrogate(&points, &config, DType::F64);
    assert_eq!(slopes, [-1.5 * 2.0, 1.5 * 0.5, 1.5 * 4.0]);
    assert_eq!(numbers(&out.clipped), [0.0; 3]);
    assert_eq!(numbers(&out.loss.loss), slopes);

    // a little beyond: nothing
    let beyond = [(2.0 + 1e-9, 1.5), (0.5 - 1e-9, -1.5), (4.0 + 1e-9, -1.5)];
    let (out, slopes) = surrogate(&beyond, &config, DType::F64);
    assert_eq!(slopes, [0.0; 3]);
    assert_eq!(numbers(&out.clipped), [1.0; 3]);
}

#[test]
fn an_enormous_ratio_pulls_back_and_does_not_overflow() {
    let new = Var::new(&[[1e4f32, -1e4, 25.0]], &Device::Cpu).unwrap();
    let old = Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap();
    let mask = Tensor::ones((1, 3), DType::U8, &Device::Cpu).unwrap();
    let advantages = Tensor::new(&[[-2.0f32, 2.0, -2.0]], &Device::Cpu).unwrap();
    let log_probs = TokenLogProbs::new(&new, &mask).unwrap();
    let out = ppo_policy_loss(&log_probs, &old, &advantages, &PpoConfig::default()).unwrap();
    let grads = out.loss.loss.sum_all().unwrap().backward().unwrap();
    let slopes = numbers(grads.get(&new).unwrap());
    let (c, want) = (LOG_RATIO_BOUND, 2.0 * LOG_RATIO_BOUND.exp());
    assert!((slopes[0] / want - 1.0).abs() < SINGLE, "{slopes:?}");
    assert!((slopes[2] / want - 1.0).abs() < SINGLE, "{slopes:?}");
    assert_eq!(slopes[1], 0.0);
    let loss = numbers(&out.loss.loss);
    assert!((loss[2] / (2.0 * c.exp() * 6.0) - 1.0).abs() < SINGLE);
    let metrics = out.metrics().unwrap();
    for metric in [metrics.ratio, metrics.kl_k1, metrics.kl_k3] {
        assert!(numbers(&metric)[0].is_finite());
    }
}

#[test]
fn metrics_do_not_see_padding() {
    let new = log_probs(
        &[&[-1.0, -2.0, 50.0], &[-0.5, NAN, NAN]],
        &[&[1, 1, 0], &[1, 0, 0]],
    );
    let old = matrix(&[&[-1.5, -1.9, -50.0], &[-0.5, 3.0, NAN]]);
    let advantages = matrix(&[&[1.0, 1.0, NAN], &[1.0, 8.0, NAN]]);
    let out = ppo_policy_loss(&new, &old, &advantages, &PpoConfig::default()).unwrap();
    let (d1, d2) = (0.5f64, -0.1f64);
    let padded = [0.0; 3];
    let ratio = [d1.exp(), d2.exp(), padded[0], 1.0, padded[1], padded[2]];
    assert_close(&numbers(&out.ratio), &ratio, EXACT, "ratio");

    let metrics = out.metrics().unwrap();
    let k3 = |d: f64| d.exp() - 1.0 - d;
    for (got, want) in [
        (metrics.ratio, (d1.exp() + d2.exp() + 1.0) / 3.0),
        (metrics.clip_fraction, 1.0 / 3.0),
        (metrics.kl_k1, -(d1 + d2) / 3.0),
        (metrics.kl_k3, (k3(d1) + k3(d2)) / 3.0),
    ] {
        assert_close(&numbers(&got), &[want], EXACT, "metric");
    }
}

/// Loss and slope in V of one value per row: (V, V_old, R).
fn squares(points: &[[f64; 3]], clip: Option<f64>) -> (Vec<f64>, Vec<f64>) {
    let column = |i: usize| {
        let x: Vec<f64> = points.iter().map(|p| p[i]).collect();
        vector(&x).unsqueeze(1).unwrap()
    };
    let values = Var::from_tensor(&column(0)).unwrap();
    let mask = Tensor::ones((points.len(), 1), DType::U8, &Device::Cpu).unwrap();
    let config = PpoValueConfig { clip };
    let loss = ppo_value_loss(&values, &column(1), &column(2), &mask, &config)
        .unwrap()
        .loss;
    let grads = loss.sum_all().unwrap().backward().unwrap();
    (numbers(&loss), numbers(grads.get(&values).unwrap()))
}

#[test]
fn the_worse_of_two_squares() {
    let half = |x: f64| 0.5 * x * x;
    // ε = ½, which floating point adds exactly
    let table = [
        // within ε: one square, its full slope
        ([1.25, 1.0, 3.0], half(-1.75), -1.75),
        ([0.75, 1.0, 3.0], half(-2.25), -2.25),
        ([1.0, 1.0, 3.0], half(-2.0), -2.0),
        // at the bound
        ([1.5, 1.0, 3.0], half(-1.5), -1.5),
        ([0.5, 1.0, -3.0], half(3.5), 3.5),
        // beyond, towards R: V_clip is worse, no pull
        ([2.0, 1.0, 3.0], half(1.5 - 3.0), 0.0),
        ([0.0, 1.0, -3.0], half(0.5 + 3.0), 0.0),
        // beyond, away from R: V is worse, full pull
        ([2.0, 1.0, -3.0], half(5.0), 5.0),
        ([0.0, 1.0, 3.0], half(-3.0), -3.0),
        // past R by less, as much (a tie), and more than V_clip stops short of it
        ([2.25, 1.0, 2.0], half(1.5 - 2.0), 0.0),
        ([2.5, 1.0, 2.0], half(0.5), 0.5),
        ([2.75, 1.0, 2.0], half(0.75), 0.75),
    ];
    let points: Vec<_> = table.iter().map(|row| row.0).collect();
    let (values, slopes) = squares(&points, Some(0.5));
    let want: Vec<f64> = table.iter().map(|row| row.1).collect();
    assert_close(&values, &want, EXACT, "loss");
    let want: Vec<f64> = table.iter().map(|row| row.2).collect();
    assert_close(&slopes, &want, EXACT, "slope");

    let (values, slopes) = squares(&points, None);
    let want: Vec<f64> = points.iter().map(|p| half(p[0] - p[2])).collect();
    assert_close(&values, &want, EXACT, "loss without a clip");
    let want: Vec<f64> = points.iter().map(|p| p[0] - p[2]).collect();
    assert_close(&slopes, &want, EXACT, "slope without a clip");
    assert_eq!(PpoValueConfig::default().clip, Some(0.2));
}

#[test]
fn rounding_does_not_stop_a_value_that_has_not_moved_far() {
    // V_old + (V − V_old) is not V in f32 where the two differ in sign: V_clip is off by a digit
    let n = 1000u16;
    let spread = |from: f32, factor: f32, modulus: u16| {
        let x: Vec<f32> = (0..n)
            .map(|i| from + f32::from((i * 37) % modulus) * factor)
            .collect();
        Tensor::from_vec(x, (1, usize::from(n)), &Device::Cpu).unwrap()
    };
    let old = spread(-0.11, 0.001, 101);
    let values = Var::from_tensor(&spread(0.001, 0.0017, 47)).unwrap();
    let returns = spread(0.1, 0.0003, 97);
    let mask = Tensor::ones((1, usize::from(n)), DType::U8, &Device::Cpu).unwrap();
    let loss = ppo_value_loss(&values, &old, &returns, &mask, &PpoValueConfig::default()).unwrap();
    let grads = loss.loss.sum_all().unwrap().backward().unwrap();
    let want = numbers(&(values.as_tensor() - returns).unwrap());
    assert_close(
        &numbers(grads.get(&values).unwrap()),
        &want,
        SINGLE,
        "slope",
    );
}

#[test]
fn a_value_at_its_bound_but_for_rounding_still_moves() {
    let old = -0.15f64;
    let value = (old + 0.2).next_up();
    let target = value + 0.01;
    assert!(value - old == 0.2 && old + 0.2 < value);
    let (_, slopes) = squares(&[[value, old, target]], Some(0.2));
    assert_eq!(slopes, [value - target]);
}

#[test]
fn entropy_of_three_symbols() {
    let p = [0.5f64, 0.2, 0.3];
    let logits: Vec<f64> = p.iter().map(|p| p.ln() + 1.7).collect();
    let logits = vector(&[logits.clone(), logits].concat())
        .reshape((1, 2, 3))
        .unwrap();
    let targets = Tensor::new(&[[0u32, 0]], &Device::Cpu).unwrap();
    let statistics = Statistics {
        entropy: true,
        ..Default::default()
    };
    let log_probs = TokenLogProbs::aligned(&logits, &targets, &bits(&[&[1, 0]]), statistics);
    let loss = entropy_loss(&log_probs.unwrap(), &EntropyConfig { coefficient: 0.25 }).unwrap();
    let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
    assert_close(&numbers(&loss.loss), &[-0.25 * entropy, 0.0], EXACT, "loss");
    assert_eq!(EntropyConfig::default().coefficient, 0.01);
}

#[test]
fn pretraining_text_is_weighted_by_gamma() {
    let text = log_probs(&[&[-0.5, NAN], &[-2.0, -1.0]], &[&[1, 0], &[1, 1]]);
    let loss = ptx_loss(&text, &PtxConfig { gamma: 3.0 }).unwrap();
    let want = [3.0 * 0.5, 0.0, 3.0 * 2.0, 3.0];
    assert_close(&numbers(&loss.loss), &want, EXACT, "loss");
    assert_eq!(PtxConfig::default().gamma, 27.8);
}

#[test]
fn an_adaptive_beta_follows_the_kl() {
    let start = KlController::Adaptive {
        beta: 0.4,
        target: 5.0,
        horizon: 1000.0,
    };
    let after = |kl: f64, samples| start.update(kl, samples).unwrap().beta();
    let close = |got: f64, want: f64| assert!((got - want).abs() < EXACT, "{got} against {want}");
    close(after(5.5, 100), 0.4 * (1.0 + 0.1 * 100.0 / 1000.0));
    close(after(4.5, 300), 0.4 * (1.0 - 0.1 * 300.0 / 1000.0));
    close(after(50.0, 100), 0.4 * (1.0 + 0.2 * 0.1));
    close(after(-3.0, 100), 0.4 * (1.0 - 0.2 * 0.1));
    close(after(50.0, 0), 0.4);
    assert_eq!(start.beta(), 0.4);
    // two steps compound
    let twice = start.update(6.0, 100).unwrap().update(6.0, 100).unwrap();
    close(twice.beta(), 0.4 * 1.02 * 1.02);
    // the authors' numbers
    let default = KlController::default();
    close(default.beta(), 0.15);
    close(
        default.update(6.6, 512).unwrap().beta(),
        0.15 * (1.0 + 0.1 * 512.0 / 10_000.0),
    );
    let fixed = KlController::Fixed { beta: 0.02 };
    assert_eq!(fixed.update(100.0, 512).unwrap(), fixed);
}

#[test]
fn whitened_advantages_and_whitened_rewards() {
    let x = matrix(&[&[1.0, 4.0, NAN], &[-2.0, 9.0, 3.0]]);
    let mask = bits(&[&[1, 1, 0], &[1, 0, 1]]);
    // the counted: 1, 4, −2, 3
    let mean = 6.0 / 4.0;
    let variance = [1.0f64, 4.0, -2.0, 3.0]
        .iter()
        .map(|v| (v - mean).powi(2))
        .sum::<f64>()
        / 4.0;
    let scaled = |v: f64| (v - mean) / (variance + 1e-8f64).sqrt();
    let want = |shift: f64| {
        [
            scaled(1.0) + shift,
            scaled(4.0) + shift,
            0.0,
            scaled(-2.0) + shift,
            0.0,
            scaled(3.0) + shift,
        ]
    };
    let zero = whiten(&x, &mask, Whiten::ZeroMean).unwrap();
    assert_close(&numbers(&zero), &want(0.0), EXACT, "advantages");
    let kept = whiten(&x, &mask, Whiten::KeepMean).unwrap();
    assert_close(&numbers(&kept), &want(mean), EXACT, "rewards");
}

#[test]
fn long_answers_in_single_precision_have_the_advantages_of_double() {
    let time = 32_768usize;
    let at = |t: usize, size: f64, step: f64| f64::from((size * (step * t as f64).sin()) as f32);
    let rewards: Vec<f64> = (0..time).map(|t| at(t, 0.1, 0.7) + 0.01).collect();
    let rewards: Vec<f64> = rewards.iter().map(|r| f64::from(*r as f32)).collect();
    let values: Vec<f64> = (0..time).map(|t| at(t, 3.0, 0.3)).collect();
    let config = GaeConfig {
        gamma: 1.0,
        lambda: 0.9999,
    };
    // δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ), Âₜ = δₜ + γλ Âₜ₊₁
    let mut advantages = vec![0.0; time + 1];
    for t in (0..time).rev() {
        let next = values.get(t + 1).unwrap_or(&0.0);
        let delta = rewards[t] + config.gamma * next - values[t];
        advantages[t] = delta + config.gamma * config.lambda * advantages[t + 1];
    }
    let single = |x: &[f64]| {
        let x = vector(x).unsqueeze(0).unwrap();
        x.to_dtype(DType::F32).unwrap()
    };
    let mask = Tensor::ones((1, time), DType::U8, &Device::Cpu).unwrap();
    let out = gae(&single(&rewards), &single(&values), &mask, &config).unwrap();
    assert_eq!(out.advantages.dtype(), DType::F32);
    assert_eq!(out.returns.dtype(), DType::F32);
    let returns: Vec<f64> = advantages.iter().zip(&values).map(|(a, v)| a + v).collect();
    for (got, want) in [
        (out.advantages, &advantages[..time]),
        (out.returns, &returns[..]),
    ] {
        for (t, (got, want)) in numbers(&got).iter().zip(want).enumerate() {
            // rounded once: half a unit in the last place
            let near = (got - want).abs() <= 6.1e-8 * want.abs() + 1e-9;
            assert!(near, "token {t}: {got} for {want}");
        }
    }
}

#[test]
fn a_value_does_not_enter_its_own_return() {
    let inf = f64::INFINITY;
    let (rewards, mask) = (matrix(&[&[1.0, 2.0, 4.0]]), bits(&[&[1, 1, 1]]));
    let values = matrix(&[&[0.5, inf, 0.25]]);
    let of = |lambda| {
        let config = GaeConfig { gamma: 0.5, lambda };
        let out = gae(&rewards, &values, &mask, &config).unwrap();
        (numbers(&out.advantages), numbers(&out.returns))
    };
    // λ = 1: the rewards alone
    let (r3, r2, r1) = (4.0, 2.0 + 0.5 * 4.0, 1.0 + 0.5 * (2.0 + 0.5 * 4.0));
    assert_eq!(of(1.0), (vec![r1 - 0.5, -inf, r3 - 0.25], vec![r1, r2, r3]));
    // else the token before expects it
    let r2 = 2.0 + 0.5 * (0.75 * 0.25 + 0.25 * 4.0);
    assert_eq!(of(0.25), (vec![inf, -inf, r3 - 0.25], vec![inf, r2, r3]));
}

#[test]
fn an_advantage_of_zero_pulls_at_no_ratio() {
    let inf = f64::INFINITY;
    let mask: &[&[u8]] = &[&[1, 1, 1, 1]];
    let new = log_probs(&[&[-0.5, -0.5, -inf, -inf]], mask);
    let old = matrix(&[&[-inf, -inf, -1.0, -1.0]]);
    let advantages = matrix(&[&[0.0, 2.0, 2.0, -2.0]]);
    let out = ppo_policy_loss(&new, &old, &advantages, &PpoConfig::default()).unwrap();
    assert_eq!(numbers(&out.ratio), [inf, inf, 0.0, 0.0]);
    assert_close(
        &numbers(&out.loss.loss),
        &[0.0, -2.0 * 1.2, 0.0, 2.0 * 0.8],
        EXACT,
        "loss",
    );
}
