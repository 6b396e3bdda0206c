//! The layout itself: positions, rows, shared beginnings, and the way to log-probabilities.

use super::case::{difference, host};
use candle_align::ops::Segments;
use candle_align::{OutputHead, Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;

#[test]
fn positions_and_rows_follow_the_path() {
    // a prompt, two answers, a second turn below the second answer
    let segments = Segments::new(&[2, 1, 2, 1], &[None, Some(0), Some(0), Some(2)]).unwrap();
    assert_eq!(segments.tokens(), 6);
    assert_eq!(segments.trees(), 1);
    assert_eq!(segments.bounds(), [0..2, 2..3, 3..5, 5..6]);
    assert_eq!(segments.parents(), [None, Some(0), Some(0), Some(2)]);
    assert_eq!(segments.positions(), [0, 1, 2, 2, 3, 4]);
    assert_eq!(segments.rows(), [vec![0, 1, 2], vec![0, 1, 3, 4, 5]]);
    assert_eq!(segments.row_lengths(), [3, 5]);
    let mask = segments.mask(&Device::Cpu).unwrap();
    assert_eq!(
        mask.to_vec2::<u8>().unwrap(),
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    );

    let rows = Segments::from_lengths(&[2, 0, 1]).unwrap();
    assert_eq!((rows.trees(), rows.positions()), (3, vec![0, 1, 0]));
    assert_eq!(rows.rows(), [vec![0, 1], vec![], vec![2]]);

    let prompts = Segments::from_prompts(&[2, 1], &[vec![1, 0], vec![]]).unwrap();
    assert_eq!(prompts.parents(), [None, Some(0), Some(0), None]);
    assert_eq!(prompts.rows(), [vec![0, 1, 2], vec![0, 1], vec![3]]);
}

#[test]
fn common_beginnings_are_found_once() {
    let of = |rows: &[&[u32]]| {
        let (segments, tokens) = Segments::from_tokens(rows).unwrap();
        (segments.bounds(), segments.parents(), tokens)
    };
    // two pairs
    let (bounds, parents, tokens) = of(&[&[1, 2, 3], &[1, 2, 4, 5], &[6, 7], &[6, 8]]);
    assert_eq!(bounds, [0..2, 2..3, 3..5, 5..6, 6..7, 7..8]);
    assert_eq!(parents, [None, Some(0), Some(0), None, Some(3), Some(3)]);
    assert_eq!(tokens, [1, 2, 3, 4, 5, 6, 7, 8]);
    // a row that ends where another goes on, and one that is there twice
    let (segments, tokens) =
        Segments::from_tokens(&[vec![1u32, 2], vec![1, 2, 3], vec![1, 2], vec![1]]).unwrap();
    assert_eq!(tokens, [1, 2, 3]);
    assert_eq!(
        segments.rows(),
        [vec![0, 1], vec![0, 1, 2], vec![0, 1], vec![0]]
    );
    // nothing at all
    let (segments, tokens) = Segments::from_tokens(&[vec![], vec![4u32], vec![]]).unwrap();
    assert_eq!(
        (segments.rows(), tokens),
        (vec![vec![], vec![0], vec![]], vec![4])
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
    #[test]
    fn shared_rows_are_the_rows(rows in prop::collection::vec(prop::collection::vec(0u32..3, 0..8), 0..8)) {
        let (segments, tokens) = Segments::from_tokens(&rows).unwrap();
        let read = segments.rows().into_iter();
        let read: Vec<Vec<u32>> = read.map(|row| row.iter().map(|i| tokens[*i as usize]).collect()).collect();
        prop_assert_eq!(&read, &rows);
        // as many tokens as there are different beginnings
        let mut beginnings: Vec<&[u32]> = rows.iter().flat_map(|row| (1..=row.len()).map(|n| &row[..n])).collect();
        beginnings.sort();
        beginnings.dedup();
        prop_assert_eq!(segments.tokens(), beginnings.len());
        for (row, length) in segments.rows().iter().zip(segments.row_lengths()) {
            prop_assert_eq!(row.len(), length);
            for (at, token) in row.iter().enumerate() {
                prop_assert_eq!(segments.positions()[*token as usize], at as u32);
            }
        }
    }
}

#[test]
fn rows_of_a_flat_batch_end_in_zeros() {
    let segments = Segments::from_prompts(&[2], &[vec![1, 2]]).unwrap();
    let flat = Tensor::new(
        &[
            [1.0f32, -1.0],
            [2.0, -2.0],
            [3.0, -3.0],
            [4.0, -4.0],
            [f32::NAN, 0.5],
        ],
        &Device::Cpu,
    )
    .unwrap();
    let flat = Var::from_tensor(&flat).unwrap();
    let rows = segments.to_rows(&flat).unwrap();
    let of = rows.to_vec3::<f32>().unwrap();
    assert_eq!(of[0], [[1.0, -1.0], [2.0, -2.0], [3.0, -3.0], [0.0, 0.0]]);
    assert_eq!(of[1][..3], [[1.0, -1.0], [2.0, -2.0], [4.0, -4.0]]);
    assert!(of[1][3][0].is_nan() && of[1][3][1] == 0.5);
    let gradient = rows.sum_all().unwrap().backward().unwrap();
    let counts: Vec<f64> = host(gradient.get(&flat).unwrap());
    // a token of the prompt is in two rows; what is past an end has no gradient to give
    assert_eq!(counts, [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    for dtype in [DType::U8, DType::U32, DType::I64, DType::BF16] {
        let ones = Tensor::ones(5, dtype, &Device::Cpu).unwrap();
        let rows = segments.to_rows(&ones).unwrap();
        assert_eq!(
            host(&rows),
            [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0],
            "{dtype:?}"
        );
    }
    let nothing = Segments::from_lengths(&[]).unwrap();
    let none = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(nothing.to_rows(&none).unwrap().dims(), [0, 0, 3]);
    let empty = Segments::from_lengths(&[0, 0]).unwrap();
    assert_eq!(empty.to_rows(&none).unwrap().dims(), [2, 0, 3]);
}

#[test]
fn log_probabilities_of_a_flat_batch_are_those_of_padded_rows() {
    let (dim, vocabulary) = (3, 7);
    let rows: [Vec<u32>; 3] = [vec![1, 2, 3, 4], vec![1, 2, 5], vec![6, 0, 6, 1, 2]];
    // the answers begin at position 2
    let number = |i: usize| (i as f64 * 0.61).sin();
    let weight: Vec<f64> = (0..vocabulary * dim).map(number).collect();
    let weight = Tensor::from_vec(weight, (vocabulary, dim), &Device::Cpu).unwrap();
    let head = OutputHead::new(&weight, None).unwrap();
    let (segments, tokens) = Segments::from_tokens(&rows).unwrap();

    let hidden: Vec<f64> = (0..tokens.len() * dim).map(|i| number(i + 100)).collect();
    let hidden =
        Var::from_tensor(&Tensor::from_vec(hidden, (tokens.len(), dim), &Device::Cpu).unwrap())
            .unwrap();
    let answer: Vec<u8> = segments
        .positions()
        .iter()
        .map(|p| (*p >= 2) as u8)
        .collect();
    let flat = |x: Tensor| segments.to_rows(&x).unwrap();
    let (answer, tokens) = (
        Tensor::new(answer, &Device::Cpu).unwrap(),
        Tensor::new(tokens, &Device::Cpu).unwrap(),
    );
    let found = TokenLogProbs::from_hidden(
        &segments.to_rows(&hidden).unwrap(),
        &head,
        &flat(tokens),
        &flat(answer),
        Statistics::default(),
    )
    .unwrap();

    // one row at a time, position by position
    let states = hidden.to_vec2::<f64>().unwrap();
    let weight = weight.to_vec2::<f64>().unwrap();
    let mut want = vec![];
    for (row, path) in rows.iter().zip(segments.rows()) {
        for t in 1..5 {
            want.push(match row.get(t) {
                Some(&token) if t >= 2 => {
                    let state = &states[path[t - 1] as usize];
                    let logit = |w: &Vec<f64>| w.iter().zip(state).map(|(a, b)| a * b).sum::<f64>();
                    let all: f64 = weight.iter().map(|w| logit(w).exp()).sum();
                    logit(&weight[token as usize]) - all.ln()
                }
                _ => 0.0,
            });
        }
    }
    assert!(difference(&host(found.values()), &want) < 1e-12);
    // the prompt's last state predicts the first token of both answers
    let gradient = found.sum().unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = host(gradient.get(&hidden).unwrap());
    assert!(
        gradient[dim..2 * dim].iter().all(|g| *g != 0.0),
        "{gradient:?}"
    );
    assert!(gradient[..dim].iter().all(|g| *g == 0.0), "{gradient:?}");
}
