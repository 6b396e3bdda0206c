//! Is each value that of the loop?

use super::case::{Case, difference, host, tensors};
use candle_core::DType;

/// A prompt with three answers, one of them empty, a second turn below one, and a row of its own.
pub fn tree() -> Case {
    let parents = [None, Some(0), Some(0), None, Some(2), Some(0)];
    Case::new(&[5, 3, 4, 2, 6, 0], &parents)
}

pub fn cases() -> Vec<Case> {
    let tree = tree();
    let long = Case {
        heads: 6,
        kv_heads: 2,
        dim: 8,
        value_dim: 8,
        ..Case::new(&[70, 61, 130, 1], &[None, Some(0), Some(0), Some(2)])
    };
    vec![
        Case::new(&[7], &[None]),
        Case::new(&[4, 1, 6], &[None; 3]),
        tree.clone(),
        Case {
            window: Some(1),
            ..tree.clone()
        },
        Case {
            window: Some(4),
            heads: 4,
            kv_heads: 2,
            ..tree.clone()
        },
        Case {
            window: Some(100),
            scale: Some(-0.7),
            ..tree.clone()
        },
        // caps that most scores feel, and one that none does
        Case {
            softcap: Some(0.3),
            window: Some(4),
            ..tree.clone()
        },
        Case {
            softcap: Some(50.0),
            prefix: 3,
            ..tree.clone()
        },
        Case {
            prefix: 3,
            ..tree.clone()
        },
        Case {
            prefix: 2,
            window: Some(3),
            own_prefix: true,
            ..tree.clone()
        },
        // more heads than a tile holds
        Case {
            heads: 53,
            dim: 2,
            ..tree.clone()
        },
        Case {
            heads: 3,
            kv_heads: 3,
            dim: 17,
            value_dim: 33,
            ..tree
        },
        long.clone(),
        Case {
            softcap: Some(0.5),
            scale: Some(3.0),
            ..long.clone()
        },
        Case {
            window: Some(50),
            prefix: 50,
            ..long
        },
    ]
}

#[test]
fn values_are_those_of_the_loop() {
    for case in cases() {
        let numbers = case.numbers(0);
        let want = case.loops(&numbers);
        for (dtype, bound) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
            let vars = case.vars(&numbers, dtype);
            let got = host(&case.ours(&tensors(&vars)).unwrap());
            let worst = difference(&got, &want);
            assert!(worst < bound, "{dtype:?} {worst} {case:?}");
        }
    }
}

#[test]
fn half_precision_is_computed_in_single() {
    for case in cases() {
        for (dtype, bound) in [(DType::BF16, 2f64.powi(-8)), (DType::F16, 2f64.powi(-11))] {
            // the loop on the numbers as they are stored
            let vars = case.vars(&case.numbers(0), dtype);
            let stored: Vec<Vec<f64>> = tensors(&vars).iter().map(host).collect();
            let out = case.ours(&tensors(&vars)).unwrap();
            assert_eq!(out.dtype(), dtype);
            let worst = difference(&host(&out), &case.loops(&stored));
            // the result is rounded once
            assert!(worst <= bound, "{dtype:?} {worst} {case:?}");
        }
    }
}

#[test]
fn a_window_of_three_sees_one_two_three_three_keys() {
    // equal scores: the output is the mean of the values that are seen
    let case = Case {
        heads: 1,
        dim: 1,
        value_dim: 1,
        window: Some(3),
        ..Case::new(&[3, 2], &[None, Some(0)])
    };
    let numbers = [
        vec![0.0; 5],
        vec![0.0; 5],
        vec![1.0, 2.0, 4.0, 8.0, 16.0],
        vec![],
        vec![],
    ];
    let out = host(
        &case
            .ours(&tensors(&case.vars(&numbers, DType::F64)))
            .unwrap(),
    );
    let want = [1.0, 3.0 / 2.0, 7.0 / 3.0, 14.0 / 3.0, 28.0 / 3.0];
    assert!(difference(&out, &want) < 1e-15, "{out:?}");
}

#[test]
fn query_heads_read_the_key_heads_in_order() {
    // four query heads on two key heads, one token each: the output is the value of the key head
    let case = Case {
        heads: 4,
        kv_heads: 2,
        dim: 1,
        value_dim: 1,
        ..Case::new(&[1], &[None])
    };
    let numbers = [vec![1.0; 4], vec![1.0; 2], vec![10.0, 20.0], vec![], vec![]];
    let out = host(
        &case
            .ours(&tensors(&case.vars(&numbers, DType::F32)))
            .unwrap(),
    );
    assert_eq!(out, [10.0, 10.0, 20.0, 20.0]);
}
