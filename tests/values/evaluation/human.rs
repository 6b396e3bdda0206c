use super::close;
use candle_align::evaluation::Outcome::{First, Second, Tie};
use candle_align::evaluation::human::{
    Anchor, BradleyTerryConfig, EloConfig, KappaWeights, Level, TieModel, Ties, VoteTies,
    bradley_terry, bradley_terry_bootstrap, bradley_terry_with_style, cohen_kappa, elo_bootstrap,
    elo_over_orders, elo_ratings, fleiss_kappa, judge_agreement, krippendorff_alpha,
    ordinal_shares, style_features, vote_agreement, win_rate,
};
use candle_align::evaluation::{Game, Outcome};

fn duels(outcomes: &[(Outcome, usize)]) -> Vec<Game> {
    let game = |outcome| Game {
        first: 0,
        second: 1,
        outcome,
    };
    let each = |&(outcome, count): &(Outcome, usize)| vec![game(outcome); count];
    outcomes.iter().flat_map(each).collect()
}

#[test]
fn shares_and_win_rates_have_the_error_of_a_mean() {
    let shares = ordinal_shares(&[3, 0, 0, 1, 0], 4).unwrap();
    for (share, want) in shares.iter().zip([3.0 / 5.0, 1.0 / 5.0, 0.0, 1.0 / 5.0]) {
        close(share.value, want);
        close(share.error, (want * (1.0 - want) / 4.0).sqrt());
    }
    let games = [First, First, First, Tie, Second];
    let of = |ties| win_rate(&games, ties).unwrap();
    close(of(Ties::Half).rate.value, 3.5 / 5.0);
    // s² = (3 · 0.3² + 0.2² + 0.7²)/4
    close(
        of(Ties::Half).rate.error,
        ((0.27 + 0.04 + 0.49) / 4.0 / 5.0f64).sqrt(),
    );
    close(of(Ties::Loss).rate.value, 3.0 / 5.0);
    close(of(Ties::Dropped).rate.value, 3.0 / 4.0);
    close(
        of(Ties::Dropped).rate.error,
        (3.0 / 4.0 * 1.0 / 4.0 / 3.0f64).sqrt(),
    );
    assert_eq!(
        (
            of(Ties::Half).wins,
            of(Ties::Half).losses,
            of(Ties::Half).ties
        ),
        (3, 1, 1)
    );
    assert!(win_rate(&[First], Ties::Half).unwrap().rate.error.is_nan());
}

#[test]
fn elo_moves_both_by_k_times_the_surprise() {
    let config = EloConfig {
        k: 32.0,
        ..Default::default()
    };
    let games = duels(&[(First, 1), (Second, 1), (Tie, 1)]);
    let ratings = elo_ratings(&games, 3, &config).unwrap();
    let expected = |lead: f64| 1.0 / (1.0 + 10f64.powf(-lead / 400.0));
    let one = 32.0 * (1.0 - 0.5);
    let two = one + 32.0 * (0.0 - expected(2.0 * one));
    let three = two + 32.0 * (0.5 - expected(2.0 * two));
    close(ratings[0], 1000.0 + three);
    close(ratings[1], 1000.0 - three);
    assert_eq!(ratings[2], 1000.0);
}

#[test]
fn elo_over_orders_has_the_mean_of_all_orders() {
    // two games, two orders: who wins last is ahead
    let config = EloConfig {
        k: 32.0,
        ..Default::default()
    };
    let games = duels(&[(First, 1), (Second, 1)]);
    let ahead = 1000.0 + elo_ratings(&[games[1], games[0]], 2, &config).unwrap()[0] - 1000.0;
    let behind = elo_ratings(&games, 2, &config).unwrap()[0];
    let spread = elo_over_orders(&games, 2, &config, 400, 1).unwrap()[0];
    close(spread.upper, ahead);
    close(spread.lower, behind);
    close(ahead + behind, 2000.0);
    // the mean of 400 flips of a coin, within 4 standard errors
    assert!(
        (spread.mean - 1000.0).abs() < 4.0 * (ahead - 1000.0) / 20.0,
        "{spread:?}"
    );
}

#[test]
fn a_bootstrap_draws_games_with_replacement() {
    // one win, one loss: a sample has none, one or two wins with ¼, ½, ¼
    let config = EloConfig::default();
    let games = duels(&[(First, 1), (Second, 1)]);
    let wins = elo_ratings(&duels(&[(First, 2)]), 2, &config).unwrap()[0];
    let spread = elo_bootstrap(&games, 2, &config, 300, 1).unwrap()[0];
    close(spread.upper, wins);
    close(spread.lower, 2000.0 - wins);
    let games = duels(&[(First, 30), (Second, 20)]);
    let spread = bradley_terry_bootstrap(&games, 2, &Default::default(), 300, 1).unwrap()[0];
    assert!(spread.lower < spread.median && spread.median < spread.upper);
    // half of the lead 400 log₁₀(30/20), within 4 errors of a median
    let (want, error) = (
        200.0 * 1.5f64.log10(),
        200.0 / 10f64.ln() / (50.0 * 0.24f64).sqrt(),
    );
    assert!(
        (spread.median - 1000.0 - want).abs() < 4.0 * 1.26 * error / 300f64.sqrt(),
        "{spread:?}"
    );
}

#[test]
fn two_models_lead_by_the_logarithm_of_their_points() {
    let games = duels(&[(First, 5), (Second, 2), (Tie, 2)]);
    let fit = bradley_terry(&games, 2, &Default::default()).unwrap();
    let want = 400.0 * (6.0 / 3.0f64).log10();
    close(fit.ratings[0].value, 1000.0 + want / 2.0);
    close(fit.ratings[1].value, 1000.0 - want / 2.0);
    // H = 9 p(1 − p), B = Σ (S − p)², p = 2/3; the lead's error is √B/H in units of 400/ln 10
    let p: f64 = 6.0 / 9.0;
    let b = 5.0 * (1.0 - p).powi(2) + 2.0 * p.powi(2) + 2.0 * (0.5 - p).powi(2);
    let error = 400.0 / 10f64.ln() * b.sqrt() / (9.0 * p * (1.0 - p));
    close(fit.ratings[0].error, error / 2.0);
    close(fit.log_likelihood, 6.0 * p.ln() + 3.0 * (1.0 - p).ln());
    let anchor = Some(Anchor {
        model: 1,
        rating: 800.0,
    });
    let config = BradleyTerryConfig {
        anchor,
        ..Default::default()
    };
    let fit = bradley_terry(&games, 2, &config).unwrap();
    close(fit.ratings[0].value, 800.0 + want);
    close(fit.ratings[0].error, error);
    assert!(fit.ratings[1].error < 1e-6);
}

#[test]
fn two_models_under_the_models_of_ties() {
    let games = duels(&[(First, 6), (Second, 2), (Tie, 4)]);
    let of = |ties| {
        let config = BradleyTerryConfig {
            ties,
            scale: 1.0,
            base: std::f64::consts::E,
            ..Default::default()
        };
        let fit = bradley_terry(&games, 2, &config).unwrap();
        (fit.ratings[0].value - fit.ratings[1].value, fit.tie)
    };
    // three shares, two numbers: both models meet the shares
    let (z, nu) = of(TieModel::Davidson);
    close(z, (6.0 / 2.0f64).ln());
    close(nu.unwrap(), 4.0 / (6.0 * 2.0f64).sqrt());
    let (z, theta) = of(TieModel::RaoKupper);
    let logit = |p: f64| (p / (1.0 - p)).ln();
    close(z, (logit(6.0 / 12.0) - logit(2.0 / 12.0)) / 2.0);
    close(
        theta.unwrap().ln(),
        -(logit(6.0 / 12.0) + logit(2.0 / 12.0)) / 2.0,
    );
    assert_eq!(of(TieModel::HalfWin).1, None);
}

#[test]
fn a_penalty_and_a_feature_enter_the_equation_of_the_maximum() {
    let game = |outcome| Game {
        first: 0,
        second: 1,
        outcome,
    };
    let games = [First, Second, Second, First, First].map(game);
    let features = [[1.0], [1.0], [-2.0], [0.5], [-0.5]].map(|x| x.to_vec());
    let config = BradleyTerryConfig {
        regularization: 0.5,
        ..Default::default()
    };
    let fit = bradley_terry_with_style(&games, &features, 2, &config).unwrap();
    let rho = [0, 1].map(|i| (fit.ratings[i].value - 1000.0) / 400.0);
    let c = fit.coefficients[0].value;
    let (mut of_rho, mut of_c) = (0.5 * rho[0], 0.5 * c);
    for (game, x) in games.iter().zip(&features) {
        let z = 10f64.ln() * (rho[0] - rho[1]) + x[0] * c;
        let surprise = game.outcome.score() - 1.0 / (1.0 + (-z).exp());
        of_rho -= 10f64.ln() * surprise;
        of_c -= x[0] * surprise;
    }
    assert!(
        of_rho.abs() < 1e-11 && of_c.abs() < 1e-11,
        "{of_rho:e} {of_c:e}"
    );
    // (a − b)/(a + b + 1) of two games is 1/4 and −1/2
    let x = style_features(&[vec![2.0], vec![0.0]], &[vec![1.0], vec![1.0]]).unwrap();
    let (center, spread) = ((0.25 - 0.5) / 2.0, 0.375);
    close(x[0][0], (0.25 - center) / spread);
    close(x[1][0], (-0.5 - center) / spread);
}

#[test]
fn agreement_counts_pairs_of_votes() {
    let items = [
        vec![First, First, Second, Tie],
        vec![Tie, Tie],
        vec![First],
        vec![],
    ];
    let all = vote_agreement(&items, VoteTies::Counted);
    assert_eq!((all.equal, all.pairs), (1 + 1, 6 + 1));
    let plain = vote_agreement(&items, VoteTies::Dropped);
    assert_eq!((plain.equal, plain.pairs), (1, 3));
    let judge = [First, Tie, Second, First];
    let all = judge_agreement(&judge, &items, VoteTies::Counted).unwrap();
    assert_eq!((all.equal, all.pairs), (2 + 2, 4 + 2 + 1));
    let plain = judge_agreement(&judge, &items, VoteTies::Dropped).unwrap();
    assert_eq!((plain.equal, plain.pairs), (2, 3 + 1));
    assert!(
        vote_agreement(&items[2..], VoteTies::Counted)
            .share()
            .is_nan()
    );
}

#[test]
fn kappa_takes_off_chance() {
    // three levels: equal on 2 of 4, once one apart, once two apart
    let (first, second) = ([0, 1, 2, 0], [0, 1, 1, 2]);
    // expected disagreement: rows 2, 1, 1 and columns 1, 2, 1
    let none = 2.0 / ((2.0 * 3.0 + 1.0 * 2.0 + 1.0 * 3.0) / 4.0);
    let linear = 3.0 / ((2.0 * (2.0 + 2.0) + (1.0 + 1.0) + (2.0 + 2.0)) / 4.0);
    let square = 5.0 / ((2.0 * (2.0 + 4.0) + (1.0 + 1.0) + (4.0 + 2.0)) / 4.0);
    for (weights, ratio) in [
        (KappaWeights::None, none),
        (KappaWeights::Linear, linear),
        (KappaWeights::Quadratic, square),
    ] {
        close(
            cohen_kappa(&first, &second, 3, weights).unwrap(),
            1.0 - ratio,
        );
    }
    // shares 5/8 and 3/8; pairs: 6 of 6, 0 + 3 of 6
    let counts = [vec![4, 0], vec![1, 3]];
    let (agreed, chance) = ((1.0 + 0.5) / 2.0, (25.0 + 9.0) / 64.0);
    close(
        fleiss_kappa(&counts).unwrap(),
        (agreed - chance) / (1.0 - chance),
    );
}

#[test]
fn alpha_of_each_level_has_its_own_distance() {
    // 1 and 1, 3 and 3, 1 and 6: counts 3, 2, 1
    let of = |values: [f64; 3]| values.map(Some).to_vec();
    let ratings = [of([1.0, 3.0, 1.0]), of([1.0, 3.0, 6.0])];
    let alpha = |level, between: [f64; 3]| {
        // 1–3, 1–6, 3–6
        let expected = 2.0 * (6.0 * between[0] + 3.0 * between[1] + 2.0 * between[2]) / 5.0;
        close(
            krippendorff_alpha(&ratings, level).unwrap(),
            1.0 - 2.0 * between[1] / expected,
        );
    };
    alpha(Level::Nominal, [1.0, 1.0, 1.0]);
    alpha(Level::Interval, [4.0, 25.0, 9.0]);
    alpha(
        Level::Ratio,
        [
            (2.0 / 4.0f64).powi(2),
            (5.0 / 7.0f64).powi(2),
            (3.0 / 9.0f64).powi(2),
        ],
    );
    alpha(
        Level::Ordinal,
        [2.5f64.powi(2), 4.0f64.powi(2), 1.5f64.powi(2)],
    );
}

#[test]
fn a_spread_has_the_quantiles_of_its_runs() {
    let games = duels(&[(First, 7), (Tie, 3), (Second, 5)]);
    let spread = |samples| elo_bootstrap(&games, 2, &EloConfig::default(), samples, 9).unwrap()[0];
    // each run from the means of one more sample
    let sum = |samples| samples as f64 * spread(samples).mean;
    let mut runs: Vec<f64> = (1..=8)
        .map(|n| sum(n) - if n == 1 { 0.0 } else { sum(n - 1) })
        .collect();
    runs.sort_by(f64::total_cmp);
    // a quantile q is at q · 7 between the sorted runs
    let at = |below: usize, share: f64| runs[below] + share * (runs[below + 1] - runs[below]);
    let all = spread(8);
    for (got, want) in [
        (all.lower, at(0, 0.025 * 7.0)),
        (all.median, at(3, 0.5)),
        (all.upper, at(6, 0.975 * 7.0 - 6.0)),
    ] {
        assert!((got - want).abs() < 1e-8, "{got} {want}");
    }
    assert!(all.lower < all.upper);
}
