//! A user's mistake is an error in candle's words, and never a panic.

use candle_align::ops::*;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{ops as theirs, rotary_emb};

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn message(result: Result<Tensor>) -> String {
    let error = result.unwrap_err().to_string();
    // without a backtrace
    error.lines().next().unwrap_or_default().to_string()
}

#[test]
fn wrong_shapes_get_candles_messages() {
    let (x, short) = (zeros(&[2, 4]), zeros(&[3]));
    let one = zeros(&[4]);
    let pairs = [
        (
            rms_norm(&x, &short, 1e-5),
            theirs::rms_norm(&x, &short, 1e-5),
        ),
        (rms_norm(&x, &x, 1e-5), theirs::rms_norm(&x, &x, 1e-5)),
        (
            layer_norm(&x, &short, &one, 1e-5),
            theirs::layer_norm(&x, &short, &one, 1e-5),
        ),
        (
            layer_norm(&x, &one, &short, 1e-5),
            theirs::layer_norm(&x, &one, &short, 1e-5),
        ),
    ];
    for (ours, candle) in pairs {
        assert_eq!(message(ours), message(candle));
    }
    let x = zeros(&[2, 3, 4, 6]);
    let wrong = [
        (zeros(&[4, 2]), zeros(&[4, 3])),
        (zeros(&[4, 3]), zeros(&[4, 2])),
        (zeros(&[2, 3]), zeros(&[4, 3])),
        (zeros(&[4, 3]), zeros(&[2, 3])),
    ];
    for (cos, sin) in &wrong {
        assert_eq!(
            message(rope(&x, cos, sin)),
            message(rotary_emb::rope(&x, cos, sin))
        );
        assert_eq!(
            message(rope_i(&x, cos, sin)),
            message(rotary_emb::rope_i(&x, cos, sin))
        );
        // four heads of three positions
        let turned = x.transpose(1, 2).unwrap().contiguous().unwrap();
        let candle = rotary_emb::rope_thd(&turned, cos, sin);
        assert_eq!(message(rope_thd(&turned, cos, sin)), message(candle));
    }
    let good = zeros(&[4, 3]);
    let expected = [
        (
            rope(&zeros(&[2, 4, 6]), &good, &good),
            "unexpected rank, expected: 4, got: 3 ([2, 4, 6])",
        ),
        (
            rope(&x, &zeros(&[3]), &good),
            "cos/sin has to be 2D or 3D in rope 2 [3]",
        ),
        (
            rope(&x, &good, &zeros(&[3, 4, 3])),
            "inconsistent batch size in rope 2 [3, 4, 3]",
        ),
        (
            swiglu(&zeros(&[2, 3])),
            "the last dim of [2, 3] has to be even in swiglu",
        ),
        (
            silu_mul(&zeros(&[2, 3]), &zeros(&[3])),
            "shape mismatch in silu-mul, gate: [2, 3], up: [3]",
        ),
    ];
    for (result, want) in expected {
        assert_eq!(message(result), want);
    }
}

#[test]
fn wrong_types_are_named() {
    let x = zeros(&[2, 4]);
    let (half, whole) = (
        x.to_dtype(DType::BF16).unwrap(),
        x.to_dtype(DType::U32).unwrap(),
    );
    let one = zeros(&[4]);
    let angles = zeros(&[4, 2]).to_dtype(DType::F64).unwrap();
    let heads = zeros(&[1, 1, 4, 4]);
    let expected = [
        (
            rms_norm(&half, &one, 1e-5),
            "unsupported dtype for rmsnorm BF16 F32",
        ),
        (
            layer_norm(&half, &one, &one, 1e-5),
            "unsupported dtype for layernorm BF16 F32 F32",
        ),
        (
            softmax_last_dim(&whole),
            "unsupported dtype for softmax U32",
        ),
        (swiglu(&whole), "unsupported dtype for swiglu U32"),
        (
            silu_mul(&x, &half),
            "unsupported dtype for silu-mul F32 BF16",
        ),
        (
            rope(&heads, &angles, &angles),
            "unsupported dtype for rope F32 F64 F64",
        ),
    ];
    for (result, want) in expected {
        assert_eq!(message(result), want);
    }
}

#[test]
fn scalars_are_refused() {
    let scalar = Tensor::new(1f32, &Device::Cpu).unwrap();
    let one = zeros(&[1]);
    assert!(rms_norm(&scalar, &one, 1e-5).is_err());
    assert!(layer_norm(&scalar, &one, &one, 1e-5).is_err());
    assert!(softmax_last_dim(&scalar).is_err());
    assert!(swiglu(&scalar).is_err());
    // one number has a SiLU
    assert!(silu_mul(&scalar, &scalar).is_ok());
}

#[test]
fn candles_own_cut_the_graph_and_these_do_not() {
    // what the room's page says of candle; once it is no longer so, the page is out of date
    let x = Var::from_tensor(&zeros(&[1, 1, 4, 4]).affine(1.0, 0.5).unwrap()).unwrap();
    let (one, cs) = (zeros(&[4]), zeros(&[4, 2]));
    let reaches = |y: Result<Tensor>| y.unwrap().track_op();
    let cut = [
        theirs::rms_norm(&x, &one, 1e-5),
        theirs::layer_norm(&x, &one, &one, 1e-5),
        theirs::softmax_last_dim(&x),
        rotary_emb::rope(&x, &cs, &cs),
        rotary_emb::rope_i(&x, &cs, &cs),
        rotary_emb::rope_thd(&x, &cs, &cs),
    ];
    assert!(cut.into_iter().all(|y| !reaches(y)));
    let whole = [
        rms_norm(&x, &one, 1e-5),
        layer_norm(&x, &one, &one, 1e-5),
        softmax_last_dim(&x),
        rope(&x, &cs, &cs),
        rope_i(&x, &cs, &cs),
        rope_thd(&x, &cs, &cs),
        theirs::swiglu(&x),
        swiglu(&x),
    ];
    assert!(whole.into_iter().all(reaches));
}
