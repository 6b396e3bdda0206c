//! FastChat, scikit-learn, statsmodels, krippendorff, and the formulas of Bradley–Terry models in SciPy.

use super::{all_close, cases, close};
use candle_align::evaluation::human::{
    Anchor, BradleyTerryConfig, EloConfig, KappaWeights, Level, TieModel, VoteTies, bradley_terry,
    bradley_terry_with_style, cohen_kappa, elo_ratings, fleiss_kappa, judge_agreement,
    krippendorff_alpha, style_features, vote_agreement,
};
use candle_align::evaluation::{Estimate, Game, Outcome};
use serde::Deserialize;

const FILE: &str = "evaluation_human";
const EXACT: f64 = 1e-12;
/// What the oracle's minimizers reach.
const FITTED: f64 = 1e-7;

fn games(rows: &[(usize, usize, Outcome)]) -> Vec<Game> {
    let game = |&(first, second, outcome): &(usize, usize, Outcome)| Game {
        first,
        second,
        outcome,
    };
    rows.iter().map(game).collect()
}

fn values(estimates: &[Estimate]) -> Vec<f64> {
    estimates.iter().map(|estimate| estimate.value).collect()
}

fn errors(estimates: &[Estimate]) -> Vec<f64> {
    estimates.iter().map(|estimate| estimate.error).collect()
}

#[derive(Deserialize)]
struct Elo {
    name: String,
    models: usize,
    games: Vec<(usize, usize, Outcome)>,
    k: f64,
    ratings: Vec<f64>,
}

#[test]
fn elo() {
    for case in cases::<Elo>(FILE, "elo") {
        let config = EloConfig {
            k: case.k,
            ..Default::default()
        };
        let ratings = elo_ratings(&games(&case.games), case.models, &config).unwrap();
        all_close(&ratings, &case.ratings, EXACT, &case.name);
    }
}

#[derive(Deserialize)]
struct Fitted {
    name: String,
    models: usize,
    games: Vec<(usize, usize, Outcome)>,
    regularization: f64,
    ratings: Vec<f64>,
    errors: Vec<f64>,
    anchored_ratings: Vec<f64>,
    anchored_errors: Vec<f64>,
    sklearn: Option<Vec<f64>>,
}

#[test]
fn bradley_terry_ratings_and_their_errors() {
    for case in cases::<Fitted>(FILE, "bradley_terry") {
        let games = games(&case.games);
        let config = BradleyTerryConfig {
            regularization: case.regularization,
            ..Default::default()
        };
        let fit = bradley_terry(&games, case.models, &config).unwrap();
        all_close(&values(&fit.ratings), &case.ratings, FITTED, &case.name);
        all_close(&errors(&fit.ratings), &case.errors, FITTED, &case.name);
        let anchor = Some(Anchor {
            model: 1,
            rating: 1114.0,
        });
        let config = BradleyTerryConfig { anchor, ..config };
        let fit = bradley_terry(&games, case.models, &config).unwrap();
        all_close(
            &values(&fit.ratings),
            &case.anchored_ratings,
            FITTED,
            &case.name,
        );
        // the anchor's own error is 0, and its square root hides no more than half the digits
        for (got, want) in fit.ratings.iter().zip(&case.anchored_errors) {
            close(
                got.error,
                *want,
                if *want < 1e-3 { 1e-3 } else { FITTED },
                &case.name,
            );
        }
        if let Some(ratings) = &case.sklearn {
            // scikit-learn stops at a gradient of 1e-4
            let fit = BradleyTerryConfig {
                anchor: None,
                ..config
            };
            let fit = bradley_terry(&games, case.models, &fit).unwrap();
            all_close(&values(&fit.ratings), ratings, 1e-4, &case.name);
        }
    }
}

#[derive(Deserialize)]
struct Tied {
    name: String,
    kind: TieModel,
    models: usize,
    games: Vec<(usize, usize, Outcome)>,
    ratings: Vec<f64>,
    tie: f64,
    log_likelihood: f64,
}

#[test]
fn models_of_ties() {
    for case in cases::<Tied>(FILE, "tied") {
        let what = format!("{} {:?}", case.name, case.kind);
        let config = BradleyTerryConfig {
            ties: case.kind,
            ..Default::default()
        };
        let fit = bradley_terry(&games(&case.games), case.models, &config).unwrap();
        // the oracle's gradient is numeric
        all_close(&values(&fit.ratings), &case.ratings, 1e-5, &what);
        close(fit.tie.unwrap(), case.tie, 1e-5, &what);
        close(fit.log_likelihood, case.log_likelihood, 1e-9, &what);
        assert!(fit.log_likelihood >= case.log_likelihood - 1e-9, "{what}");
    }
}

#[derive(Deserialize)]
struct Style {
    models: usize,
    games: Vec<(usize, usize, Outcome)>,
    first: Vec<Vec<f64>>,
    second: Vec<Vec<f64>>,
    regularization: f64,
    features: Vec<Vec<f64>>,
    ratings: Vec<f64>,
    coefficients: Vec<f64>,
    errors: Vec<f64>,
}

#[test]
fn style_control() {
    for case in cases::<Style>(FILE, "style") {
        let features = style_features(&case.first, &case.second).unwrap();
        for (got, want) in features.iter().zip(&case.features) {
            all_close(got, want, EXACT, "features");
        }
        let config = BradleyTerryConfig {
            regularization: case.regularization,
            ..Default::default()
        };
        let games = games(&case.games);
        let fit = bradley_terry_with_style(&games, &features, case.models, &config).unwrap();
        all_close(&values(&fit.ratings), &case.ratings, FITTED, "ratings");
        all_close(
            &values(&fit.coefficients),
            &case.coefficients,
            FITTED,
            "coefficients",
        );
        let ratings = errors(&fit.ratings).into_iter().map(|error| error / 400.0);
        let got: Vec<f64> = ratings.chain(errors(&fit.coefficients)).collect();
        all_close(&got, &case.errors, FITTED, "errors");
    }
}

#[derive(Deserialize)]
struct Votes {
    people: Vec<Vec<Outcome>>,
    judge: Vec<Outcome>,
    among: [[usize; 2]; 2],
    against: [[usize; 2]; 2],
}

#[test]
fn agreement() {
    for case in cases::<Votes>(FILE, "agreement") {
        for (at, ties) in [VoteTies::Counted, VoteTies::Dropped]
            .into_iter()
            .enumerate()
        {
            let among = vote_agreement(&case.people, ties);
            assert_eq!([among.equal, among.pairs], case.among[at], "{ties:?}");
            let against = judge_agreement(&case.judge, &case.people, ties).unwrap();
            assert_eq!([against.equal, against.pairs], case.against[at], "{ties:?}");
        }
    }
}

#[derive(Deserialize)]
struct Cohen {
    first: Vec<usize>,
    second: Vec<usize>,
    categories: usize,
    kappas: [f64; 3],
}

#[derive(Deserialize)]
struct Fleiss {
    counts: Vec<Vec<usize>>,
    kappa: f64,
}

#[derive(Deserialize)]
struct Alpha {
    ratings: Vec<Vec<Option<f64>>>,
    alphas: [f64; 4],
}

#[test]
fn kappas_and_alpha() {
    for case in cases::<Cohen>(FILE, "cohen") {
        let weights = [
            KappaWeights::None,
            KappaWeights::Linear,
            KappaWeights::Quadratic,
        ];
        for (weights, want) in weights.into_iter().zip(case.kappas) {
            let got = cohen_kappa(&case.first, &case.second, case.categories, weights).unwrap();
            close(got, want, EXACT, "cohen_kappa");
        }
    }
    for case in cases::<Fleiss>(FILE, "fleiss") {
        close(
            fleiss_kappa(&case.counts).unwrap(),
            case.kappa,
            EXACT,
            "fleiss_kappa",
        );
    }
    for case in cases::<Alpha>(FILE, "krippendorff") {
        let levels = [
            Level::Nominal,
            Level::Ordinal,
            Level::Interval,
            Level::Ratio,
        ];
        for (level, want) in levels.into_iter().zip(case.alphas) {
            let got = krippendorff_alpha(&case.ratings, level).unwrap();
            close(got, want, EXACT, &format!("{level:?}"));
        }
    }
}
