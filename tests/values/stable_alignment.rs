use crate::common::lists::{assert_parts, lists};
use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::{Candidates, StableAlignmentConfig, StableAlignmentForm, stable_alignment_loss};
use candle_core::Tensor;

fn max() -> StableAlignmentConfig {
    StableAlignmentConfig {
        form: StableAlignmentForm::Max,
        ..Default::default()
    }
}

/// Cross-entropies 1, 2, 0.5 and 1.5 per token; the last answer is best, then 1, 2, 0.
fn four() -> Candidates {
    lists(
        &[&[-3.0, -4.0, -2.0, -1.5]],
        &[&[3.0, 2.0, 4.0, 1.0]],
        &[&[1.0, 6.0, 3.0, 7.0]],
    )
}

#[test]
fn four_answers_of_different_lengths() {
    let margin = 10.0 / 7.0;
    let terms = [
        1.5 - 1.0 + 6.0 * margin,
        1.5 - 2.0 + 1.0 * margin,
        1.5 - 0.5 + 4.0 * margin,
    ];
    let mean = (terms[0] + terms[1] + terms[2]) / 3.0;
    assert_parts(
        &stable_alignment_loss(&four(), &StableAlignmentConfig::default()).unwrap(),
        &[0.2 * mean],
        &[1.5],
        "mean",
    );
    assert_parts(
        &stable_alignment_loss(&four(), &max()).unwrap(),
        &[0.2 * terms[0]],
        &[1.5],
        "max",
    );
}

#[test]
fn every_setting_off_its_default() {
    let terms = [
        1.5 - 1.0 + 6.0 * 0.3 / 2.0,
        1.5 - 2.0 + 1.0 * 0.3 / 2.0,
        1.5 - 0.5 + 4.0 * 0.3 / 2.0,
    ];
    let mean = (terms[0] + terms[1] + terms[2]) / 3.0;
    for (form, hinge) in [
        (StableAlignmentForm::Mean, mean),
        (StableAlignmentForm::Max, terms[2]),
    ] {
        let config = StableAlignmentConfig {
            margin: 0.3,
            ratio: 1.7,
            rating_scale: 2.0,
            form,
        };
        assert_parts(
            &stable_alignment_loss(&four(), &config).unwrap(),
            &[1.7 * hinge],
            &[1.5],
            "off default",
        );
    }
}

#[test]
fn it_is_the_hinge_of_the_mean() {
    // without a margin: terms 0.25 and −1.75; their mean is below 0, their largest is not
    let c = lists(
        &[&[-0.5, -4.5, -0.25]],
        &[&[1.0, 2.0, 1.0]],
        &[&[3.0, 1.0, 2.0]],
    );
    let no_margin = |form| StableAlignmentConfig {
        margin: 0.0,
        form,
        ..Default::default()
    };
    let (largest, mean) = (0.5 - 0.25, (0.5 - 0.25 + 0.5 - 2.25) / 2.0);
    assert!(mean < 0.0);
    assert_parts(
        &stable_alignment_loss(&c, &no_margin(StableAlignmentForm::Mean)).unwrap(),
        &[0.0],
        &[0.5],
        "mean",
    );
    assert_parts(
        &stable_alignment_loss(&c, &no_margin(StableAlignmentForm::Max)).unwrap(),
        &[0.2 * largest],
        &[0.5],
        "max",
    );
}

#[test]
fn single_answers_and_equals_have_no_hinge() {
    for config in [StableAlignmentConfig::default(), max()] {
        let single = lists(&[&[-3.0], &[-1.0]], &[&[2.0], &[4.0]], &[&[4.0], &[-9.0]]);
        assert_parts(
            &stable_alignment_loss(&single, &config).unwrap(),
            &[0.0, 0.0],
            &[3.0 / 2.0, 1.0 / 4.0],
            "one answer",
        );
        let equals = lists(&[&[-3.0, -1.0]], &[&[2.0, 4.0]], &[&[5.0, 5.0]]);
        assert_parts(
            &stable_alignment_loss(&equals, &config).unwrap(),
            &[0.0],
            &[(3.0 / 2.0 + 1.0 / 4.0) / 2.0],
            "equals",
        );
    }
}

#[test]
fn several_best_answers_share_both_terms() {
    // two bests with cross-entropies 2 and 1, two worse with 0.5 and 1.5
    let c = lists(
        &[&[-4.0, -1.0, -0.5, -3.0]],
        &[&[2.0, 1.0, 1.0, 2.0]],
        &[&[5.0, 5.0, 1.0, 3.0]],
    );
    let best = (2.0 + 1.0) / 2.0;
    let terms = [best - 0.5 + 40.0 / 7.0, best - 1.5 + 20.0 / 7.0];
    assert_parts(
        &stable_alignment_loss(&c, &StableAlignmentConfig::default()).unwrap(),
        &[0.2 * (terms[0] + terms[1]) / 2.0],
        &[best],
        "mean",
    );
    assert_parts(
        &stable_alignment_loss(&c, &max()).unwrap(),
        &[0.2 * terms[0]],
        &[best],
        "max",
    );
}

#[test]
fn a_short_list_is_the_answers_it_has() {
    let c = Candidates::new(
        &matrix(&[&[-0.1, -3.0, f64::NAN, -2.0]]),
        &matrix(&[&[1.0, 2.0, f64::NAN, 4.0]]),
        &matrix(&[&[9.0, 4.0, f64::NAN, 2.0]]),
        Some(&bits(&[&[0, 1, 0, 1]])),
    )
    .unwrap();
    for config in [StableAlignmentConfig::default(), max()] {
        assert_parts(
            &stable_alignment_loss(&c, &config).unwrap(),
            &[0.2 * (1.5 - 0.5 + 2.0 * 10.0 / 7.0)],
            &[1.5],
            "short list",
        );
    }
}

#[test]
fn a_long_list_has_one_best_answer() {
    // 300 answers of which 299 are worse: more than a byte counts
    let k = 300;
    let rewards: Vec<f64> = (0..k).map(|i| i as f64).collect();
    let c = lists(&[&vec![-1.0; k]], &[&vec![1.0; k]], &[&rewards]);
    let config = StableAlignmentConfig {
        margin: 1.0,
        ratio: 1.0,
        rating_scale: 1.0,
        ..Default::default()
    };
    // gaps 1 to 299, mean 150
    assert_parts(
        &stable_alignment_loss(&c, &config).unwrap(),
        &[150.0],
        &[1.0],
        "300 answers",
    );
}

#[test]
fn what_is_not_a_number_stays_so() {
    for (at, sum) in [(0, f64::NAN), (1, f64::NAN)] {
        let mut sums = [-1.0, -2.0, -3.0];
        sums[at] = sum;
        let c = lists(&[&sums], &[&[1.0; 3]], &[&[3.0, 2.0, 1.0]]);
        for config in [StableAlignmentConfig::default(), max()] {
            let out = stable_alignment_loss(&c, &config).unwrap();
            assert!(numbers(&out.loss)[0].is_nan(), "{config:?}, answer {at}");
        }
    }
}

/// The indexing of the authors' code: the sorted ratings, read by indices into the unsorted list.
fn as_the_authors_index(cross_entropy: &[f64], ratings: &[f64], margin: f64) -> f64 {
    let mut order: Vec<usize> = (0..ratings.len()).collect();
    order.sort_by(|&a, &b| ratings[b].total_cmp(&ratings[a]));
    let sorted: Vec<f64> = order.iter().map(|&i| ratings[i]).collect();
    let best = cross_entropy[order[0]];
    let terms: Vec<f64> = order[1..]
        .iter()
        .map(|&i| best - cross_entropy[i] + margin * (sorted[0] - sorted[i]))
        .collect();
    best + 0.2 * (terms.iter().sum::<f64>() / terms.len() as f64).max(0.0)
}

#[test]
fn ratings_belong_to_their_own_answers() {
    let margin = 10.0 / 7.0;
    let cross_entropy = [1.0, 0.5, 2.0];
    let loss = |ratings: &[f64]| {
        let sums = cross_entropy.map(|c| -c);
        let c = lists(&[&sums], &[&[1.0; 3]], &[ratings]);
        let config = StableAlignmentConfig::default();
        numbers(&stable_alignment_loss(&c, &config).unwrap().loss)[0]
    };

    // a mean gap of (4 + 2) / 2 = 3, which the authors' code takes for (0 + 4) / 2 = 2
    let without_margin = 0.5 + 0.2 * (0.5 - (1.0 + 2.0) / 2.0);
    let unsorted = [1.0, 5.0, 3.0];
    let (right, defect) = (
        without_margin + 0.2 * 3.0 * margin,
        without_margin + 0.2 * 2.0 * margin,
    );
    assert_close(&[loss(&unsorted)], &[right], EXACT, "unsorted");
    let theirs = as_the_authors_index(&cross_entropy, &unsorted, margin);
    assert_close(&[theirs], &[defect], EXACT, "the defect");

    // where the best comes first, and so on down, both are one
    let sorted = [5.0, 3.0, 1.0];
    let theirs = as_the_authors_index(&cross_entropy, &sorted, margin);
    assert_close(&[loss(&sorted)], &[theirs], EXACT, "sorted");
}

#[test]
fn single_precision_is_kept() {
    let cast = |t: Tensor| t.to_dtype(candle_core::DType::F32).unwrap();
    let c = Candidates::new(
        &cast(matrix(&[&[-3.0, -1.0]])),
        &cast(matrix(&[&[3.0, 2.0]])),
        &cast(matrix(&[&[1.0, 5.0]])),
        None,
    );
    let out = stable_alignment_loss(&c.unwrap(), &StableAlignmentConfig::default()).unwrap();
    assert_eq!(out.loss.dtype(), candle_core::DType::F32);
}
