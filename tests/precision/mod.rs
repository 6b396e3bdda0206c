//! The kernel in single precision against double precision on the same logits, over logits of
//! every kind: up to ±1e4, with −∞, one that dominates, all equal; and the layouts and sizes that
//! stand at the edge.

use crate::common::{self, ALL_STATISTICS, numbers};
use candle_align::{Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;

/// The bound on a log-probability: |error| ≤ ABSOLUTE + RELATIVE · |log p|. The first covers e^x
/// (1.2e-7), the rounding of its argument (6e-8 · log V) and 32 terms added in single precision
/// (1.9e-6); the second is the last rounding of the result.
const ABSOLUTE: f64 = 4e-6;
const RELATIVE: f64 = 1.2e-7;
/// The bound on a probability, relative: as above, with logits up to 87 below the largest.
const SHARE: f64 = 1e-5;
/// What is smaller than this is 0 in single precision.
const TINY: f64 = 1e-37;

/// A row of logits of one kind.
fn row(vocabulary: usize) -> impl Strategy<Value = Vec<f32>> {
    let ordinary = prop::collection::vec(-8f32..8.0, vocabulary);
    let large = prop::collection::vec(-1e4f32..1e4, vocabulary);
    let equal = (-1e4f32..1e4).prop_map(move |x| vec![x; vocabulary]);
    let dominated = (
        prop::collection::vec(-3f32..3.0, vocabulary),
        0..vocabulary,
        30f32..1e4,
    )
        .prop_map(|(mut row, at, by)| {
            row[at] += by;
            row
        });
    // one logit stays finite: a row without any is no distribution
    let forbidden = (
        prop::collection::vec(-8f32..8.0, vocabulary),
        prop::collection::vec(any::<bool>(), vocabulary),
        0..vocabulary,
        0..=vocabulary,
    )
        .prop_map(|(row, out, stays, from)| {
            // all before `from` are forbidden too, be it longer than a block
            let forbids = |i: usize| i != stays && (i < from || out[i]);
            let at = |(i, x): (usize, f32)| match forbids(i) {
                true => f32::NEG_INFINITY,
                false => x,
            };
            row.into_iter().enumerate().map(at).collect()
        });
    prop_oneof![ordinary, large, equal, dominated, forbidden]
}

/// Sizes about the lanes and the blocks of the kernel, and any other.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..70, 1020usize..1060, 2040usize..2060, 1usize..5000]
}

fn table() -> impl Strategy<Value = (Vec<f32>, usize, Vec<u32>)> {
    sizes().prop_flat_map(|vocabulary| {
        let rows = prop::collection::vec(row(vocabulary), 1..4);
        (rows, prop::collection::vec(0..vocabulary as u32, 4)).prop_map(move |(rows, targets)| {
            let targets = targets[..rows.len()].to_vec();
            (rows.concat(), vocabulary, targets)
        })
    })
}

fn log_probs(logits: &Var, targets: &[u32], ask: Statistics) -> TokenLogProbs {
    let targets = Tensor::from_slice(targets, (1, targets.len()), &Device::Cpu).unwrap();
    let mask = targets.ones_like().unwrap().to_dtype(DType::U8).unwrap();
    TokenLogProbs::aligned(logits, &targets, &mask, ask).unwrap()
}

fn var(data: &[f32], vocabulary: usize, dtype: DType) -> Var {
    let shape = (1, data.len() / vocabulary, vocabulary);
    let tensor = Tensor::from_slice(data, shape, &Device::Cpu).unwrap();
    Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_are_within_their_bound((data, vocabulary, targets) in table()) {
        let single = log_probs(&var(&data, vocabulary, DType::F32), &targets, ALL_STATISTICS);
        let double = log_probs(&var(&data, vocabulary, DType::F64), &targets, ALL_STATISTICS);
        for (what, got, want) in [
            ("log p", single.values(), double.values()),
            ("entropy", single.entropy().unwrap(), double.entropy().unwrap()),
            ("log Σp²", single.log_collision().unwrap(), double.log_collision().unwrap()),
            ("mean", single.vocabulary_mean().unwrap(), double.vocabulary_mean().unwrap()),
        ] {
            // the statistics sum more terms than log p does, each weighted by up to log V
            let slack = if what == "log p" { 1.0 } else { 10.0 };
            for (g, w) in numbers(got).into_iter().zip(numbers(want)) {
                if w == f64::NEG_INFINITY {
                    prop_assert_eq!(g, w, "{} of an impossible symbol", what);
                    continue;
                }
                let bound = slack * (ABSOLUTE + RELATIVE * w.abs());
                prop_assert!((g - w).abs() <= bound, "{}: {} against {}", what, g, w);
            }
        }
    }

    #[test]
    fn gradients_are_within_it_too_and_each_row_sums_to_nothing((data, vocabulary, targets) in table()) {
        let gradient = |dtype: DType| {
            let logits = var(&data, vocabulary, dtype);
            let loss = log_probs(&logits, &targets, Statistics::default()).values().sum_all().unwrap();
            // a target that is impossible has log p = −∞ and the gradient onehot − p all the same
            numbers(loss.backward().unwrap().get(&logits).unwrap())
        };
        let (single, double) = (gradient(DType::F32), gradient(DType::F64));
        let rows = single.chunks(vocabulary).zip(double.chunks(vocabulary));
        for ((got, want), target) in rows.zip(&targets) {
            let (mut sum, mut size) = (0.0, 0.0);
            for (v, (g, w)) in got.iter().zip(want).enumerate() {
                // 1 − p is rounded like 1; any other p to a share of itself
                let bound = if v == *target as usize { ABSOLUTE } else { SHARE * w.abs() + TINY };
                prop_assert!((g - w).abs() <= bound, "{} against {}", g, w);
                (sum, size) = (sum + g, size + g.abs());
            }
            prop_assert!(sum.abs() <= ABSOLUTE * size + RELATIVE, "sums to {}", sum);
        }
    }
}

#[test]
fn an_impossible_symbol_gets_no_gradient_and_an_impossible_target_a_finite_one() {
    let forbidden = f32::NEG_INFINITY;
    let logits = var(&[0.5, forbidden, -0.5, forbidden, 1.0, 2.0], 3, DType::F32);
    let out = log_probs(&logits, &[1, 2], Statistics::default());
    assert_eq!(numbers(out.values())[0], f64::NEG_INFINITY);
    let grads = out.values().sum_all().unwrap().backward().unwrap();
    let p = common::sigma(1.0);
    let want = [-p, 1.0, p - 1.0, 0.0, p - 1.0, 1.0 - p];
    common::assert_close(
        &numbers(grads.get(&logits).unwrap()),
        &want,
        ABSOLUTE,
        "gradient",
    );
    assert_eq!(numbers(grads.get(&logits).unwrap())[3], 0.0);
}

#[test]
fn a_forbidden_beginning_of_any_length_adds_nothing_and_hides_no_nan() {
    let forbidden = f32::NEG_INFINITY;
    for before in [1, 1023, 1024, 1025, 2500] {
        let mut row = vec![forbidden; before];
        row.extend([1.5; 500]);
        let vocabulary = row.len();
        let logits = var(&row, vocabulary, DType::F32);
        let out = log_probs(&logits, &[before as u32], ALL_STATISTICS);
        let uniform = (500f64).ln();
        for (column, want) in [
            (out.values(), -uniform),
            (out.entropy().unwrap(), uniform),
            (out.log_collision().unwrap(), -uniform),
            (out.vocabulary_mean().unwrap(), -uniform),
        ] {
            common::assert_close(&numbers(column), &[want], ABSOLUTE, &format!("{before}"));
        }
        row[before / 2] = f32::NAN;
        let out = log_probs(
            &var(&row, vocabulary, DType::F32),
            &[before as u32],
            Statistics::default(),
        );
        assert!(numbers(out.values())[0].is_nan(), "{before}");
    }
}

#[test]
fn a_vocabulary_of_one_is_certain() {
    let logits = var(&[3.0, -7.0], 1, DType::F32);
    let out = log_probs(&logits, &[0, 0], ALL_STATISTICS);
    for column in [
        out.values(),
        out.entropy().unwrap(),
        out.log_collision().unwrap(),
    ] {
        assert_eq!(numbers(column), [0.0, 0.0]);
    }
    let grads = out.values().sum_all().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(&logits).unwrap()), [0.0, 0.0]);
}

#[test]
fn no_rows_are_no_log_probabilities() {
    let logits = Tensor::zeros((0, 3, 5), DType::F32, &Device::Cpu).unwrap();
    let mask = Tensor::zeros((0, 3), DType::U8, &Device::Cpu).unwrap();
    for dtype in [DType::U32, DType::I64] {
        let tokens = Tensor::zeros((0, 3), dtype, &Device::Cpu).unwrap();
        let out = TokenLogProbs::next_token(&logits, &tokens, &mask).unwrap();
        assert_eq!(out.values().dims(), [0, 2]);
    }
}

#[test]
fn a_row_with_nan_says_so_and_leaves_the_others_alone() {
    let logits = var(&[0.0, f32::NAN, 1.0, 2.0, 0.5, -1.0], 3, DType::F32);
    let out = log_probs(&logits, &[0, 0], ALL_STATISTICS);
    let values = numbers(out.values());
    assert!(values[0].is_nan() && values[1].is_finite());

    let targets = Tensor::new(&[[0u32, 0]], &Device::Cpu).unwrap();
    let second = Tensor::new(&[[0u8, 1]], &Device::Cpu).unwrap();
    let out = TokenLogProbs::aligned(&logits, &targets, &second, ALL_STATISTICS).unwrap();
    assert_eq!(numbers(out.values())[0], 0.0);
    let grads = out.values().sum_all().unwrap().backward().unwrap();
    let gradient = numbers(grads.get(&logits).unwrap());
    assert_eq!(gradient[..3], [0.0; 3]);
    assert!(gradient[3..].iter().all(|g| g.is_finite()));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let data: Vec<f32> = (0..40 * 3000)
        .map(|i| ((i * 7919) % 1009) as f32 / 50.0)
        .collect();
    let targets: Vec<u32> = (0..40).map(|i| i * 70).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let logits = var(&data, 3000, DType::F32);
            let out = log_probs(&logits, &targets, ALL_STATISTICS);
            let grads = out.values().sum_all().unwrap().backward().unwrap();
            [
                numbers(out.values()),
                numbers(out.entropy().unwrap()),
                numbers(grads.get(&logits).unwrap()),
            ]
            .concat()
        })
    };
    let one: Vec<u64> = run(1).iter().map(|x| x.to_bits()).collect();
    let four: Vec<u64> = run(4).iter().map(|x| x.to_bits()).collect();
    assert!(one == four);
}

#[test]
fn half_precision_gradients_are_those_of_the_rounded_logits() {
    let data: Vec<f32> = (0..2 * 1500)
        .map(|i| ((i * 31) % 97) as f32 / 16.0)
        .collect();
    for dtype in [DType::BF16, DType::F16] {
        let narrow = var(&data, 1500, dtype);
        let rounded = narrow
            .to_dtype(DType::F32)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let wide = var(&rounded, 1500, DType::F32);
        let gradient = |logits: &Var| {
            let out = log_probs(logits, &[3, 1400], ALL_STATISTICS);
            let loss = (out.values().sum_all().unwrap()
                + out.entropy().unwrap().sum_all().unwrap())
            .unwrap();
            let grads = loss.backward().unwrap();
            assert_eq!(grads.get(logits).unwrap().dtype(), logits.dtype());
            (numbers(out.values()), numbers(grads.get(logits).unwrap()))
        };
        let ((a, x), (b, y)) = (gradient(&narrow), gradient(&wide));
        common::assert_close(&a, &b, 1e-6, "values");
        for (x, y) in x.iter().zip(&y) {
            assert!(
                (x - y).abs() <= 8e-3 * y.abs().max(1e-4),
                "{dtype:?}: {x} against {y}"
            );
        }
    }
}
