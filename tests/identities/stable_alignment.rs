use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::{
    Candidates, ListLoss, Pair, RrhfConfig, SlicConfig, StableAlignmentConfig, StableAlignmentForm,
    rrhf_loss, slic_margin_loss, stable_alignment_loss,
};
use candle_core::Var;

const SUMS: [f64; 4] = [-2.5, -4.1, -3.3, -0.9];
const LENGTHS: [f64; 4] = [2.0, 3.0, 5.0, 1.0];
const RATINGS: [f64; 4] = [2.0, 7.0, 1.0, 4.0];
const BOTH: [StableAlignmentForm; 2] = [StableAlignmentForm::Mean, StableAlignmentForm::Max];

fn of(form: StableAlignmentForm) -> StableAlignmentConfig {
    StableAlignmentConfig {
        form,
        ..Default::default()
    }
}

fn loss(
    sums: &[f64],
    lengths: &[f64],
    ratings: &[f64],
    config: &StableAlignmentConfig,
) -> ListLoss {
    let (sums, lengths, ratings) = (matrix(&[sums]), matrix(&[lengths]), matrix(&[ratings]));
    let c = Candidates::new(&sums, &lengths, &ratings, None).unwrap();
    stable_alignment_loss(&c, config).unwrap()
}

fn hinge(sums: &[f64], ratings: &[f64], config: &StableAlignmentConfig) -> Vec<f64> {
    numbers(&loss(sums, &LENGTHS[..sums.len()], ratings, config).ranking)
}

fn gradient(
    sums: &[f64],
    lengths: &[f64],
    ratings: &[f64],
    config: &StableAlignmentConfig,
) -> Vec<f64> {
    let sums = Var::from_tensor(&matrix(&[sums])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[lengths]), &matrix(&[ratings]), None).unwrap();
    let loss = stable_alignment_loss(&c, config).unwrap().loss;
    numbers(loss.backward().unwrap().get(&sums).unwrap())
}

#[test]
fn the_gradient_where_the_hinge_is_on() {
    // every worse answer gets λ/(m nᵢ), whatever its own distance
    assert_close(
        &gradient(&SUMS, &LENGTHS, &RATINGS, &of(StableAlignmentForm::Mean)),
        &[
            0.2 / (3.0 * 2.0),
            -1.2 / 3.0,
            0.2 / (3.0 * 5.0),
            0.2 / (3.0 * 1.0),
        ],
        EXACT,
        "mean",
    );
    // the largest term is that of answer 2: the lowest rating and the lowest cross-entropy
    assert_close(
        &gradient(&SUMS, &LENGTHS, &RATINGS, &of(StableAlignmentForm::Max)),
        &[0.0, -1.2 / 3.0, 0.2 / 5.0, 0.0],
        EXACT,
        "max",
    );
}

#[test]
fn the_gradient_where_the_hinge_is_off() {
    let ordered = [-8.0, -0.3, -20.0, -4.0];
    for form in BOTH {
        let config = StableAlignmentConfig {
            margin: 0.1,
            ..of(form)
        };
        let got = gradient(&ordered, &LENGTHS, &RATINGS, &config);
        assert_close(&got, &[0.0, -1.0 / 3.0, 0.0, 0.0], EXACT, "off");
    }
}

#[test]
fn several_bests_share_the_gradient() {
    let got = gradient(
        &SUMS,
        &LENGTHS,
        &[7.0, 7.0, 1.0, 4.0],
        &of(StableAlignmentForm::Mean),
    );
    let want = [
        -1.2 / (2.0 * 2.0),
        -1.2 / (2.0 * 3.0),
        0.2 / (2.0 * 5.0),
        0.2 / (2.0 * 1.0),
    ];
    assert_close(&got, &want, EXACT, "two bests");
}

#[test]
fn several_largest_terms_share_the_gradient() {
    // answers 1 and 2 have one cross-entropy and one rating
    let got = gradient(
        &[-1.0, -2.0, -4.0, -9.0],
        &[1.0, 2.0, 4.0, 3.0],
        &[5.0, 2.0, 2.0, 3.0],
        &of(StableAlignmentForm::Max),
    );
    let want = [-1.2, 0.2 / (2.0 * 2.0), 0.2 / (2.0 * 4.0), 0.0];
    assert_close(&got, &want, EXACT, "two largest");
}

#[test]
fn at_its_kink_the_hinge_has_slope_zero() {
    let no_margin = |form| StableAlignmentConfig {
        margin: 0.0,
        ..of(form)
    };
    for form in BOTH {
        // all cross-entropies are 1: h = 0 exactly
        let got = gradient(
            &[-2.0, -4.0, -1.0],
            &[2.0, 4.0, 1.0],
            &[1.0, 3.0, 2.0],
            &no_margin(form),
        );
        assert_eq!(got, [0.0, -0.25, 0.0], "{form:?}");
        // on either side of it
        for (step, on) in [(1e-9, 0.0), (-1e-9, 1.0)] {
            let got = gradient(
                &[-2.0, -4.0 + 4.0 * step, -1.0],
                &[2.0, 4.0, 1.0],
                &[1.0, 3.0, 2.0],
                &no_margin(form),
            );
            assert_close(&got[1..2], &[-(1.0 + 0.2 * on) / 4.0], EXACT, "beside");
        }
    }
}

#[test]
fn two_answers_are_slic_with_a_margin_on_the_means() {
    let delta = 10.0 / 7.0;
    for ratings in [[2.0, 7.0], [7.0, 2.0], [4.0, 3.5]] {
        let (best, worse) = match ratings[0] > ratings[1] {
            true => (0, 1),
            false => (1, 0),
        };
        let mean = |i: usize| SUMS[i] / LENGTHS[i];
        let pair = |x: &dyn Fn(usize) -> f64| Pair {
            chosen: vector(&[x(best)]),
            rejected: vector(&[x(worse)]),
        };
        let slic = slic_margin_loss(&pair(&mean), &pair(&|i| ratings[i]), &SlicConfig { delta })
            .unwrap()
            .loss;
        let want = -mean(best) + 0.2 * numbers(&slic)[0];
        for form in BOTH {
            let out = loss(&SUMS[..2], &LENGTHS[..2], &ratings, &of(form));
            assert_close(&numbers(&out.loss), &[want], EXACT, "SLiC margin");
        }
    }
}

#[test]
fn two_answers_without_a_margin_are_rrhf() {
    for ratings in [[2.0, 7.0], [7.0, 2.0]] {
        let (sums, lengths) = (matrix(&[&SUMS[..2]]), matrix(&[&LENGTHS[..2]]));
        let c = Candidates::new(&sums, &lengths, &matrix(&[&ratings]), None).unwrap();
        let rrhf = numbers(&rrhf_loss(&c, &RrhfConfig::default()).unwrap().ranking)[0];
        for form in BOTH {
            let config = StableAlignmentConfig {
                margin: 0.0,
                ..of(form)
            };
            let out = hinge(&SUMS[..2], &ratings, &config);
            assert_close(&out, &[0.2 * rrhf], EXACT, "RRHF");
        }
    }
}

#[test]
fn the_mean_lies_below_the_max_and_below_a_mean_of_hinges() {
    let means: Vec<f64> = SUMS.iter().zip(LENGTHS).map(|(s, n)| s / n).collect();
    let mut strictly = 0;
    for margin in [0.0, 0.4, 1.0, 10.0] {
        let with = |form| StableAlignmentConfig { margin, ..of(form) };
        let mean = hinge(&SUMS, &RATINGS, &with(StableAlignmentForm::Mean))[0];
        let max = hinge(&SUMS, &RATINGS, &with(StableAlignmentForm::Max))[0];
        let hinges: f64 = [0, 2, 3]
            .iter()
            .map(|&i| (means[i] - means[1] + margin / 7.0 * (7.0 - RATINGS[i])).max(0.0))
            .sum();
        let hinges = 0.2 * hinges / 3.0;
        assert!(mean <= max + EXACT && mean <= hinges + EXACT, "{margin}");
        strictly += usize::from(mean < max - 1e-3);
    }
    assert_eq!(strictly, 4);

    // terms 1 and −2: a mean of hinges would be ½
    let config = StableAlignmentConfig {
        margin: 0.0,
        ..of(StableAlignmentForm::Mean)
    };
    let out = loss(&[-2.0, -1.0, -4.0], &[1.0; 3], &[3.0, 2.0, 1.0], &config);
    assert_eq!(numbers(&out.ranking), [0.0]);
}

#[test]
fn what_a_change_of_the_ratings_changes() {
    for form in BOTH {
        let config = of(form);
        let want = hinge(&SUMS, &RATINGS, &config);
        let shifted = RATINGS.map(|r| r - 30.0);
        assert_close(&hinge(&SUMS, &shifted, &config), &want, EXACT, "shifted");
        let larger = StableAlignmentConfig {
            rating_scale: 7.0 * 2.5,
            ..config.clone()
        };
        let scaled = RATINGS.map(|r| 2.5 * r);
        assert_close(&hinge(&SUMS, &scaled, &larger), &want, EXACT, "scaled");
        assert!((hinge(&SUMS, &scaled, &config)[0] - want[0]).abs() > 0.1);
    }
}

#[test]
fn the_mean_form_sees_only_the_mean_of_the_others() {
    // token for token, what one worse answer loses another may gain
    let mut moved = SUMS;
    moved[0] -= 0.7 * LENGTHS[0];
    moved[3] += 0.7 * LENGTHS[3];
    let mean = of(StableAlignmentForm::Mean);
    let want = hinge(&SUMS, &RATINGS, &mean);
    assert_close(&hinge(&moved, &RATINGS, &mean), &want, EXACT, "means");
    // and so for their ratings
    let mut rated = RATINGS;
    rated[0] -= 0.5;
    rated[3] += 0.5;
    assert_close(&hinge(&SUMS, &rated, &mean), &want, EXACT, "ratings");
}

#[test]
fn the_hinge_sees_only_differences() {
    let shifted: Vec<f64> = SUMS.iter().zip(LENGTHS).map(|(s, n)| s - 0.4 * n).collect();
    for form in BOTH {
        let (before, after) = (
            loss(&SUMS, &LENGTHS, &RATINGS, &of(form)),
            loss(&shifted, &LENGTHS, &RATINGS, &of(form)),
        );
        assert_close(
            &numbers(&after.ranking),
            &numbers(&before.ranking),
            EXACT,
            "hinge",
        );
        let want = numbers(&before.sft)[0] + 0.4;
        assert_close(&numbers(&after.sft), &[want], EXACT, "imitation");
    }
}

#[test]
fn the_order_of_the_answers_changes_nothing() {
    let order = [2, 0, 3, 1];
    let pick = |x: &[f64; 4]| order.map(|i| x[i]);
    for form in BOTH {
        for ratings in [RATINGS, [7.0, 7.0, 1.0, 1.0]] {
            let whole = gradient(&SUMS, &LENGTHS, &ratings, &of(form));
            let moved = gradient(&pick(&SUMS), &pick(&LENGTHS), &pick(&ratings), &of(form));
            assert_close(&moved, &order.map(|i| whole[i]), EXACT, "order");
        }
    }
}

#[test]
fn a_worse_answer_twice_is_two_answers() {
    // the mean counts it twice, the max does not notice
    let (sums, lengths) = ([-1.0, -2.0, -3.0], [1.0, 2.0, 1.0]);
    let twice = |x: [f64; 3]| [x[0], x[1], x[2], x[2]];
    let ratings = [5.0, 1.0, 4.0];
    let terms = [10.0 / 7.0 * 4.0, 1.0 - 3.0 + 10.0 / 7.0];
    for (form, want) in [
        (StableAlignmentForm::Mean, (terms[0] + 2.0 * terms[1]) / 3.0),
        (StableAlignmentForm::Max, terms[0]),
    ] {
        let out = loss(&twice(sums), &twice(lengths), &twice(ratings), &of(form));
        assert_close(&numbers(&out.ranking), &[0.2 * want], EXACT, "twice");
    }
}

#[test]
fn the_parts_are_reported_without_their_history() {
    let sums = Var::from_tensor(&matrix(&[&SUMS])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[&LENGTHS]), &matrix(&[&RATINGS]), None).unwrap();
    let out = stable_alignment_loss(&c, &StableAlignmentConfig::default()).unwrap();
    for part in [&out.ranking, &out.sft] {
        let grads = (part * 1.0).unwrap().backward().unwrap();
        assert!(grads.get(&sums).is_none());
    }
}
