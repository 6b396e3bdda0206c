use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::{Reduction, SftConfig, Statistics, TokenLogProbs, sft_loss};
use candle_core::{Device, Tensor};

fn log_probs() -> TokenLogProbs {
    let values = matrix(&[&[-0.5, -1.5, 9.0], &[-2.0, -0.25, -3.0]]);
    TokenLogProbs::new(&values, &bits(&[&[1, 1, 0], &[1, 1, 1]])).unwrap()
}

#[test]
fn the_surveys_sum_and_the_token_mean() {
    let loss = sft_loss(&log_probs(), None, &SftConfig::default()).unwrap();
    let value = |reduction| numbers(&loss.reduce(reduction).unwrap())[0];
    let (first, second) = (0.5 + 1.5, 2.0 + 0.25 + 3.0);
    assert_close(&[value(Reduction::Sum)], &[first + second], EXACT, "sum");
    assert_close(
        &[value(Reduction::TokenMean)],
        &[(first + second) / 5.0],
        EXACT,
        "tokens",
    );
    assert_close(
        &[value(Reduction::SequenceMean)],
        &[(first + second) / 2.0],
        EXACT,
        "sequences",
    );
    let means = (first / 2.0 + second / 3.0) / 2.0;
    assert_close(
        &[value(Reduction::MeanOfSequenceMeans)],
        &[means],
        EXACT,
        "means",
    );
}

#[test]
fn weights_multiply_the_losses_of_their_example_and_no_divisor() {
    let weights = vector(&[0.5, 3.0]);
    let loss = sft_loss(&log_probs(), Some(&weights), &SftConfig::default()).unwrap();
    let want = [0.5 * 0.5, 0.5 * 1.5, 0.0, 3.0 * 2.0, 3.0 * 0.25, 3.0 * 3.0];
    assert_close(&numbers(&loss.loss), &want, EXACT, "loss");
    let mean = numbers(&loss.reduce(Reduction::TokenMean).unwrap());
    assert_close(
        &mean,
        &[(0.5 * 2.0 + 3.0 * 5.25) / 5.0],
        EXACT,
        "token mean",
    );
}

#[test]
fn label_smoothing_mixes_in_the_mean_over_the_vocabulary() {
    let (a, b, c) = (0.3f64, -1.0f64, 2.0f64);
    let logits = Tensor::new(&[[[a, b, c], [0.0, 0.0, 0.0]]], &Device::Cpu).unwrap();
    let tokens = Tensor::new(&[[0u32, 1]], &Device::Cpu).unwrap();
    let statistics = Statistics {
        vocabulary_mean: true,
        ..Default::default()
    };
    let log_probs =
        TokenLogProbs::next_token_with(&logits, &tokens, &bits(&[&[0, 1]]), statistics).unwrap();
    let config = SftConfig {
        label_smoothing: 0.2,
    };
    let loss = sft_loss(&log_probs, None, &config).unwrap();

    let lse = (a.exp() + b.exp() + c.exp()).ln();
    let uniform = ((a - lse) + (b - lse) + (c - lse)) / 3.0;
    assert_close(
        &numbers(&loss.loss),
        &[-(0.8 * (b - lse) + 0.2 * uniform)],
        EXACT,
        "loss",
    );
}
