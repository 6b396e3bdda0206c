use crate::common::{numbers, vector};
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use std::collections::HashMap;

fn var(values: &[f64]) -> Var {
    Var::from_tensor(&vector(values)).unwrap()
}

fn group(vars: &[(&str, &Var)]) -> Vec<ParameterGroup> {
    let vars = vars
        .iter()
        .map(|(n, v)| (n.to_string(), (*v).clone()))
        .collect();
    vec![ParameterGroup::new(vars, 0.0)]
}

fn refused(groups: Vec<ParameterGroup>, config: AdamWConfig) -> String {
    AdamW::new(groups, config).unwrap_err().to_string()
}

#[test]
fn settings_out_of_range() {
    let default = AdamWConfig::default;
    for (config, message) in [
        (
            AdamWConfig {
                learning_rate: 0.0,
                ..default()
            },
            "`learning_rate` must be finite and > 0, got 0",
        ),
        (
            AdamWConfig {
                beta1: 1.0,
                ..default()
            },
            "`beta1` must be in [0, 1), got 1",
        ),
        (
            AdamWConfig {
                beta2: -0.1,
                ..default()
            },
            "`beta2` must be in [0, 1), got -0.1",
        ),
        (
            AdamWConfig {
                epsilon: 0.0,
                ..default()
            },
            "`epsilon` must be finite and > 0, got 0",
        ),
    ] {
        assert_eq!(refused(vec![], config), format!("AdamW::new: {message}"));
    }
    let mut bad = group(&[("a", &var(&[1.0]))]);
    bad[0].rate = 0.0;
    assert_eq!(
        refused(bad.clone(), default()),
        "AdamW::new: `rate` must be finite and > 0, got 0"
    );
    (bad[0].rate, bad[0].weight_decay) = (1.0, -1.0);
    assert_eq!(
        refused(bad, default()),
        "AdamW::new: `weight_decay` must be finite and >= 0, got -1"
    );
    let mut adamw = AdamW::new(vec![], default()).unwrap();
    assert_eq!(
        adamw.set_learning_rate(f64::NAN).unwrap_err().to_string(),
        "AdamW::set_learning_rate: `rate` must be finite and >= 0, got NaN"
    );
}

#[test]
fn variables_that_stand_twice_or_have_no_moments() {
    let (a, b) = (var(&[1.0]), var(&[1.0]));
    let twice = "AdamW::new: `groups` holds the variable `a` twice";
    assert_eq!(
        refused(group(&[("a", &a), ("a", &b)]), AdamWConfig::default()),
        twice
    );
    let message = refused(group(&[("b", &a), ("a", &a)]), AdamWConfig::default());
    assert_eq!(message, twice);
    let counts = Var::zeros(2, DType::U32, &Device::Cpu).unwrap();
    assert_eq!(
        refused(group(&[("counts", &counts)]), AdamWConfig::default()),
        "AdamW::new: `counts` is u32, expected f32, f64, bf16 or f16"
    );
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_nothing_is_changed() {
    let (a, b) = (var(&[1.0]), var(&[2.0]));
    let mut adamw = AdamW::new(group(&[("a", &a), ("b", &b)]), AdamWConfig::default()).unwrap();
    let mut grads = GradStore::default();
    grads.insert(&a, vector(&[1.0]));
    grads.insert(&b, vector(&[f64::INFINITY]));
    assert_eq!(
        adamw.step(&grads).unwrap_err().to_string(),
        "AdamW::step: `grads` holds a gradient of `b` that is not finite"
    );
    assert_eq!((numbers(&a), numbers(&b)), (vec![1.0], vec![2.0]));
}

#[test]
fn a_state_of_other_variables_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let a = var(&[1.0, 2.0]);
    AdamW::new(group(&[("a", &a)]), AdamWConfig::default())
        .unwrap()
        .save(&path)
        .unwrap();
    let load = |vars: &[(&str, &Var)]| {
        let mut adamw = AdamW::new(group(vars), AdamWConfig::default()).unwrap();
        adamw.load(&path).unwrap_err().to_string()
    };
    assert_eq!(
        load(&[("b", &a)]),
        "AdamW::load: `path` holds no tensor `b.step`"
    );
    assert_eq!(
        load(&[("a", &var(&[1.0]))]),
        "AdamW::load: `path` holds `a.exp_avg` as f64 [2], expected f64 [1]"
    );
    assert_eq!(
        load(&[]),
        "AdamW::load: `path` holds `a.exp_avg`, which belongs to no variable here"
    );
    let step = HashMap::from([("a.step", Tensor::new(-1i64, &Device::Cpu).unwrap())]);
    candle_core::safetensors::save(&step, &path).unwrap();
    assert_eq!(
        load(&[("a", &a)]),
        "AdamW::load: `path` holds `a.step` = -1"
    );
    assert!(!load(&[("a", &a)]).is_empty());
    std::fs::write(&path, b"not a safetensors file").unwrap();
    assert!(!load(&[("a", &a)]).is_empty());
}

#[test]
fn a_state_that_cannot_be_written_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("kept"), b"x").unwrap();
    let adamw = AdamW::new(group(&[("a", &var(&[1.0]))]), AdamWConfig::default()).unwrap();
    assert!(adamw.save(&path).is_err());
    assert_eq!(std::fs::read(path.join("kept")).unwrap(), b"x");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
