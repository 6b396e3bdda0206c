use super::{config, games, is_close, outcome, reversed};
use candle_align::evaluation::human::{
    Anchor, BradleyTerry, BradleyTerryConfig, EloConfig, KappaWeights, Level, TieModel, Ties,
    VoteTies, bradley_terry, bradley_terry_bootstrap, bradley_terry_with_style, cohen_kappa,
    elo_bootstrap, elo_over_orders, elo_ratings, fleiss_kappa, judge_agreement, krippendorff_alpha,
    ordinal_shares, style_features, vote_agreement, win_rate,
};
use candle_align::evaluation::{Game, Outcome};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// The same games, told from the other side.
fn swapped(games: &[Game]) -> Vec<Game> {
    let swap = |game: &Game| Game {
        first: game.second,
        second: game.first,
        outcome: game.outcome.swapped(),
    };
    games.iter().map(swap).collect()
}

fn alike(a: &BradleyTerry, b: &BradleyTerry) -> bool {
    // an error of 0 is the square root of what rounding leaves
    let same = |a: f64, b: f64| is_close(a * a, b * b, 1e-6);
    let mut ratings = a.ratings.iter().zip(&b.ratings);
    ratings.all(|(a, b)| is_close(a.value, b.value, 1e-8) && same(a.error, b.error))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn elo_is_zero_sum_and_knows_no_sides(games in games()) {
        let config = EloConfig { k: 32.0, ..Default::default() };
        let ratings = elo_ratings(&games, 4, &config).unwrap();
        prop_assert!(is_close(ratings.iter().sum(), 4000.0, 1e-12));
        let other = elo_ratings(&swapped(&games), 4, &config).unwrap();
        prop_assert!(ratings.iter().zip(&other).all(|(a, b)| is_close(*a, *b, 1e-12)));
        for spread in [elo_over_orders(&games, 4, &config, 9, 1), elo_bootstrap(&games, 4, &config, 9, 1)] {
            let means: f64 = spread.unwrap().iter().map(|spread| spread.mean).sum();
            prop_assert!(is_close(means, 4000.0, 1e-12));
        }
    }

    #[test]
    fn bradley_terry_knows_no_order_no_sides_and_no_numbers(games in games()) {
        for ties in [TieModel::HalfWin, TieModel::RaoKupper, TieModel::Davidson] {
            let config = BradleyTerryConfig { ties, regularization: 0.1, ..Default::default() };
            if ties != TieModel::HalfWin && games.iter().all(|game| game.outcome == Outcome::Tie) {
                continue;
            }
            let fit = bradley_terry(&games, 4, &config).unwrap();
            prop_assert!(alike(&fit, &bradley_terry(&reversed(&games), 4, &config).unwrap()));
            prop_assert!(alike(&fit, &bradley_terry(&swapped(&games), 4, &config).unwrap()));
            let renumber = |game: &Game| Game { first: 3 - game.first, second: 3 - game.second, ..*game };
            let turned: Vec<Game> = games.iter().map(renumber).collect();
            let mut turned = bradley_terry(&turned, 4, &config).unwrap();
            turned.ratings.reverse();
            prop_assert!(alike(&fit, &turned));
            let mean = fit.ratings.iter().map(|rating| rating.value).sum::<f64>() / 4.0;
            prop_assert!(is_close(mean, 1000.0, 1e-9));
        }
    }

    #[test]
    fn at_the_maximum_points_are_what_the_model_expects(games in games()) {
        let fit = bradley_terry(&games, 4, &Default::default()).unwrap();
        let mut surplus = [0.0; 4];
        for game in &games {
            let lead = fit.ratings[game.first].value - fit.ratings[game.second].value;
            let surprise = game.outcome.score() - 1.0 / (1.0 + 10f64.powf(-lead / 400.0));
            surplus[game.first] += surprise;
            surplus[game.second] -= surprise;
        }
        prop_assert!(surplus.iter().all(|s| s.abs() < 1e-9), "{surplus:?}");
        // an anchor moves all ratings alike
        let anchor = Some(Anchor { model: 2, rating: 500.0 });
        let moved = bradley_terry(&games, 4, &BradleyTerryConfig { anchor, ..Default::default() }).unwrap();
        let shift = 500.0 - fit.ratings[2].value;
        for (a, b) in fit.ratings.iter().zip(&moved.ratings) {
            prop_assert!(is_close(a.value + shift, b.value, 1e-9));
        }
    }

    #[test]
    fn without_features_style_control_is_bradley_terry(games in games()) {
        let config = BradleyTerryConfig::default();
        let fit = bradley_terry(&games, 4, &config).unwrap();
        let none = vec![Vec::new(); games.len()];
        prop_assert!(alike(&fit, &bradley_terry_with_style(&games, &none, 4, &config).unwrap()));
        // a feature of nothing has the coefficient 0 under a penalty
        let config = BradleyTerryConfig { regularization: 0.5, ..config };
        let zero = vec![vec![0.0]; games.len()];
        let with = bradley_terry_with_style(&games, &zero, 4, &config).unwrap();
        prop_assert_eq!(with.coefficients[0].value, 0.0);
        prop_assert!(alike(&bradley_terry(&games, 4, &config).unwrap(), &with));
        // told from the other side
        let at = |i: usize| vec![(i % 5) as f64 - 2.0];
        let features: Vec<_> = (0..games.len()).map(at).collect();
        let mirrored: Vec<_> = features.iter().map(|x| vec![-x[0]]).collect();
        let one = bradley_terry_with_style(&games, &features, 4, &config).unwrap();
        let other = bradley_terry_with_style(&swapped(&games), &mirrored, 4, &config).unwrap();
        prop_assert!(alike(&one, &other));
        prop_assert!(is_close(one.coefficients[0].value, other.coefficients[0].value, 1e-8));
    }

    #[test]
    fn features_of_style_are_standardized(counts in vec((0..400u32, 0..400u32), 3..30)) {
        let of = |pick: fn(&(u32, u32)) -> u32| counts.iter().map(|c| vec![f64::from(pick(c))]).collect::<Vec<_>>();
        let (first, second) = (of(|c| c.0), of(|c| c.1));
        if let Ok(x) = style_features(&first, &second) {
            let n = x.len() as f64;
            let mean = x.iter().map(|row| row[0]).sum::<f64>() / n;
            let variance = x.iter().map(|row| row[0] * row[0]).sum::<f64>() / n;
            prop_assert!(mean.abs() < 1e-10 && is_close(variance, 1.0, 1e-10));
            let other = style_features(&second, &first).unwrap();
            prop_assert!(x.iter().zip(&other).all(|(a, b)| is_close(a[0], -b[0], 1e-10)));
        }
    }

    #[test]
    fn a_swap_mirrors_the_win_rate(outcomes in vec(outcome(), 1..30)) {
        let other: Vec<Outcome> = outcomes.iter().map(|outcome| outcome.swapped()).collect();
        for ties in [Ties::Half, Ties::Dropped] {
            let (Ok(a), Ok(b)) = (win_rate(&outcomes, ties), win_rate(&other, ties)) else { continue };
            prop_assert!(is_close(a.rate.value + b.rate.value, 1.0, 1e-12));
            prop_assert!(a.rate.error.is_nan() || is_close(a.rate.error, b.rate.error, 1e-12));
        }
        prop_assert_eq!(
            win_rate(&reversed(&outcomes), Ties::Half).unwrap().wins,
            win_rate(&other, Ties::Half).unwrap().losses
        );
    }

    #[test]
    fn shares_add_up_to_one(ratings in vec(0..4usize, 1..40)) {
        let shares = ordinal_shares(&ratings, 4).unwrap();
        prop_assert!(is_close(shares.iter().map(|share| share.value).sum(), 1.0, 1e-12));
        let turned = ordinal_shares(&reversed(&ratings), 4).unwrap();
        prop_assert!(shares.iter().zip(&turned).all(|(a, b)| is_close(a.value, b.value, 1e-12)));
    }

    #[test]
    fn agreement_knows_no_order_and_no_sides(items in vec(vec(outcome(), 0..6), 1..10), judge in vec(outcome(), 10)) {
        let mirrored: Vec<Vec<Outcome>> = items
            .iter()
            .map(|votes| votes.iter().rev().map(|vote| vote.swapped()).collect())
            .collect();
        let judge = &judge[..items.len()];
        let other: Vec<Outcome> = judge.iter().map(|verdict| verdict.swapped()).collect();
        for ties in [VoteTies::Counted, VoteTies::Dropped] {
            prop_assert_eq!(vote_agreement(&items, ties), vote_agreement(&reversed(&mirrored), ties));
            let against = judge_agreement(judge, &items, ties).unwrap();
            prop_assert_eq!(against, judge_agreement(&other, &mirrored, ties).unwrap());
        }
    }

    #[test]
    fn kappas_agree_where_their_pages_say(pairs in vec((0..3usize, 0..3usize), 2..30)) {
        let (a, b): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        for weights in [KappaWeights::None, KappaWeights::Linear, KappaWeights::Quadratic] {
            let Ok(kappa) = cohen_kappa(&a, &b, 3, weights) else { continue };
            prop_assert!((-1.0 - 1e-12..=1.0).contains(&kappa));
            prop_assert!(is_close(kappa, cohen_kappa(&b, &a, 3, weights).unwrap(), 1e-12));
            let flip = |x: &[usize]| x.iter().map(|level| 2 - level).collect::<Vec<_>>();
            prop_assert!(is_close(kappa, cohen_kappa(&flip(&a), &flip(&b), 3, weights).unwrap(), 1e-12));
        }
        // two categories: the weights are alike
        let two = |x: &[usize]| x.iter().map(|level| level.min(&1)).copied().collect::<Vec<_>>();
        if let Ok(kappa) = cohen_kappa(&two(&a), &two(&b), 2, KappaWeights::None) {
            let square = cohen_kappa(&two(&a), &two(&b), 2, KappaWeights::Quadratic).unwrap();
            prop_assert!(is_close(kappa, square, 1e-12));
        }
        // 1 − α = (1 − κ)(1 − 1/(N n)) for complete nominal ratings
        let mut counts = vec![vec![0; 3]; pairs.len()];
        pairs.iter().zip(&mut counts).for_each(|((a, b), row)| { row[*a] += 1; row[*b] += 1; });
        let ratings = [&a, &b].map(|row| row.iter().map(|x| Some(*x as f64)).collect::<Vec<_>>());
        if let Ok(kappa) = fleiss_kappa(&counts) {
            let alpha = krippendorff_alpha(&ratings, Level::Nominal).unwrap();
            let n = 2.0 * pairs.len() as f64;
            prop_assert!(is_close(1.0 - alpha, (1.0 - kappa) * (1.0 - 1.0 / n), 1e-12));
        }
    }

    #[test]
    fn alpha_ignores_what_its_level_does_not_mean(
        ratings in vec(vec(proptest::option::of(1..5u8), 8), 2..5)
    ) {
        let ratings: Vec<Vec<Option<f64>>> = ratings
            .iter()
            .map(|row| row.iter().map(|x| x.map(f64::from)).collect())
            .collect();
        let map = |f: fn(f64) -> f64| -> Vec<Vec<Option<f64>>> {
            ratings.iter().map(|row| row.iter().map(|x| x.map(f)).collect()).collect()
        };
        for (level, same) in [
            (Level::Nominal, map(|x| (x * 7.0) % 5.0)),
            (Level::Ordinal, map(|x| x * x * x)),
            (Level::Interval, map(|x| 3.0 * x - 40.0)),
            (Level::Ratio, map(|x| 3.0 * x)),
        ] {
            let Ok(alpha) = krippendorff_alpha(&ratings, level) else { continue };
            prop_assert!(alpha <= 1.0);
            prop_assert!(is_close(alpha, krippendorff_alpha(&same, level).unwrap(), 1e-10));
            prop_assert!(is_close(alpha, krippendorff_alpha(&reversed(&ratings), level).unwrap(), 1e-10));
            let turned: Vec<_> = ratings.iter().map(|row| reversed(row)).collect();
            prop_assert!(is_close(alpha, krippendorff_alpha(&turned, level).unwrap(), 1e-10));
            let more: Vec<_> = ratings.iter().cloned().chain([vec![None; 8]]).collect();
            prop_assert!(is_close(alpha, krippendorff_alpha(&more, level).unwrap(), 1e-12));
        }
    }
}

#[test]
fn the_order_of_games_matters_to_elo_alone() {
    let game = |outcome| Game {
        first: 0,
        second: 1,
        outcome,
    };
    let games = [Outcome::First, Outcome::First, Outcome::Second].map(game);
    let config = EloConfig {
        k: 32.0,
        ..Default::default()
    };
    let late_loss = elo_ratings(&games, 2, &config).unwrap()[0];
    let early_loss = elo_ratings(&reversed(&games), 2, &config).unwrap()[0];
    assert!(early_loss > late_loss + 1.0, "{early_loss} {late_loss}");
    let fit = |games: &[Game]| bradley_terry(games, 2, &Default::default()).unwrap();
    assert_eq!(fit(&games), fit(&reversed(&games)));
}

#[test]
fn without_ties_the_models_of_ties_agree() {
    let game = |(first, second)| Game {
        first,
        second,
        outcome: Outcome::First,
    };
    let games = [(0, 1), (1, 2), (2, 0), (0, 1), (0, 2)].map(game);
    let fit = |ties| {
        bradley_terry(
            &games,
            3,
            &BradleyTerryConfig {
                ties,
                ..Default::default()
            },
        )
        .unwrap()
    };
    let half = fit(TieModel::HalfWin);
    for (ties, none) in [(TieModel::RaoKupper, 1.0), (TieModel::Davidson, 0.0)] {
        assert_eq!(fit(ties).ratings, half.ratings);
        assert_eq!(fit(ties).tie, Some(none));
    }
}

#[test]
fn an_anchor_has_no_spread() {
    let game = |(first, second, outcome)| Game {
        first,
        second,
        outcome,
    };
    let games = [
        (0, 1, Outcome::Tie),
        (1, 2, Outcome::Tie),
        (0, 2, Outcome::Tie),
    ]
    .map(game);
    let games = games.repeat(6);
    let anchor = Some(Anchor {
        model: 1,
        rating: 1200.0,
    });
    let config = BradleyTerryConfig {
        anchor,
        ..Default::default()
    };
    let spread = bradley_terry_bootstrap(&games, 3, &config, 20, 5).unwrap();
    assert_eq!((spread[1].lower, spread[1].upper), (1200.0, 1200.0));
}

/// Independent raters: the mean over many tables is 0 within 4 standard errors.
#[test]
fn kappa_and_alpha_of_chance_are_zero() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut draw = |p: f64| usize::from(rng.random_bool(p)) + usize::from(rng.random_bool(0.5));
    let (mut kappas, mut alphas, mut fleiss) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..400 {
        let a: Vec<usize> = (0..60).map(|_| draw(0.7)).collect();
        let b: Vec<usize> = (0..60).map(|_| draw(0.3)).collect();
        let c: Vec<usize> = (0..60).map(|_| draw(0.3)).collect();
        kappas.push(cohen_kappa(&a, &b, 3, KappaWeights::Linear).unwrap());
        let row = |x: &[usize]| {
            x.iter()
                .map(|level| Some(*level as f64))
                .collect::<Vec<_>>()
        };
        alphas.push(krippendorff_alpha(&[row(&b), row(&c)], Level::Interval).unwrap());
        let mut counts = vec![vec![0; 3]; 60];
        counts
            .iter_mut()
            .zip(&b)
            .for_each(|(row, level)| row[*level] += 1);
        counts
            .iter_mut()
            .zip(&c)
            .for_each(|(row, level)| row[*level] += 1);
        // α's correction for few items; without it κ is −1/(N n − 1) on average
        fleiss.push(1.0 - (1.0 - fleiss_kappa(&counts).unwrap()) * (1.0 - 1.0 / 120.0));
    }
    for values in [kappas, alphas, fleiss] {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!(
            mean.abs() < 4.0 * (variance / n).sqrt(),
            "{mean} of {variance}"
        );
    }
}
