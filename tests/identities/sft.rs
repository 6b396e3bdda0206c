use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::{Reduction, SftConfig, Statistics, TokenLogProbs, sft_loss};
use candle_core::{DType, Device, Tensor, Var};

const ALL: [Reduction; 6] = [
    Reduction::Sum,
    Reduction::TokenMean,
    Reduction::SequenceMean,
    Reduction::MeanOfSequenceMeans,
    Reduction::SumOver { count: 3.0 },
    Reduction::SequenceMeansOver { count: 3.0 },
];

/// Five sequences of unequal lengths, one of them without a counted token.
fn mask() -> Tensor {
    bits(&[
        &[1, 1, 1, 1],
        &[1, 0, 0, 0],
        &[0, 0, 0, 0],
        &[0, 1, 1, 0],
        &[1, 1, 1, 0],
    ])
}

fn values() -> Var {
    let data: Vec<f64> = (0..20)
        .map(|i| -0.1 - ((i * 7) % 11) as f64 / 5.0)
        .collect();
    Var::from_tensor(&Tensor::from_vec(data, (5, 4), &Device::Cpu).unwrap()).unwrap()
}

#[test]
fn micro_batches_are_one_batch_in_value_and_gradient() {
    let (values, mask) = (values(), mask());
    for reduction in ALL {
        let whole = reduction.apply(&values, &mask).unwrap();
        let want = whole.backward().unwrap();

        // windows of 2, 2 and 1 rows, divided by the count of all of them
        let spans = [(0, 2), (2, 2), (4, 1)];
        let masks = spans.map(|(from, n)| mask.narrow(0, from, n).unwrap());
        let window: f64 = masks.iter().map(|m| reduction.count(m).unwrap()).sum();
        let (mut total, mut gradient) = (0.0, values.zeros_like().unwrap());
        for ((from, n), mask) in spans.iter().zip(&masks) {
            let part = values.narrow(0, *from, *n).unwrap();
            let loss = reduction.over(window).apply(&part, mask).unwrap();
            total += numbers(&loss)[0];
            gradient = (gradient + loss.backward().unwrap().get(&values).unwrap()).unwrap();
        }
        let name = format!("{reduction:?}");
        assert_close(&[total], &numbers(&whole), EXACT, &name);
        let want = numbers(want.get(&values).unwrap());
        assert_close(&numbers(&gradient), &want, EXACT, &name);
    }
}

#[test]
fn sequences_of_one_length_make_token_mean_and_mean_of_means_one() {
    let loss = matrix(&[&[1.0, 2.0], &[5.0, 4.0]]);
    let mask = bits(&[&[1, 1], &[1, 1]]);
    let value = |r: Reduction| numbers(&r.apply(&loss, &mask).unwrap());
    assert_close(
        &value(Reduction::TokenMean),
        &value(Reduction::MeanOfSequenceMeans),
        EXACT,
        "2",
    );
}

#[test]
fn a_mask_of_ones_is_no_mask() {
    let ones = Tensor::ones((5, 4), DType::U8, &Device::Cpu).unwrap();
    let values = values();
    let sum = numbers(&Reduction::Sum.apply(&values, &ones).unwrap())[0];
    assert_close(&[sum], &[numbers(&values).iter().sum()], EXACT, "sum");
}

#[test]
fn weights_of_one_are_no_weights_and_smoothing_of_nothing_is_none() {
    let log_probs = TokenLogProbs::new(&values(), &mask()).unwrap();
    let config = SftConfig::default();
    let plain = sft_loss(&log_probs, None, &config).unwrap();
    let ones = vector(&[1.0; 5]);
    let weighted = sft_loss(&log_probs, Some(&ones), &config).unwrap();
    assert_eq!(numbers(&plain.loss), numbers(&weighted.loss));
    // and the loss is the log-probability with its sign turned
    let turned: Vec<f64> = numbers(log_probs.values()).iter().map(|v| -v).collect();
    assert_close(&numbers(&plain.loss), &turned, EXACT, "loss");
}

#[test]
fn next_token_is_aligned_after_the_shift() {
    let logits = Tensor::new(
        &[[[0.1f64, 0.2, -1.0], [2.0, 0.0, 0.3], [0.5, -0.5, 0.0]]],
        &Device::Cpu,
    )
    .unwrap();
    let tokens = Tensor::new(&[[2u32, 0, 1]], &Device::Cpu).unwrap();
    let mask = bits(&[&[1, 1, 1]]);
    let both = Statistics {
        entropy: true,
        vocabulary_mean: true,
        log_collision: true,
    };
    let shifted = TokenLogProbs::next_token_with(&logits, &tokens, &mask, both).unwrap();
    let aligned = TokenLogProbs::aligned(
        &logits.narrow(1, 0, 2).unwrap(),
        &tokens.narrow(1, 1, 2).unwrap(),
        &mask.narrow(1, 1, 2).unwrap(),
        both,
    )
    .unwrap();
    for (a, b) in [
        (shifted.values(), aligned.values()),
        (shifted.entropy().unwrap(), aligned.entropy().unwrap()),
        (
            shifted.vocabulary_mean().unwrap(),
            aligned.vocabulary_mean().unwrap(),
        ),
    ] {
        assert_eq!(numbers(a), numbers(b));
    }
}

#[test]
fn the_gradient_of_each_counted_log_probability_is_minus_its_weight() {
    let values = values();
    let log_probs = TokenLogProbs::new(&values, &mask()).unwrap();
    let weights = vector(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    let loss = sft_loss(&log_probs, Some(&weights), &SftConfig::default()).unwrap();
    let grads = loss.reduce(Reduction::Sum).unwrap().backward().unwrap();
    let mask = numbers(&mask());
    let want: Vec<f64> = (0..20).map(|i| -mask[i] * (1 + i / 4) as f64).collect();
    assert_close(
        &numbers(grads.get(&values).unwrap()),
        &want,
        EXACT,
        "gradient",
    );
}
