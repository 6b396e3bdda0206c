//! The gradient of a step does not depend on its micro-batches.

use super::{Case, LISTS, SOLUTIONS, model, number};
use candle_align::decoder::{Decoder, Load};
use candle_core::Tensor;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use train::checkpoint::objective::{Objective, Reference};

/// The loss and the gradients of a step.
fn step(
    objective: &Objective,
    decoder: &mut Decoder,
    reference: &Reference,
    window: &[Vec<usize>],
) -> (f64, BTreeMap<String, Tensor>) {
    let (mut loss, mut total) = (0.0, BTreeMap::<String, Tensor>::new());
    for rows in window {
        let own = objective
            .loss(decoder, reference, rows, window, None)
            .unwrap();
        let grads = own.loss.backward().unwrap();
        loss += number(&own.loss);
        for (name, var) in decoder.vars() {
            let grad = grads.get(&var).expect("a gradient").clone();
            let sum = match total.remove(&name) {
                Some(so_far) => (&grad + &so_far).unwrap(),
                None => grad,
            };
            total.insert(name, sum);
        }
    }
    (loss, total)
}

fn agree(case: &Case, windows: [&[Vec<usize>]; 2]) {
    let objective = case.objective();
    let name = case.settings.objective;
    let mut decoder = case.decoder();
    if name.to_string() == "reward" {
        let mut rng = StdRng::seed_from_u64(7);
        decoder = decoder.into_classifier(1, &mut rng).unwrap();
    }
    let other = model(2, None);
    let frozen = Decoder::load(other.path(), &Load::default()).unwrap();
    let reference = Reference::Frozen(Box::new(frozen));
    let [one, other] = windows.map(|window| step(&objective, &mut decoder, &reference, window));
    assert!(
        (one.0 - other.0).abs() <= 1e-5 * one.0.abs(),
        "{name}: {} {}",
        one.0,
        other.0
    );
    let size = |t: &Tensor| number(&t.sqr().unwrap().sum_all().unwrap()).sqrt();
    let all = one
        .1
        .values()
        .map(|grad| size(grad).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!(all > 0.0, "{name}");
    for (var, grad) in &one.1 {
        let far = size(&(grad - &other.1[var]).unwrap());
        assert!(far <= 1e-5 * all, "{name}: {var} is {far:e} off of {all:e}");
    }
}

#[test]
fn micro_batches_of_any_size_give_one_batch() {
    let uneven: [&[Vec<usize>]; 2] = [&[vec![0, 1, 2]], &[vec![0, 1], vec![2]]];
    let on_lists: [(&str, &[&str]); 10] = [
        ("pro", &[]),
        ("rrhf", &[]),
        ("brio", &["sft.label_smoothing=0.1"]),
        ("expected_risk", &["expected_risk.token_weight=0.5"]),
        ("stable_alignment", &[]),
        ("slic", &["slic_form=list"]),
        ("slic", &["slic_form=margin", "slic_kl_weight=0.5"]),
        ("slic", &["slic_form=expected_reward"]),
        ("reward", &["reward_form=choose_best"]),
        ("reward", &["reward_form=plackett_luce"]),
    ];
    for (objective, sets) in on_lists {
        agree(&Case::new(objective, LISTS, sets), uneven);
    }
    agree(&Case::new("reward", LISTS, &[]), uneven);
    for objective in [
        "sft",
        "conditional_sft",
        "c_rlft",
        "chain_of_hindsight",
        "second_thoughts",
        "gkd",
        "selfee",
        "self_debug",
    ] {
        agree(&Case::new(objective, SOLUTIONS, &[]), uneven);
    }
}

#[test]
fn micro_batches_of_one_size_give_one_batch_of_pairs() {
    // TRL counts each micro-batch as much as another
    let even: [&[Vec<usize>]; 2] = [&[vec![0, 1, 2, 3]], &[vec![0, 1], vec![2, 3]]];
    agree(&Case::new("dpo", SOLUTIONS, &[]), even);
    let two = SOLUTIONS
        .lines()
        .skip(1)
        .take(2)
        .collect::<Vec<_>>()
        .join("\n");
    let even: [&[Vec<usize>]; 2] = [&[vec![0, 1]], &[vec![0], vec![1]]];
    agree(&Case::new("reward", &two, &[]), even);
}
