use crate::common::vector;
use candle_align::training::{Decay, Schedule, clip_grad_norm};
use candle_core::Var;

#[test]
fn a_gradient_that_is_not_finite_is_named_and_nothing_is_changed() {
    let (good, broken) = (
        Var::from_tensor(&vector(&[100.0])).unwrap(),
        Var::from_tensor(&vector(&[0.0])).unwrap(),
    );
    let loss = (good.sqr().unwrap() + broken.sqrt().unwrap()).unwrap();
    let mut grads = loss.sum_all().unwrap().backward().unwrap();
    let vars = [
        ("a.good".to_string(), good.clone()),
        ("b.broken".to_string(), broken),
    ];
    let error = clip_grad_norm(&vars, &mut grads, 1.0)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "clip_grad_norm: `grads` holds a gradient of `b.broken` that is not finite"
    );
    assert_eq!(crate::common::numbers(grads.get(&good).unwrap()), [200.0]);
}

#[test]
fn settings_out_of_range() {
    let mut grads = candle_core::backprop::GradStore::default();
    assert_eq!(
        clip_grad_norm(&[], &mut grads, 0.0)
            .unwrap_err()
            .to_string(),
        "clip_grad_norm: `max_norm` must be finite and > 0, got 0"
    );
    let message = |warmup, floor| {
        Schedule::new(10, warmup, Decay::Cosine, floor)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        message(11, 0.0),
        "Schedule::new: `warmup` must be at most `steps`, got 11"
    );
    assert_eq!(
        message(1, 1.5),
        "Schedule::new: `floor` must be at most 1, got 1.5"
    );
    assert_eq!(
        message(1, -0.5),
        "Schedule::new: `floor` must be finite and >= 0, got -0.5"
    );
    assert!(Schedule::new(10, 10, Decay::Cosine, 1.0).is_ok());
}
