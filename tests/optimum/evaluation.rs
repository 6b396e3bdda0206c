//! Ratings of games that were drawn from known strengths: the truth is found, and the stated errors are right.

use candle_align::evaluation::human::{
    BradleyTerryConfig, EloConfig, TieModel, bradley_terry, bradley_terry_bootstrap,
    bradley_terry_with_style, elo_ratings, win_rate,
};
use candle_align::evaluation::{Game, Outcome};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Ratings about their mean, 1000.
const TRUTH: [f64; 5] = [850.0, 930.0, 980.0, 1070.0, 1170.0];

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn logit(first: usize, second: usize) -> f64 {
    10f64.ln() * (TRUTH[first] - TRUTH[second]) / 400.0
}

/// Games between models drawn at random, each with the outcome that `play` draws.
fn study(
    count: usize,
    rng: &mut StdRng,
    play: impl Fn(usize, usize, &mut StdRng) -> Outcome,
) -> Vec<Game> {
    let mut game = || {
        let first = rng.random_range(0..5);
        let second = (first + rng.random_range(1..5)) % 5;
        Game {
            first,
            second,
            outcome: play(first, second, rng),
        }
    };
    (0..count).map(|_| game()).collect()
}

fn won(first: bool) -> Outcome {
    if first {
        Outcome::First
    } else {
        Outcome::Second
    }
}

fn plain(first: usize, second: usize, rng: &mut StdRng) -> Outcome {
    won(rng.random_bool(sigmoid(logit(first, second))))
}

/// The share of intervals that hold the truth is within 4 standard errors of 95 %. The intervals of one study
/// share their noise, so each study counts once.
fn assert_covers(held: usize, studies: usize, each: usize) {
    let share = held as f64 / (studies * each) as f64;
    let error = (0.95 * 0.05 / studies as f64).sqrt();
    assert!(
        (share - 0.95).abs() < 4.0 * error,
        "{share} of {studies} studies"
    );
}

#[test]
fn bradley_terry_finds_the_strengths_and_its_intervals_hold_them() {
    let mut rng = StdRng::seed_from_u64(1);
    let many = study(40_000, &mut rng, plain);
    let fit = bradley_terry(&many, 5, &Default::default()).unwrap();
    for (rating, truth) in fit.ratings.iter().zip(TRUTH) {
        assert!(
            (rating.value - truth).abs() < 4.0 * rating.error,
            "{rating:?} {truth}"
        );
        assert!(rating.error < 5.0, "{rating:?}");
    }
    let mut held = 0;
    for _ in 0..200 {
        let fit = bradley_terry(&study(400, &mut rng, plain), 5, &Default::default()).unwrap();
        for (rating, truth) in fit.ratings.iter().zip(TRUTH) {
            let (lower, upper) = rating.interval();
            held += usize::from((lower..upper).contains(&truth));
        }
    }
    assert_covers(held, 200, 5);
}

#[test]
fn the_bootstrap_agrees_with_the_sandwich() {
    let mut rng = StdRng::seed_from_u64(2);
    let games = study(2000, &mut rng, plain);
    let fit = bradley_terry(&games, 5, &Default::default()).unwrap();
    let spread = bradley_terry_bootstrap(&games, 5, &Default::default(), 300, 7).unwrap();
    for (rating, spread) in fit.ratings.iter().zip(&spread) {
        let error = (spread.upper - spread.lower) / (2.0 * 1.96);
        assert!(
            (error / rating.error - 1.0).abs() < 0.2,
            "{rating:?} {spread:?}"
        );
        assert!(
            (spread.median - rating.value).abs() < 0.5 * rating.error,
            "{rating:?} {spread:?}"
        );
    }
}

#[test]
fn each_model_of_ties_finds_its_own_parameter() {
    let mut rng = StdRng::seed_from_u64(3);
    let nu: f64 = 0.8;
    let davidson = |first, second, rng: &mut StdRng| {
        let half = (logit(first, second) / 2.0).exp();
        let draw = rng.random_range(0.0..half + 1.0 / half + nu);
        match draw < nu {
            true => Outcome::Tie,
            false => won(draw - nu < half),
        }
    };
    let theta: f64 = 1.7;
    let rao_kupper = |first, second, rng: &mut StdRng| {
        let z = logit(first, second);
        let (win, loss) = (sigmoid(z - theta.ln()), sigmoid(-z - theta.ln()));
        match rng.random_range(0.0..1.0) {
            draw if draw < win => Outcome::First,
            draw if draw < win + loss => Outcome::Second,
            _ => Outcome::Tie,
        }
    };
    let games = study(30_000, &mut rng, davidson);
    let of = |games: &[Game], ties| {
        bradley_terry(
            games,
            5,
            &BradleyTerryConfig {
                ties,
                ..Default::default()
            },
        )
        .unwrap()
    };
    let fit = of(&games, TieModel::Davidson);
    assert!((fit.tie.unwrap() - nu).abs() < 0.05, "{:?}", fit.tie);
    // half wins draw the ratings together: a tie says less than they take it for
    let half = of(&games, TieModel::HalfWin);
    let width = |fit: &candle_align::evaluation::human::BradleyTerry| {
        fit.ratings[4].value - fit.ratings[0].value
    };
    assert!(
        (width(&fit) - 320.0).abs() < 25.0 && width(&half) < 280.0,
        "{} {}",
        width(&fit),
        width(&half)
    );
    let games = study(30_000, &mut rng, rao_kupper);
    let fit = of(&games, TieModel::RaoKupper);
    assert!((fit.tie.unwrap() - theta).abs() < 0.05, "{:?}", fit.tie);
    for (rating, truth) in fit.ratings.iter().zip(TRUTH) {
        assert!(
            (rating.value - truth).abs() < 4.0 * rating.error,
            "{rating:?} {truth}"
        );
    }
}

#[test]
fn style_control_takes_off_what_length_explains() {
    // two equal models; the second writes longer, and length wins
    let mut rng = StdRng::seed_from_u64(4);
    let c = 1.2;
    let (mut games, mut features) = (Vec::new(), Vec::new());
    let mut held = 0;
    for _ in 0..150 {
        games.clear();
        features.clear();
        for _ in 0..300 {
            let longer: f64 = rng.random_range(-1.5..0.5);
            let outcome = won(rng.random_bool(sigmoid(c * longer)));
            games.push(Game {
                first: 0,
                second: 1,
                outcome,
            });
            features.push(vec![longer]);
        }
        let fit = bradley_terry_with_style(&games, &features, 2, &Default::default()).unwrap();
        let (lower, upper) = fit.coefficients[0].interval();
        held += usize::from((lower..upper).contains(&c));
        let (lower, upper) = fit.ratings[0].interval();
        held += usize::from((lower..upper).contains(&1000.0));
        let raw = bradley_terry(&games, 2, &Default::default()).unwrap();
        assert!(raw.ratings[0].interval().1 < 1000.0, "{raw:?}");
    }
    assert_covers(held, 150, 2);
}

#[test]
fn elo_settles_around_the_strengths() {
    let mut rng = StdRng::seed_from_u64(5);
    let games = study(60_000, &mut rng, plain);
    let ratings = elo_ratings(&games, 5, &EloConfig::default()).unwrap();
    // a standard deviation of about √(K · 400/(2 ln 10)) = 19
    for (rating, truth) in ratings.iter().zip(TRUTH) {
        assert!((rating - truth).abs() < 4.0 * 19.0, "{rating} {truth}");
    }
}

#[test]
fn the_interval_of_a_win_rate_holds_the_truth() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut held = 0;
    for _ in 0..1000 {
        let outcomes: Vec<Outcome> = (0..200)
            .map(|_| match rng.random_range(0.0..1.0) {
                draw if draw < 0.5 => Outcome::First,
                draw if draw < 0.7 => Outcome::Tie,
                _ => Outcome::Second,
            })
            .collect();
        let (lower, upper) = win_rate(&outcomes, Default::default())
            .unwrap()
            .rate
            .interval();
        held += usize::from((lower..upper).contains(&0.6));
    }
    assert_covers(held, 1000, 1);
}
