use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::training::{
    Agreement, GradientAgreement, VariableAgreement, grad_coverage, gradient_agreement,
};
use candle_align::{Error, Result};
use candle_core::{D, DType, Device, Tensor, Var};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

const BOTH: [DType; 2] = [DType::F64, DType::F32];

/// Irregular numbers between −1 and 1.
fn irregular(shape: &[usize], dtype: DType, phase: f64) -> Var {
    let n: usize = shape.iter().product();
    let data: Vec<f64> = (0..n).map(|i| (1.7 * i as f64 + phase).sin()).collect();
    let tensor = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
    Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap()
}

fn named(vars: &[(&str, &Var)]) -> Vec<(String, Var)> {
    vars.iter()
        .map(|(n, v)| (n.to_string(), (*v).clone()))
        .collect()
}

fn ask(loss: impl Fn() -> Result<Tensor>, vars: &[(String, Var)]) -> GradientAgreement {
    gradient_agreement(loss, vars, 3, &mut StdRng::seed_from_u64(1)).unwrap()
}

fn of_one(loss: impl Fn() -> Result<Tensor>, var: &Var) -> VariableAgreement {
    let mut found = ask(loss, &named(&[("w", var)]));
    assert_eq!(found.variables.len(), 1);
    found.variables.remove(0)
}

/// candle's softmax has no backward pass: in a residual branch it takes a part of the gradient and
/// leaves the rest, so that all seem to learn.
#[test]
fn a_graph_cut_inside_a_residual_branch_is_named() {
    for dtype in BOTH {
        let x = irregular(&[4, 6], dtype, 0.3);
        let (below, above) = (
            irregular(&[6, 6], dtype, 1.0),
            irregular(&[6, 6], dtype, 2.0),
        );
        let block = |cut: bool| -> Result<Tensor> {
            let h = x.matmul(&below)?;
            let normed = match cut {
                true => candle_nn::ops::softmax_last_dim(&h)?,
                false => candle_nn::ops::softmax(&h, D::Minus1)?,
            };
            let h = (&h + normed.matmul(&above)?)?;
            Ok(h.tanh()?.sqr()?.sum_all()?)
        };
        let vars = named(&[("above", &above), ("below", &below)]);
        let coverage = grad_coverage(&vars, &block(true).unwrap().backward().unwrap()).unwrap();
        assert_eq!(coverage.to_string(), "2 of 2 variables learn");

        let found = ask(|| block(true), &vars);
        assert_eq!(found.names(Agreement::Differs), ["below"], "{found}");
        assert_eq!(found.names(Agreement::Agrees), ["above"], "{found}");
        assert!(!found.is_complete());
        let text = found.to_string();
        let begin = "1 of 2 gradients agree; partial or wrong: below (";
        assert!(text.starts_with(begin), "{text}");

        let found = ask(|| block(false), &vars);
        assert!(found.is_complete(), "{dtype:?}: {found}");
        assert_eq!(found.to_string(), "2 of 2 gradients agree");
    }
}

#[test]
fn gradients_that_are_wrong_or_missing_are_told_apart() {
    for dtype in BOTH {
        let [half, turned, cut, straight, good, idle] =
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6].map(|phase| irregular(&[5], dtype, phase));
        let loss = || -> Result<Tensor> {
            // the value of x², the gradient of half of it
            let a = (half.as_tensor() * half.detach())?;
            // the value of tanh, the gradient of −tanh
            let t = turned.tanh()?;
            let b = ((t.detach() * 2.0)? - t)?;
            let c = cut.detach().exp()?;
            // the value of a constant, the gradient of x
            let d = (straight.as_tensor() - straight.detach())?;
            let e = good.sqr()?.exp()?;
            Ok((((a + b)? + c)? + (d + e)?)?.sum_all()?)
        };
        let vars = named(&[
            ("cut", &cut),
            ("good", &good),
            ("half", &half),
            ("idle", &idle),
            ("straight", &straight),
            ("turned", &turned),
        ]);
        let found = ask(loss, &vars);
        let differs = ["half", "straight", "turned"];
        assert_eq!(found.names(Agreement::Differs), differs, "{found}");
        assert_eq!(found.names(Agreement::Missing), ["cut"], "{found}");
        // no gradient is right for what the loss does not depend on
        assert_eq!(found.names(Agreement::Agrees), ["good", "idle"], "{found}");
        assert_eq!(found.names(Agreement::Undetermined), [""; 0]);
        let half = &found.variables[2];
        assert!((half.gradient / half.slope - 0.5).abs() < 0.01, "{half:?}");
    }
}

/// Along ±1 of one number the slope of 3w is ±3, that of a sum over n a share of √n.
#[test]
fn the_numbers_are_slopes_along_a_direction_of_length_one() {
    for dtype in BOTH {
        let w = irregular(&[1], dtype, 0.7);
        let found = of_one(|| Ok((w.sum_all()? * 3.0)?), &w);
        assert_eq!(found.agreement, Agreement::Agrees);
        assert!((found.slope.abs() - 3.0).abs() <= found.error, "{found:?}");
        assert!(
            (found.gradient.abs() - 3.0).abs() <= 1e-4 && found.error < 0.15,
            "{found:?}"
        );
        let w = irregular(&[9], dtype, 0.7);
        let found = of_one(|| Ok(w.sum_all()?), &w);
        // the sum of nine signs over √9
        let signs = found.gradient * 3.0;
        assert!((signs - signs.round()).abs() < 1e-5 && signs.round() % 2.0 != 0.0);
        assert!(signs.abs() <= 9.0);
    }
}

/// The stated error covers the true one, far from what a parabola can follow and near it.
#[test]
fn the_error_covers_the_distance_to_the_true_slope() {
    for dtype in BOTH {
        for steep in [1.0, 30.0, 1000.0, 1e4] {
            for start in [-0.3, 0.0, 1e-3, 0.1, 2.0] {
                let w = Var::from_tensor(&vector(&[start]).to_dtype(dtype).unwrap()).unwrap();
                let loss = || {
                    let x = (w.as_tensor() * steep)?;
                    Ok(candle_nn::ops::sigmoid(&x)?.sum_all()?)
                };
                let found = of_one(loss, &w);
                let s = crate::common::sigma(steep * numbers(&w)[0]);
                let want = steep * s * (1.0 - s);
                let what = format!("{dtype:?} {steep} {start}: {found:?}, true {want}");
                assert_ne!(found.agreement, Agreement::Differs, "{what}");
                let off = (found.slope.abs() - want).abs();
                // f32 has no number for what is below
                assert!(off <= found.error.max(1e-40), "{what}");
                if start == 0.0 && steep <= 1000.0 {
                    assert_eq!(found.agreement, Agreement::Agrees, "{what}");
                }
            }
        }
    }
}

/// At a kink any slope between the two sides is right; beside it there is one.
#[test]
fn a_kink_is_reported_as_undetermined() {
    for dtype in BOTH {
        for (start, want) in [
            (0.0, Agreement::Undetermined),
            (1.0, Agreement::Agrees),
            (-1.0, Agreement::Agrees),
        ] {
            let w = Var::from_tensor(&vector(&[start]).to_dtype(dtype).unwrap()).unwrap();
            assert_eq!(of_one(|| Ok(w.abs()?.sum_all()?), &w).agreement, want);
            assert_eq!(of_one(|| Ok(w.relu()?.sum_all()?), &w).agreement, want);
        }
        // as near as 0.1 % of the variable
        for away in [1e-3, -1e-3] {
            let w = Var::from_tensor(&vector(&[1.0]).to_dtype(dtype).unwrap()).unwrap();
            let loss = || Ok((w.as_tensor() - (1.0 + away))?.abs()?.sum_all()?);
            let found = of_one(loss, &w);
            assert_eq!(found.agreement, Agreement::Agrees, "{dtype:?} {found:?}");
        }
    }
}

/// A loss that is another number at each call hides its slope, unless a long step shows it all the same:
/// then the verdict is right.
#[test]
fn noise_is_undetermined_and_never_a_wrong_verdict() {
    for dtype in BOTH {
        for seed in 0..20 {
            let w = irregular(&[50], dtype, 0.9);
            let noise = RefCell::new(StdRng::seed_from_u64(seed));
            let add = || noise.borrow_mut().random_range(-0.3..0.3);
            let other = |half: bool| {
                if half {
                    w.detach()
                } else {
                    w.as_tensor().clone()
                }
            };
            for half in [false, true] {
                let bounded = || {
                    let product = (w.as_tensor() * other(half))?;
                    Ok(((product * 3.0)?.tanh()?.sum_all()? + add())?)
                };
                let found = of_one(bounded, &w);
                assert_eq!(found.agreement, Agreement::Undetermined, "{found:?}");
                // a parabola, to which no step is too long
                let parabola = || Ok(((w.as_tensor() * other(half))?.sum_all()? + add())?);
                let never = match half {
                    true => Agreement::Agrees,
                    false => Agreement::Differs,
                };
                let found = of_one(parabola, &w);
                assert_ne!(found.agreement, never, "{found:?}");
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_differs() {
    let w = Var::from_tensor(&vector(&[0.0, 1.0])).unwrap();
    // √0 under a condition that hides it: the value is finite, 0 · ∞ is not
    let loss = || {
        let safe = w.gt(0.5)?;
        let root = w.abs()?.sqrt()?;
        Ok(safe.where_cond(&root, &w.zeros_like()?)?.sum_all()?)
    };
    let found = of_one(loss, &w);
    assert_eq!(found.agreement, Agreement::Differs, "{found:?}");
    assert!(found.gradient.is_nan());
    // even where the slope of the loss cannot be told
    let w = Var::from_tensor(&vector(&[0.0])).unwrap();
    let found = of_one(|| Ok(w.abs()?.sqrt()?.sum_all()?), &w);
    assert_eq!(found.agreement, Agreement::Differs, "{found:?}");
}

/// In single precision the slope of a line is found under a large constant by longer steps.
#[test]
fn a_longer_step_is_taken_where_a_short_one_drowns() {
    let w = Var::from_tensor(&vector(&[1.0]).to_dtype(DType::F32).unwrap()).unwrap();
    for constant in [0.0, 1e5] {
        let found = of_one(|| Ok(((w.as_tensor() * 2.0)? + constant)?.sum_all()?), &w);
        assert_eq!(found.agreement, Agreement::Agrees, "{found:?}");
    }
}

/// Of a line the error is that of rounding alone: four roundings of the loss over h, at least, and √ε of the
/// gradient's length. h is four times as long until that is a twentieth of the slope.
#[test]
fn the_error_of_a_line_is_the_rounding_of_its_types() {
    for (of_variable, of_loss, rounding, h) in [
        (DType::F64, DType::F64, -53, -9),
        (DType::F64, DType::F32, -24, -9),
        (DType::F32, DType::F32, -24, -5),
        (DType::F32, DType::F16, -11, -3),
        (DType::F32, DType::BF16, -8, -1),
    ] {
        let w = Var::ones(1, of_variable, &Device::Cpu).unwrap();
        let found = of_one(|| Ok(w.sum_all()?.to_dtype(of_loss)?), &w);
        assert_eq!(found.agreement, Agreement::Agrees, "{found:?}");
        let root = match of_variable {
            DType::F64 => f64::EPSILON.sqrt(),
            _ => f64::from(f32::EPSILON).sqrt(),
        };
        let want = 4.0 * 2f64.powi(rounding - h) + root;
        let what = format!("{of_variable:?} {of_loss:?}");
        assert_close(&[found.error], &[want], EXACT, &what);
    }
}

/// The gradient is multiplied by how far the variable moved, in which its value has no part.
#[test]
fn the_number_of_a_gradient_is_as_exact_as_the_gradient() {
    for slope in [0.1, 1.0 / 3.0, 0.7, 1.9] {
        let w = Var::ones(1, DType::F64, &Device::Cpu).unwrap();
        let found = of_one(|| Ok((w.sum_all()? * slope)?), &w);
        let off = found.gradient.abs() / slope - 1.0;
        assert!(off.abs() <= 1e-15, "{slope}: {off}");
    }
}

/// x + sin(πx/h) h/π has slope 2 at 0, and slope 1 as all steps of length h see it.
#[test]
fn a_step_that_is_contradicted_by_its_half_gives_no_verdict() {
    // the first step in f64
    let h = 2f64.powi(-9);
    let w = Var::ones(1, DType::F64, &Device::Cpu).unwrap();
    let loss = || {
        let x = (w.as_tensor() - 1.0)?;
        let wave = (x.affine(std::f64::consts::PI / h, 0.0)?.sin()? * (h / std::f64::consts::PI))?;
        // curvature, so that the next step is a shorter one
        let bent = (x.powf(3.0)? * (1e-3 / (h * h)))?;
        Ok(((x + wave)? + bent)?.sum_all()?)
    };
    let found = of_one(loss, &w);
    assert_eq!(found.agreement, Agreement::Agrees, "{found:?}");
    assert!((found.slope.abs() - 2.0).abs() <= found.error, "{found:?}");
}

/// Steps of the length of its stairs see a line of slope 1, shorter ones that it is flat.
#[test]
fn a_staircase_needs_no_gradient() {
    for (dtype, stairs) in [(DType::F64, 512.0), (DType::F32, 32.0)] {
        let w = Var::zeros(1, dtype, &Device::Cpu).unwrap();
        let loss = || {
            let stair = (w.detach() * stairs)?.round()?;
            Ok((stair / stairs)?.sum_all()?)
        };
        let found = of_one(loss, &w);
        assert_eq!(found.agreement, Agreement::Agrees, "{dtype:?}: {found:?}");
        assert_eq!((found.slope, found.error), (0.0, 0.0));
    }
}

/// ln x has no value below 0, so the first steps have none.
#[test]
fn a_loss_that_has_no_value_further_away_is_looked_at_nearby() {
    for dtype in BOTH {
        let w = Var::ones(1, dtype, &Device::Cpu).unwrap();
        let found = of_one(|| Ok((w.as_tensor() - 0.999)?.log()?.sum_all()?), &w);
        assert_eq!(found.agreement, Agreement::Agrees, "{dtype:?}: {found:?}");
        let off = found.slope.abs() - 1000.0;
        assert!(off.abs() <= found.error + 0.1, "{dtype:?}: {found:?}");
    }
}

/// Ten calls, and four for each of six steps, which a kink leaves undetermined.
#[test]
fn six_steps_are_tried() {
    for dtype in BOTH {
        let w = Var::zeros(1, dtype, &Device::Cpu).unwrap();
        let calls = Cell::new(0);
        let loss = || {
            calls.set(calls.get() + 1);
            Ok(w.abs()?.sum_all()?)
        };
        let vars = named(&[("w", &w)]);
        let found = gradient_agreement(loss, &vars, 1, &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!(found.names(Agreement::Undetermined), ["w"]);
        assert_eq!(calls.get(), 10 + 6 * 4, "{dtype:?}");
    }
}

/// What stays undetermined is told by the numbers of the step with the smallest error: the longest against
/// noise, the first where a kink is in all.
#[test]
fn an_undetermined_slope_is_that_of_the_best_step() {
    let ask = |start: f64, line: f64, kink: f64, size: f64| {
        let w = Var::from_tensor(&vector(&[start])).unwrap();
        let calls = Cell::new(0);
        // noise for the nine calls that measure it: +size, −size, ...; its fourth difference is 16 size
        let loss = || {
            let call = calls.replace(calls.get() + 1);
            let noise = match call {
                1..=9 if call % 2 == 0 => size,
                1..=9 => -size,
                _ => 0.0,
            };
            let value = ((w.as_tensor() * line)? + (w.abs()? * kink)?)?;
            Ok((value.sum_all()? + noise)?)
        };
        let found = of_one(loss, &w);
        assert_eq!(found.agreement, Agreement::Undetermined, "{found:?}");
        (found.error, 4.0 * size * 16.0 / 70f64.sqrt())
    };
    // six steps from h = 2⁻⁹ to 2
    let (error, noise) = ask(1.0, 1e-6, 0.0, 1.0);
    assert!((error / (noise / 2.0) - 1.0).abs() < 1e-6, "{error}");
    // h = 2⁻⁹, where the bend of |w| is 2 as everywhere
    let (error, noise) = ask(0.0, 0.0, 1.0, 1e-4);
    assert!(
        (error / (2.0 + noise * 512.0) - 1.0).abs() < 1e-6,
        "{error}"
    );
}

/// A gradient that is right along (1, 1) and wrong along (1, −1) is wrong, whichever is drawn last.
#[test]
fn one_direction_against_a_gradient_is_enough() {
    let w = Var::ones(2, DType::F64, &Device::Cpu).unwrap();
    let tilt = vector(&[0.3, -0.3]);
    let loss = || {
        let tilt = (w.as_tensor() * &tilt)?;
        Ok(((w.as_tensor() + &tilt)? - tilt.detach())?.sum_all()?)
    };
    let vars = named(&[("w", &w)]);
    for seed in 0..10 {
        let found = gradient_agreement(loss, &vars, 12, &mut StdRng::seed_from_u64(seed)).unwrap();
        assert_eq!(found.names(Agreement::Differs), ["w"], "{found}");
    }
}

/// A gradient that is off by its own rounding is not wrong; one that is off by a hundredth is.
#[test]
fn the_rounding_of_a_gradient_is_let_pass() {
    let w = Var::from_tensor(&vector(&[1.0]).to_dtype(DType::F32).unwrap()).unwrap();
    for (off, want) in [(1e-4, Agreement::Agrees), (1e-2, Agreement::Differs)] {
        // the value of 3w, the gradient of 3w (1 + off)
        let loss = || {
            let more = (w.as_tensor() * (3.0 * off))?;
            Ok((((w.as_tensor() * 3.0)? + &more)? - more.detach())?.sum_all()?)
        };
        let found = of_one(loss, &w);
        assert_eq!(found.agreement, want, "{found:?}");
    }
}

fn bits(var: &Var) -> Vec<u64> {
    let wide = var.as_tensor().to_dtype(DType::F64).unwrap();
    let wide = wide.to_vec1::<f64>().unwrap();
    wide.iter().map(|x| x.to_bits()).collect()
}

/// Whether it succeeds, fails at any call, or the loss panics.
#[test]
fn the_variables_have_their_old_bits_afterwards() {
    for dtype in BOTH {
        let numbers = [1.0, -0.0, 1e-310, 1e-40, -1.2345678901234567, 3e30];
        let w = Var::from_tensor(&vector(&numbers).to_dtype(dtype).unwrap()).unwrap();
        let v = irregular(&[3], dtype, 0.2);
        let before = (bits(&w), bits(&v));
        let vars = named(&[("v", &v), ("w", &w)]);
        let calls = Cell::new(0);
        let run = |stop: usize, panics: bool| {
            calls.set(0);
            let loss = || {
                calls.set(calls.get() + 1);
                if calls.get() == stop {
                    assert!(!panics, "the loss panics");
                    let text = "enough".to_string();
                    return Err(Error::Tensor(candle_core::Error::Msg(text)));
                }
                Ok((v.sqr()?.sum_all()? + w.sin()?.sum_all()?)?)
            };
            gradient_agreement(loss, &vars, 1, &mut StdRng::seed_from_u64(3))
        };
        run(usize::MAX, false).unwrap();
        assert_eq!((bits(&w), bits(&v)), before);
        let all = calls.get();
        assert!(all >= 18, "{all}");
        for stop in 1..=all {
            assert_eq!(run(stop, false).unwrap_err().to_string(), "enough");
            assert_eq!((bits(&w), bits(&v)), before, "{dtype:?}, call {stop}");
        }
        let panicked = catch_unwind(AssertUnwindSafe(|| run(all, true)));
        assert!(panicked.is_err());
        assert_eq!((bits(&w), bits(&v)), before);
    }
}

#[test]
fn one_seed_gives_one_answer_and_a_tied_variable_one_entry() {
    let w = irregular(&[4, 3], DType::F32, 0.1);
    let vars = named(&[("embed", &w), ("head", &w)]);
    let loss = || Ok(w.matmul(&w.t()?)?.tanh()?.sum_all()?);
    let found = ask(loss, &vars);
    assert_eq!(found.names(Agreement::Agrees), ["embed"], "{found}");
    assert_eq!(found, ask(loss, &vars));
    assert!(ask(loss, &[]).is_complete());
}

#[test]
fn a_variable_without_elements_agrees() {
    let w = Var::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    let found = of_one(|| Ok((w.sqr()?.sum_all()? + 1.0)?), &w);
    assert_eq!(found.agreement, Agreement::Agrees);
}
