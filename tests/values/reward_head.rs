use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::Result;
use candle_align::online::reward_head::{RewardHead, RewardNormalization};
use candle_core::{DType, Device, Tensor, Var};
use rand::{SeedableRng, rngs::StdRng};

const WEIGHT: [f64; 2] = [0.5, -2.0];
const BIAS: f64 = 0.25;

fn head() -> RewardHead {
    RewardHead::from_tensors(&matrix(&[&WEIGHT]), Some(&vector(&[BIAS]))).expect("a head")
}

/// Four rows of three tokens; under the mask stands NaN.
fn padded() -> (Vec<f64>, Tensor, [usize; 4]) {
    let nan = f64::NAN;
    #[rustfmt::skip]
    let hidden = vec![
        1.0, 2.0,   3.0, 4.0,   5.0, 7.0,    // no padding
        1.5, 2.5,   3.5, 4.0,   nan, nan,    // on the right
        nan, nan,   0.5, 0.75,  1.0, -1.0,   // on the left
        nan, nan,   0.1, 0.2,   nan, nan,    // on both sides
    ];
    let mask = bits(&[&[1, 1, 1], &[1, 1, 0], &[0, 1, 1], &[0, 3, 0]]);
    (hidden, mask, [2, 1, 2, 1])
}

#[test]
fn the_score_is_read_at_the_last_token_that_counts() -> Result<()> {
    let (hidden, mask, _) = padded();
    let hidden = Tensor::from_vec(hidden, (4, 3, 2), &Device::Cpu)?;
    let want = [[5.0, 7.0], [3.5, 4.0], [1.0, -1.0], [0.1, 0.2]].map(|h| 0.5 * h[0] - 2.0 * h[1]);

    let scores = head().forward(&hidden, &mask)?;
    let with_bias = want.map(|score| score + BIAS);
    assert_close(&numbers(&scores), &with_bias, EXACT, "with a bias");

    let without = RewardHead::from_tensors(&matrix(&[&WEIGHT]), None)?;
    let scores = without.forward(&hidden, &mask)?;
    assert_close(&numbers(&scores), &want, EXACT, "without");
    Ok(())
}

#[test]
fn a_hole_before_the_last_token_does_not_move_it() -> Result<()> {
    let hidden = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 7.0], (1, 3, 2), &Device::Cpu)?;
    let scores = head().forward(&hidden, &bits(&[&[1, 0, 1]]))?;
    let want = 0.5 * 5.0 - 2.0 * 7.0 + BIAS;
    assert_close(&numbers(&scores), &[want], EXACT, "score");
    Ok(())
}

#[test]
fn the_gradient_reaches_the_head_and_that_position_alone() -> Result<()> {
    let (values, mask, last) = padded();
    let hidden = Var::from_tensor(&Tensor::from_vec(values.clone(), (4, 3, 2), &Device::Cpu)?)?;
    let head = head();
    let upstream = [1.0, -2.0, 0.5, 3.0];
    let loss = (head.forward(&hidden, &mask)? * vector(&upstream))?.sum_all()?;
    let grads = loss.backward()?;

    let mut want = vec![0.0; values.len()];
    let mut weight = [0.0; 2];
    for (row, (&at, g)) in last.iter().zip(upstream).enumerate() {
        let start = (row * 3 + at) * 2;
        for d in 0..2 {
            want[start + d] = g * WEIGHT[d];
            weight[d] += g * values[start + d];
        }
    }
    let got = numbers(grads.get(&hidden).expect("hidden states"));
    assert_eq!(got, want);

    let trainable = head.trainable();
    let names: Vec<&str> = trainable.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["reward_head.bias", "reward_head.weight"]);
    let gradients: Vec<Vec<f64>> = trainable
        .iter()
        .map(|(_, var)| numbers(grads.get(var).expect("a variable of the head")))
        .collect();
    assert_close(
        &gradients[0],
        &[upstream.iter().sum::<f64>()],
        EXACT,
        "bias",
    );
    assert_close(&gradients[1], &weight, EXACT, "weight");
    Ok(())
}

#[test]
fn the_score_is_computed_in_single_precision_at_least() -> Result<()> {
    let mask = bits(&[&[1, 1]]);
    let hidden = Tensor::new(&[[[9f32, 9.0], [1.0, 2.0]]], &Device::Cpu)?;
    // weight and score need 12 bits behind the point: bf16 keeps 7, f16 keeps 10
    let weight = Tensor::new(&[[4097f32 / 4096.0, 1.0 / 4096.0]], &Device::Cpu)?;
    let head = RewardHead::from_tensors(&weight, None)?;
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        let scores = head.forward(&hidden.to_dtype(dtype)?, &mask)?;
        assert_eq!(scores.dtype(), DType::F32);
        assert_eq!(numbers(&scores), [4099.0 / 4096.0], "{dtype:?}");
    }
    let double = head.forward(&hidden.to_dtype(DType::F64)?, &mask)?;
    assert_eq!(double.dtype(), DType::F64);
    let wide = RewardHead::from_tensors(&weight.to_dtype(DType::F64)?, None)?;
    assert_eq!(wide.forward(&hidden, &mask)?.dtype(), DType::F64);
    Ok(())
}

#[test]
fn bf16_hidden_states_get_a_gradient_too() -> Result<()> {
    let hidden = Tensor::new(&[[[9f32, 9.0], [1.0, 3.0]]], &Device::Cpu)?;
    let hidden = Var::from_tensor(&hidden.to_dtype(DType::BF16)?)?;
    let scores = head().forward(&hidden, &bits(&[&[1, 1]]))?;
    let grads = scores.sum_all()?.backward()?;
    let got = numbers(grads.get(&hidden).expect("a gradient"));
    assert_eq!(got, [0.0, 0.0, WEIGHT[0], WEIGHT[1]]);
    Ok(())
}

#[test]
fn a_new_head_is_drawn_from_its_generator() -> Result<()> {
    let draw = |seed: u64, dim: usize| -> Result<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(seed);
        let head = RewardHead::new(dim, &mut rng, DType::F64, &Device::Cpu)?;
        assert_eq!(head.weight().dims(), [1, dim]);
        assert!(head.bias().is_none());
        Ok(numbers(head.weight()))
    };
    assert_eq!(draw(3, 8)?, draw(3, 8)?);
    assert_ne!(draw(3, 8)?, draw(4, 8)?);

    // n draws of variance v: mean within 5·√(v/n), mean square within 5·v·√(2/n)
    let n = 4095.0f64;
    let v = 1.0 / (n + 1.0);
    let weight = draw(11, 4095)?;
    let mean = weight.iter().sum::<f64>() / n;
    let square = weight.iter().map(|w| w * w).sum::<f64>() / n;
    assert!(mean.abs() < 5.0 * (v / n).sqrt(), "mean {mean}");
    assert!(
        (square - v).abs() < 5.0 * v * (2.0 / n).sqrt(),
        "variance {square}"
    );

    // dim = 1: variance ½, over many heads
    let heads = 2000u64;
    let total: f64 = (0..heads)
        .map(|seed| draw(seed, 1).expect("a head")[0].powi(2))
        .sum();
    let variance = total / heads as f64;
    assert!(
        (variance - 0.5).abs() < 5.0 * 0.5 * (2.0 / heads as f64).sqrt(),
        "variance {variance} of lone weights"
    );
    Ok(())
}

#[test]
fn a_bias_is_asked_for_and_starts_at_zero() -> Result<()> {
    let mut rng = StdRng::seed_from_u64(5);
    let plain = RewardHead::new(3, &mut rng, DType::F32, &Device::Cpu)?;
    let names = |head: &RewardHead| -> Vec<String> {
        head.trainable().into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&plain), ["reward_head.weight"]);
    let weight = numbers(plain.weight());

    let head = plain.with_bias()?;
    assert_eq!(names(&head), ["reward_head.bias", "reward_head.weight"]);
    assert_eq!(numbers(head.bias().expect("a bias")), [0.0]);
    assert_eq!(head.bias().expect("a bias").dtype(), DType::F32);
    assert_eq!(numbers(head.weight()), weight);
    Ok(())
}

#[test]
fn a_head_from_tensors_owns_its_copy() -> Result<()> {
    let weight = Var::new(&[[1.0f64, 2.0]], &Device::Cpu)?;
    let head = RewardHead::from_tensors(&weight, None)?;
    weight.set(&matrix(&[&[5.0, 5.0]]))?;
    assert_eq!(numbers(head.weight()), [1.0, 2.0]);
    Ok(())
}

#[test]
fn a_bias_alone_moves_the_mean_to_zero() -> Result<()> {
    let scores = vector(&[1.0, 4.0, 10.0]);
    let scale = RewardNormalization::zero_mean(&scores)?;
    assert_eq!(
        scale,
        RewardNormalization {
            gain: 1.0,
            bias: -5.0
        }
    );
    assert_eq!(numbers(&scale.apply(&scores)?), [-4.0, -1.0, 5.0]);

    let one = RewardNormalization::zero_mean(&vector(&[7.0]))?;
    assert_eq!(one.bias, -7.0);
    Ok(())
}

#[test]
fn gain_and_bias_give_mean_zero_and_variance_one() -> Result<()> {
    let scores = vector(&[1.0, 4.0, 10.0]);
    let scale = RewardNormalization::zero_mean_unit_variance(&scores)?;
    // mean 5, population variance (16 + 1 + 25)/3 = 14
    let gain = 1.0 / 14f64.sqrt();
    assert_close(
        &[scale.gain, scale.bias],
        &[gain, -5.0 * gain],
        EXACT,
        "fit",
    );
    let scaled = numbers(&scale.apply(&scores)?);
    assert_close(&scaled, &[-4.0 * gain, -gain, 5.0 * gain], EXACT, "scaled");
    let square = scaled.iter().map(|s| s * s).sum::<f64>() / 3.0;
    assert_close(&[square], &[1.0], EXACT, "variance");
    Ok(())
}

#[test]
fn a_scale_applies_to_lists_and_lets_gradients_through() -> Result<()> {
    let scale = RewardNormalization {
        gain: 2.0,
        bias: -1.0,
    };
    let scores = Var::from_tensor(&matrix(&[&[1.0, 2.0], &[3.0, 4.0]]))?;
    let scaled = scale.apply(&scores)?;
    assert_eq!(scaled.dims(), [2, 2]);
    assert_eq!(numbers(&scaled), [1.0, 3.0, 5.0, 7.0]);
    let grads = scaled.sum_all()?.backward()?;
    assert_eq!(numbers(grads.get(&scores).expect("a gradient")), [2.0; 4]);
    Ok(())
}

#[test]
fn a_scale_is_json() {
    let text = r#"{"gain":0.5,"bias":-2.0}"#;
    let scale: RewardNormalization = serde_json::from_str(text).expect("a scale");
    assert_eq!(serde_json::to_string(&scale).expect("text"), text);
    assert!(serde_json::from_str::<RewardNormalization>(r#"{"gain":0.5}"#).is_err());
    assert!(serde_json::from_str::<RewardNormalization>(r#"{"gain":1,"bias":0,"x":1}"#).is_err());
}
