use super::close;
use candle_align::evaluation::Outcome::{self, First, Second, Tie};
use candle_align::evaluation::by_model::{
    BothOrders, LengthControlConfig, LengthRow, References, ScoreMass, alpaca_win_rate,
    both_orders, calibrated_scores, compare_scores, expected_score, fact_score, least_certain,
    length_controlled_win_rate, length_differences, multi_reference, position_bias,
    position_entropy,
};

#[test]
fn a_win_needs_both_orders() {
    for (forward, backward, want) in [
        (First, Second, First),
        (Second, First, Second),
        (First, First, Tie),
        (Second, Second, Tie),
        (First, Tie, Tie),
        (Tie, Second, Tie),
        (Tie, Tie, Tie),
    ] {
        assert_eq!(BothOrders { forward, backward }.verdict(), want);
    }
    let mut seen = Vec::new();
    let judge = |a: &'static str, b: &'static str| {
        seen.push((a, b));
        Ok(First)
    };
    let asked = both_orders(judge, "x", "y").unwrap();
    assert_eq!((asked.forward, asked.backward), (First, First));
    assert_eq!(seen, [("x", "y"), ("y", "x")]);
}

#[test]
fn position_bias_is_three_shares_of_one() {
    let all = [First, Second, Tie];
    let judgments: Vec<BothOrders> = all
        .iter()
        .flat_map(|&forward| all.map(|backward| BothOrders { forward, backward }))
        .collect();
    let bias = position_bias(&judgments).unwrap();
    // of nine pairs: (F, S), (S, F), (T, T); (F, F), (F, T), (T, F); (S, S), (S, T), (T, S)
    close(bias.consistent, 3.0 / 9.0);
    close(bias.toward_first, 3.0 / 9.0);
    close(bias.toward_second, 3.0 / 9.0);
    close(bias.half, 4.0 / 9.0);
}

#[test]
fn a_gap_makes_ties() {
    let of = |a, b| compare_scores(a, b, 0.5).unwrap();
    assert_eq!(
        [of(7.0, 6.5), of(7.0, 6.25), of(6.0, 7.0)],
        [Tie, First, Second]
    );
}

#[test]
fn calibrated_scores_are_means_over_samples_and_orders() {
    let forward = [(9.0, 6.0), (8.0, 8.0), (7.0, 8.0)];
    let backward = [(6.0, 9.0), (7.0, 9.0), (8.0, 6.0)];
    let (a, b) = calibrated_scores(&forward, &backward).unwrap();
    close(a, (9.0 + 8.0 + 7.0 + 6.0 + 7.0 + 8.0) / 6.0);
    close(b, (6.0 + 8.0 + 8.0 + 9.0 + 9.0 + 6.0) / 6.0);
    let (a, b) = calibrated_scores(&forward, &[]).unwrap();
    close(a - b, (9.0 + 8.0 + 7.0 - 6.0 - 8.0 - 8.0) / 3.0);
    // two wins, one tie, three losses
    let term = |p: f64| -p * p.ln();
    let want = term(2.0 / 6.0) + term(1.0 / 6.0) + term(3.0 / 6.0);
    close(position_entropy(&forward, &backward).unwrap(), want);
    assert_eq!(least_certain(&[0.3, 0.1, 0.3, 0.9], 0.5).unwrap(), [0, 3]);
    assert!(least_certain(&[0.3, 0.1], 0.0).unwrap().is_empty());
}

#[test]
fn an_expected_score_is_the_sum_of_scores_by_probability() {
    let scores = [(1.0, 0.1f64.ln()), (2.0, 0.3f64.ln()), (5.0, 0.2f64.ln())];
    let sum = 1.0 * 0.1 + 2.0 * 0.3 + 5.0 * 0.2;
    close(expected_score(&scores, ScoreMass::AsGiven).unwrap(), sum);
    close(
        expected_score(&scores, ScoreMass::Normalized).unwrap(),
        sum / 0.6,
    );
    // far below what e^x can show
    let rare = [(1.0, -2000.0), (3.0, -2000.0), (9.0, f64::NEG_INFINITY)];
    close(expected_score(&rare, ScoreMass::Normalized).unwrap(), 2.0);
}

#[test]
fn alpaca_s_rate_is_the_mean_preference_in_percent() {
    let rate = alpaca_win_rate(&[2.0, 1.25, 0.0, 1.5]).unwrap();
    let shares: [f64; 4] = [1.0, 0.25, 0.5, 0.5];
    let mean = shares.iter().sum::<f64>() / 4.0;
    let square: f64 = shares.iter().map(|share| (share - mean).powi(2)).sum();
    close(rate.win_rate.value, 100.0 * mean);
    close(rate.win_rate.error, 100.0 * (square / 3.0 / 4.0).sqrt());
    close(
        rate.discrete_win_rate,
        100.0 * (1.0 + 0.0 + 0.5 + 0.5) / 4.0,
    );
    assert_eq!((rate.wins, rate.losses, rate.draws), (1, 1, 2));
}

#[test]
fn the_length_controlled_fit_meets_the_conditions_of_its_minimum() {
    let baseline: Vec<f64> = (0..50)
        .map(|i| 300.0 + f64::from(i * 37 % 50) * 8.0)
        .collect();
    let model: Vec<f64> = (0..50)
        .map(|i| 300.0 + f64::from(i * 11 % 50) * 14.0)
        .collect();
    let differences = length_differences(&baseline, &model).unwrap();
    let squares: f64 = {
        let raw: Vec<f64> = baseline.iter().zip(&model).map(|(b, m)| b - m).collect();
        let center = raw.iter().sum::<f64>() / 50.0;
        raw.iter().map(|d| (d - center).powi(2)).sum::<f64>() / 49.0
    };
    close(differences[7], (baseline[7] - model[7]) / squares.sqrt());
    let row = |(at, d): (usize, &f64)| LengthRow {
        preference: (at != 4).then_some(1.0 + 1.0 / (1.0 + (0.9 * d.tanh() - 0.4).exp())),
        length_difference: *d,
        difficulty: (at % 7) as f64 / 3.0 - 1.0,
    };
    let rows: Vec<LengthRow> = differences.iter().enumerate().map(row).collect();
    let gamed: Vec<LengthRow> = rows[10..20].to_vec();
    let config = LengthControlConfig {
        gamed_weight: 0.4,
        ..Default::default()
    };
    let fit = length_controlled_win_rate(&rows, &gamed, &config).unwrap();

    // C Σ s (P − p) x = −sign(w) where w ≠ 0, else within 1 of 0
    let mut slope = [0.0; 3];
    let weighted = gamed.iter().map(|row| (row, 0.0, 0.4 / 2.0));
    for (row, own, weight) in weighted.chain(rows.iter().map(|row| (row, 1.0, 1.0))) {
        let Some(preference) = row.preference else {
            continue;
        };
        let x = [row.length_difference.tanh(), row.difficulty, own];
        let z = fit.length * x[0] + fit.difficulty * x[1] + fit.model * x[2];
        let p = 1.0 / (1.0 + (-z).exp());
        (0..3).for_each(|j| slope[j] += fit.c * weight * (p - (preference - 1.0)) * x[j]);
    }
    for (slope, w) in slope.iter().zip([fit.length, fit.difficulty, fit.model]) {
        let off = if w == 0.0 {
            (slope.abs() - 1.0).max(0.0)
        } else {
            slope + w.signum()
        };
        assert!(off.abs() < 1e-8 * fit.c.max(1.0), "{slope} {w}");
    }
    let predicted: Vec<f64> = rows
        .iter()
        .map(|row| 100.0 / (1.0 + (-fit.model - fit.difficulty * row.difficulty).exp()))
        .collect();
    close(fit.win_rate.value, predicted.iter().sum::<f64>() / 50.0);
}

#[test]
fn fact_score_shrinks_short_answers() {
    let answers = [
        Some(vec![true, true, false]),
        None,
        Some(vec![true; 4]),
        Some(vec![false; 2]),
    ];
    let of = fact_score(&answers, 4.0).unwrap();
    let penalty = |facts: f64| (1.0 - 4.0 / facts).exp();
    close(of.score, (2.0 / 3.0 * penalty(3.0) + 1.0 + 0.0) / 3.0);
    close(of.unpenalized, (2.0 / 3.0 + 1.0 + 0.0) / 3.0);
    close(of.answered, 3.0 / 4.0);
    close(of.facts, (3.0 + 4.0 + 2.0) / 3.0);
    close(fact_score(&answers, 0.0).unwrap().score, of.unpenalized);
}

#[test]
fn several_references_give_the_best_or_the_mean() {
    close(
        multi_reference(&[0.2, 0.9, 0.4], References::Highest).unwrap(),
        0.9,
    );
    close(
        multi_reference(&[0.2, 0.9, 0.4], References::Mean).unwrap(),
        1.5 / 3.0,
    );
    let swapped = [First, Second, Tie].map(Outcome::swapped);
    assert_eq!(swapped, [Second, First, Tie]);
}
