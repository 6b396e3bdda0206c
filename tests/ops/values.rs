//! Values and gradients as formulas with numbers in them.

use crate::common::{EXACT, assert_close, numbers};
use candle_align::ops::*;
use candle_core::{DType, Device, Result, Tensor, Var};

fn var(shape: &[usize], data: &[f64]) -> Var {
    Var::from_tensor(&Tensor::from_slice(data, shape, &Device::Cpu).unwrap()).unwrap()
}

fn weights(like: &Tensor, data: &[f64]) -> Tensor {
    Tensor::from_slice(data, like.shape(), &Device::Cpu).unwrap()
}

/// The gradients for ∂L/∂y = `grad`.
fn slopes(y: &Tensor, grad: &[f64], vars: &[&Var]) -> Vec<Vec<f64>> {
    let grads = (y * weights(y, grad)).unwrap().backward().unwrap();
    vars.iter()
        .map(|v| numbers(grads.get(v).unwrap()))
        .collect()
}

#[test]
fn rms_norm_divides_by_the_root_mean_square() -> Result<()> {
    let (x, alpha) = (var(&[2, 2], &[3.0, 4.0, 0.0, 1.0]), var(&[2], &[2.0, 3.0]));
    let y = rms_norm(&x, &alpha, 0.25)?;
    // (9 + 16) / 2 + ¼ = 12.75, (0 + 1) / 2 + ¼ = ¾
    let (a, b) = (12.75f64.sqrt(), 0.75f64.sqrt());
    let want = [2.0 * 3.0 / a, 3.0 * 4.0 / a, 0.0, 3.0 / b];
    assert_close(&numbers(&y), &want, EXACT, "y");

    let found = slopes(&y, &[1.0, 0.0, 0.0, 10.0], &[&x, &alpha]);
    // y₁₁ = 2 x₁ / a: ∂/∂x = 2 / a ([i = 1] − x₁ xᵢ / (2 a²)); y₂₂ = 3 x₂ / b alike
    let want = [
        2.0 / a * (1.0 - 9.0 / 25.5),
        2.0 / a * (-12.0 / 25.5),
        0.0,
        30.0 / b * (1.0 - 1.0 / 1.5),
    ];
    assert_close(&found[0], &want, EXACT, "∂x");
    assert_close(&found[1], &[3.0 / a, 10.0 / b], EXACT, "∂α");
    Ok(())
}

#[test]
fn layer_norm_centers_and_divides_by_the_standard_deviation() -> Result<()> {
    let x = var(&[1, 3], &[1.0, 2.0, 6.0]);
    let (alpha, beta) = (var(&[3], &[1.0, 2.0, -1.0]), var(&[3], &[0.5, 0.0, 1.0]));
    let y = layer_norm(&x, &alpha, &beta, 1.0)?;
    // mean 3, variance (4 + 1 + 9) / 3
    let s = (14.0f64 / 3.0 + 1.0).sqrt();
    let want = [-2.0 / s + 0.5, -2.0 / s, -3.0 / s + 1.0];
    assert_close(&numbers(&y), &want, EXACT, "y");

    let found = slopes(&y, &[0.0, 1.0, 0.0], &[&x, &alpha, &beta]);
    // y₂ = 2 (x₂ − m) / s: ∂/∂x = 2 / s ([i = 2] − 1/3 − (x₂ − m)(xᵢ − m) / (3 s²))
    let of = |hit: f64, from: f64| 2.0 / s * (hit - 1.0 / 3.0 - -from / (3.0 * s * s));
    assert_close(
        &found[0],
        &[of(0.0, -2.0), of(1.0, -1.0), of(0.0, 3.0)],
        EXACT,
        "∂x",
    );
    assert_close(&found[1], &[0.0, -1.0 / s, 0.0], EXACT, "∂α");
    assert_close(&found[2], &[0.0, 1.0, 0.0], EXACT, "∂β");
    Ok(())
}

#[test]
fn softmax_gives_shares() -> Result<()> {
    let x = var(
        &[2, 3],
        &[0.0, 2f64.ln(), 5f64.ln(), 1e4, f64::NEG_INFINITY, 1e4],
    );
    let y = softmax_last_dim(&x)?;
    let want = [0.125, 0.25, 0.625, 0.5, 0.0, 0.5];
    assert_close(&numbers(&y), &want, EXACT, "y");
    let found = slopes(&y, &[0.0, 1.0, 0.0, 1.0, 0.0, 0.0], &[&x]);
    // ∂yᵢ/∂xⱼ = yᵢ ([i = j] − yⱼ)
    let want = [-0.25 * 0.125, 0.25 * 0.75, -0.25 * 0.625, 0.25, 0.0, -0.25];
    assert_close(&found[0], &want, EXACT, "∂x");
    Ok(())
}

#[test]
fn swiglu_and_silu_mul_gate() -> Result<()> {
    // σ(ln 3) = ¾, σ(−ln 3) = ¼
    let t = 3f64.ln();
    let x = var(&[2, 4], &[t, -t, 2.0, 5.0, 0.0, t, -1.0, 4.0]);
    let y = swiglu(&x)?;
    let want = [0.75 * t * 2.0, -0.25 * t * 5.0, 0.0, 0.75 * t * 4.0];
    assert_close(&numbers(&y), &want, EXACT, "y");
    let grad = [1.0, 1.0, 1.0, 0.5];
    let found = slopes(&y, &grad, &[&x]);
    // silu′ = σ (1 + a (1 − σ))
    let up = 0.75 * (1.0 + t * 0.25);
    let down = 0.25 * (1.0 - t * 0.75);
    let want = [
        2.0 * up,
        5.0 * down,
        0.75 * t,
        -0.25 * t,
        -0.5,
        2.0 * up,
        0.0,
        0.375 * t,
    ];
    assert_close(&found[0], &want, EXACT, "∂x");

    let (gate, up) = (
        var(&[2, 2], &[t, -t, 0.0, t]),
        var(&[2, 2], &[2.0, 5.0, -1.0, 4.0]),
    );
    let two = silu_mul(&gate, &up)?;
    assert_eq!(numbers(&two), numbers(&y));
    let parts = slopes(&two, &grad, &[&gate, &up]);
    let both = [
        &parts[0][..2],
        &parts[1][..2],
        &parts[0][2..],
        &parts[1][2..],
    ]
    .concat();
    assert_eq!(both, found[0]);
    Ok(())
}

#[test]
fn rope_turns_pairs_by_their_positions_angle() -> Result<()> {
    // cos and sin of two positions; the third is not reached. Not unit vectors: every factor shows.
    let cos = Tensor::new(&[[2f64, 3.0], [5.0, 7.0], [99.0, 99.0]], &Device::Cpu)?;
    let sin = Tensor::new(&[[0.5f64, 0.25], [11.0, 13.0], [99.0, 99.0]], &Device::Cpu)?;
    let data = [1.0, 10.0, 100.0, 1000.0, 1.0, 2.0, 3.0, 4.0];
    let grad = [1.0, 2.0, 4.0, 8.0, 1.0, -1.0, 2.0, 0.0];

    let x = var(&[1, 1, 2, 4], &data);
    let y = rope(&x, &cos, &sin)?;
    // dimension 0 with 2, 1 with 3
    let want = [
        2.0 - 50.0,
        30.0 - 250.0,
        0.5 + 200.0,
        2.5 + 3000.0,
        5.0 - 33.0,
        14.0 - 52.0,
        11.0 + 15.0,
        26.0 + 28.0,
    ];
    assert_close(&numbers(&y), &want, EXACT, "rope");
    let found = slopes(&y, &grad, &[&x]);
    // ∂x₁ = g₁ cos + g₂ sin, ∂x₂ = g₂ cos − g₁ sin
    let want = [
        2.0 + 2.0,
        6.0 + 2.0,
        8.0 - 0.5,
        24.0 - 0.5,
        5.0 + 22.0,
        -7.0,
        10.0 - 11.0,
        13.0,
    ];
    assert_close(&found[0], &want, EXACT, "∂ rope");

    let y = rope_i(&x, &cos, &sin)?;
    // dimension 0 with 1, 2 with 3
    let want = [
        2.0 - 5.0,
        0.5 + 20.0,
        300.0 - 250.0,
        25.0 + 3000.0,
        5.0 - 22.0,
        11.0 + 10.0,
        21.0 - 52.0,
        39.0 + 28.0,
    ];
    assert_close(&numbers(&y), &want, EXACT, "rope_i");
    let found = slopes(&y, &grad, &[&x]);
    let want = [
        2.0 + 1.0,
        4.0 - 0.5,
        12.0 + 2.0,
        24.0 - 1.0,
        5.0 - 11.0,
        -5.0 - 11.0,
        14.0,
        -26.0,
    ];
    assert_close(&found[0], &want, EXACT, "∂ rope_i");

    // time before heads: here one head, so only the axes differ
    let x = var(&[1, 2, 1, 4], &data);
    let turned = rope_thd(&x, &cos, &sin)?;
    assert_eq!(turned.dims(), [1, 2, 1, 4]);
    let x = var(&[1, 1, 2, 4], &data);
    assert_eq!(numbers(&turned), numbers(&rope(&x, &cos, &sin)?));
    Ok(())
}

#[test]
fn each_row_of_a_batch_has_its_own_angles() -> Result<()> {
    // two rows, two heads, one position of three; each row's angle is its own
    let cos = Tensor::new(
        &[[[2f64], [9.0], [9.0]], [[3.0], [9.0], [9.0]]],
        &Device::Cpu,
    )?;
    let sin = Tensor::new(
        &[[[0.5f64], [9.0], [9.0]], [[5.0], [9.0], [9.0]]],
        &Device::Cpu,
    )?;
    let x = [1.0, 10.0, 2.0, 20.0, 1.0, 10.0, 2.0, 20.0];
    let x = Tensor::from_slice(&x, (2, 2, 1, 2), &Device::Cpu)?;
    let y = numbers(&rope(&x, &cos, &sin)?);
    let want = [-3.0, 20.5, -6.0, 41.0, -47.0, 35.0, -94.0, 70.0];
    assert_close(&y, &want, EXACT, "by row");
    let thd = rope_thd(&x.transpose(1, 2)?, &cos, &sin)?.transpose(1, 2)?;
    assert_eq!(numbers(&thd), y);
    // one of the two for all rows
    let all = rope(&x, &cos, &sin.get(0)?)?;
    let want = [-3.0, 20.5, -6.0, 41.0, -2.0, 30.5, -4.0, 61.0];
    assert_close(&numbers(&all), &want, EXACT, "sines of all rows");
    Ok(())
}

#[test]
fn trained_angles_get_their_gradient() -> Result<()> {
    let (cos, sin) = (var(&[2, 1], &[2.0, 9.0]), var(&[2, 1], &[0.5, 9.0]));
    // two heads at one position: their sum
    let x = var(&[1, 2, 1, 2], &[1.0, 10.0, 2.0, 20.0]);
    let y = rope(&x, &cos, &sin)?;
    let found = slopes(&y, &[1.0, 0.5, 3.0, 0.25], &[&x, &cos, &sin]);
    // ∂cos = Σ g₁ x₁ + g₂ x₂, ∂sin = Σ g₂ x₁ − g₁ x₂
    assert_close(&found[1], &[1.0 + 5.0 + 6.0 + 5.0, 0.0], EXACT, "∂cos");
    assert_close(&found[2], &[0.5 - 10.0 + 0.5 - 60.0, 0.0], EXACT, "∂sin");
    assert_close(&found[0], &[2.25, 0.5, 6.125, -1.0], EXACT, "∂x");
    Ok(())
}

#[test]
fn magnitudes_beyond_the_squares_of_f32_are_normalized() -> Result<()> {
    let one = Tensor::ones(2, DType::F32, &Device::Cpu)?;
    let zero = one.zeros_like()?;
    for scale in [1e-18f32, 1e25] {
        let x = (Tensor::new(&[[3f32, 4.0]], &Device::Cpu)? * scale as f64)?;
        let y = numbers(&rms_norm(&x, &one, 0.0)?);
        let root = 12.5f64.sqrt();
        assert_close(&y, &[3.0 / root, 4.0 / root], 1e-6, "rms_norm");
        let y = numbers(&layer_norm(&x, &one, &zero, 0.0)?);
        assert_close(&y, &[-1.0, 1.0], 1e-6, "layer_norm");
    }
    Ok(())
}

#[test]
fn a_row_far_from_zero_keeps_its_digits() -> Result<()> {
    // one of four numbers is the next in f32: the mean lies between the two, and so does the deviation
    let step = 2f32.powi(-9);
    let x = |i: usize| 30000.0 + if i % 4 == 3 { step } else { 0.0 };
    let x = Tensor::from_vec((0..64).map(x).collect::<Vec<f32>>(), (1, 64), &Device::Cpu)?;
    let one = Tensor::ones(64, DType::F32, &Device::Cpu)?;
    let y = numbers(&layer_norm(&x, &one, &one.zeros_like()?, 0.0)?);
    // mean ¼, variance ¾ · ¼ of a step
    let z = |i: usize| (if i % 4 == 3 { 0.75 } else { -0.25 }) / 0.1875f64.sqrt();
    let want: Vec<f64> = (0..64).map(z).collect();
    assert_close(&y, &want, 1e-6, "y");
    Ok(())
}

#[test]
fn the_gradients_of_parameters_sum_all_rows() -> Result<()> {
    // more rows than one thread takes at a time, and more than are summed in single precision
    let (rows, n) = (5000, 8);
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let x = Tensor::new(
            &[1.0f64, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0],
            &Device::Cpu,
        )?;
        let x = x.broadcast_as((rows, n))?.to_dtype(dtype)?;
        let ones = || Var::from_tensor(&Tensor::ones(n, dtype, &Device::Cpu)?);
        let (alpha, beta) = (ones()?, ones()?);
        // mean 0, variance 1: each row adds x to ∂α and 1 to ∂β
        let grads = layer_norm(&x, &alpha, &beta, 0.0)?.backward()?;
        let sums: Vec<f64> = (0..n)
            .map(|i| if i % 2 == 0 { 5000.0 } else { -5000.0 })
            .collect();
        // 5000 is no bf16, but 4992 is
        let tolerance = if dtype == DType::BF16 { 8.0 } else { 0.0 };
        assert_close(&numbers(grads.get(&alpha).unwrap()), &sums, tolerance, "∂α");
        assert_close(
            &numbers(grads.get(&beta).unwrap()),
            &[5000.0; 8],
            tolerance,
            "∂β",
        );
        let grads = rms_norm(&x, &alpha, 0.0)?.backward()?;
        assert_close(&numbers(grads.get(&alpha).unwrap()), &sums, tolerance, "∂α");
    }
    Ok(())
}
