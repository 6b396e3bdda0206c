use super::{config, is_close, outcome, reversed};
use candle_align::evaluation::Outcome;
use candle_align::evaluation::by_model::{
    BothOrders, LengthRow, References, ScoreMass, alpaca_win_rate, both_orders, calibrated_scores,
    compare_scores, expected_score, fact_score, least_certain, length_controlled_win_rate,
    multi_reference, position_bias, position_entropy,
};
use candle_align::evaluation::human::{Ties, win_rate};
use proptest::collection::vec;
use proptest::prelude::*;

fn both() -> impl Strategy<Value = BothOrders> {
    (outcome(), outcome()).prop_map(|(forward, backward)| BothOrders { forward, backward })
}

fn pairs() -> impl Strategy<Value = Vec<(f64, f64)>> {
    vec((1..10u8, 1..10u8), 1..6).prop_map(|pairs| {
        pairs
            .iter()
            .map(|(a, b)| (f64::from(*a), f64::from(*b)))
            .collect()
    })
}

fn exchanged(pairs: &[(f64, f64)]) -> Vec<(f64, f64)> {
    pairs.iter().map(|(a, b)| (*b, *a)).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn swapping_the_answers_flips_the_verdict(a in 0..10i32, b in 0..10i32, bias in 0..6i32) {
        // a judge of numbers that adds a bonus to whatever stands first
        let judge = |x: &i32, y: &i32| Ok(match (x + bias).cmp(y) {
            std::cmp::Ordering::Greater => Outcome::First,
            std::cmp::Ordering::Less => Outcome::Second,
            std::cmp::Ordering::Equal => Outcome::Tie,
        });
        let asked = both_orders(judge, &a, &b).unwrap();
        let turned = both_orders(judge, &b, &a).unwrap();
        prop_assert_eq!(asked.verdict(), turned.verdict().swapped());
        prop_assert_eq!((asked.forward, asked.backward), (turned.backward, turned.forward));
        // a verdict other than a tie is right
        match asked.verdict() {
            Outcome::First => prop_assert!(a > b),
            Outcome::Second => prop_assert!(a < b),
            Outcome::Tie => prop_assert!((a - b).abs() <= bias),
        }
    }

    #[test]
    fn position_bias_knows_no_sides(judgments in vec(both(), 1..20)) {
        let bias = position_bias(&judgments).unwrap();
        prop_assert!(is_close(bias.consistent + bias.toward_first + bias.toward_second, 1.0, 1e-12));
        let turn = |of: &BothOrders| BothOrders { forward: of.backward, backward: of.forward };
        prop_assert_eq!(bias, position_bias(&judgments.iter().map(turn).collect::<Vec<_>>()).unwrap());
    }

    #[test]
    fn calibration_cancels_what_is_added_to_a_position(forward in pairs(), bonus in -3.0..3.0f64) {
        let shifted: Vec<_> = forward.iter().map(|(a, b)| (a + bonus, *b)).collect();
        // in the other order the second answer gets the bonus
        let backward: Vec<_> = forward.iter().map(|(a, b)| (*a, b + bonus)).collect();
        let (a, b) = calibrated_scores(&shifted, &backward).unwrap();
        let (x, y) = calibrated_scores(&forward, &forward).unwrap();
        prop_assert!(is_close(a - b, x - y, 1e-12) && is_close(a, x + bonus / 2.0, 1e-12));
        // exchanging the answers
        let (c, d) = calibrated_scores(&exchanged(&backward), &exchanged(&shifted)).unwrap();
        prop_assert!(is_close(c, b, 1e-12) && is_close(d, a, 1e-12));
        let entropy = position_entropy(&shifted, &backward).unwrap();
        prop_assert!((0.0..=3f64.ln() + 1e-12).contains(&entropy));
        let turned = position_entropy(&exchanged(&backward), &exchanged(&shifted)).unwrap();
        prop_assert!(is_close(entropy, turned, 1e-12));
    }

    #[test]
    fn a_larger_share_contains_the_smaller(entropies in vec(0.0..1.1f64, 1..20), a in 0.0..1.0f64, b in 0.0..1.0f64) {
        let small = least_certain(&entropies, a.min(b)).unwrap();
        let large = least_certain(&entropies, a.max(b)).unwrap();
        prop_assert!(small.iter().all(|at| large.contains(at)));
        let lowest = |kept: &[usize]| kept.iter().map(|at| entropies[*at]).fold(f64::INFINITY, f64::min);
        let out = (0..entropies.len()).filter(|at| !large.contains(at));
        prop_assert!(out.into_iter().all(|at| entropies[at] <= lowest(&large)));
    }

    #[test]
    fn scores_compare_antisymmetrically(a in 1.0..10.0f64, b in 1.0..10.0f64, gap in 0.0..1.0f64) {
        let one = compare_scores(a, b, gap).unwrap();
        prop_assert_eq!(one, compare_scores(b, a, gap).unwrap().swapped());
        prop_assert_eq!(one == Outcome::Tie, (a - b).abs() <= gap);
    }

    #[test]
    fn an_expected_score_is_a_mean(samples in vec((1..6u8, 0.01..1.0f64), 1..8), factor in 0.01..1.0f64) {
        let total: f64 = samples.iter().map(|(_, p)| p).sum();
        let scores: Vec<_> = samples.iter().map(|(s, p)| (f64::from(*s), (p / total).ln())).collect();
        let normalized = expected_score(&scores, ScoreMass::Normalized).unwrap();
        prop_assert!((1.0 - 1e-12..=5.0 + 1e-12).contains(&normalized));
        prop_assert!(is_close(normalized, expected_score(&scores, ScoreMass::AsGiven).unwrap(), 1e-12));
        let scaled: Vec<_> = scores.iter().map(|(s, log)| (*s, log + factor.ln())).collect();
        prop_assert!(is_close(normalized, expected_score(&scaled, ScoreMass::Normalized).unwrap(), 1e-12));
        let raw = expected_score(&scaled, ScoreMass::AsGiven).unwrap();
        prop_assert!(is_close(raw, factor * normalized, 1e-12));
        // samples of equal weight give their mean
        let n = samples.len() as f64;
        let equal: Vec<_> = samples.iter().map(|(s, _)| (f64::from(*s), (1.0 / n).ln())).collect();
        let mean = samples.iter().map(|(s, _)| f64::from(*s)).sum::<f64>() / n;
        prop_assert!(is_close(mean, expected_score(&equal, ScoreMass::AsGiven).unwrap(), 1e-12));
    }

    #[test]
    fn alpaca_s_rate_is_mirrored_and_is_the_win_rate(outcomes in vec(outcome(), 1..30)) {
        let preferences: Vec<f64> = outcomes.iter().map(|outcome| 1.0 + outcome.score()).collect();
        let rate = alpaca_win_rate(&preferences).unwrap();
        let plain = win_rate(&outcomes, Ties::Half).unwrap();
        prop_assert!(is_close(rate.win_rate.value, 100.0 * plain.rate.value, 1e-12));
        prop_assert!(is_close(rate.discrete_win_rate, rate.win_rate.value, 1e-12));
        prop_assert_eq!((rate.wins, rate.losses, rate.draws), (plain.wins, plain.losses, plain.ties));
        let mirrored: Vec<f64> = preferences.iter().map(|p| 3.0 - p).collect();
        let other = alpaca_win_rate(&mirrored).unwrap();
        prop_assert!(is_close(rate.win_rate.value + other.win_rate.value, 100.0, 1e-12));
    }

    #[test]
    fn length_control_can_be_told_from_either_side(
        rows in vec((0.0..1.0f64, -2.0..2.0f64, -1.0..1.0f64), 10..30)
    ) {
        let row = |preference, length_difference, difficulty| LengthRow { preference: Some(preference), length_difference, difficulty };
        let one: Vec<_> = rows.iter().map(|(p, d, g)| row(1.0 + p, *d, *g)).collect();
        let other: Vec<_> = rows.iter().map(|(p, d, g)| row(2.0 - p, -d, -g)).collect();
        let config = Default::default();
        let a = length_controlled_win_rate(&one, &[], &config).unwrap();
        let b = length_controlled_win_rate(&other, &[], &config).unwrap();
        // mirrored difficulties: the model's own coefficient alone changes its sign
        prop_assert!(is_close(a.model, -b.model, 1e-6) && is_close(a.difficulty, b.difficulty, 1e-6));
        prop_assert!(is_close(a.win_rate.value + b.win_rate.value, 100.0, 1e-6), "{a:?} {b:?}");
    }

    #[test]
    fn facts_and_references_in_any_order(answers in vec(proptest::option::of(vec(any::<bool>(), 1..12)), 1..8), gamma in 0.0..12.0f64) {
        if let Ok(score) = fact_score(&answers, gamma) {
            let turned: Vec<_> = reversed(&answers).iter().map(|a| a.as_ref().map(|facts| reversed(facts))).collect();
            let other = fact_score(&turned, gamma).unwrap();
            prop_assert!(is_close(score.score, other.score, 1e-12));
            prop_assert!(score.score <= score.unpenalized + 1e-15 && score.score >= 0.0);
        }
    }

    #[test]
    fn a_further_reference_never_lowers_the_highest(scores in vec(0.0..1.0f64, 2..8)) {
        let of = |scores: &[f64], by| multi_reference(scores, by).unwrap();
        prop_assert!(of(&scores[1..], References::Highest) <= of(&scores, References::Highest));
        prop_assert_eq!(of(&scores[..1], References::Highest), of(&scores[..1], References::Mean));
        prop_assert!(of(&scores, References::Mean) <= of(&scores, References::Highest) + 1e-15);
    }
}

#[test]
fn length_alone_is_worth_nothing() {
    // the longer answer always has 0.8
    let row = |at: usize| {
        let length_difference = (at as f64 - 29.5) / 20.0 - 0.6;
        LengthRow {
            preference: Some(1.0 + if length_difference < 0.0 { 0.8 } else { 0.2 }),
            length_difference,
            difficulty: 0.0,
        }
    };
    let rows: Vec<LengthRow> = (0..60).map(row).collect();
    let preferences: Vec<f64> = rows.iter().filter_map(|row| row.preference).collect();
    let raw = alpaca_win_rate(&preferences).unwrap().win_rate.value;
    let controlled = length_controlled_win_rate(&rows, &[], &Default::default()).unwrap();
    assert!(raw > 60.0, "{raw}");
    assert!(
        (controlled.win_rate.value - 50.0).abs() < 5.0,
        "{controlled:?}"
    );
}
