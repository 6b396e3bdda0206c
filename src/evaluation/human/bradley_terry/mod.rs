//! Bradley–Terry: the ratings under which the games were most likely.
//!
//! | symbol | here | shape |
//! |---|---|---|
//! | ρ | strengths; a rating is `scale`·ρ + `initial` | `[models]` |
//! | z | the logit of a game, ln(base)·(ρ_a − ρ_b) + x·c | `[games]` |
//! | x, c | style features and their coefficients | `[games][features]`, `[features]` |
//! | θ, ν | the tie parameter of [`TieModel`] | number |
//! | λ | [`BradleyTerryConfig::regularization`] | number |
//!
//! Read next: [`elo_ratings`](super::elo_ratings), the same model game by game.

mod connected;
mod fit;
mod likelihood;
mod newton;
mod style;

pub use style::{bradley_terry_with_style, style_features};

use crate::error::{Error, Result, non_negative, positive, require};
use crate::evaluation::outcome::{Game, require_games};
use crate::evaluation::statistics::{Estimate, Spread, columns, resample, rounds};
use connected::Row;
use fit::fit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a tie is explained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TieModel {
    /// As half a win and half a loss: Chatbot Arena. It predicts no ties.
    #[default]
    HalfWin,
    /// P(a wins) = σ(z − ln θ), P(b wins) = σ(−z − ln θ), the rest ties; θ ≥ 1.
    RaoKupper,
    /// P(a wins) : P(b wins) : P(tie) = e^{z/2} : e^{−z/2} : ν.
    Davidson,
}

/// A model whose rating is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The model, numbered from 0.
    pub model: usize,
    /// Its rating.
    pub rating: f64,
}

/// Settings of [`bradley_terry`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BradleyTerryConfig {
    /// Default 400: this lead means odds of `base` to 1.
    pub scale: f64,
    /// Default 10.
    pub base: f64,
    /// The mean rating, where there is no anchor. Default 1000.
    pub initial: f64,
    /// A model whose rating is fixed, by a shift of all. Default none; Chatbot Arena set
    /// mixtral-8x7b-instruct-v0.1 to 1114, and llama-13b to 800 before.
    pub anchor: Option<Anchor>,
    /// How ties are explained. Default half wins, Chatbot Arena's.
    pub ties: TieModel,
    /// λ ≥ 0: the loss has + ½ λ (Σ ρ² + Σ c²). Default 0, maximum likelihood. ½ is what scikit-learn's
    /// logistic regression with C = 1 on games that are counted twice amounts to: Chatbot Arena's first
    /// ratings, and its style control.
    pub regularization: f64,
}

impl Default for BradleyTerryConfig {
    fn default() -> Self {
        Self {
            scale: 400.0,
            base: 10.0,
            initial: 1000.0,
            anchor: None,
            ties: TieModel::HalfWin,
            regularization: 0.0,
        }
    }
}

/// Ratings, with what they were fitted together with.
#[derive(Clone, Debug, PartialEq)]
pub struct BradleyTerry {
    /// Each model's rating. Its error is that of the distance to the anchor, or to the mean of all models
    /// where there is no anchor.
    pub ratings: Vec<Estimate>,
    /// Each feature's coefficient, in units of the logit.
    pub coefficients: Vec<Estimate>,
    /// θ or ν of the tie model.
    pub tie: Option<f64>,
    /// The logarithm of the likelihood, without the penalty.
    pub log_likelihood: f64,
}

/// The maximum-likelihood ratings, with sandwich errors.
///
/// # Equation
/// ```text
/// z = ln(10) · (ρ_a − ρ_b),     P(a wins) = σ(z)
/// ρ = argmax Σ_games [ S log σ(z) + (1 − S) log σ(−z) ],     S = 1, ½, 0,     Σ ρ = 0
/// rating = 400 ρ + 1000
/// errors: the diagonal of H⁻¹ B H⁻¹,     H = −Σ ∇²ℓ,   B = Σ ∇ℓ ∇ℓᵀ over games
/// ```
/// # Shapes
/// `games` of models numbered below `models`; one rating for each.
/// # Errors
/// [`Error::Argument`] if a game is wrong as for [`elo_ratings`](super::elo_ratings); if the maximum is not
/// finite, because some models never lost or tied against the others, or never met them (the message names
/// one); if a tie model has nothing but ties to learn from. [`Error::Parameter`] for a setting out of its
/// range.
/// # Properties
/// * The order of the games does not matter, and neither does who stands first. Renumbering the models
///   renumbers the ratings.
/// * At the maximum every model has as many points (wins + ½ ties) as the model expects. So the ratings
///   depend on half-win ties only through points and games.
/// * Two models: the lead is 400 log₁₀(points of a / points of b).
/// * A tie counts here as half an observation of each kind, but the sandwich sees that it is no
///   coin flip: its errors shrink with the share of ties, where H⁻¹ alone would not.
/// * Without ties all three tie models agree. θ = 1 and ν = 0 predict none.
/// * The middle 95 % interval covers the truth in about 95 of 100 studies; the bootstrap agrees.
/// # Departures
/// None from FastChat's `compute_bt`, whose solver starts at 0, stops at a gradient of 1e-6 and so has Σ ρ = 0
/// too; its anchor moves all ratings as here. FastChat's older `compute_elo_mle_with_tie` has the ridge of
/// scikit-learn: λ = ½ here. arena-rank adds 1e-5 · games to the diagonal of H instead of fixing Σ ρ, and
/// reports errors that an anchor does not change. The survey names Elo alone.
/// # Examples
/// ```
/// use candle_align::evaluation::human::bradley_terry;
/// use candle_align::evaluation::{Game, Outcome};
///
/// let game = |outcome| Game { first: 0, second: 1, outcome };
/// let games = [Outcome::First, Outcome::First, Outcome::Second, Outcome::Tie].map(game);
/// let fit = bradley_terry(&games, 2, &Default::default())?;
/// let lead = fit.ratings[0].value - fit.ratings[1].value;
/// assert!((lead - 400.0 * (2.5f64 / 1.5).log10()).abs() < 1e-9);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Bradley and Terry 1952; Chiang et al. 2024, arXiv:2403.04132v1, §4 and appendix (sandwich errors); code
/// lm-sys/FastChat, `serve/monitor/rating_systems.py` at commit 2bdb2e0, `compute_bt`; Rao and Kupper 1967;
/// Davidson 1970.
///
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "Chatbot Arena")]
pub fn bradley_terry(
    games: &[Game],
    models: usize,
    config: &BradleyTerryConfig,
) -> Result<BradleyTerry> {
    let function = "bradley_terry";
    check(function, games, models, config)?;
    solve(function, &counted(games), models, 0, config)
}

/// The ratings over bootstrap samples of the games.
///
/// # Equation
/// ```text
/// bradley_terry(n games drawn with replacement), `samples` times: mean, median, 2.5 % and 97.5 % quantile
/// ```
/// # Shapes
/// As [`bradley_terry`]; one [`Spread`] for each model.
/// # Errors
/// As [`bradley_terry`], for the games and for every sample: with few games a sample may leave a model without
/// a loss, and the error says how many samples were drawn before; [`Error::Parameter`] if `samples` is 0.
/// # Properties
/// * The order of the games does not matter, but for the draw. Every sample is centered, or
///   anchored, so that the anchor has no spread.
/// * With many games the spread is that of the sandwich errors.
/// # Departures
/// FastChat's `compute_bootstrap_bt` draws the counts of equal games from a multinomial, which is the same
/// distribution; its draws are NumPy's. Samples without a finite maximum get whatever its solver stops at.
/// # Examples
/// ```
/// use candle_align::evaluation::human::bradley_terry_bootstrap;
/// use candle_align::evaluation::{Game, Outcome};
///
/// let game = Game { first: 0, second: 1, outcome: Outcome::Tie };
/// let spread = bradley_terry_bootstrap(&[game; 4], 2, &Default::default(), 10, 0)?;
/// assert_eq!(spread[0].median, 1000.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Chiang et al. 2024, arXiv:2403.04132v1, §4; code lm-sys/FastChat, `serve/monitor/rating_systems.py` at
/// commit 2bdb2e0, `compute_bootstrap_bt`.
///
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn bradley_terry_bootstrap(
    games: &[Game],
    models: usize,
    config: &BradleyTerryConfig,
    samples: usize,
    seed: u64,
) -> Result<Vec<Spread>> {
    let function = "bradley_terry_bootstrap";
    check(function, games, models, config)?;
    solve(function, &counted(games), models, 0, config)?;
    let mut rng = rounds(function, "samples", samples, seed)?;
    let mut runs = Vec::with_capacity(samples);
    for at in 0..samples {
        let rows = counted(&resample(games, &mut rng));
        let fit = solve(function, &rows, models, 0, config).map_err(|error| match error {
            Error::Argument {
                argument, problem, ..
            } => Error::argument(function, argument, format!("in sample {at}: {problem}")),
            other => other,
        })?;
        runs.push(fit.ratings.iter().map(|rating| rating.value).collect());
    }
    let columns = columns(&runs, models);
    Ok(columns.iter().map(|ratings| Spread::of(ratings)).collect())
}

fn check(
    function: &'static str,
    games: &[Game],
    models: usize,
    config: &BradleyTerryConfig,
) -> Result<()> {
    positive(function, "scale", config.scale)?;
    let holds = config.base.is_finite() && config.base > 1.0;
    require(holds, function, "base", "finite and > 1", config.base)?;
    let holds = config.initial.is_finite();
    require(holds, function, "initial", "finite", config.initial)?;
    non_negative(function, "regularization", config.regularization)?;
    if let Some(anchor) = config.anchor {
        let (field, holds) = ("anchor.model", anchor.model < models);
        require(holds, function, field, "below `models`", anchor.model)?;
        let (field, holds) = ("anchor.rating", anchor.rating.is_finite());
        require(holds, function, field, "finite", anchor.rating)?;
    }
    require_games(function, games, models)
}

/// Equal games once, with their number.
fn counted(games: &[Game]) -> Vec<Row<'static>> {
    let mut counts: BTreeMap<(usize, usize, u8), Row> = BTreeMap::new();
    for &game in games {
        let key = (game.first, game.second, (2.0 * game.outcome.score()) as u8);
        let row = counts.entry(key).or_insert(Row {
            game,
            count: 0.0,
            features: &[],
        });
        row.count += 1.0;
    }
    counts.into_values().collect()
}

/// The fit on the scale of ratings.
fn solve(
    function: &'static str,
    rows: &[Row],
    models: usize,
    features: usize,
    config: &BradleyTerryConfig,
) -> Result<BradleyTerry> {
    let fit = fit(function, rows, models, features, config)?;
    let shift = match config.anchor {
        Some(anchor) => anchor.rating - config.scale * fit.point[anchor.model],
        None => config.initial,
    };
    let at = |i: usize, j: usize| fit.covariance[i][j];
    let rating = |i: usize| {
        let variance = match config.anchor {
            Some(Anchor { model, .. }) => at(i, i) + at(model, model) - 2.0 * at(i, model),
            None => at(i, i),
        };
        Estimate {
            value: config.scale * fit.point[i] + shift,
            error: config.scale * variance.max(0.0).sqrt(),
        }
    };
    let coefficient = |i: usize| Estimate {
        value: fit.point[i],
        error: at(i, i).max(0.0).sqrt(),
    };
    Ok(BradleyTerry {
        ratings: (0..models).map(rating).collect(),
        coefficients: (models..models + features).map(coefficient).collect(),
        tie: fit.tie,
        log_likelihood: fit.log_likelihood,
    })
}
