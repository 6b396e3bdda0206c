//! alpaca_eval's own functions, and the formulas of MT-bench, FairEval and FActScore.

use super::{all_close, cases, close};
use candle_align::evaluation::Outcome;
use candle_align::evaluation::by_model::{
    BothOrders, LengthRow, alpaca_win_rate, calibrated_scores, fact_score,
    length_controlled_win_rate, length_differences, position_entropy,
};
use candle_align::evaluation::human::{Ties, win_rate};
use serde::Deserialize;

const FILE: &str = "evaluation_model";
const EXACT: f64 = 1e-12;

#[derive(Deserialize)]
struct Alpaca {
    preferences: Vec<f64>,
    win_rate: f64,
    standard_error: f64,
    wins: usize,
    losses: usize,
    draws: usize,
    discrete_win_rate: f64,
}

#[test]
fn alpaca() {
    for case in cases::<Alpaca>(FILE, "alpaca") {
        let got = alpaca_win_rate(&case.preferences).unwrap();
        close(got.win_rate.value, case.win_rate, EXACT, "win_rate");
        close(
            got.win_rate.error,
            case.standard_error,
            EXACT,
            "standard_error",
        );
        close(
            got.discrete_win_rate,
            case.discrete_win_rate,
            EXACT,
            "discrete_win_rate",
        );
        assert_eq!(
            (got.wins, got.losses, got.draws),
            (case.wins, case.losses, case.draws)
        );
    }
}

type Row = (Option<f64>, f64, f64);

#[derive(Deserialize)]
struct Controlled {
    name: String,
    tolerance: f64,
    lengths: [Vec<f64>; 2],
    rows: Vec<Row>,
    gamed: Vec<Row>,
    coefficients: [f64; 3],
    c: f64,
    win_rate: f64,
    standard_error: f64,
}

fn rows(of: &[Row]) -> Vec<LengthRow> {
    let row = |&(preference, length_difference, difficulty): &Row| LengthRow {
        preference,
        length_difference,
        difficulty,
    };
    of.iter().map(row).collect()
}

#[test]
fn length_controlled() {
    for case in cases::<Controlled>(FILE, "length_controlled") {
        let what = format!("{} at {:e}", case.name, case.tolerance);
        let lengths = length_differences(&case.lengths[0], &case.lengths[1]).unwrap();
        let wanted: Vec<f64> = case.rows.iter().map(|row| row.1).collect();
        all_close(&lengths, &wanted, EXACT, &what);

        let (own, gamed) = (rows(&case.rows), rows(&case.gamed));
        let got = length_controlled_win_rate(&own, &gamed, &Default::default()).unwrap();
        // liblinear stops where its own criterion says, and at 1e-4 it may take another C of equal loss
        let tight = case.tolerance < 1e-6;
        let (coefficients, percent) = if tight { (2e-6, 1e-6) } else { (5e-4, 2e-4) };
        let fitted = [got.length, got.difficulty, got.model];
        all_close(&fitted, &case.coefficients, coefficients, &what);
        close(got.win_rate.value, case.win_rate, percent, &what);
        close(got.win_rate.error, case.standard_error, percent, &what);
        if tight {
            close(got.c, case.c, EXACT, &what);
        }
    }
}

#[derive(Deserialize)]
struct Orders {
    games: Vec<(Outcome, Outcome)>,
    win_rate: f64,
    loss_rate: f64,
    win_rate_adjusted: f64,
}

#[test]
fn both_orders_of_mt_bench() {
    for case in cases::<Orders>(FILE, "mt_bench") {
        let of = |&(forward, backward): &(Outcome, Outcome)| BothOrders { forward, backward };
        let verdicts: Vec<Outcome> = case.games.iter().map(|game| of(game).verdict()).collect();
        let swapped: Vec<Outcome> = verdicts.iter().map(|verdict| verdict.swapped()).collect();
        let rate = |outcomes: &[Outcome], ties| win_rate(outcomes, ties).unwrap().rate.value;
        close(
            rate(&verdicts, Ties::Loss),
            case.win_rate,
            EXACT,
            "win_rate",
        );
        close(
            rate(&swapped, Ties::Loss),
            case.loss_rate,
            EXACT,
            "loss_rate",
        );
        close(
            rate(&verdicts, Ties::Half),
            case.win_rate_adjusted,
            EXACT,
            "adjusted",
        );
    }
}

#[derive(Deserialize)]
struct Fair {
    forward: Vec<(f64, f64)>,
    backward: Vec<(f64, f64)>,
    scores: [f64; 2],
    entropy: f64,
}

#[test]
fn fair_eval() {
    for case in cases::<Fair>(FILE, "fair_eval") {
        let (first, second) = calibrated_scores(&case.forward, &case.backward).unwrap();
        all_close(&[first, second], &case.scores, EXACT, "calibrated_scores");
        let entropy = position_entropy(&case.forward, &case.backward).unwrap();
        close(entropy, case.entropy, EXACT, "position_entropy");
    }
}

#[derive(Deserialize)]
struct Facts {
    answers: Vec<Option<Vec<bool>>>,
    gamma: f64,
    score: f64,
    unpenalized: f64,
    answered: f64,
    facts: f64,
}

#[test]
fn facts() {
    for case in cases::<Facts>(FILE, "fact_score") {
        let got = fact_score(&case.answers, case.gamma).unwrap();
        let got = [got.score, got.unpenalized, got.answered, got.facts];
        let want = [case.score, case.unpenalized, case.answered, case.facts];
        all_close(&got, &want, EXACT, "fact_score");
    }
}
