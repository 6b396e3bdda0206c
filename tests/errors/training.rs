use crate::common::vector;
use candle_align::parameter_efficient::lora_plus_groups;
use candle_align::training::{Decay, Schedule, clip_grad_norm, gradient_agreement};
use candle_core::{DType, Device, Var};
use rand::SeedableRng;

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

#[test]
fn a_schedule_from_json_is_checked() {
    let message = |text: &str| {
        let read = serde_json::from_str::<Schedule>(text);
        read.unwrap_err().to_string()
    };
    assert_eq!(
        message(r#"{"steps":10,"warmup":11,"decay":"cosine","floor":0.0}"#),
        "Schedule: `warmup` must be at most `steps`, got 11"
    );
    assert_eq!(
        message(r#"{"steps":10,"warmup":1,"decay":"cosine","floor":1.5}"#),
        "Schedule: `floor` must be at most 1, got 1.5"
    );
    assert_eq!(
        message(r#"{"steps":10,"warmup":1,"decay":"cosine","floor":-1}"#),
        "Schedule: `floor` must be finite and >= 0, got -1"
    );
    let unknown = message(r#"{"steps":10,"warmup":1,"decay":"cosine","floor":0,"peak":1}"#);
    assert!(unknown.starts_with("unknown field `peak`"), "{unknown}");
}

#[test]
fn one_variable_in_two_groups_of_lora_plus() {
    let tied = Var::zeros((2, 2), DType::F64, &Device::Cpu).unwrap();
    let vars = ["x.lora_A", "y.lora_B"].map(|name| (name.to_string(), tied.clone()));
    assert_eq!(
        lora_plus_groups(vars.to_vec(), 4.0, 0.0)
            .unwrap_err()
            .to_string(),
        "lora_plus_groups: `vars` holds one variable as `x.lora_A` and as `y.lora_B`, which belong to \
         different groups: list it once"
    );
}

#[test]
fn what_gradients_cannot_be_compared_of() {
    let rng = &mut rand::rngs::StdRng::seed_from_u64(0);
    let w = Var::from_tensor(&vector(&[1.0, 2.0])).unwrap();
    let vars = [("w".to_string(), w.clone())];
    let mut says = |loss: &dyn Fn() -> candle_align::Result<candle_core::Tensor>,
                    vars: &[(String, Var)],
                    directions: usize| {
        let found = gradient_agreement(loss, vars, directions, rng);
        found.unwrap_err().to_string()
    };
    let sum = || Ok(w.sum_all()?);
    assert_eq!(
        says(&sum, &vars, 0),
        "gradient_agreement: `directions` must be at least 1, got 0"
    );
    let half = Var::zeros(2, DType::BF16, &Device::Cpu).unwrap();
    assert_eq!(
        says(&sum, &[("half".to_string(), half)], 1),
        "gradient_agreement: `half` is bf16, expected f32 or f64"
    );
    assert_eq!(
        says(&|| Ok(w.sqr()?), &vars, 1),
        "gradient_agreement: `loss` has shape [2], expected []"
    );
    assert_eq!(
        says(&|| Ok((w.sum_all()? * f64::NAN)?), &vars, 1),
        "gradient_agreement: `loss` is NaN at the variables' own values"
    );
}
