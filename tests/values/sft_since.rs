use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::sft::dft::dft_loss;
use candle_align::sft::eaft::{EaftConfig, eaft_loss};
use candle_align::{Statistics, TokenLogProbs};
use candle_core::{Device, Tensor, Var};

/// One position of three symbols, the second of which is the token.
fn position() -> (Var, TokenLogProbs) {
    let logits = Var::new(&[[[2.0f64, 0.0, -1.0]]], &Device::Cpu).unwrap();
    let target = Tensor::new(&[[1u32]], &Device::Cpu).unwrap();
    let log_probs =
        TokenLogProbs::aligned(&logits, &target, &bits(&[&[1]]), Statistics::default()).unwrap();
    (logits, log_probs)
}

#[test]
fn dynamic_fine_tuning_weighs_by_the_probability() {
    let (logits, log_probs) = position();
    let total = 2f64.exp() + 1.0 + (-1f64).exp();
    let p = [2f64.exp() / total, 1.0 / total, (-1f64).exp() / total];
    let loss = dft_loss(&log_probs).unwrap().loss;
    assert_close(&numbers(&loss), &[-p[1] * p[1].ln()], EXACT, "loss");
    let grads = loss.sum_all().unwrap().backward().unwrap();
    let want = [p[1] * p[0], p[1] * (p[1] - 1.0), p[1] * p[2]];
    assert_close(&numbers(grads.get(&logits).unwrap()), &want, EXACT, "slope");
}

#[test]
fn an_impossible_token_teaches_dynamic_fine_tuning_nothing() {
    let values = Var::new(&[[f64::NEG_INFINITY, 0.0, -1.0]], &Device::Cpu).unwrap();
    let log_probs = TokenLogProbs::new(&values, &bits(&[&[1, 1, 0]])).unwrap();
    let loss = dft_loss(&log_probs).unwrap().loss;
    assert_eq!(numbers(&loss), [0.0, 0.0, 0.0]);
    let grads = loss.sum_all().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(&values).unwrap()), [0.0, -1.0, 0.0]);
}

#[test]
fn entropy_of_the_top_symbols_weighs() {
    let (logits, log_probs) = position();
    let entropy = |z: &[f64]| {
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        let p = z.iter().map(|z| z.exp() / total);
        p.map(|p| -p * p.ln()).sum::<f64>()
    };
    let total = 2f64.exp() + 1.0 + (-1f64).exp();
    let whole = entropy(&[2.0, 0.0, -1.0]);
    let of = |config: EaftConfig| {
        let loss = eaft_loss(&log_probs, &logits, &config).unwrap().loss;
        let grads = loss.sum_all().unwrap().backward().unwrap();
        // the weight is no part of the gradient
        let p = 1.0 / total;
        let weight = numbers(&loss)[0] / total.ln();
        let slope = numbers(grads.get(&logits).unwrap());
        assert_close(&[slope[1]], &[weight * (p - 1.0)], EXACT, "slope");
        numbers(&loss)[0]
    };
    let plain = EaftConfig::default();
    assert_close(
        &[of(plain.clone())],
        &[whole / 3.0 * total.ln()],
        EXACT,
        "by three",
    );
    let axolotl = EaftConfig {
        scale: 1.0,
        power: 2.0,
        ..plain.clone()
    };
    assert_close(
        &[of(axolotl)],
        &[whole * whole * total.ln()],
        EXACT,
        "squared",
    );
    let two = EaftConfig { k: 2, ..plain };
    let want = entropy(&[2.0, 0.0]) / 3.0 * total.ln();
    assert_close(&[of(two)], &[want], EXACT, "top 2");
}

#[test]
fn two_certain_symbols_have_no_entropy_that_could_weigh() {
    let target = Tensor::new(&[[1u32]], &Device::Cpu).unwrap();
    let of = |z: [f64; 3], counted: u8| {
        let logits = Tensor::new(&[[z]], &Device::Cpu).unwrap();
        let (mask, more) = (bits(&[&[counted]]), Statistics::default());
        let plain = Tensor::new(&[[[0f64, 0.0, 0.0]]], &Device::Cpu).unwrap();
        let log_probs = TokenLogProbs::aligned(&plain, &target, &mask, more).unwrap();
        numbers(
            &eaft_loss(&log_probs, &logits, &EaftConfig::default())
                .unwrap()
                .loss,
        )[0]
    };
    assert_eq!(of([f64::INFINITY, 0.0, 0.0], 1), 0.0);
    assert!(of([f64::INFINITY, f64::INFINITY, 0.0], 1).is_nan());
    // any number but 0 counts
    let (one, two) = (of([2.0, 0.0, -1.0], 1), of([2.0, 0.0, -1.0], 2));
    assert!(one > 0.0 && one == two, "{one} {two}");
}

#[test]
fn a_certain_prediction_is_spared_and_the_last_position_is_not_read() {
    let (far, none) = (f64::INFINITY, f64::NEG_INFINITY);
    let rows = [
        [far, 0.0, 0.0],
        [0.0, none, none],
        [0.0, 0.0, none],
        [f64::NAN, 0.0, 0.0],
    ];
    let logits = Tensor::new(&[rows], &Device::Cpu).unwrap();
    let values = matrix(&[&[none, 0.0, -2.0]]);
    let log_probs = TokenLogProbs::new(&values, &bits(&[&[1, 1, 1]])).unwrap();
    let loss = eaft_loss(&log_probs, &logits, &EaftConfig::default()).unwrap();
    let want = [0.0, 0.0, 2f64.ln() / 3.0 * 2.0];
    assert_close(&numbers(&loss.loss), &want, EXACT, "loss");
}
