use crate::common::{EXACT, assert_close, numbers, var, vector};
use candle_align::parameter_efficient::lora_plus_groups;
use candle_align::training::{
    AdamW, AdamWConfig, GradAccumulator, NonFinite, ParameterGroup, clip_grad_norm,
};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};

fn one(name: &str, var: &Var) -> Vec<(String, Var)> {
    vec![(name.to_string(), var.clone())]
}

/// A store with these gradients.
fn grads(of: &[(&Var, &[f64])]) -> GradStore {
    let mut store = GradStore::default();
    for (var, grad) in of {
        store.insert(var, vector(grad).to_dtype(var.dtype()).unwrap());
    }
    store
}

fn gradient(t: usize) -> [f64; 2] {
    [(t as f64).sin(), 3.0 - t as f64]
}

/// The equations, one number at a time.
fn by_hand(start: f64, decay: f64, rate: f64, steps: usize, at: usize) -> f64 {
    let (b1, b2, eps) = (0.8, 0.95, 1e-3);
    let (mut theta, mut m, mut v) = (start, 0.0, 0.0);
    for t in 1..=steps {
        let g = gradient(t)[at];
        theta *= 1.0 - rate * decay;
        m = b1 * m + (1.0 - b1) * g;
        v = b2 * v + (1.0 - b2) * g * g;
        let (mh, vh) = (m / (1.0 - b1.powi(t as i32)), v / (1.0 - b2.powi(t as i32)));
        theta -= rate * mh / (vh.sqrt() + eps);
    }
    theta
}

fn config() -> AdamWConfig {
    AdamWConfig {
        learning_rate: 0.1,
        beta1: 0.8,
        beta2: 0.95,
        epsilon: 1e-3,
        ..Default::default()
    }
}

#[test]
fn the_steps_are_those_of_the_equations_in_every_group() {
    let (plain, fast) = (var(&[1.0, -2.0]), var(&[0.5, 4.0]));
    let groups = vec![
        ParameterGroup::new(one("plain", &plain), 0.0),
        ParameterGroup {
            vars: one("fast", &fast),
            rate: 16.0,
            weight_decay: 0.02,
        },
    ];
    let mut adamw = AdamW::new(groups, config()).unwrap();
    for t in 1..=10 {
        adamw
            .step(&grads(&[(&plain, &gradient(t)), (&fast, &gradient(t))]))
            .unwrap();
    }
    let want = [
        by_hand(1.0, 0.0, 0.1, 10, 0),
        by_hand(-2.0, 0.0, 0.1, 10, 1),
    ];
    assert_close(&numbers(&plain), &want, EXACT, "plain");
    let want = [
        by_hand(0.5, 0.02, 1.6, 10, 0),
        by_hand(4.0, 0.02, 1.6, 10, 1),
    ];
    assert_close(&numbers(&fast), &want, EXACT, "fast");
}

/// Candle's optimizer of one variable, at a rate.
fn of_candle(var: &Var, lr: f64) -> candle_nn::AdamW {
    let AdamWConfig {
        beta1,
        beta2,
        epsilon: eps,
        ..
    } = config();
    let params = ParamsAdamW {
        lr,
        beta1,
        beta2,
        eps,
        weight_decay: 0.02,
    };
    candle_nn::AdamW::new(vec![var.clone()], params).unwrap()
}

/// Two units in the last place per step: the same operations in another order, some in one rounding.
#[test]
fn the_steps_are_candles_to_the_last_place() {
    for (dtype, unit) in [
        (DType::F64, f64::EPSILON),
        (DType::F32, f32::EPSILON.into()),
    ] {
        let matrix = |values: &[f64]| {
            let column = vector(values).unsqueeze(1).unwrap();
            column.to_dtype(dtype).unwrap()
        };
        let fresh = || Var::from_tensor(&matrix(&[1.0, -1.5])).unwrap();
        let (ours, theirs) = ([fresh(), fresh()], [fresh(), fresh()]);
        let vars = [one("q.lora_A", &ours[0]), one("q.lora_B", &ours[1])].concat();
        let groups = lora_plus_groups(vars, 16.0, 0.02).unwrap();
        let mut adamw = AdamW::new(groups, config()).unwrap();
        let mut slow = of_candle(&theirs[0], 0.1);
        let mut fast = of_candle(&theirs[1], 0.1 * 16.0);
        for t in 1..=10 {
            let mut grads = GradStore::default();
            for var in ours.iter().chain(&theirs) {
                grads.insert(var, matrix(&gradient(t)));
            }
            adamw.step(&grads).unwrap();
            slow.step(&grads).unwrap();
            fast.step(&grads).unwrap();
            for (ours, theirs) in ours.iter().zip(&theirs) {
                for (x, y) in numbers(ours).into_iter().zip(numbers(theirs)) {
                    let bound = 2.0 * t as f64 * unit * x.abs().max(1.0);
                    assert!((x - y).abs() <= bound, "{dtype:?}, step {t}: {x} {y}");
                }
            }
        }
    }
}

#[test]
fn the_learning_rate_follows_a_schedule() {
    let theta = var(&[1.0, 1.0]);
    let mut adamw = AdamW::new(vec![ParameterGroup::new(one("a", &theta), 0.5)], config()).unwrap();
    assert_eq!(adamw.learning_rate(), 0.1);
    adamw.set_learning_rate(0.0).unwrap();
    adamw.step(&grads(&[(&theta, &[1.0, 1.0])])).unwrap();
    assert_eq!(numbers(&theta), [1.0, 1.0]);
    adamw.set_learning_rate(0.2).unwrap();
    adamw.step(&grads(&[(&theta, &[1.0, 1.0])])).unwrap();
    // a constant gradient of 1 is a step of η / (1 + ε), after the decay
    let want = 1.0 - 0.2 * 0.5 - 0.2 / (1.0 + 1e-3);
    assert_close(&numbers(&theta), &[want; 2], EXACT, "theta");
}

#[test]
fn a_variable_without_a_gradient_stays_and_does_not_age() {
    let (seen, idle) = (var(&[1.0]), var(&[1.0]));
    let vars = [one("idle", &idle), one("seen", &seen)].concat();
    let mut adamw = AdamW::new(vec![ParameterGroup::new(vars, 0.1)], config()).unwrap();
    for _ in 0..3 {
        adamw.step(&grads(&[(&seen, &[1.0])])).unwrap();
    }
    assert_eq!(numbers(&idle), [1.0]);
    adamw.step(&grads(&[(&idle, &[2.0])])).unwrap();
    // its first step, whatever the others have done: η · g / (|g| + ε)
    let want = 1.0 - 0.1 * 0.1 - 0.1 * 2.0 / (2.0 + 1e-3);
    assert_close(&numbers(&idle), &[want], EXACT, "idle");
}

#[test]
fn a_narrow_variable_keeps_what_rounding_would_lose() {
    for dtype in [DType::BF16, DType::F16] {
        let start = Tensor::ones(1, dtype, &Device::Cpu).unwrap();
        let theta = Var::from_tensor(&start).unwrap();
        let config = AdamWConfig {
            learning_rate: 1e-4,
            ..Default::default()
        };
        let mut adamw =
            AdamW::new(vec![ParameterGroup::new(one("w", &theta), 0.0)], config).unwrap();
        for _ in 0..200 {
            adamw.step(&grads(&[(&theta, &[1.0])])).unwrap();
        }
        // 200 steps of 1e-4, each below half a unit in the last place of bf16 at 1
        assert_close(&numbers(&theta), &[0.98], 2e-3, "theta");
    }
}

#[test]
fn matrices_decay_and_vectors_do_not() {
    let matrix = Var::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
    let vars = [one("bias", &var(&[0.0])), one("weight", &matrix)].concat();
    let groups = ParameterGroup::decay_matrices(vars, 0.3);
    let summary: Vec<_> = groups
        .iter()
        .map(|g| (g.vars[0].0.as_str(), g.vars.len(), g.rate, g.weight_decay))
        .collect();
    assert_eq!(summary, [("weight", 1, 1.0, 0.3), ("bias", 1, 1.0, 0.0)]);
}

#[test]
fn a_saved_state_continues_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let start = vector(&[1.0, -2.0]).to_dtype(dtype).unwrap();
        let group = |theta: &Var| vec![ParameterGroup::new(one("w", theta), 0.01)];
        let theta = Var::from_tensor(&start).unwrap();
        let mut first = AdamW::new(group(&theta), config()).unwrap();
        for t in 1..=4 {
            first.step(&grads(&[(&theta, &gradient(t))])).unwrap();
        }
        first.save(&path).unwrap();
        let resumed = Var::from_tensor(&theta.as_tensor().copy().unwrap()).unwrap();
        let mut second = AdamW::new(group(&resumed), config()).unwrap();
        second.load(&path).unwrap();
        for t in 5..=8 {
            first.step(&grads(&[(&theta, &gradient(t))])).unwrap();
            second.step(&grads(&[(&resumed, &gradient(t))])).unwrap();
        }
        assert_eq!(numbers(&theta), numbers(&resumed), "{dtype:?}");
        assert_ne!(numbers(&theta), numbers(&start));
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing half-written: {left:?}");
}

#[test]
fn a_step_with_a_gradient_that_is_not_finite_can_be_left_out() {
    let (a, b) = (var(&[1.0]), var(&[1.0]));
    let vars = [one("a", &a), one("b", &b)].concat();
    let config = AdamWConfig {
        non_finite: NonFinite::Skip,
        ..config()
    };
    let mut adamw = AdamW::new(vec![ParameterGroup::new(vars, 0.0)], config).unwrap();
    assert_eq!(adamw.skipped(), 0);
    adamw
        .step(&grads(&[(&a, &[1.0]), (&b, &[f64::NAN])]))
        .unwrap();
    assert_eq!(
        (numbers(&a), numbers(&b), adamw.skipped()),
        (vec![1.0], vec![1.0], 1)
    );
    adamw.step(&grads(&[(&a, &[1.0]), (&b, &[1.0])])).unwrap();
    assert!(numbers(&a)[0] < 1.0 && adamw.skipped() == 1);
}

/// An f32 gradient of a narrow variable is not rounded to its type: the steps are those of an f32
/// variable with the same start.
#[test]
fn a_narrow_variable_takes_a_gradient_in_single_precision() {
    for dtype in [DType::BF16, DType::F16] {
        let start = vector(&[1.0, -2.0]).to_dtype(dtype).unwrap();
        let narrow = Var::from_tensor(&start).unwrap();
        let wide = Var::from_tensor(&start.to_dtype(DType::F32).unwrap()).unwrap();
        let optimizer = |var: &Var| {
            AdamW::new(vec![ParameterGroup::new(one("w", var), 0.01)], config()).unwrap()
        };
        let (mut first, mut second) = (optimizer(&narrow), optimizer(&wide));
        for t in 1..=10 {
            let grad = vector(&gradient(t)).to_dtype(DType::F32).unwrap();
            for (adamw, var) in [(&mut first, &narrow), (&mut second, &wide)] {
                let mut grads = GradStore::default();
                grads.insert(var, grad.clone());
                adamw.step(&grads).unwrap();
            }
            let rounded = wide.to_dtype(dtype).unwrap();
            assert_eq!(numbers(&narrow), numbers(&rounded), "{dtype:?}, step {t}");
        }
    }
}

/// Micro-batches of a bf16 model: added up, clipped, stepped.
#[test]
fn sums_of_half_precision_are_clipped_and_stepped() {
    for dtype in [DType::BF16, DType::F16] {
        let w = Var::ones(2, dtype, &Device::Cpu).unwrap();
        let vars = one("w", &w);
        let part = grads(&[(&w, &[1.0 / 4096.0, 1.0 / 4096.0])]);
        let mut sum = GradAccumulator::new();
        for _ in 0..4096 {
            sum.add(&vars, &part).unwrap();
        }
        let mut total = sum.take();
        // (1, 1) has the norm √2
        let norm = clip_grad_norm(&vars, &mut total, 1.0).unwrap();
        assert_close(&[norm], &[2f64.sqrt()], EXACT, "norm");
        let after = total.get(&w).unwrap();
        assert_close(&numbers(after), &[0.5f64.sqrt(); 2], 1e-7, "clipped");
        let group = ParameterGroup::new(vars, 0.0);
        AdamW::new(vec![group], config())
            .unwrap()
            .step(&total)
            .unwrap();
        // a first step is η · g / (|g| + ε)
        let want = 1.0 - 0.1 * 0.5f64.sqrt() / (0.5f64.sqrt() + 1e-3);
        assert_close(&numbers(&w), &[want; 2], 2f64.powi(-9), "w");
    }
}

/// Its moments take no byte of the file.
#[test]
fn the_state_of_a_variable_without_elements_is_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let (empty, w) = (
        Var::zeros((0, 3), DType::F64, &Device::Cpu).unwrap(),
        var(&[1.0, 2.0]),
    );
    let fresh = || {
        let vars = vec![
            ("empty".to_string(), empty.clone()),
            ("w".to_string(), w.clone()),
        ];
        AdamW::new(vec![ParameterGroup::new(vars, 0.0)], config()).unwrap()
    };
    let mut adamw = fresh();
    let mut store = grads(&[(&w, &[1.0, -1.0])]);
    store.insert(&empty, empty.zeros_like().unwrap());
    adamw.step(&store).unwrap();
    adamw.save(&path).unwrap();
    let mut again = fresh();
    again.load(&path).unwrap();
    let other = folder.path().join("again.safetensors");
    again.save(&other).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), std::fs::read(other).unwrap());
}
