//! Style control: ratings of models whose answers are alike in length and markup.

use super::connected::Row;
use super::{BradleyTerry, BradleyTerryConfig, check, solve};
use crate::error::{Error, Result};
use crate::evaluation::outcome::Game;
use crate::evaluation::statistics::{mean, require_length};

/// The features of style of each game, from counts in the two answers.
///
/// # Equation
/// ```text
/// d = (a − b) / (a + b + 1),     x = (d − mean of d) / (standard deviation of d, over n)
/// ```
/// # Shapes
/// `first` and `second` `[games][features]`: tokens, headings, lists, bold passages of the answers that stand
/// first and second. The result is `[games][features]`.
/// # Errors
/// [`Error::Argument`] if there is no game, lengths or widths differ, a count is negative or not finite, or a
/// feature is the same in all games.
/// # Properties
/// * Each feature has mean 0 and variance 1 over the games, so coefficients can be compared.
/// * Swapping the answers of all games changes every sign. Of one game alone, it moves the mean.
/// # Departures
/// None from FastChat's `preprocess_for_style` with its defaults (`add_one`, all ratios), which divides by 0
/// where a feature is constant. The mean is subtracted there too, so that two answers of equal style have a
/// logit that is not 0.
/// # Examples
/// ```
/// use candle_align::evaluation::human::style_features;
///
/// // tokens of two answers in two games: 1/4 and −1/4 before they are standardized
/// let x = style_features(&[vec![2.0], vec![1.0]], &[vec![1.0], vec![2.0]])?;
/// assert_eq!(x, [[1.0], [-1.0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Code of Chiang et al. 2024, arXiv:2403.04132v1: lm-sys/FastChat, `serve/monitor/rating_systems.py` at commit
/// 2bdb2e0, `preprocess_for_style`; described on a web page, lmsys.org/blog/2024-08-28-style-control.
pub fn style_features(first: &[Vec<f64>], second: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
    let function = "style_features";
    let Some(width) = first.first().map(Vec::len) else {
        return Err(Error::argument(function, "first", "is empty"));
    };
    require_length(function, "second", second.len(), "first", first.len())?;
    for (argument, rows) in [("first", first), ("second", second)] {
        let good =
            |row: &Vec<f64>| row.len() == width && row.iter().all(|x| x.is_finite() && *x >= 0.0);
        if let Some(at) = rows.iter().position(|row| !good(row)) {
            let problem = format!("must be {width} finite numbers >= 0");
            return Err(Error::argument(
                function,
                format!("{argument}[{at}]"),
                problem,
            ));
        }
    }
    let mut features = vec![vec![0.0; width]; first.len()];
    for feature in 0..width {
        let both = first
            .iter()
            .zip(second)
            .map(|(a, b)| (a[feature], b[feature]));
        let ratios: Vec<f64> = both.map(|(a, b)| (a - b) / (a + b + 1.0)).collect();
        let center = mean(&ratios);
        let squares: Vec<f64> = ratios.iter().map(|d| (d - center).powi(2)).collect();
        let spread = mean(&squares).sqrt();
        if spread <= f64::EPSILON * center.abs() {
            let problem =
                format!("has the same feature {feature} in all games, so it explains nothing");
            return Err(Error::argument(function, "first", problem));
        }
        for (row, d) in features.iter_mut().zip(ratios) {
            row[feature] = (d - center) / spread;
        }
    }
    Ok(features)
}

/// Bradley–Terry ratings together with the coefficients of features of the games.
///
/// # Equation
/// ```text
/// z = ln(10) · (ρ_a − ρ_b) + x·c
/// ρ, c = argmin −Σ_games ℓ(z) + ½ λ (Σ ρ² + Σ c²)
/// ```
/// # Shapes
/// As [`bradley_terry`](super::bradley_terry); `features` `[games][features]`, those of
/// [`style_features`] or any others. Positive features speak for the first answer.
/// # Errors
/// As [`bradley_terry`](super::bradley_terry); [`Error::Argument`] if features are not as many as games, differ
/// in width or are not finite; without a penalty, if features separate wins from losses or repeat each other.
/// # Properties
/// * Without features it is [`bradley_terry`](super::bradley_terry). A feature that is 0 everywhere has the
///   coefficient 0 under a penalty, and is an error without.
/// * Features that are equal in law for all models leave the ratings where they were; a model that wins
///   by its length loses what the length explains.
/// * Swapping a game's models, its outcome and the signs of its features changes nothing.
/// # Departures
/// FastChat's `compute_style_control` has λ = ½: set [`BradleyTerryConfig::regularization`]. It reports no
/// sandwich errors; with λ > 0 those here are about the penalized point, not the truth.
/// # Examples
/// ```
/// use candle_align::evaluation::human::{BradleyTerryConfig, bradley_terry_with_style};
/// use candle_align::evaluation::{Game, Outcome::{First, Second}};
///
/// // the longer answer wins three of four, whoever wrote it
/// let game = |outcome| Game { first: 0, second: 1, outcome };
/// let games = [First, First, First, Second, Second, Second, Second, First].map(game);
/// let longer = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0].map(|x| vec![x]);
/// let fit = bradley_terry_with_style(&games, &longer, 2, &BradleyTerryConfig::default())?;
/// assert!((fit.ratings[0].value - 1000.0).abs() < 1e-6);
/// assert!((fit.coefficients[0].value - 3f64.ln()).abs() < 1e-9);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Code of Chiang et al. 2024, arXiv:2403.04132v1: lm-sys/FastChat, `serve/monitor/rating_systems.py` at commit
/// 2bdb2e0, `compute_style_control`.
pub fn bradley_terry_with_style(
    games: &[Game],
    features: &[Vec<f64>],
    models: usize,
    config: &BradleyTerryConfig,
) -> Result<BradleyTerry> {
    let function = "bradley_terry_with_style";
    check(function, games, models, config)?;
    require_length(function, "features", features.len(), "games", games.len())?;
    let width = features.first().map_or(0, Vec::len);
    let good = |row: &Vec<f64>| row.len() == width && row.iter().all(|x| x.is_finite());
    if let Some(at) = features.iter().position(|row| !good(row)) {
        let problem = format!("must be {width} finite numbers");
        return Err(Error::argument(
            function,
            format!("features[{at}]"),
            problem,
        ));
    }
    let mut rows = Vec::with_capacity(games.len());
    for (&game, features) in games.iter().zip(features) {
        rows.push(Row {
            game,
            count: 1.0,
            features,
        });
    }
    solve(function, &rows, models, width, config)
}
