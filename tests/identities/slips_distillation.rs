//! Where the field slips, in distillation: each formula as it was published or is in use, an input, what it
//! gives, and what is right.

use crate::common::{EXACT, assert_close, bits, numbers, var};
use candle_align::distillation::divergence::{
    ChosenBy, Direction, DivergenceConfig, TopK, divergence,
};
use candle_align::distillation::on_policy::{Credit, ReverseKlConfig, reverse_kl_advantages};
use candle_align::math::masked;
use candle_align::sft::eaft::{EaftConfig, eaft_loss};
use candle_align::{Statistics, TokenLogProbs};
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::log_softmax;

const STUDENT: [f64; 4] = [1.2, 0.3, -0.4, 0.1];
const TEACHER: [f64; 4] = [-0.6, 1.5, 0.2, -1.0];

fn log_p(logits: &Tensor) -> Tensor {
    log_softmax(logits, D::Minus1).unwrap()
}

fn config(direction: Direction) -> DivergenceConfig {
    DivergenceConfig {
        direction,
        ..Default::default()
    }
}

/// Our divergence of one position, as a scalar.
fn ours(student: &Tensor, teacher: &Tensor, config: &DivergenceConfig) -> Tensor {
    let row = |x: &Tensor| x.unsqueeze(0).unwrap().unsqueeze(0).unwrap();
    let loss = divergence(&row(student), &row(teacher), &bits(&[&[1]]), config).unwrap();
    loss.loss.sum_all().unwrap()
}

fn slope(of: &Var, loss: &Tensor) -> Vec<f64> {
    numbers(loss.backward().unwrap().get(of).unwrap())
}

fn sum(x: Tensor) -> f64 {
    numbers(&x.sum_all().unwrap())[0]
}

/// TRL's `generalized_jsd_loss`, with its special cases at 0 and 1.
fn trl(student: &Tensor, teacher: &Tensor, beta: f64) -> f64 {
    let (q, p) = (numbers(&log_p(student)), numbers(&log_p(teacher)));
    let terms = (0..q.len()).map(|v| {
        let m = ((1.0 - beta) * q[v].exp() + beta * p[v].exp()).ln();
        match beta {
            0.0 => p[v].exp() * (p[v] - q[v]),
            1.0 => q[v].exp() * (q[v] - p[v]),
            _ => beta * p[v].exp() * (p[v] - m) + (1.0 - beta) * q[v].exp() * (q[v] - m),
        }
    });
    terms.sum()
}

/// trl#3043, trl#6780, verl-recipe#151: the loss at beta = 0.001 is a thousandth of that at beta = 0, and
/// an implementation that clamps beta = 1 to slightly less has no loss at all.
#[test]
fn gkd_jumps_between_its_ends_and_what_is_beside_them() {
    let (student, teacher) = (var(&STUDENT), var(&TEACHER));
    let at = |beta| trl(&student, &teacher, beta);
    assert!(at(0.001) < 0.002 * at(0.0), "{} {}", at(0.001), at(0.0));
    assert!(
        at(1.0 - 1e-6) < 1e-5 * at(1.0),
        "{} {}",
        at(1.0 - 1e-6),
        at(1.0)
    );

    // here the ends are other directions, w = 0 and w = 1 are refused, and the limits are of D/w and D/(1 − w)
    let value = |direction| sum(ours(&student, &teacher, &config(direction)));
    assert_close(&[value(Direction::Forward)], &[at(0.0)], EXACT, "forward");
    assert_close(&[value(Direction::Reverse)], &[at(1.0)], EXACT, "reverse");
    let near = value(Direction::JensenShannon { weight: 0.001 });
    assert_close(&[near], &[at(0.001)], EXACT, "beside the end");
    assert!((near / 0.001 / at(0.0) - 1.0).abs() < 0.01);
    for weight in [0.0, 1.0] {
        let config = config(Direction::JensenShannon { weight });
        let row = Tensor::zeros((1, 1, 4), candle_core::DType::F64, &Device::Cpu).unwrap();
        assert!(divergence(&row, &row, &bits(&[&[1]]), &config).is_err());
    }
}

/// radixark/miles#2362: the divergence of a position is the same whichever token was drawn, so as an
/// advantage its expected gradient is E ∇ log q = 0. The sampled token's log-ratio has that of the divergence.
#[test]
fn a_divergence_as_an_advantage_has_no_mean_gradient() {
    let (student, teacher) = (var(&STUDENT), var(&TEACHER));
    let log_q = log_p(&student);
    let q = log_q.exp().unwrap().detach();
    let reverse = config(Direction::Reverse);
    let top = DivergenceConfig {
        top_k: Some(TopK {
            k: 2,
            of: ChosenBy::Student,
        }),
        ..reverse.clone()
    };
    // the same number for every token that could have been drawn
    let penalty = sum(ours(&student, &teacher, &top));
    assert!(penalty > 0.1);
    let expected = ((&q * penalty).unwrap() * &log_q).unwrap();
    let none = slope(&student, &expected.sum_all().unwrap());
    assert_close(&none, &[0.0; 4], EXACT, "as an advantage");

    // each token its own: four answers of one token
    let mask = bits(&[&[1u8] as &[u8]; 4]);
    let column = |x: &Tensor| x.unsqueeze(1).unwrap();
    let policy = TokenLogProbs::new(&column(&log_q), &mask).unwrap();
    let log_p = column(&log_p(&teacher));
    let advantages = reverse_kl_advantages(&policy, &log_p, &Default::default()).unwrap();
    let expected = ((advantages.neg().unwrap() * policy.values()).unwrap() * column(&q)).unwrap();
    let got = slope(&student, &expected.sum_all().unwrap());
    let want = slope(&student, &ours(&student, &teacher, &reverse));
    assert_close(&got, &want, EXACT, "sampled");
    // and as a loss the top two with the others have a gradient at once
    assert!(slope(&student, &ours(&student, &teacher, &top))[0].abs() > 0.1);
}

/// verl#5041: without the others, Σ_{top k} q log(q/p) is negative where the student has left the top k, and
/// the further it leaves the smaller.
#[test]
fn a_reverse_top_k_without_the_others_is_least_where_the_student_leaves_it() {
    let teacher = var(&[2.0, 1.0, -3.0, -3.0]);
    let p = numbers(&log_p(&teacher));
    let without = |student: &Tensor| -> f64 {
        let q = numbers(&log_p(student));
        (0..2).map(|v| q[v].exp() * (q[v] - p[v])).sum()
    };
    let config = DivergenceConfig {
        top_k: Some(TopK {
            k: 2,
            of: ChosenBy::Teacher,
        }),
        ..config(Direction::Reverse)
    };
    // the teacher itself, and a student that says what the teacher never does
    let (same, away) = (var(&[2.0, 1.0, -3.0, -3.0]), var(&[0.0, 0.0, 2.0, 2.0]));
    assert!(
        without(&same).abs() < EXACT && without(&away) < -0.1,
        "{}",
        without(&away)
    );
    let with = |student: &Tensor| sum(ours(student, &teacher, &config));
    assert!(
        with(&same).abs() < EXACT && with(&away) > 2.0,
        "{}",
        with(&away)
    );
}

/// verl#7856: the forward sum over the top k alone is negative where the student has more mass there than
/// the teacher; clamped at 0 it has no gradient either.
#[test]
fn a_clamped_top_k_loses_the_gradient() {
    let teacher = var(&[1.0, 0.5, 0.0, 0.0]);
    let student = var(&[3.0, 2.4, -1.0, -1.0]);
    let (log_q, p) = (log_p(&student), log_p(&teacher).detach());
    let top = |x: &Tensor| x.narrow(0, 0, 2).unwrap();
    let each = (top(&p).exp().unwrap() * (top(&p) - top(&log_q)).unwrap()).unwrap();
    let total = each.sum_all().unwrap();
    assert!(numbers(&total)[0] < -0.1);
    let clamped = total.maximum(0.0).unwrap();
    assert_eq!(numbers(&clamped), [0.0]);
    assert_eq!(slope(&student, &clamped), [0.0; 4]);

    let config = DivergenceConfig {
        top_k: Some(TopK {
            k: 2,
            of: ChosenBy::Teacher,
        }),
        ..config(Direction::Forward)
    };
    let with = ours(&student, &teacher, &config);
    assert!(numbers(&with)[0] > 0.1);
    assert!(slope(&student, &with).iter().all(|s| s.abs() > 0.01));
}

/// trl#5594: logits of −∞ (a padded vocabulary) make q log(q/p) 0 · NaN. Selected away after the product,
/// the loss is finite and its gradient NaN.
#[test]
fn impossible_symbols_selected_away_too_late_have_a_gradient_of_nan() {
    let none = f64::NEG_INFINITY;
    let (student, teacher) = (var(&[0.3, -0.2, none]), var(&[1.0, 0.4, none]));
    let (log_q, log_t) = (log_p(&student), log_p(&teacher).detach());
    let q = log_q.exp().unwrap();
    let possible = q.gt(0.0).unwrap();
    let terms = (q * (log_q - log_t).unwrap()).unwrap();
    let late = masked(&terms, &possible).unwrap().sum_all().unwrap();
    assert!(numbers(&late)[0].is_finite());
    assert!(slope(&student, &late).iter().all(|s| s.is_nan()));

    let here = ours(&student, &teacher, &config(Direction::Reverse));
    assert_close(&numbers(&here), &numbers(&late), EXACT, "value");
    let small = ours(
        &var(&[0.3, -0.2]),
        &var(&[1.0, 0.4]),
        &config(Direction::Reverse),
    );
    assert_close(
        &numbers(&here),
        &numbers(&small),
        EXACT,
        "without the symbol",
    );
    let slope = slope(&student, &here);
    assert!(
        slope.iter().all(|s| s.is_finite()) && slope[2] == 0.0,
        "{slope:?}"
    );
}

/// torchforge#527, and MiniLLM in TRL up to 1.14.2: an advantage log p − log q that is not detached adds
/// log q ∇ log q to the gradient: on average that is −∇H(q), which makes the student surer of itself.
#[test]
fn an_advantage_with_a_history_also_lowers_the_entropy() {
    let (student, teacher) = (var(&STUDENT), var(&TEACHER));
    let (log_q, log_t) = (log_p(&student), log_p(&teacher).detach());
    let q = log_q.exp().unwrap().detach();
    let attached = ((&log_q - &log_t).unwrap() * &log_q).unwrap();
    let got = slope(&student, &(&q * attached).unwrap().sum_all().unwrap());
    let want = slope(
        &student,
        &ours(&student, &teacher, &config(Direction::Reverse)),
    );
    let minus_entropy = (log_q.exp().unwrap() * &log_q).unwrap().sum_all().unwrap();
    let extra = slope(&student, &minus_entropy);
    let sum: Vec<f64> = want.iter().zip(&extra).map(|(a, b)| a + b).collect();
    assert_close(&got, &sum, EXACT, "with a history");
    assert!(extra.iter().any(|x| x.abs() > 0.1));

    // ours is a constant
    let column = |x: &Tensor| x.unsqueeze(1).unwrap();
    let policy = TokenLogProbs::new(&column(&log_q), &bits(&[&[1u8] as &[u8]; 4])).unwrap();
    let ours = reverse_kl_advantages(&policy, &column(&log_t), &Default::default()).unwrap();
    assert!(!ours.track_op());
}

/// MiniLLM in TRL up to 1.14.2: without length normalization, later rewards are weighted by γⁱ from the
/// first token on, so the last of 3 tokens answers for γ² of its own reward; and padding counts.
#[test]
fn a_discount_from_the_first_token_takes_the_last_ones_own_reward() {
    let rewards = [0.4, -0.3, 0.8];
    let gamma: f64 = 0.5;
    let trl: Vec<f64> = (0..3)
        .map(|t| (t..3).map(|i| gamma.powi(i as i32) * rewards[i]).sum())
        .collect();
    assert_close(&trl[2..], &[0.25 * 0.8], EXACT, "trl");

    let mask = bits(&[&[1, 1, 1, 0]]);
    let zeros = Tensor::zeros((1, 4), candle_core::DType::F64, &Device::Cpu).unwrap();
    let student = TokenLogProbs::new(&zeros, &mask).unwrap();
    let teacher = Tensor::new(&[[0.4, -0.3, 0.8, 9.0]], &Device::Cpu).unwrap();
    let config = ReverseKlConfig {
        discount: gamma,
        length_normalization: false,
        credit: Credit::FromToken,
    };
    let ours = numbers(&reverse_kl_advantages(&student, &teacher, &config).unwrap());
    assert_close(
        &ours,
        &[0.4 - 0.15 + 0.2, -0.3 + 0.4, 0.8, 0.0],
        EXACT,
        "ours",
    );
    let again: Vec<f64> = (0..3).map(|t| ours[t] * gamma.powi(t as i32)).collect();
    assert_close(&trl, &again, EXACT, "by the power of the position");
}

/// EAFT of LLaMA-Factory and of axolotl: one divides the entropy by 3, the other does not, under one name.
#[test]
fn one_loss_under_one_name_differs_by_three_to_the_alpha() {
    let logits = Tensor::new(&[[[2.0f64, 0.0, -1.0]]], &Device::Cpu).unwrap();
    let target = Tensor::new(&[[1u32]], &Device::Cpu).unwrap();
    let log_probs =
        TokenLogProbs::aligned(&logits, &target, &bits(&[&[1]]), Statistics::default()).unwrap();
    for power in [1.0, 2.0] {
        let of = |scale| {
            let config = EaftConfig {
                k: 20,
                scale,
                power,
            };
            numbers(&eaft_loss(&log_probs, &logits, &config).unwrap().loss)[0]
        };
        // −H^α log p in one project, −(H/3)^α log p in the other
        let z: f64 = [2f64, 0.0, -1.0].map(f64::exp).iter().sum();
        let shares = [2f64, 0.0, -1.0].map(|x| x.exp() / z);
        let entropy: f64 = shares.iter().map(|p| -p * p.ln()).sum();
        let nll = -shares[1].ln();
        let theirs = [1.0, 3.0].map(|scale| (entropy / scale).powf(power) * nll);
        assert_close(&[of(1.0), of(3.0)], &theirs, EXACT, "both");
        assert_close(
            &[theirs[0]],
            &[theirs[1] * 3f64.powf(power)],
            EXACT,
            "factor",
        );
    }
}
