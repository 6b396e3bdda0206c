use crate::common::lists::pair;
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::math::plackett_luce;
use candle_align::{DpoConfig, Pair, dpo_loss};
use candle_core::{DType, Tensor, Var};

const CHOSEN: [f64; 3] = [-3.5, -2.7, -8.0];
const REJECTED: [f64; 3] = [-4.5, -4.8, -5.0];

fn shifted(values: &[f64], by: f64) -> Vec<f64> {
    values.iter().map(|v| v + by).collect()
}

fn loss(policy: &Pair<Tensor>, reference: Option<&Pair<Tensor>>, config: &DpoConfig) -> Vec<f64> {
    numbers(&dpo_loss(policy, reference, config).unwrap().loss)
}

#[test]
fn one_number_added_to_both_answers_changes_nothing() {
    let config = DpoConfig {
        beta: 0.6,
        label_smoothing: 0.1,
    };
    let policy = pair(&CHOSEN, &REJECTED);
    let reference = pair(&[-3.0, -3.0, -6.0], &[-4.0, -5.0, -5.5]);
    let want = loss(&policy, Some(&reference), &config);
    let moved = pair(&shifted(&CHOSEN, 2.5), &shifted(&REJECTED, 2.5));
    assert_close(
        &loss(&moved, Some(&reference), &config),
        &want,
        EXACT,
        "policy",
    );
    let moved = pair(&[-4.0, -4.0, -7.0], &[-5.0, -6.0, -6.5]);
    assert_close(
        &loss(&policy, Some(&moved), &config),
        &want,
        EXACT,
        "reference",
    );
}

#[test]
fn no_reference_is_a_reference_of_zeros() {
    let config = DpoConfig::default();
    let policy = pair(&CHOSEN, &REJECTED);
    let zeros = pair(&[0.0; 3], &[0.0; 3]);
    let want = loss(&policy, Some(&zeros), &config);
    assert_eq!(loss(&policy, None, &config), want);
}

#[test]
fn with_beta_one_and_no_reference_it_is_plackett_luce_of_two() {
    let config = DpoConfig {
        beta: 1.0,
        ..Default::default()
    };
    let got = loss(&pair(&CHOSEN, &REJECTED), None, &config);
    let scores = Tensor::stack(&[&vector(&CHOSEN), &vector(&REJECTED)], 1).unwrap();
    let rewards = matrix(&[&[1.0, 0.0], &[1.0, 0.0], &[1.0, 0.0]]);
    let mask = rewards.ones_like().unwrap().to_dtype(DType::U8).unwrap();
    assert_close(
        &got,
        &numbers(&plackett_luce(&scores, &rewards, &mask).unwrap()),
        EXACT,
        "PL",
    );
}

#[test]
fn swapping_the_answers_swaps_the_smoothing() {
    // −(1 − ε) log σ(z) − ε log σ(−z): its even part does not depend on ε
    let (policy, swapped) = (pair(&CHOSEN, &REJECTED), pair(&REJECTED, &CHOSEN));
    let both = |label_smoothing| {
        let config = DpoConfig {
            beta: 0.4,
            label_smoothing,
        };
        let (a, b) = (loss(&policy, None, &config), loss(&swapped, None, &config));
        a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>()
    };
    assert_close(&both(0.0), &both(0.3), EXACT, "even part");
}

#[test]
fn the_gradients_of_a_pair_cancel() {
    let (chosen, rejected) = (
        Var::from_tensor(&vector(&CHOSEN)).unwrap(),
        Var::from_tensor(&vector(&REJECTED)).unwrap(),
    );
    let policy = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let grads = dpo_loss(&policy, None, &DpoConfig::default())
        .unwrap()
        .loss
        .backward()
        .unwrap();
    let (up, down) = (
        numbers(grads.get(&chosen).unwrap()),
        numbers(grads.get(&rejected).unwrap()),
    );
    let turned: Vec<f64> = down.iter().map(|g| -g).collect();
    assert_close(&up, &turned, EXACT, "gradient");
    assert!(up.iter().all(|g| *g < 0.0));
}

#[test]
fn the_smoothed_loss_is_neither_of_the_two_that_trl_has() {
    // TRL 1.16: `sigmoid` is −log σ(z) whatever ε, `robust` [(1 − ε)(−log σ(z)) − ε(−log σ(−z))]/(1 − 2ε)
    let epsilon = 0.1;
    let config = DpoConfig {
        beta: 1.0,
        label_smoothing: epsilon,
    };
    let lost = |z: f64| (-z).exp().ln_1p();
    for z in [-3.0, -0.5, 0.7, 4.0] {
        let ours = loss(&pair(&[z], &[0.0]), None, &config)[0];
        let robust = ((1.0 - epsilon) * lost(z) - epsilon * lost(-z)) / (1.0 - 2.0 * epsilon);
        let want = (1.0 - 2.0 * epsilon) * robust + 2.0 * epsilon * lost(-z);
        assert_close(&[ours], &[want], EXACT, "smoothed");
        assert!(
            (ours - robust).abs() > 0.05 && (ours - lost(z)).abs() > 0.04,
            "{z}"
        );
    }
}
