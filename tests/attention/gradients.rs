//! Is each gradient its central difference, and that of ordinary operations?

use super::case::{Case, NAMES, difference, passes, tensors};
use super::values::{cases, tree};
use candle_core::DType;

/// Step of the central differences, and the difference allowed.
const STEP: f64 = 1e-5;
const GRADIENT: f64 = 2e-8;

#[test]
fn gradients_are_central_differences() {
    let tree = Case {
        heads: 4,
        kv_heads: 2,
        ..tree()
    };
    for case in [
        tree.clone(),
        Case {
            window: Some(3),
            scale: Some(1.3),
            ..tree.clone()
        },
        Case {
            prefix: 2,
            window: Some(4),
            ..tree.clone()
        },
        Case {
            softcap: Some(0.4),
            window: Some(3),
            prefix: 1,
            ..tree.clone()
        },
        Case {
            prefix: 2,
            own_prefix: true,
            ..tree
        },
    ] {
        let numbers = case.numbers(1);
        let vars = case.vars(&numbers, DType::F64);
        let weights = numbers.last().unwrap();
        let loss = |numbers: &[Vec<f64>]| -> f64 {
            case.loops(numbers)
                .iter()
                .zip(weights)
                .map(|(o, w)| o * w)
                .sum()
        };
        let (_, gradients) = passes(&case.ours(&tensors(&vars)).unwrap(), weights, &vars);
        for (i, name) in NAMES.iter().enumerate() {
            assert_eq!(gradients[i].len(), numbers[i].len(), "{name}");
            for j in 0..numbers[i].len() {
                let at = |step: f64| {
                    let mut moved = numbers.clone();
                    moved[i][j] += step;
                    loss(&moved)
                };
                let want = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let off = (gradients[i][j] - want).abs() / want.abs().max(1.0);
                assert!(
                    off < GRADIENT,
                    "{name}[{j}]: {} for {want}; {case:?}",
                    gradients[i][j]
                );
            }
        }
    }
}

#[test]
fn gradients_are_those_of_ordinary_operations() {
    for case in cases() {
        let numbers = case.numbers(2);
        let weights = numbers.last().unwrap();
        let exact = case.vars(&numbers, DType::F64);
        let (_, want) = passes(&case.dense(&tensors(&exact)).unwrap(), weights, &exact);
        for (dtype, bound) in [(DType::F64, 1e-13), (DType::F32, 2e-6)] {
            let vars = case.vars(&numbers, dtype);
            let (_, got) = passes(&case.ours(&tensors(&vars)).unwrap(), weights, &vars);
            for (name, (got, want)) in NAMES.iter().zip(got.iter().zip(&want)) {
                let worst = difference(got, want);
                assert!(worst < bound, "{name} {dtype:?} {worst} {case:?}");
            }
        }
    }
}
