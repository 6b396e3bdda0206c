use crate::common::{bits, matrix, vector};
use candle_align::math::Whiten;
use candle_align::math::{plackett_luce, whiten};
use candle_align::{Candidates, Pair, Reduction, Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor};

fn logits() -> Tensor {
    Tensor::zeros((2, 3, 5), DType::F32, &Device::Cpu).unwrap()
}

fn tokens(rows: [[i64; 3]; 2]) -> Tensor {
    Tensor::new(&rows, &Device::Cpu).unwrap()
}

fn next_token(logits: &Tensor, tokens: &Tensor, mask: &Tensor) -> String {
    TokenLogProbs::next_token(logits, tokens, mask)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_token_outside_the_vocabulary_is_named() {
    let ones = bits(&[&[1, 1, 1], &[1, 1, 1]]);
    for bad in [5, -100, -1, u32::MAX as i64] {
        let tokens = tokens([[0, 1, 2], [0, bad, 1]]);
        assert_eq!(
            next_token(&logits(), &tokens, &ones),
            format!(
                "TokenLogProbs::next_token: `tokens` holds {bad} in row 1, outside the vocabulary of 5"
            )
        );
    }
    let targets = Tensor::new(&[[0u32, 1, 7], [0, 1, 2]], &Device::Cpu).unwrap();
    let error = TokenLogProbs::aligned(&logits(), &targets, &ones, Statistics::default());
    assert_eq!(
        error.unwrap_err().to_string(),
        "TokenLogProbs::aligned: `targets` holds 7 in row 0, outside the vocabulary of 5"
    );
}

#[test]
fn shapes_and_types_of_the_door() {
    let ones = bits(&[&[1, 1, 1], &[1, 1, 1]]);
    let fine = tokens([[0; 3]; 2]);
    assert_eq!(
        next_token(&logits(), &fine.narrow(1, 0, 2).unwrap(), &ones),
        "TokenLogProbs::next_token: `tokens` has shape [2, 2], expected [batch=2 (from `logits`), \
         time=3 (from `logits`)]"
    );
    assert_eq!(
        next_token(&logits(), &fine, &ones.to_dtype(DType::F32).unwrap()),
        "TokenLogProbs::next_token: `mask` is f32, expected u8"
    );
    assert_eq!(
        next_token(&logits(), &fine.to_dtype(DType::F32).unwrap(), &ones),
        "TokenLogProbs::next_token: `tokens` is f32, expected u32 or i64"
    );
    assert_eq!(
        next_token(&logits().to_dtype(DType::U32).unwrap(), &fine, &ones),
        "TokenLogProbs::next_token: `logits` is u32, expected f32, f64, bf16 or f16"
    );
    let one = |t: &Tensor| t.narrow(1, 0, 1).unwrap();
    assert_eq!(
        next_token(&one(&logits()), &one(&fine), &one(&ones)),
        "TokenLogProbs::next_token: `tokens` has 1 position(s); the first predicts the second, so \
         two are needed"
    );
    assert_eq!(
        TokenLogProbs::new(&vector(&[1.0]), &ones)
            .unwrap_err()
            .to_string(),
        "TokenLogProbs::new: `values` has shape [1], expected [batch, time]"
    );
}

#[test]
fn a_length_penalty_out_of_range() {
    let log_probs = TokenLogProbs::new(&matrix(&[&[-1.0]]), &bits(&[&[1]])).unwrap();
    assert_eq!(
        log_probs.length_penalized(-1.0).unwrap_err().to_string(),
        "TokenLogProbs::length_penalized: `alpha` must be finite and >= 0, got -1"
    );
}

#[test]
fn pairs_and_candidates() {
    assert_eq!(
        Pair::from_rows(&vector(&[1.0, 2.0, 3.0]))
            .unwrap_err()
            .to_string(),
        "Pair::from_rows: `rows` has shape [3]; its first axis must be even"
    );
    let scalar = Tensor::new(1.0, &Device::Cpu).unwrap();
    assert_eq!(
        Pair::from_rows(&scalar).unwrap_err().to_string(),
        "Pair::from_rows: `rows` has shape []; its first axis must be even"
    );
    let (sums, lengths) = (matrix(&[&[-1.0, -2.0]]), matrix(&[&[1.0, 2.0]]));
    let rewards = matrix(&[&[1.0, f64::NAN]]);
    assert_eq!(
        Candidates::new(&sums, &lengths, &rewards, None)
            .unwrap_err()
            .to_string(),
        "Candidates::new: `rewards` holds NaN at flat position 1; it must be finite where the mask \
         counts"
    );
    let lengths = matrix(&[&[f64::INFINITY, 2.0]]);
    assert_eq!(
        Candidates::new(&sums, &lengths, &sums, None)
            .unwrap_err()
            .to_string(),
        "Candidates::new: `lengths` holds inf at flat position 0; it must be finite where the mask \
         counts"
    );
    let lengths = matrix(&[&[1.0, -3.0]]);
    assert_eq!(
        Candidates::new(&sums, &lengths, &sums, None)
            .unwrap_err()
            .to_string(),
        "Candidates::new: `lengths` is below 1 at flat position 1; a mean over it has no meaning"
    );
    let log_probs = TokenLogProbs::new(&sums, &bits(&[&[1, 1]])).unwrap();
    assert_eq!(
        Candidates::from_token_log_probs(&log_probs, &sums, None)
            .unwrap_err()
            .to_string(),
        "Candidates::from_token_log_probs: `log_probs` has 1 rows, expected 1 · 2 (from `rewards`)"
    );
}

#[test]
fn reductions() {
    let (loss, mask) = (matrix(&[&[1.0]]), bits(&[&[1]]));
    for reduction in [
        Reduction::SumOver { count: 0.0 },
        Reduction::SequenceMeansOver { count: 0.0 },
    ] {
        assert_eq!(
            reduction.apply(&loss, &mask).unwrap_err().to_string(),
            "Reduction::apply: `count` must be finite and > 0, got 0"
        );
    }
    let other = bits(&[&[1, 1]]);
    assert_eq!(
        Reduction::Sum.apply(&loss, &other).unwrap_err().to_string(),
        "Reduction::apply: `mask` has shape [1, 2], expected [batch=1 (from `loss`), time=1 (from `loss`)]"
    );
    assert_eq!(
        Reduction::Sum.count(&loss).unwrap_err().to_string(),
        "Reduction::count: `mask` is f64, expected u8"
    );
}

#[test]
fn primitives() {
    let (x, mask) = (matrix(&[&[1.0, 2.0]]), bits(&[&[1, 1]]));
    assert_eq!(
        plackett_luce(&x, &vector(&[1.0]), &mask)
            .unwrap_err()
            .to_string(),
        "plackett_luce: `rewards` has shape [1], expected [batch=1 (from `scores`), k=2 (from `scores`)]"
    );
    assert_eq!(
        whiten(&x, &x, Whiten::ZeroMean).unwrap_err().to_string(),
        "whiten: `mask` is f64, expected u8"
    );
}
