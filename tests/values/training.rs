use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::training::{
    Decay, GradAccumulator, Schedule, clip_grad_norm, grad_coverage, named_vars,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;

fn var(values: &[f64]) -> Var {
    Var::from_tensor(&vector(values)).unwrap()
}

fn named(vars: &[(&str, &Var)]) -> Vec<(String, Var)> {
    vars.iter()
        .map(|(n, v)| (n.to_string(), (*v).clone()))
        .collect()
}

#[test]
fn coverage_sorts_variables_by_what_reached_them() {
    let (good, idle, flat, broken) = (var(&[1.0, 2.0]), var(&[1.0]), var(&[3.0]), var(&[0.0]));
    let zero = (flat.as_tensor() * &vector(&[0.0]))
        .unwrap()
        .sum_all()
        .unwrap();
    let infinite = broken.sqrt().unwrap().sum_all().unwrap();
    let loss = ((good.sqr().unwrap().sum_all().unwrap() + zero).unwrap() + infinite).unwrap();
    let grads = loss.backward().unwrap();
    let vars = named(&[
        ("z", &good),
        ("idle", &idle),
        ("flat", &flat),
        ("broken", &broken),
    ]);
    let coverage = grad_coverage(&vars, &grads).unwrap();
    assert_eq!(coverage.learning, ["z"]);
    assert_eq!(coverage.missing, ["idle"]);
    assert_eq!(coverage.zero, ["flat"]);
    assert_eq!(coverage.non_finite, ["broken"]);
    assert!(!coverage.is_complete());
    assert_eq!(
        coverage.to_string(),
        "1 of 4 variables learn; no gradient: idle; zero gradient: flat; non-finite gradient: broken"
    );
    for one in ["idle", "flat", "broken"] {
        let some: Vec<_> = vars
            .iter()
            .filter(|(n, _)| n == "z" || n == one)
            .cloned()
            .collect();
        assert!(
            !grad_coverage(&some, &grads).unwrap().is_complete(),
            "{one}"
        );
    }
    let complete = grad_coverage(&vars[..1], &grads).unwrap();
    assert!(complete.is_complete());
    assert_eq!(complete.to_string(), "1 of 1 variables learn");
}

#[test]
fn coverage_names_what_a_fused_operation_cuts() {
    // candle's fused softmax has no backward pass and does not say so
    let (above, below) = (var(&[1.0, 2.0]), var(&[0.5, -0.5]));
    let cut = candle_nn::ops::softmax_last_dim(&below.unsqueeze(0).unwrap()).unwrap();
    let loss = (cut.squeeze(0).unwrap() * above.as_tensor())
        .unwrap()
        .sum_all()
        .unwrap();
    let vars = named(&[("above", &above), ("below", &below)]);
    let coverage = grad_coverage(&vars, &loss.backward().unwrap()).unwrap();
    assert_eq!(coverage.missing, ["below"]);
}

#[test]
fn clipping_counts_the_variables_alone() {
    let (a, b) = (var(&[3.0, 0.0]), var(&[4.0]));
    // constants and intermediate tensors hold gradients in the store too
    let constant = vector(&[10.0, 10.0]);
    let product = (a.as_tensor() * &constant).unwrap();
    let loss = (product.sum_all().unwrap() + b.sqr().unwrap().sum_all().unwrap()).unwrap();
    let mut grads = loss.backward().unwrap();
    // ∂/∂a = (10, 10), ∂/∂b = 8
    let norm = (100.0 + 100.0 + 64f64).sqrt();
    let vars = named(&[("a", &a), ("b", &b), ("unused", &var(&[1.0]))]);

    let before = clip_grad_norm(&vars, &mut grads, 100.0).unwrap();
    assert_close(&[before], &[norm], EXACT, "norm");
    assert_eq!(numbers(grads.get(&a).unwrap()), [10.0, 10.0]);

    assert_close(
        &[clip_grad_norm(&vars, &mut grads, 2.0).unwrap()],
        &[norm],
        EXACT,
        "norm",
    );
    assert_close(
        &numbers(grads.get(&a).unwrap()),
        &[20.0 / norm, 20.0 / norm],
        EXACT,
        "a",
    );
    assert_close(&numbers(grads.get(&b).unwrap()), &[16.0 / norm], EXACT, "b");
    assert_close(
        &[clip_grad_norm(&vars, &mut grads, 9.0).unwrap()],
        &[2.0],
        EXACT,
        "after",
    );
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_and_of_variables_alone() {
    let w = var(&[1.0, -2.0]);
    let vars = named(&[("w", &w)]);
    let parts = [vector(&[3.0, 1.0]), vector(&[-1.0, 5.0])];
    let mut sum = GradAccumulator::new();
    for x in &parts {
        let loss = (w.sqr().unwrap() * x).unwrap().sum_all().unwrap();
        sum.add(&vars, &loss.backward().unwrap()).unwrap();
    }
    let grads = sum.take();
    assert_close(
        &numbers(grads.get(&w).unwrap()),
        &[2.0 * 2.0, -4.0 * 6.0],
        EXACT,
        "sum",
    );
    assert_eq!(grads.get_ids().count(), 1);
    assert_eq!(sum.take().get_ids().count(), 0);
}

#[test]
fn schedules_rise_then_fall() {
    let at = |decay, steps: &[usize]| -> Vec<f64> {
        let schedule = Schedule::new(11, 4, decay, 0.1).unwrap();
        steps.iter().map(|&s| schedule.factor(s)).collect()
    };
    for decay in [Decay::Constant, Decay::Linear, Decay::Cosine] {
        assert_close(
            &at(decay, &[0, 1, 2, 3, 4]),
            &[0.25, 0.5, 0.75, 1.0, 1.0],
            EXACT,
            "rise",
        );
    }
    // steps 4..=10 are the fall: 7 is half way, 10 the last, 99 past the end
    let half = 0.1 + 0.9 * 0.5;
    assert_close(
        &at(Decay::Constant, &[7, 10, 99]),
        &[1.0, 1.0, 1.0],
        EXACT,
        "constant",
    );
    assert_close(
        &at(Decay::Linear, &[7, 10, 99]),
        &[half, 0.1, 0.1],
        EXACT,
        "linear",
    );
    assert_close(
        &at(Decay::Cosine, &[7, 10, 99]),
        &[half, 0.1, 0.1],
        EXACT,
        "cosine",
    );
    let third = 0.1 + 0.9 * (1.0 + (std::f64::consts::PI / 3.0).cos()) / 2.0;
    assert_close(
        &at(Decay::Cosine, &[6]),
        &[third],
        EXACT,
        "cosine at a third",
    );
    assert_eq!(
        Schedule::new(1, 0, Decay::Linear, 0.0).unwrap().factor(0),
        1.0
    );
}

#[test]
fn named_variables_are_sorted_by_name() {
    let map = VarMap::new();
    for name in ["b.weight", "a.weight", "c.weight"] {
        let zeros = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
        let var = Var::from_tensor(&zeros).unwrap();
        map.data().lock().unwrap().insert(name.to_string(), var);
    }
    let names: Vec<String> = named_vars(&map)
        .unwrap()
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert_eq!(names, ["a.weight", "b.weight", "c.weight"]);
}
