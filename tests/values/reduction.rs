use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::Reduction;
use candle_core::{Device, Tensor};

fn of(reduction: Reduction) -> f64 {
    let loss = matrix(&[
        &[1.0, 2.0, f64::NAN],
        &[4.0, f64::NAN, f64::NAN],
        &[f64::NAN; 3],
    ]);
    let mask = bits(&[&[1, 1, 0], &[1, 0, 0], &[0, 0, 0]]);
    numbers(&reduction.apply(&loss, &mask).unwrap())[0]
}

#[test]
fn each_reduction_divides_by_what_it_says() {
    // a sequence that counts no token is no sequence
    assert_close(&[of(Reduction::Sum)], &[7.0], EXACT, "sum");
    assert_close(&[of(Reduction::TokenMean)], &[7.0 / 3.0], EXACT, "tokens");
    assert_close(
        &[of(Reduction::SequenceMean)],
        &[7.0 / 2.0],
        EXACT,
        "sequences",
    );
    assert_close(
        &[of(Reduction::MeanOfSequenceMeans)],
        &[(1.5 + 4.0) / 2.0],
        EXACT,
        "means",
    );
    assert_close(
        &[of(Reduction::SumOver { count: 5.0 })],
        &[7.0 / 5.0],
        EXACT,
        "constant",
    );
    assert_close(
        &[of(Reduction::SequenceMeansOver { count: 5.0 })],
        &[5.5 / 5.0],
        EXACT,
        "over",
    );
}

#[test]
fn counts_are_the_divisors() {
    let mask = bits(&[&[1, 1, 0], &[1, 0, 0], &[0, 0, 0]]);
    let count = |reduction: Reduction| reduction.count(&mask).unwrap();
    assert_eq!(count(Reduction::Sum), 1.0);
    assert_eq!(count(Reduction::TokenMean), 3.0);
    assert_eq!(count(Reduction::SequenceMean), 2.0);
    assert_eq!(count(Reduction::MeanOfSequenceMeans), 2.0);
    assert_eq!(count(Reduction::SumOver { count: 9.0 }), 9.0);
    assert_eq!(count(Reduction::SequenceMeansOver { count: 8.0 }), 8.0);
}

#[test]
fn over_replaces_the_divisor_and_nothing_else() {
    let count = 4.0;
    assert_eq!(Reduction::Sum.over(count), Reduction::Sum);
    assert_eq!(
        Reduction::TokenMean.over(count),
        Reduction::SumOver { count }
    );
    assert_eq!(
        Reduction::SequenceMean.over(count),
        Reduction::SumOver { count }
    );
    assert_eq!(
        Reduction::MeanOfSequenceMeans.over(count),
        Reduction::SequenceMeansOver { count }
    );
    let given = Reduction::SumOver { count: 3.0 };
    assert_eq!(given.over(count), given);
}

#[test]
fn a_loss_per_example_reduces_as_one_token_each() {
    let mask = Tensor::new(&[1u8, 0, 1], &Device::Cpu).unwrap();
    let loss = vector(&[1.0, 9.0, 4.0]);
    for reduction in [
        Reduction::TokenMean,
        Reduction::SequenceMean,
        Reduction::MeanOfSequenceMeans,
    ] {
        assert_eq!(numbers(&reduction.apply(&loss, &mask).unwrap()), [2.5]);
        assert_eq!(reduction.count(&mask).unwrap(), 2.0);
    }
}

#[test]
fn reductions_are_stored_as_json() {
    let all = [
        (Reduction::TokenMean, "\"token_mean\""),
        (
            Reduction::SumOver { count: 2.0 },
            "{\"sum_over\":{\"count\":2.0}}",
        ),
    ];
    for (reduction, json) in all {
        assert_eq!(serde_json::to_string(&reduction).unwrap(), json);
        assert_eq!(serde_json::from_str::<Reduction>(json).unwrap(), reduction);
    }
}
