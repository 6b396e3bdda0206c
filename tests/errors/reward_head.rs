use crate::common::{bits, matrix, vector};
use candle_align::online::reward_head::{RewardHead, RewardNormalization};
use candle_core::{DType, Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).expect("zeros")
}

fn head() -> RewardHead {
    RewardHead::from_tensors(&matrix(&[&[1.0, 2.0]]), None).expect("a head")
}

fn refused(hidden: &Tensor, mask: &Tensor) -> String {
    head()
        .forward(hidden, mask)
        .expect_err("a mistake")
        .to_string()
}

#[test]
fn a_head_is_of_some_width_and_of_f32_or_f64() {
    let mut rng = StdRng::seed_from_u64(1);
    let error = RewardHead::new(0, &mut rng, DType::F32, &Device::Cpu).expect_err("no width");
    assert_eq!(
        error.to_string(),
        "RewardHead::new: `dim` must be at least 1, got 0"
    );
    let error = RewardHead::new(2, &mut rng, DType::BF16, &Device::Cpu).expect_err("bf16");
    assert_eq!(
        error.to_string(),
        "RewardHead::new: `dtype` is bf16, expected f32 or f64"
    );
}

#[test]
fn saved_tensors_have_the_shapes_of_a_head() {
    let of = |weight: &Tensor, bias: Option<&Tensor>| {
        RewardHead::from_tensors(weight, bias)
            .expect_err("a mistake")
            .to_string()
    };
    let good = matrix(&[&[1.0, 2.0]]);
    assert_eq!(
        of(&zeros(&[2, 3], DType::F64), None),
        "RewardHead::from_tensors: `weight` has shape [2, 3], expected [1, dim]"
    );
    assert_eq!(
        of(&zeros(&[3], DType::F64), None),
        "RewardHead::from_tensors: `weight` has shape [3], expected [1, dim]"
    );
    assert_eq!(
        of(&zeros(&[1, 3], DType::F16), None),
        "RewardHead::from_tensors: `weight` is f16, expected f32 or f64"
    );
    assert_eq!(
        of(&good, Some(&zeros(&[2], DType::F64))),
        "RewardHead::from_tensors: `bias` has shape [2], expected [1]"
    );
    assert_eq!(
        of(&good, Some(&zeros(&[1, 1], DType::F64))),
        "RewardHead::from_tensors: `bias` has shape [1, 1], expected [1]"
    );
    assert_eq!(
        of(&good, Some(&zeros(&[1], DType::F32))),
        "RewardHead::from_tensors: `bias` is f32, expected f64 (from `weight`)"
    );
}

#[test]
fn hidden_states_and_mask_fit_the_head_and_each_other() {
    let hidden = zeros(&[2, 3, 2], DType::F64);
    let mask = bits(&[&[1, 1, 1], &[1, 1, 0]]);
    assert_eq!(
        refused(&zeros(&[2, 3, 4], DType::F64), &mask),
        "RewardHead::forward: `hidden` has shape [2, 3, 4], expected [batch, time, dim=2 (from `weight`)]"
    );
    assert_eq!(
        refused(&zeros(&[2, 2], DType::F64), &mask),
        "RewardHead::forward: `hidden` has shape [2, 2], expected [batch, time, dim=2 (from `weight`)]"
    );
    assert_eq!(
        refused(&zeros(&[2, 3, 2], DType::U32), &mask),
        "RewardHead::forward: `hidden` is u32, expected f32, f64, bf16 or f16"
    );
    assert_eq!(
        refused(&hidden, &bits(&[&[1, 1], &[1, 1]])),
        "RewardHead::forward: `mask` has shape [2, 2], expected [batch=2 (from `hidden`), time=3 (from `hidden`)]"
    );
    assert_eq!(
        refused(&hidden, &zeros(&[2, 3], DType::F64)),
        "RewardHead::forward: `mask` is f64, expected u8"
    );
}

#[test]
fn a_row_without_a_token_is_named() {
    let hidden = zeros(&[2, 3, 2], DType::F64);
    assert_eq!(
        refused(&hidden, &bits(&[&[0, 1, 0], &[0, 0, 0]])),
        "RewardHead::forward: `mask` counts no token in row 1; its score has no position to be read at"
    );
}

#[test]
fn a_scale_is_fitted_on_finite_scores_that_differ() {
    let empty = zeros(&[0], DType::F64);
    let odd = vector(&[1.0, f64::INFINITY]);
    let square = zeros(&[2, 2], DType::F64);
    let whole = zeros(&[2], DType::U32);

    let mean = |scores: &Tensor| {
        RewardNormalization::zero_mean(scores)
            .expect_err("a mistake")
            .to_string()
    };
    assert_eq!(
        mean(&empty),
        "RewardNormalization::zero_mean: `scores` is empty"
    );
    assert_eq!(
        mean(&odd),
        "RewardNormalization::zero_mean: `scores` holds inf at position 1; it must be finite"
    );
    assert_eq!(
        mean(&square),
        "RewardNormalization::zero_mean: `scores` has shape [2, 2], expected [batch]"
    );
    assert_eq!(
        mean(&whole),
        "RewardNormalization::zero_mean: `scores` is u32, expected f32 or f64"
    );

    let variance = |scores: &Tensor| {
        RewardNormalization::zero_mean_unit_variance(scores)
            .expect_err("a mistake")
            .to_string()
    };
    assert_eq!(
        variance(&empty),
        "RewardNormalization::zero_mean_unit_variance: `scores` is empty"
    );
    assert_eq!(
        variance(&vector(&[0.1, 0.1, 0.1])),
        "RewardNormalization::zero_mean_unit_variance: `scores` holds 0.1 alone; equal scores have no spread"
    );
}

#[test]
fn a_scale_that_was_read_from_a_file_is_checked() {
    let with = |gain: f64, bias: f64| {
        RewardNormalization { gain, bias }
            .apply(&vector(&[1.0]))
            .expect_err("a mistake")
            .to_string()
    };
    assert_eq!(
        with(0.0, 1.0),
        "RewardNormalization::apply: `gain` must be finite and > 0, got 0"
    );
    assert_eq!(
        with(1.0, f64::NAN),
        "RewardNormalization::apply: `bias` must be finite, got NaN"
    );
    let identity = RewardNormalization {
        gain: 1.0,
        bias: 0.0,
    };
    let error = identity.apply(&zeros(&[2], DType::U32)).expect_err("u32");
    assert_eq!(
        error.to_string(),
        "RewardNormalization::apply: `scores` is u32, expected f32 or f64"
    );
}
