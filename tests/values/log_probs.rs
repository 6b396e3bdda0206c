use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::{Candidates, OutputHead, Pair, Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor};

fn logits() -> Tensor {
    let rows = [[0.3f64, -1.0, 2.0], [0.0, 0.5, -0.5], [1.5, 0.2, -0.7]];
    Tensor::new(&[rows], &Device::Cpu).unwrap()
}

fn tokens(row: &[u32]) -> Tensor {
    Tensor::from_slice(row, (1, row.len()), &Device::Cpu).unwrap()
}

fn lse(row: &[f64]) -> f64 {
    row.iter().map(|x| x.exp()).sum::<f64>().ln()
}

#[test]
fn position_t_predicts_the_token_after_it() {
    let out =
        TokenLogProbs::next_token(&logits(), &tokens(&[2, 0, 1]), &bits(&[&[1, 1, 1]])).unwrap();
    let want = [0.3 - lse(&[0.3, -1.0, 2.0]), 0.5 - lse(&[0.0, 0.5, -0.5])];
    assert_close(&numbers(out.values()), &want, EXACT, "values");
    assert_eq!(out.values().dims(), [1, 2]);
    assert_eq!(out.mask().dims(), [1, 2]);
    assert!(out.entropy().is_none() && out.vocabulary_mean().is_none());
}

#[test]
fn aligned_logits_are_not_shifted() {
    let mask = bits(&[&[1, 0, 1]]);
    let out = TokenLogProbs::aligned(&logits(), &tokens(&[2, 9, 1]), &mask, Statistics::default())
        .unwrap();
    let want = [
        2.0 - lse(&[0.3, -1.0, 2.0]),
        0.0,
        0.2 - lse(&[1.5, 0.2, -0.7]),
    ];
    assert_close(&numbers(out.values()), &want, EXACT, "values");
}

#[test]
fn what_is_masked_may_hold_an_ignore_index() {
    let targets = Tensor::new(&[[-100i64, 0, -100]], &Device::Cpu).unwrap();
    let out = TokenLogProbs::next_token(&logits(), &targets, &bits(&[&[0, 1, 0]])).unwrap();
    assert_close(
        &numbers(out.values()),
        &[0.3 - lse(&[0.3, -1.0, 2.0]), 0.0],
        EXACT,
        "values",
    );
}

#[test]
fn entropy_and_vocabulary_mean_are_those_of_the_whole_distribution() {
    let statistics = Statistics {
        entropy: true,
        vocabulary_mean: true,
        log_collision: true,
    };
    let mask = bits(&[&[0, 1, 0]]);
    let out =
        TokenLogProbs::next_token_with(&logits(), &tokens(&[2, 0, 1]), &mask, statistics).unwrap();
    let row = [0.3f64, -1.0, 2.0].map(|x| x - lse(&[0.3, -1.0, 2.0]));
    let entropy: f64 = row.iter().map(|l| -l.exp() * l).sum();
    assert_close(
        &numbers(out.entropy().unwrap()),
        &[entropy, 0.0],
        EXACT,
        "entropy",
    );
    let mean = row.iter().sum::<f64>() / 3.0;
    assert_close(
        &numbers(out.vocabulary_mean().unwrap()),
        &[mean, 0.0],
        EXACT,
        "mean",
    );
}

#[test]
fn a_forbidden_token_adds_nothing_to_the_entropy() {
    let row = [0.5f64, f64::NEG_INFINITY, -0.5];
    let logits =
        candle_core::Var::from_tensor(&Tensor::new(&[[row, row]], &Device::Cpu).unwrap()).unwrap();
    let statistics = Statistics {
        entropy: true,
        ..Default::default()
    };
    let out =
        TokenLogProbs::next_token_with(&logits, &tokens(&[0, 2]), &bits(&[&[0, 1]]), statistics)
            .unwrap();
    let p = crate::common::sigma(1.0);
    let entropy = -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
    assert_close(
        &numbers(out.entropy().unwrap()),
        &[entropy],
        EXACT,
        "entropy",
    );
    assert_close(&numbers(out.values()), &[(1.0 - p).ln()], EXACT, "value");

    let total = (out.entropy().unwrap() + out.values())
        .unwrap()
        .sum_all()
        .unwrap();
    let grads = total.backward().unwrap();
    let grad = numbers(grads.get(&logits).unwrap());
    assert!(
        grad.iter().all(|g| g.is_finite()) && grad[1] == 0.0,
        "{grad:?}"
    );
    // ∂H/∂z = −p (log p + H), ∂ log p_c/∂z = 1[c] − p
    let want = -p * (p.ln() + entropy) - p;
    assert_close(&grad[..1], &[want], EXACT, "gradient");
}

#[test]
fn the_collision_alone_has_its_gradient() {
    let row = [0.3f64, -1.0, 2.0];
    let statistics = Statistics {
        log_collision: true,
        ..Default::default()
    };
    let p = row.map(|x| (x - lse(&row)).exp());
    let squares: f64 = p.iter().map(|p| p * p).sum();
    // ∂ log Σp²/∂z = 2 (p² / Σp² − p)
    let want = p.map(|p| 2.0 * (p * p / squares - p));
    for (dtype, bound) in [(DType::F64, EXACT), (DType::F32, 1e-6)] {
        let logits = Tensor::new(&[[row]], &Device::Cpu).unwrap();
        let logits = candle_core::Var::from_tensor(&logits.to_dtype(dtype).unwrap()).unwrap();
        let out = TokenLogProbs::aligned(&logits, &tokens(&[1]), &bits(&[&[1]]), statistics);
        let collision = out.unwrap().log_collision().unwrap().sum_all().unwrap();
        assert_close(&numbers(&collision), &[squares.ln()], bound, "log Σp²");
        let grads = collision.backward().unwrap();
        let got = numbers(grads.get(&logits).unwrap());
        assert_close(&got, &want, bound, "gradient");
    }
}

#[test]
fn half_precision_logits_are_summed_in_single_precision() {
    // 512 tokens of a vocabulary of 8 equal logits: −512 ln 8, of which bf16 alone would lose nats
    let zeros = Tensor::zeros((1, 513, 8), DType::BF16, &Device::Cpu).unwrap();
    let tokens = Tensor::zeros((1, 513), DType::U32, &Device::Cpu).unwrap();
    let mask = Tensor::ones((1, 513), DType::U8, &Device::Cpu).unwrap();
    for dtype in [DType::BF16, DType::F16] {
        let out =
            TokenLogProbs::next_token(&zeros.to_dtype(dtype).unwrap(), &tokens, &mask).unwrap();
        assert_eq!(out.values().dtype(), DType::F32);
        assert_close(
            &numbers(&out.sum().unwrap()),
            &[-512.0 * 8f64.ln()],
            1e-3,
            "sum",
        );
    }
}

#[test]
fn sums_means_and_length_penalties() {
    let values = matrix(&[&[-1.0, -2.0, -4.0], &[-3.0, 7.0, 7.0], &[5.0, 5.0, 5.0]]);
    let mask = bits(&[&[1, 1, 1], &[1, 0, 0], &[0, 0, 0]]);
    let log_probs = TokenLogProbs::new(&values, &mask).unwrap();
    assert_close(
        &numbers(&log_probs.sum().unwrap()),
        &[-7.0, -3.0, 0.0],
        EXACT,
        "sum",
    );
    assert_close(
        &numbers(&log_probs.mean().unwrap()),
        &[-7.0 / 3.0, -3.0, 0.0],
        EXACT,
        "mean",
    );
    assert_eq!(numbers(&log_probs.lengths().unwrap()), [3.0, 1.0, 0.0]);
    let penalized = numbers(&log_probs.length_penalized(0.6).unwrap());
    assert_close(
        &penalized,
        &[-7.0 / 3f64.powf(0.6), -3.0, 0.0],
        EXACT,
        "penalized",
    );
    assert_close(
        &numbers(&log_probs.length_penalized(0.0).unwrap()),
        &[-7.0, -3.0, 0.0],
        EXACT,
        "alpha 0",
    );
}

#[test]
fn a_long_mask_is_counted_without_overflow() {
    let mask = Tensor::ones((1, 300), DType::U8, &Device::Cpu).unwrap();
    let values = Tensor::ones((1, 300), DType::F64, &Device::Cpu).unwrap();
    let log_probs = TokenLogProbs::new(&values, &mask).unwrap();
    assert_eq!(numbers(&log_probs.lengths().unwrap()), [300.0]);
}

#[test]
fn detached_log_probabilities_have_no_history() {
    let logits = candle_core::Var::from_tensor(&logits()).unwrap();
    let statistics = Statistics {
        entropy: true,
        vocabulary_mean: true,
        log_collision: true,
    };
    let mask = bits(&[&[1, 1, 1]]);
    let out =
        TokenLogProbs::next_token_with(&logits, &tokens(&[2, 0, 1]), &mask, statistics).unwrap();
    let constant = out.detach();
    assert_eq!(numbers(constant.values()), numbers(out.values()));
    for (with, without) in [
        (out.values(), constant.values()),
        (out.entropy().unwrap(), constant.entropy().unwrap()),
        (
            out.vocabulary_mean().unwrap(),
            constant.vocabulary_mean().unwrap(),
        ),
        (
            out.log_collision().unwrap(),
            constant.log_collision().unwrap(),
        ),
    ] {
        assert!(with.track_op() && !without.track_op());
    }
}

#[test]
fn a_pair_is_the_two_halves_of_its_rows() {
    let pair = Pair::from_rows(&vector(&[1.0, 2.0, 0.5, 2.0])).unwrap();
    assert_eq!(numbers(&pair.chosen), [1.0, 2.0]);
    assert_eq!(numbers(&pair.rejected), [0.5, 2.0]);
    assert_eq!(numbers(&pair.margin().unwrap()), [0.5, 0.0]);
    // one win, one tie
    assert_eq!(numbers(&pair.accuracy().unwrap()), [0.75]);
    assert!(!pair.detach().chosen.track_op());
}

#[test]
fn candidates_keep_sums_apart_from_means_and_drop_empty_answers() {
    let values = matrix(&[&[-1.0, -2.0], &[-3.0, 0.0], &[0.0, 0.0], &[-5.0, -6.0]]);
    let mask = bits(&[&[1, 1], &[1, 0], &[0, 0], &[1, 1]]);
    let log_probs = TokenLogProbs::new(&values, &mask).unwrap();
    let rewards = matrix(&[&[1.0, 2.0], &[3.0, 4.0]]);
    let candidates = Candidates::from_token_log_probs(&log_probs, &rewards, None).unwrap();
    assert_eq!(numbers(candidates.sums()), [-3.0, -3.0, 0.0, -11.0]);
    assert_eq!(
        numbers(&candidates.means().unwrap()),
        [-1.5, -3.0, 0.0, -5.5]
    );
    assert_eq!(numbers(candidates.lengths()), [2.0, 1.0, 0.0, 2.0]);
    assert_eq!(numbers(candidates.mask()), [1.0, 1.0, 0.0, 1.0]);
    assert_eq!(numbers(candidates.rewards()), [1.0, 2.0, 0.0, 4.0]);
    assert_eq!(
        numbers(&candidates.preferences().unwrap()),
        [0., 0., 1., 0., 0., 0., 0., 0.]
    );
}

#[test]
fn a_reward_that_is_not_a_number_may_stand_under_the_mask() {
    let sums = matrix(&[&[-1.0, f64::NAN]]);
    let rewards = matrix(&[&[1.0, f64::NAN]]);
    let lengths = matrix(&[&[2.0, 3.0]]);
    let candidates = Candidates::new(&sums, &lengths, &rewards, Some(&bits(&[&[1, 0]]))).unwrap();
    assert_eq!(numbers(candidates.sums()), [-1.0, 0.0]);
    assert_eq!(numbers(candidates.mask()), [1.0, 0.0]);
}

#[test]
fn a_logit_of_infinity_is_certain_and_the_others_are_impossible() {
    let inf = f64::INFINITY;
    let ask = Statistics {
        entropy: true,
        vocabulary_mean: true,
        log_collision: true,
    };
    // chosen; not chosen; beside an impossible one; two of them; a plain row
    let rows = [
        ([inf, 1.0, -2.0], 0u32),
        ([1.0, 2.0, inf], 1),
        ([-inf, inf, -inf], 1),
        ([inf, 0.0, inf], 0),
        ([0.0, 0.0, 0.0], 2),
    ];
    let data = rows.map(|row| row.0);
    let targets = Tensor::new(&[rows.map(|row| row.1)], &Device::Cpu).unwrap();
    let mask = bits(&[&[1; 5]]);
    for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
        let logits = Tensor::new(&[data], &Device::Cpu).unwrap();
        let logits = candle_core::Var::from_tensor(&logits.to_dtype(dtype).unwrap()).unwrap();
        let out = TokenLogProbs::aligned(&logits, &targets, &mask, ask).unwrap();
        let values = numbers(out.values());
        assert_eq!(values[..3], [0.0, -inf, 0.0], "{dtype:?}");
        assert!(values[3].is_nan(), "{dtype:?}: none of two is the largest");
        assert_close(&values[4..], &[-(3f64.ln())], 1e-6, "plain");
        assert_eq!(numbers(out.entropy().unwrap())[..3], [0.0; 3], "{dtype:?}");
        let means = numbers(out.vocabulary_mean().unwrap());
        assert_eq!(means[..3], [-inf, -inf, 0.0], "{dtype:?}");
        let collisions = numbers(out.log_collision().unwrap());
        assert_eq!(collisions[..3], [0.0; 3], "{dtype:?}");

        // onehot − p, row by row
        let grads = out.values().sum_all().unwrap().backward().unwrap();
        let slopes = numbers(grads.get(&logits).unwrap());
        let want = [0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0];
        assert_eq!(slopes[..9], want, "{dtype:?}");
        let third = [-1.0 / 3.0, -1.0 / 3.0, 2.0 / 3.0];
        assert_close(&slopes[12..], &third, 2e-3, "plain");
        // dH/dz = 0, d mean/dz = [possible]/V − p
        let both = (out.entropy().unwrap() + out.vocabulary_mean().unwrap()).unwrap();
        let grads = both.sum_all().unwrap().backward().unwrap();
        let slopes = numbers(grads.get(&logits).unwrap());
        let third = 1.0 / 3.0;
        let want = [
            third - 1.0,
            third,
            third,
            third,
            third,
            third - 1.0,
            0.0,
            0.0,
            0.0,
        ];
        assert_close(&slopes[..9], &want, 2e-3, "mean");
    }
}

#[test]
fn a_bias_of_infinity_is_certain_from_hidden_states_too() {
    let hidden = matrix(&[&[0.5, -1.0], &[0.25, 2.0], &[1.0, 1.0]]);
    let hidden = candle_core::Var::from_tensor(&hidden.unsqueeze(0).unwrap()).unwrap();
    let weight = matrix(&[&[1.0, 0.0], &[0.0, 2.0], &[-1.0, 1.0]]);
    let trained = candle_core::Var::from_tensor(&weight).unwrap();
    let bias = vector(&[0.0, f64::INFINITY, 0.0]);
    let tokens = tokens(&[0, 1, 2]);
    let mask = bits(&[&[0, 1, 1]]);
    for weight in [weight, trained.as_tensor().clone()] {
        let head = OutputHead::new(&weight, Some(&bias)).unwrap();
        let out = TokenLogProbs::from_hidden(&hidden, &head, &tokens, &mask, Statistics::default());
        let values = out.unwrap().values().clone();
        assert_eq!(numbers(&values), [0.0, f64::NEG_INFINITY]);
        let grads = values.sum_all().unwrap().backward().unwrap();
        // Σᵥ (onehot − p)ᵥ Wᵥ: nothing for the certain symbol, W₂ − W₁ for the other
        let want = [0.0, 0.0, -1.0, 1.0 - 2.0, 0.0, 0.0];
        assert_eq!(numbers(grads.get(&hidden).unwrap()), want);
    }
}

/// In a process of its own, since other tests wake the pool: see below.
const ALONE: &str = "CANDLE_ALIGN_TEST_ALONE";

#[test]
fn few_logits_wake_no_other_thread() {
    if std::env::var_os(ALONE).is_none() {
        let name = "values::log_probs::few_logits_wake_no_other_thread";
        let program = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(program);
        let child = child.args([name, "--exact", "--nocapture"]).env(ALONE, "1");
        let out = child.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let logits = Tensor::zeros((2, 8, 128), DType::F32, &Device::Cpu).unwrap();
    let logits = candle_core::Var::from_tensor(&logits).unwrap();
    let tokens = Tensor::zeros((2, 8), DType::U32, &Device::Cpu).unwrap();
    let mask = tokens.ones_like().unwrap().to_dtype(DType::U8).unwrap();
    let out = TokenLogProbs::next_token(&logits, &tokens, &mask).unwrap();
    out.sum().unwrap().sum_all().unwrap().backward().unwrap();
    // the global pool can be made only as long as nobody has used it
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global();
    pool.expect("the pool was woken");
}
