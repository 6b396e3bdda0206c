//! A mask of all tokens and one of the predicted tokens differ by one column: who is given the wrong
//! one is told which it is.

use crate::common::{bits, matrix, says};
use candle_align::{OutputHead, Statistics, TokenLogProbs};
use candle_core::{DType, Device, Tensor};

const SHIFTED: &str = "one for each token, the first included: this mask is shifted already";
const WHOLE: &str = "one for each predicted token: this mask holds the first one too, so leave its first \
                     column out, by `mask.narrow(1, 1, time)`";

fn mask(columns: usize) -> Tensor {
    Tensor::ones((2, columns), DType::U8, &Device::Cpu).unwrap()
}

fn tokens(columns: usize) -> Tensor {
    Tensor::zeros((2, columns), DType::U32, &Device::Cpu).unwrap()
}

fn floats(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap()
}

#[test]
fn a_mask_that_is_shifted_already_is_told_so_where_tokens_are_shifted() {
    let of = |mask: &Tensor| TokenLogProbs::next_token(&floats(&[2, 4, 5]), &tokens(4), mask);
    let shape = "expected [batch=2 (from `logits`), time=4 (from `logits`)";
    let next = "TokenLogProbs::next_token: `mask` has shape";
    says(of(&mask(3)), &format!("{next} [2, 3], {shape}; {SHIFTED}]"));
    assert!(of(&mask(4)).is_ok());
    // off by more than the shift, or otherwise: no guess
    says(of(&mask(5)), &format!("{next} [2, 5], {shape}]"));
    says(of(&mask(2)), &format!("{next} [2, 2], {shape}]"));
    let row = bits(&[&[1, 1, 1]]);
    says(of(&row), &format!("{next} [1, 3], {shape}]"));
    says(
        of(&row.squeeze(0).unwrap()),
        &format!("{next} [3], {shape}]"),
    );

    let head = OutputHead::new(&floats(&[5, 3]), None).unwrap();
    let hidden = floats(&[2, 4, 3]);
    says(
        TokenLogProbs::from_hidden(&hidden, &head, &tokens(4), &mask(3), Statistics::default()),
        &format!(
            "TokenLogProbs::from_hidden: `mask` has shape [2, 3], expected [batch=2 (from `hidden`), \
             time=4 (from `hidden`); {SHIFTED}]"
        ),
    );
}

#[test]
fn a_mask_of_all_tokens_is_told_so_where_nothing_is_shifted() {
    let values = matrix(&[&[-1.0, -2.0, -3.0], &[-1.0, -2.0, -3.0]]);
    let of = |mask: &Tensor| TokenLogProbs::new(&values, mask);
    let shape = "expected [batch=2 (from `values`), time=3 (from `values`)";
    let new = "TokenLogProbs::new: `mask` has shape";
    says(of(&mask(4)), &format!("{new} [2, 4], {shape}; {WHOLE}]"));
    // and what it says is right
    assert!(of(&mask(4).narrow(1, 1, 3).unwrap()).is_ok());
    says(of(&mask(2)), &format!("{new} [2, 2], {shape}]"));

    let statistics = Statistics::default();
    says(
        TokenLogProbs::aligned(&floats(&[2, 3, 5]), &tokens(3), &mask(4), statistics),
        &format!(
            "TokenLogProbs::aligned: `mask` has shape [2, 4], expected [batch=2 (from `logits`), time=3 \
             (from `logits`); {WHOLE}]"
        ),
    );
}
