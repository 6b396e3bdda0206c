//! What holds for every layout: sharing, isolation, threads, layouts in memory, constants, extremes.

use super::case::{Case, difference, host, passes, tensors};
use super::values::{cases, tree};
use candle_align::ops::{AttentionConfig, Segments, attention};
use candle_core::{DType, Device, Tensor, Var};

/// The rows of a case, each with all of its tokens, padded to one length as a batch of rows.
fn padded_rows(case: &Case, rows: &[Vec<u32>], x: &[Tensor]) -> (Case, Vec<Tensor>) {
    let time = rows.iter().map(Vec::len).max().unwrap() + 3;
    let gather = |x: &Tensor| -> Tensor {
        let indices = rows.iter().flat_map(|row| {
            // the padding is some other token, at the end, where no one sees it
            row.iter()
                .copied()
                .chain(std::iter::repeat_n(row[0], time - row.len()))
        });
        let indices = Tensor::new(indices.collect::<Vec<_>>(), &Device::Cpu).unwrap();
        x.index_select(&indices, 0).unwrap()
    };
    let of = Case {
        lengths: vec![time; rows.len()],
        parents: vec![None; rows.len()],
        ..case.clone()
    };
    let mut all = x.to_vec();
    all[..3].iter_mut().for_each(|x| *x = gather(x));
    (of, all)
}

/// The tokens of padded rows that are not padding, in order.
fn unpadded(rows: &[Vec<u32>], x: &Tensor) -> Tensor {
    let time = x.dim(0).unwrap() / rows.len();
    let kept = rows
        .iter()
        .enumerate()
        .flat_map(|(i, row)| (0..row.len()).map(move |t| (i * time + t) as u32));
    x.index_select(
        &Tensor::new(kept.collect::<Vec<_>>(), &Device::Cpu).unwrap(),
        0,
    )
    .unwrap()
}

#[test]
fn a_shared_prompt_is_one_in_each_row() {
    for case in cases() {
        if case.own_prefix {
            continue; // its rows share a prefix, which separate rows would not
        }
        let segments = case.segments();
        let rows: Vec<Vec<u32>> = segments
            .rows()
            .into_iter()
            .filter(|row| !row.is_empty())
            .collect();
        let flat: Vec<u32> = rows.iter().flatten().copied().collect();
        let numbers = case.numbers(3);
        for (dtype, bound) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
            let vars = case.vars(&numbers, dtype);
            let weights: Vec<f64> = (0..flat.len() * case.heads * case.value_dim)
                .map(|i| (i as f64).sin())
                .collect();
            let shared = case.ours(&tensors(&vars)).unwrap();
            let shared = shared
                .index_select(&Tensor::new(flat.clone(), &Device::Cpu).unwrap(), 0)
                .unwrap();
            let (separate, x) = padded_rows(&case, &rows, &tensors(&vars));
            let separate = unpadded(&rows, &separate.ours(&x).unwrap());
            let (a, b) = (
                passes(&shared, &weights, &vars),
                passes(&separate, &weights, &vars),
            );
            let worst = difference(&a.0, &b.0);
            assert!(worst < bound, "values {dtype:?} {worst} {case:?}");
            // the gradient of the prompt is the sum over its rows
            for (a, b) in a.1.iter().zip(&b.1) {
                let worst = difference(a, b);
                assert!(worst < bound, "gradients {dtype:?} {worst} {case:?}");
            }
        }
    }
}

#[test]
fn no_token_reaches_one_that_does_not_see_it() {
    let case = Case {
        heads: 2,
        dim: 4,
        prefix: 2,
        window: Some(30),
        ..Case::new(
            &[20, 9, 25, 40, 8],
            &[None, Some(0), Some(0), None, Some(2)],
        )
    };
    let numbers = case.numbers(4);
    let weights = numbers.last().unwrap();
    let sees = |query: usize, key: usize| {
        let path = case.path(query);
        path[path.len().saturating_sub(30)..].contains(&key)
    };
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for token in [0, 19, 20, 25, 28, 29, 53, 54, 70, 93, 94, 101] {
            for argument in 0..3 {
                let vars = case.vars(&numbers, DType::F64);
                let clean = passes(&case.ours(&tensors(&vars)).unwrap(), weights, &vars);
                let mut numbers = numbers.clone();
                let width = numbers[argument].len() / case.tokens();
                numbers[argument][token * width] = bad;
                let vars = case.vars(&numbers, DType::F64);
                let dirty = passes(&case.ours(&tensors(&vars)).unwrap(), weights, &vars);
                let row = |data: &[f64], t: usize| -> Vec<f64> {
                    let width = data.len() / case.tokens();
                    data[t * width..][..width].to_vec()
                };
                for other in 0..case.tokens() {
                    let reached = match argument {
                        0 => other == token,
                        _ => sees(other, token),
                    };
                    let place = format!("{bad} in {argument} of {token}, seen from {other}");
                    if !reached {
                        let off = difference(&row(&dirty.0, other), &row(&clean.0, other));
                        assert!(off < 1e-12, "{place}");
                        let off = difference(&row(&dirty.1[0], other), &row(&clean.1[0], other));
                        assert!(off < 1e-12, "dq, {place}");
                    }
                    // its keys' gradients are sums over the queries that see it
                    let touched = (0..case.tokens()).any(|query| {
                        let reached = match argument {
                            0 => query == token,
                            _ => sees(query, token),
                        };
                        reached && sees(query, other)
                    });
                    if !touched {
                        for i in [1, 2] {
                            let off =
                                difference(&row(&dirty.1[i], other), &row(&clean.1[i], other));
                            assert!(off < 1e-12, "d{i}, {place}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_gradient_of_nan_stays_with_what_its_query_sees() {
    let case = Case {
        dim: 4,
        ..Case::new(&[6, 5, 7], &[None, Some(0), Some(0)])
    };
    let mut numbers = case.numbers(5);
    let vars = case.vars(&numbers, DType::F32);
    let weights = numbers.last_mut().unwrap();
    let width = weights.len() / case.tokens();
    // the second token of the second answer
    weights[12 * width] = f64::NAN;
    let (_, gradients) = passes(&case.ours(&tensors(&vars)).unwrap(), weights, &vars);
    for (i, gradient) in gradients[..3].iter().enumerate() {
        let width = gradient.len() / case.tokens();
        for (token, row) in gradient.chunks(width).enumerate() {
            let reached = match i {
                0 => token == 12,
                _ => case.path(12).contains(&token),
            };
            assert_eq!(row.iter().any(|x| x.is_nan()), reached, "{i} {token}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let case = Case {
        heads: 6,
        kv_heads: 2,
        dim: 8,
        value_dim: 8,
        prefix: 3,
        ..Case::new(
            &[150, 90, 70, 110, 60],
            &[None, Some(0), Some(0), None, Some(1)],
        )
    };
    let numbers = case.numbers(6);
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let vars = case.vars(&numbers, DType::F32);
            passes(
                &case.ours(&tensors(&vars)).unwrap(),
                numbers.last().unwrap(),
                &vars,
            )
        })
    };
    let one = bits(1);
    for threads in [2, 5] {
        assert_eq!(bits(threads), one, "{threads} threads");
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_is_beside_it() {
    let of = |lengths: &[usize]| {
        let case = Case {
            dim: 8,
            ..Case::new(lengths, &vec![None; lengths.len()])
        };
        let mut numbers = case.numbers(7);
        for data in &mut numbers {
            let width = data.len() / case.tokens();
            (0..data.len()).for_each(|i| data[i] = ((i % (300 * width)) as f64 * 0.37).sin());
        }
        let vars = case.vars(&numbers, DType::F32);
        let (out, gradients) = passes(
            &case.ours(&tensors(&vars)).unwrap(),
            numbers.last().unwrap(),
            &vars,
        );
        let first = |data: &Vec<f64>| data[..300 * data.len() / case.tokens()].to_vec();
        (
            first(&out),
            gradients[..3].iter().map(first).collect::<Vec<_>>(),
        )
    };
    assert_eq!(of(&[300]), of(&[300, 40, 7]));
}

#[test]
fn a_view_is_its_copy() {
    for case in [
        tree(),
        Case {
            prefix: 2,
            ..tree()
        },
    ] {
        let numbers = case.numbers(8);
        let weights = numbers.last().unwrap();
        let vars = case.vars(&numbers, DType::F64);
        let want = passes(&case.ours(&tensors(&vars)).unwrap(), weights, &vars);
        let views: Vec<Tensor> = tensors(&vars)
            .iter()
            .map(|x| {
                // the axes in another order in memory, and more rows around
                let rank = x.rank();
                let turned = x.transpose(0, rank - 1).unwrap().contiguous().unwrap();
                let around = Tensor::cat(&[&turned, &turned, &turned], rank - 1).unwrap();
                let n = x.dim(0).unwrap();
                around
                    .narrow(rank - 1, n, n)
                    .unwrap()
                    .transpose(0, rank - 1)
                    .unwrap()
            })
            .collect();
        assert!(views.iter().take(3).all(|x| !x.is_contiguous()));
        let got = passes(&case.ours(&views).unwrap(), weights, &vars);
        assert_eq!(got, want);
    }
}

#[test]
fn constants_get_no_gradient() {
    let case = Case {
        prefix: 2,
        ..tree()
    };
    let numbers = case.numbers(9);
    for trained in 0..5 {
        let vars = case.vars(&numbers, DType::F64);
        let mut x = tensors(&vars);
        for (i, x) in x.iter_mut().enumerate() {
            if i != trained {
                *x = x.detach();
            }
        }
        let out = case.ours(&x).unwrap();
        let gradients = out.sum_all().unwrap().backward().unwrap();
        for (i, x) in x.iter().enumerate() {
            let found = gradients.get(x).is_some();
            assert_eq!(found, i == trained, "{trained} {i}");
        }
    }
    let vars = case.vars(&numbers, DType::F64);
    let x: Vec<Tensor> = tensors(&vars).iter().map(Tensor::detach).collect();
    assert!(!case.ours(&x).unwrap().track_op());
}

#[test]
fn huge_scores_choose_one_key() {
    let segments = Segments::from_lengths(&[3]).unwrap();
    let column = |x: [f32; 3]| {
        Var::from_tensor(
            &Tensor::new(&x, &Device::Cpu)
                .unwrap()
                .reshape((3, 1, 1))
                .unwrap(),
        )
        .unwrap()
    };
    let (q, v) = (column([1.0, 1.0, -1.0]), column([5.0, 7.0, 9.0]));
    let k = column([1e4, -1e4, 0.0]);
    let out = attention(&q, &k, &v, &segments, &AttentionConfig::default()).unwrap();
    // scores 10⁴; 10⁴, −10⁴; −10⁴, 10⁴, 0
    assert_eq!(host(&out), [5.0, 5.0, 7.0]);
    let gradients = out.sum_all().unwrap().backward().unwrap();
    assert_eq!(host(gradients.get(&v).unwrap()), [2.0, 1.0, 0.0]);
    for x in [&q, &k] {
        assert_eq!(host(gradients.get(x).unwrap()), [0.0; 3]);
    }
}

#[test]
fn a_score_of_minus_infinity_hides_a_key() {
    let segments = Segments::from_lengths(&[3]).unwrap();
    let column = |x: [f64; 3]| {
        Tensor::new(&x, &Device::Cpu)
            .unwrap()
            .reshape((3, 1, 1))
            .unwrap()
    };
    let (q, k, v) = (
        column([1.0; 3]),
        column([0.0, f64::NEG_INFINITY, 0.0]),
        column([5.0, 7.0, 9.0]),
    );
    let out = attention(&q, &k, &v, &segments, &AttentionConfig::default()).unwrap();
    assert_eq!(host(&out), [5.0, 5.0, 7.0]);
    // what is hidden has no part in the gradient
    let v = Var::from_tensor(&v).unwrap();
    let out = attention(&q, &k, &v, &segments, &AttentionConfig::default()).unwrap();
    let gradients = out.sum_all().unwrap().backward().unwrap();
    assert_eq!(host(gradients.get(&v).unwrap()), [2.5, 0.0, 0.5]);
    // nothing is left to choose from
    let k = column([f64::NEG_INFINITY, 0.0, 0.0]);
    let out = host(&attention(&q, &k, &v, &segments, &AttentionConfig::default()).unwrap());
    assert!(out[0].is_nan(), "{out:?}");
    assert_eq!(out[1..], [7.0, 8.0]);
}

#[test]
fn a_head_reaches_no_other_head() {
    // more heads than a tile holds, so that tiles differ in width
    let case = Case {
        heads: 53,
        dim: 2,
        ..Case::new(&[3], &[None])
    };
    let mut numbers = case.numbers(10);
    numbers[0][1] = f64::NAN;
    let vars = case.vars(&numbers, DType::F64);
    let (out, gradients) = passes(
        &case.ours(&tensors(&vars)).unwrap(),
        numbers.last().unwrap(),
        &vars,
    );
    for data in [&out, &gradients[0]] {
        let found = data.iter().map(|x| x.is_nan());
        assert!(found.enumerate().all(|(i, nan)| nan == (i < 2)), "{data:?}");
    }
}
