//! Laws that every operation obeys.

use super::table::{all, cast, numbers as pattern, run, run_by, strided};
use crate::common::numbers;
use candle_align::ops;
use candle_align::training::grad_coverage;
use candle_core::{D, DType, Device, Tensor, Var};
use std::process::Command;

/// Difference between f32 and f64, relative to the largest number.
const SINGLE: f64 = 3e-6;

fn assert_near(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let near = (got - want).abs() <= tolerance * largest;
        assert!(near, "{what}[{i}]: {got} against {want}");
    }
}

#[test]
fn single_precision_is_near_double() {
    for op in all() {
        for n in [1, 3, 64, 1100] {
            let inputs = cast(&op.inputs(n, 4.0), DType::F32);
            let single = run(&op, op.ours, &inputs);
            let double = run(&op, op.ours, &cast(&inputs, DType::F64));
            for (i, (single, double)) in single.iter().zip(&double).enumerate() {
                assert_near(single, double, SINGLE, &format!("{} {n}: {i}", op.name));
            }
        }
    }
}

/// The distance from a number to the next one of this type, relative: twice the largest rounding.
fn last_place(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-7),
        _ => 2f64.powi(-10),
    }
}

#[test]
fn half_precision_is_one_rounding_of_single() {
    for op in all().iter().filter(|op| !op.angles) {
        for dtype in [DType::BF16, DType::F16] {
            for n in [1, 5, 64, 1100] {
                let half = cast(&op.inputs(n, 4.0), dtype);
                let got = (op.ours)(&half).unwrap();
                assert_eq!(got.dtype(), dtype, "{}", op.name);
                let want = (op.ours)(&cast(&half, DType::F32)).unwrap();
                let want = want.to_dtype(dtype).unwrap();
                assert_eq!(numbers(&got), numbers(&want), "{} {dtype:?} {n}", op.name);
            }
        }
    }
}

#[test]
fn half_precision_has_the_gradients_of_single() {
    for op in all().iter().filter(|op| !op.angles) {
        for dtype in [DType::BF16, DType::F16] {
            let half = cast(&op.inputs(64, 4.0), dtype);
            let got = run(op, op.ours, &half);
            let want = run_by(op, op.ours, &cast(&half, DType::F32), dtype);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                // of the gradient, and of the result where it is used again
                let tolerance = last_place(dtype);
                assert_near(got, want, tolerance, &format!("{} {dtype:?}: {i}", op.name));
            }
        }
    }
}

#[test]
fn nan_and_infinities_stay_in_their_row() {
    for op in all() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
                let inputs = cast(&op.inputs(40, 2.0), dtype);
                let clean = run(&op, op.ours, &inputs);
                let mut data = numbers(&inputs[0]);
                let width = inputs[0].dim(D::Minus1).unwrap();
                let row = data.len() / width / 2;
                data[row * width + 1] = bad;
                let shape = inputs[0].shape();
                let mut dirty = inputs.clone();
                dirty[0] = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
                dirty[0] = dirty[0].to_dtype(dtype).unwrap();
                let dirty = run(&op, op.ours, &dirty);
                for (clean, dirty) in clean.iter().zip(&dirty).take(2) {
                    let rows = inputs[0].elem_count() / width;
                    let width = clean.len() / rows;
                    let (clean, dirty) = (clean.chunks(width), dirty.chunks(width));
                    for (i, (clean, dirty)) in clean.zip(dirty).enumerate() {
                        assert!(i == row || clean == dirty, "{} {bad}: row {i}", op.name);
                    }
                }
                let rows = inputs[0].elem_count() / width;
                let mut result = dirty[0].chunks(dirty[0].len() / rows);
                let shown = result.nth(row).unwrap().iter().any(|x| !x.is_finite());
                let zeroed = bad == f64::NEG_INFINITY && op.name.starts_with("softmax");
                assert!(shown || zeroed, "{} {bad} {dtype:?}: hidden", op.name);
            }
        }
    }
}

#[test]
fn a_batch_in_another_order_gives_the_same_in_that_order() {
    for op in all() {
        let inputs = op.inputs(37, 2.0);
        let turned = |x: &Tensor| x.flip(&[0]).unwrap().contiguous().unwrap();
        let mut other = inputs.clone();
        for (x, input) in other.iter_mut().zip(&inputs) {
            if input.rank() >= 3 {
                *x = turned(input);
            }
        }
        let (one, two) = ((op.ours)(&inputs).unwrap(), (op.ours)(&other).unwrap());
        assert_eq!(numbers(&turned(&one)), numbers(&two), "{}", op.name);
    }
}

#[test]
fn any_layout_gives_the_same_bits() {
    for op in all() {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            let inputs = cast(&op.inputs(9, 2.0), dtype);
            let (vars, arguments) = op.vars(&inputs);
            let views: Vec<Tensor> = arguments.iter().map(strided).collect();
            assert!(
                views.iter().all(|view| !view.is_contiguous()),
                "{}",
                op.name
            );
            let y = (op.ours)(&views).unwrap();
            let grads = super::table::weighed(&y).backward().unwrap();
            let want = run(&op, op.ours, &inputs);
            assert_eq!(numbers(&y), want[0], "{}", op.name);
            for (var, want) in vars.iter().zip(&want[1..]) {
                assert_eq!(&numbers(grads.get(var).unwrap()), want, "{}", op.name);
            }
        }
    }
}

#[test]
fn a_gradient_may_have_any_layout() {
    for op in all() {
        let inputs = op.inputs(9, 2.0);
        let (vars, arguments) = op.vars(&inputs);
        let y = (op.ours)(&arguments).unwrap();
        let last = y.rank() - 1;
        // the gradient comes back through a transposition
        let turned = y.transpose(0, last).unwrap();
        let weights = pattern(y.dims(), 1.0, 5).transpose(0, last).unwrap();
        let grads = (turned * weights).unwrap().backward().unwrap();
        let want = run(&op, op.ours, &inputs);
        for (var, want) in vars.iter().zip(&want[1..]) {
            assert_eq!(&numbers(grads.get(var).unwrap()), want, "{}", op.name);
        }
    }
}

#[test]
fn constants_get_no_gradient_and_change_no_other() {
    for op in all() {
        let inputs = op.inputs(37, 2.0);
        let all = run(&op, op.ours, &inputs);
        for alone in 0..op.trained {
            let var = Var::from_tensor(&inputs[alone]).unwrap();
            let mut arguments = inputs.clone();
            arguments[alone] = var.as_tensor().clone();
            let y = (op.ours)(&arguments).unwrap();
            let grads = super::table::weighed(&y).backward().unwrap();
            let got = numbers(grads.get(&var).unwrap());
            assert_eq!(got, all[1 + alone], "{}: argument {alone}", op.name);
            for (i, constant) in inputs.iter().enumerate().filter(|(i, _)| *i != alone) {
                assert!(grads.get(constant).is_none(), "{}: argument {i}", op.name);
            }
        }
        // nothing is trained: nothing is recorded
        assert!(!(op.ours)(&inputs).unwrap().track_op(), "{}", op.name);
    }
}

#[test]
fn a_gradient_reaches_what_is_below_every_argument() {
    for op in all() {
        let inputs = op.inputs(5, 2.0);
        let (vars, arguments) = op.vars(&inputs);
        // arguments that are no variables themselves
        let below: Vec<Tensor> = arguments
            .iter()
            .map(|x| x.affine(0.5, 0.1).unwrap())
            .collect();
        let y = (op.ours)(&below).unwrap();
        let grads = super::table::weighed(&y).backward().unwrap();
        let named: Vec<(String, Var)> = vars
            .into_iter()
            .enumerate()
            .map(|(i, var)| (i.to_string(), var))
            .collect();
        let coverage = grad_coverage(&named, &grads).unwrap();
        assert!(coverage.is_complete(), "{}: {coverage}", op.name);
    }
}

#[test]
fn an_argument_may_come_twice() -> candle_core::Result<()> {
    let x = Var::from_tensor(&pattern(&[3, 4], 2.0, 1))?;
    let grads = ops::silu_mul(&x, &x)?.backward()?;
    // x² σ(x)
    for (x, got) in numbers(&x).iter().zip(numbers(grads.get(&x).unwrap())) {
        let s = 1.0 / (1.0 + (-x).exp());
        let want = 2.0 * x * s + x * x * s * (1.0 - s);
        assert!((got - want).abs() < 1e-12, "{got} against {want}");
    }
    Ok(())
}

#[test]
fn nothing_gives_nothing() {
    for op in all() {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            // no rows, and rows of nothing
            for (n, rows) in [(4, 0), (0, 1)] {
                let inputs = cast(&op.inputs(n, 1.0), dtype);
                let (vars, mut arguments) = op.vars(&inputs);
                if rows == 0 {
                    for x in arguments.iter_mut().filter(|x| x.rank() >= 3) {
                        // a view past the end of its memory
                        *x = x.narrow(0, x.dim(0).unwrap(), 0).unwrap();
                    }
                }
                let y = (op.ours)(&arguments).unwrap();
                assert_eq!(y.elem_count(), 0, "{}", op.name);
                let loss = y.to_dtype(DType::F32).unwrap().sum_all().unwrap();
                let grads = loss.backward().unwrap();
                for var in &vars {
                    let grad = grads.get(var).expect("a gradient");
                    assert_eq!(grad.dims(), var.dims(), "{}", op.name);
                    assert!(numbers(grad).iter().all(|g| *g == 0.0), "{}", op.name);
                }
            }
        }
    }
}

#[test]
fn large_magnitudes_stay_finite() {
    for op in all() {
        for scale in [1e-20, 1e4] {
            let inputs = cast(&op.inputs(64, scale), DType::F32);
            for (i, found) in run(&op, op.ours, &inputs).iter().enumerate() {
                let finite = found.iter().all(|x| x.is_finite());
                assert!(finite, "{} at {scale}: {i}", op.name);
            }
        }
    }
}

/// The bits of every value and gradient at a size that is shared out among threads.
fn fingerprint() -> String {
    let mut lines = String::new();
    for op in all() {
        let mut inputs = cast(&op.inputs(96, 2.0), DType::F32);
        // many rows: repeated, and each moved by a little
        let shape = inputs[0].dims().to_vec();
        if op.angles {
            inputs[0] = pattern(&[2, 30, 4, 192], 2.0, 1);
            if op.name == "rope_thd" {
                inputs[0] = pattern(&[2, 4, 30, 192], 2.0, 1);
            }
        } else {
            let many = [&[400], &shape[1..]].concat();
            for x in inputs.iter_mut().filter(|x| x.rank() == 3) {
                *x = pattern(&many, 2.0, 1);
            }
        }
        let inputs = cast(&inputs, DType::F32);
        assert!(inputs[0].elem_count() > 1 << 15, "{}", op.name);
        let mut hash = 0u64;
        for x in run(&op, op.ours, &inputs).concat() {
            hash = hash.rotate_left(5) ^ x.to_bits().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        lines.push_str(&format!("fingerprint {}: {hash}\n", op.name));
    }
    lines
}

/// Prints the bits for [`the_number_of_threads_changes_no_bit`], which runs it in other processes.
#[test]
fn the_bits_of_this_process() {
    print!("{}", fingerprint());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let with = |threads: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["the_bits_of_this_process", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| line.split_once("fingerprint "));
        lines.map(|(_, of)| of.to_string()).collect::<Vec<_>>()
    };
    let one = with("1");
    assert_eq!(one.len(), all().len());
    assert_eq!(one, with("3"));
    assert_eq!(one, with("8"));
}
