//! Elo ratings: each game moves two ratings towards its result.
//!
//! | symbol | here |
//! |---|---|
//! | R | the result, one rating for each model |
//! | K | [`EloConfig::k`] |
//! | 400, 10, 1000 | [`EloConfig::scale`], [`EloConfig::base`], [`EloConfig::initial`] |

use crate::error::{Result, positive, require};
use crate::evaluation::outcome::{Game, require_games};
use crate::evaluation::statistics::{Spread, columns, resample, rounds};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Settings of [`elo_ratings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EloConfig {
    /// K > 0, the most that one game can move a rating. Default 4, as in Chatbot Arena; QLoRA's tournament
    /// has 32.
    pub k: f64,
    /// Default 400: this lead means odds of `base` to 1.
    pub scale: f64,
    /// Default 10.
    pub base: f64,
    /// The rating before the first game. Default 1000.
    pub initial: f64,
}

impl Default for EloConfig {
    fn default() -> Self {
        Self {
            k: 4.0,
            scale: 400.0,
            base: 10.0,
            initial: 1000.0,
        }
    }
}

/// The ratings after all games, in the order in which they were played.
///
/// # Equation
/// ```text
/// E = 1 / (1 + 10^{(R_b − R_a)/400})
/// R_a ← R_a + K (S − E),     R_b ← R_b − K (S − E),     S = 1, ½, 0
/// ```
/// # Shapes
/// `games` of models numbered below `models`; the result has `models` ratings. A model without a game keeps
/// its initial rating.
/// # Errors
/// [`Error::Argument`] if there is no game, or one names a model that does not exist or the same model twice;
/// [`Error::Parameter`] unless K, scale and base are finite and above 0, base is not 1, and the initial rating
/// is finite.
/// # Properties
/// * Zero-sum: the ratings always add up to `models` · initial.
/// * The order matters: a late game counts more than an early one. [`bradley_terry`](super::bradley_terry)
///   uses the same model of a game and no order.
/// * Swapping first and second and the outcomes changes nothing. Two equal models have E = ½.
/// * Ratings settle where gains and losses balance, and then fluctuate with a variance of about
///   K · scale/(2 ln base): a small K is slow, a large one noisy.
/// # Departures
/// None from FastChat's `compute_elo`. FastChat puts "tie (bothbad)" with the ties; so does whoever reads the
/// votes here.
/// # Examples
/// ```
/// use candle_align::evaluation::human::elo_ratings;
/// use candle_align::evaluation::{Game, Outcome};
///
/// let game = Game { first: 0, second: 1, outcome: Outcome::First };
/// // K · (1 − ½)
/// assert_eq!(elo_ratings(&[game], 2, &Default::default())?, [1002.0, 998.0]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4; authors' code lm-sys/FastChat 0.2.36,
/// `serve/monitor/elo_analysis.py`, `compute_elo`; K = 32: Dettmers et al. 2023, arXiv:2305.14314v1, §5.
///
/// [`Error::Argument`]: crate::Error::Argument
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn elo_ratings(games: &[Game], models: usize, config: &EloConfig) -> Result<Vec<f64>> {
    check("elo_ratings", games, models, config)?;
    Ok(played(games, models, config))
}

/// The ratings over random orders of the same games.
///
/// # Equation
/// ```text
/// R̄ = mean over π of elo(games in the order π),     π uniform
/// ```
/// # Shapes
/// As [`elo_ratings`]; one [`Spread`] for each model, over `orders` permutations drawn from `seed`.
/// # Errors
/// As [`elo_ratings`]; [`Error::Parameter`] if `orders` is 0.
/// # Properties
/// * The given order does not matter, but for the draw. The means add up to `models` · initial.
/// * The spread is that of the order alone: it goes to 0 with K and says nothing about how many games there
///   are. For that take [`elo_bootstrap`].
/// # Departures
/// QLoRA reports the mean of 10,000 orders with K = 32; the number of orders is the caller's here.
/// # Examples
/// ```
/// use candle_align::evaluation::human::elo_over_orders;
/// use candle_align::evaluation::{Game, Outcome};
///
/// let won = Game { first: 0, second: 1, outcome: Outcome::First };
/// let lost = Game { outcome: Outcome::Second, ..won };
/// let spread = elo_over_orders(&[won, lost], 2, &Default::default(), 200, 0)?;
/// // whoever wins last is ahead, by less than K
/// assert!(spread[0].lower < 1000.0 && spread[0].upper > 1000.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Dettmers et al. 2023, arXiv:2305.14314v1, §5 (QLoRA's tournament).
///
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn elo_over_orders(
    games: &[Game],
    models: usize,
    config: &EloConfig,
    orders: usize,
    seed: u64,
) -> Result<Vec<Spread>> {
    let function = "elo_over_orders";
    check(function, games, models, config)?;
    let mut rng = rounds(function, "orders", orders, seed)?;
    let mut games = games.to_vec();
    let mut shuffled = || {
        games.shuffle(&mut rng);
        played(&games, models, config)
    };
    let runs: Vec<_> = (0..orders).map(|_| shuffled()).collect();
    Ok(spreads(&runs, models))
}

/// The ratings over bootstrap samples of the games.
///
/// # Equation
/// ```text
/// elo(n games drawn with replacement), `samples` times: median, 2.5 % and 97.5 % quantile
/// ```
/// # Shapes
/// As [`elo_over_orders`].
/// # Errors
/// As [`elo_ratings`]; [`Error::Parameter`] if `samples` is 0.
/// # Properties
/// * A sample has a random order too, so its spread holds both kinds of noise.
/// * With few games a model may miss in a sample; it then has the initial rating there.
/// # Departures
/// None from FastChat's `get_bootstrap_result`, whose draws are those of pandas. It rounds the medians to whole
/// numbers.
/// # Examples
/// ```
/// use candle_align::evaluation::human::elo_bootstrap;
/// use candle_align::evaluation::{Game, Outcome};
///
/// let game = Game { first: 0, second: 1, outcome: Outcome::First };
/// // every sample has the same three games
/// let spread = elo_bootstrap(&[game; 3], 2, &Default::default(), 10, 0)?;
/// assert_eq!(spread[0].lower, spread[0].upper);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4; authors' code lm-sys/FastChat 0.2.36,
/// `serve/monitor/elo_analysis.py`, `get_bootstrap_result`.
///
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn elo_bootstrap(
    games: &[Game],
    models: usize,
    config: &EloConfig,
    samples: usize,
    seed: u64,
) -> Result<Vec<Spread>> {
    let function = "elo_bootstrap";
    check(function, games, models, config)?;
    let mut rng = rounds(function, "samples", samples, seed)?;
    let mut sampled = || played(&resample(games, &mut rng), models, config);
    let runs: Vec<_> = (0..samples).map(|_| sampled()).collect();
    Ok(spreads(&runs, models))
}

fn check(function: &'static str, games: &[Game], models: usize, config: &EloConfig) -> Result<()> {
    positive(function, "k", config.k)?;
    positive(function, "scale", config.scale)?;
    positive(function, "base", config.base)?;
    require(config.base != 1.0, function, "base", "not 1", config.base)?;
    let holds = config.initial.is_finite();
    require(holds, function, "initial", "finite", config.initial)?;
    require_games(function, games, models)
}

fn played(games: &[Game], models: usize, config: &EloConfig) -> Vec<f64> {
    let mut ratings = vec![config.initial; models];
    for game in games {
        let lead = ratings[game.second] - ratings[game.first];
        // E = 1 / (1 + 10^{(R_b − R_a)/400})
        let expected = 1.0 / (1.0 + config.base.powf(lead / config.scale));
        let step = config.k * (game.outcome.score() - expected);
        ratings[game.first] += step;
        ratings[game.second] -= step;
    }
    ratings
}

fn spreads(runs: &[Vec<f64>], models: usize) -> Vec<Spread> {
    let columns = columns(runs, models);
    columns.iter().map(|ratings| Spread::of(ratings)).collect()
}
