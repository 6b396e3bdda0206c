use crate::common::{EXACT, assert_close, numbers, var, vector};
use candle_align::parameter_efficient::lora_plus_groups;
use candle_align::training::{GradAccumulator, clip_grad_norm, grad_coverage, named_vars};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;

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

/// A table that is also the output layer: one variable, two names, gradient (3, 9, 2) of norm √94.
fn tied() -> (Var, Vec<(String, Var)>, GradStore) {
    let table = var(&[1.0, 1.0, 1.0]);
    let vars = named(&[("embed", &table), ("head", &table)]);
    let loss = (table.as_tensor() * &vector(&[3.0, 9.0, 2.0])).unwrap();
    let grads = loss.sum_all().unwrap().backward().unwrap();
    (table, vars, grads)
}

#[test]
fn a_variable_under_two_names_is_clipped_once() {
    let (table, vars, mut grads) = tied();
    let norm = 94f64.sqrt();
    let before = clip_grad_norm(&vars, &mut grads, 1.0).unwrap();
    assert_close(&[before], &[norm], EXACT, "norm");
    let want = [3.0 / norm, 9.0 / norm, 2.0 / norm];
    assert_close(&numbers(grads.get(&table).unwrap()), &want, EXACT, "grad");
}

#[test]
fn a_variable_under_two_names_is_added_once() {
    let (table, vars, grads) = tied();
    let mut sum = GradAccumulator::new();
    for _ in 0..2 {
        sum.add(&vars, &grads).unwrap();
    }
    let total = numbers(sum.take().get(&table).unwrap());
    assert_eq!(total, [6.0, 18.0, 4.0]);
}

#[test]
fn a_variable_under_two_names_is_covered_once() {
    let (_, vars, grads) = tied();
    let coverage = grad_coverage(&vars, &grads).unwrap();
    assert_eq!(coverage.to_string(), "1 of 1 variables learn");
    assert_eq!(coverage.learning, ["embed"]);
}

#[test]
fn a_variable_under_two_names_is_in_one_group_of_lora_plus_once() {
    let a = Var::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
    let b = Var::zeros((3, 2), DType::F64, &Device::Cpu).unwrap();
    let vars = named(&[
        ("head.lora_B", &b),
        ("embed.lora_A", &a),
        ("head.lora_A", &a),
        ("tied.lora_B", &b),
    ]);
    let groups = lora_plus_groups(vars, 4.0, 0.0).unwrap();
    let names = |group: &[(String, Var)]| -> Vec<String> {
        group.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&groups[0].vars), ["embed.lora_A"]);
    assert_eq!(names(&groups[1].vars), ["head.lora_B"]);
}

/// 4,096 × 1/4096 = 1; a sum in bf16 stalls at 1/16, one in f16 at 1/2.
#[test]
fn gradients_of_half_precision_are_summed_in_single() {
    for dtype in [DType::BF16, DType::F16, DType::F32, DType::F64] {
        let w = Var::ones(2, dtype, &Device::Cpu).unwrap();
        let vars = named(&[("w", &w)]);
        let mut grads = GradStore::default();
        let part = Tensor::full(1f64 / 4096.0, 2, &Device::Cpu).unwrap();
        grads.insert(&w, part.to_dtype(dtype).unwrap());
        let mut sum = GradAccumulator::new();
        for _ in 0..4096 {
            sum.add(&vars, &grads).unwrap();
        }
        let total = sum.take();
        let total = total.get(&w).unwrap();
        assert_eq!(numbers(total), [1.0, 1.0], "{dtype:?}");
        let wide = match dtype {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        assert_eq!(total.dtype(), wide);
    }
}

/// A gradient that candle hands out may hold the graph that it was computed from.
#[test]
fn a_sum_of_gradients_holds_no_graph() {
    let w = var(&[1.0, -2.0]);
    let vars = named(&[("w", &w)]);
    let grads = w.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let reached = |total: &Tensor| {
        let again = total.sum_all().unwrap().backward().unwrap();
        again.get(&w).is_some()
    };
    assert!(reached(grads.get(&w).unwrap()), "else this shows nothing");
    for times in 1..=2 {
        let mut sum = GradAccumulator::new();
        for _ in 0..times {
            sum.add(&vars, &grads).unwrap();
        }
        assert!(!reached(sum.take().get(&w).unwrap()), "{times}");
    }
}

/// The bounds of the page of `clip_grad_norm`, on gradients whose roundings all go the same way and on
/// irregular ones.
#[test]
fn the_norm_after_is_within_the_bound_of_its_type() {
    let n = 512;
    let norm = |g: &Tensor| numbers(g).iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut above = 0;
    for (dtype, share, more) in [
        (DType::F64, n as f64 * 2f64.powi(-52), 0.0),
        (DType::F32, 2f64.powi(-22), 0.0),
        (DType::BF16, 2f64.powi(-8) + 2f64.powi(-20), 0.0),
        (
            DType::F16,
            2f64.powi(-11) + 2f64.powi(-20),
            (n as f64).sqrt() * 2f64.powi(-25),
        ),
    ] {
        for (i, max_norm) in [1.0, 0.3, 1.7e-3, 12.345, 1e-5, 1e-44]
            .into_iter()
            .enumerate()
        {
            for regular in [true, false] {
                let data: Vec<f64> = (0..n)
                    .map(|j| match regular {
                        true => 1.0 + i as f64 / 3.0,
                        false => 50.0 * (1.3 * j as f64 + i as f64).sin(),
                    })
                    .collect();
                let w = Var::zeros(n, dtype, &Device::Cpu).unwrap();
                let mut grads = GradStore::default();
                grads.insert(&w, vector(&data).to_dtype(dtype).unwrap());
                let vars = named(&[("w", &w)]);
                let before = norm(grads.get(&w).unwrap());
                let said = clip_grad_norm(&vars, &mut grads, max_norm).unwrap();
                assert_close(&[said / before], &[1.0], EXACT, "norm before");
                let after = grads.get(&w).unwrap();
                assert_eq!(after.dtype(), dtype);
                let after = norm(after);
                let tiny = match dtype {
                    DType::F32 => (n as f64).sqrt() * 2f64.powi(-150),
                    DType::BF16 => (n as f64).sqrt() * 2f64.powi(-134),
                    _ => more,
                };
                let bound = max_norm * (1.0 + share) + tiny;
                assert!(
                    after <= bound,
                    "{dtype:?} {max_norm}: {after} above {bound}"
                );
                // and it is the norm that was asked for, not a smaller one
                let least = max_norm * (1.0 - 2.0 * share.max(2f64.powi(-40))) - tiny;
                assert!(
                    after >= least,
                    "{dtype:?} {max_norm}: {after} below {least}"
                );
                above += usize::from(after > max_norm);
            }
        }
    }
    assert!(above > 0, "a bound of `max_norm` alone would hold too");
}

/// One multiplication in f32, without a copy in f64.
#[test]
fn gradients_of_single_precision_are_multiplied_by_a_factor_in_single_precision() {
    let w = Var::zeros(64, DType::F32, &Device::Cpu).unwrap();
    let before: Vec<f32> = (0..64).map(|i| (1.3 * i as f32).sin()).collect();
    let mut grads = GradStore::default();
    grads.insert(&w, Tensor::new(&before[..], &Device::Cpu).unwrap());
    let norm = clip_grad_norm(&named(&[("w", &w)]), &mut grads, 0.7).unwrap();
    let after = grads.get(&w).unwrap().to_vec1::<f32>().unwrap();
    let factor = 0.7 / norm;
    let want: Vec<f32> = before.iter().map(|g| g * factor as f32).collect();
    assert_eq!(after, want);
    // which is another number than the product rounded once
    let once = before.iter().map(|&g| (f64::from(g) * factor) as f32);
    assert!(once.zip(&want).any(|(a, b)| a != *b));
}

/// A factor so small that f32 has few digits for it.
#[test]
fn the_largest_gradients_of_single_precision_are_clipped_as_well() {
    let w = Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
    let mut grads = GradStore::default();
    grads.insert(&w, vector(&[3e37, -4e37]).to_dtype(DType::F32).unwrap());
    clip_grad_norm(&named(&[("w", &w)]), &mut grads, 1e-5).unwrap();
    let after = numbers(grads.get(&w).unwrap());
    assert_close(
        &[after[0] / 6e-6, after[1] / 8e-6],
        &[1.0, -1.0],
        2f64.powi(-22),
        "w",
    );
}

/// Numbers whose squares are none are finite all the same.
#[test]
fn gradients_beyond_the_root_of_all_numbers_are_finite() {
    let w = var(&[0.0, 0.0]);
    let vars = named(&[("w", &w)]);
    let mut grads = GradStore::default();
    grads.insert(&w, vector(&[3e200, -4e200]));
    let coverage = grad_coverage(&vars, &grads).unwrap();
    assert_eq!(coverage.learning, ["w"]);
    let norm = clip_grad_norm(&vars, &mut grads, 10.0).unwrap();
    assert_close(&[norm / 5e200], &[1.0], EXACT, "norm");
    assert_close(&numbers(grads.get(&w).unwrap()), &[6.0, -8.0], EXACT, "w");
    // and their sum is none
    grads.insert(&w, vector(&[1.5e308, 1.5e308]));
    assert_eq!(grad_coverage(&vars, &grads).unwrap().learning, ["w"]);
}

#[test]
fn a_variable_without_elements_gets_a_gradient_of_zeros() {
    let w = Var::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    let vars = named(&[("w", &w)]);
    let mut grads = w.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(grad_coverage(&vars, &grads).unwrap().zero, ["w"]);
    assert_eq!(clip_grad_norm(&vars, &mut grads, 1.0).unwrap(), 0.0);
    let mut sum = GradAccumulator::new();
    sum.add(&vars, &grads).unwrap();
    assert_eq!(sum.take().get(&w).unwrap().dims(), [0, 3]);
}
