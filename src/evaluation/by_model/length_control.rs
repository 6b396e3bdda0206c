//! Length-controlled AlpacaEval: the win rate that a model would have at the baseline's length.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | θ_m − θ_b | [`LengthControlled::model`] | number |
//! | φ_m,b | [`LengthControlled::length`] | number |
//! | (ψ_m − ψ_b) γ_x | [`LengthControlled::difficulty`] · [`LengthRow::difficulty`] | `[n]` |
//! | tanh of the standardized length difference | tanh of [`LengthRow::length_difference`] | `[n]` |

use super::alpaca::share;
use super::lasso::{Observation, choose_c, fit};
use crate::error::{Error, Result, non_negative, require};
use crate::evaluation::statistics::{Estimate, require_finite, require_length};
use crate::math::logistic;
use serde::{Deserialize, Serialize};

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthRow {
    /// In \[1, 2\], as for [`alpaca_win_rate`](super::alpaca_win_rate); `None` where the annotator gave none.
    /// Such a row is predicted, not fitted.
    pub preference: Option<f64>,
    /// The length of the baseline's answer minus that of the model's, in standard deviations: see
    /// [`length_differences`].
    pub length_difference: f64,
    /// γ_x, how hard the instruction is for the baseline: AlpacaEval fits it once over all models and publishes
    /// it (`instruction_difficulty.csv`). 0 for all leaves the term out: its `length_controlled_minimal`.
    pub difficulty: f64,
}

/// Settings of [`length_controlled_win_rate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LengthControlConfig {
    /// Default 5: C is chosen by cross-validation over so many folds.
    pub folds: usize,
    /// λ ≥ 0: each row of a gamed baseline weighs λ/2. Default 0.2, that of `length_controlled_v1`.
    pub gamed_weight: f64,
}

impl Default for LengthControlConfig {
    fn default() -> Self {
        Self {
            folds: 5,
            gamed_weight: 0.2,
        }
    }
}

/// The length-controlled win rate, and the model behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthControlled {
    /// `length_controlled_winrate` and `lc_standard_error`, in percent. The error is that of the mean of the
    /// predictions over instructions; it holds no uncertainty of the fit.
    pub win_rate: Estimate,
    /// The coefficient of the model.
    pub model: f64,
    /// The coefficient of tanh of the length difference.
    pub length: f64,
    /// The coefficient of the instruction's difficulty.
    pub difficulty: f64,
    /// The C that cross-validation chose.
    pub c: f64,
}

/// The lengths' differences, baseline minus model, in units of their standard deviation (n − 1 below).
///
/// Lengths are in characters in AlpacaEval.
///
/// # Errors
/// [`Error::Argument`] if the lengths are not as many, fewer than two, not finite, or all differences are
/// equal.
pub fn length_differences(baseline: &[f64], model: &[f64]) -> Result<Vec<f64>> {
    let function = "length_differences";
    require_finite(function, "baseline", baseline)?;
    require_finite(function, "model", model)?;
    require_length(function, "model", model.len(), "baseline", baseline.len())?;
    let differences: Vec<f64> = baseline.iter().zip(model).map(|(b, m)| b - m).collect();
    // s = error of the mean · √n
    let spread = Estimate::of_mean(&differences).error * (differences.len() as f64).sqrt();
    match spread > 0.0 {
        true => Ok(differences.iter().map(|d| d / spread).collect()),
        false => Err(Error::argument(
            function,
            "model",
            "differs from `baseline` by the same length everywhere, or there is one answer alone",
        )),
    }
}

/// AlpacaEval's length-controlled win rate.
///
/// # Equation
/// ```text
/// P(model preferred) = σ( θ + φ · tanh(Δlength / s) + ψ · γ_x )
/// θ, φ, ψ = argmin │θ│ + │φ│ + │ψ│ + C Σᵢ sᵢ · cross-entropy(preferenceᵢ − 1, Pᵢ)
/// win rate = 100 · mean over instructions of σ( θ + ψ · γ_x )
/// ```
/// C is the best of 10⁻⁴ … 10⁴ (ten values) on held-out folds. sᵢ is 1, and λ/2 for a row of a gamed baseline,
/// where θ is left out.
/// # Shapes
/// `rows` `[n]`, one for each instruction. `gamed` holds rows of the baseline against its own shortened and
/// lengthened answers, which keep φ from explaining all: AlpacaEval's `df_gamed.csv`. Empty is its
/// `length_controlled_noreg`.
/// # Errors
/// [`Error::Argument`] if there are fewer rows with a preference than folds, a number is not finite, or a
/// preference is not in \[1, 2\] or 0; [`Error::Parameter`] unless folds ≥ 2 and λ is finite and at least 0.
/// # Properties
/// * Where the preference follows length alone, it is near 50; where it does not depend on length it is near
///   the win rate, drawn towards 50 a little by the penalty.
/// * The roles can be exchanged: with all preferences, differences and difficulties mirrored, without gamed
///   rows, the rates add up to 100.
/// * Every fifth row is one fold, as in the original, with the gamed rows first: the order of the rows decides
///   the choice of C, and nothing else.
/// # Departures
/// The package gives the baseline against itself 50 without a fit.
/// alpaca_eval 0.6.6 solves the same problem with scikit-learn's `LogisticRegressionCV(penalty="l1",
/// solver="liblinear")` and stops at its tolerance of 1e-4, which moves the rate by some thousandths of a
/// percent; here it is solved to the last digits. The paper writes a model without penalty and with
/// coefficients for both models; the package fits the differences, one model at a time, with a fixed γ.
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::*;
///
/// // a model that wins where it is longer, which is mostly
/// let model: Vec<f64> = (0..40).map(|i| 100.0 + f64::from(i)).collect();
/// let differences = length_differences(&[110.0; 40], &model)?;
/// let rows: Vec<LengthRow> = differences.iter().map(|&length_difference| LengthRow {
///     preference: Some(if length_difference < 0.0 { 1.9 } else { 1.1 }),
///     length_difference,
///     difficulty: 0.0,
/// }).collect();
/// let raw = alpaca_win_rate(&rows.iter().filter_map(|row| row.preference).collect::<Vec<_>>())?;
/// let controlled = length_controlled_win_rate(&rows, &[], &Default::default())?;
/// assert!(raw.win_rate.value > 65.0 && controlled.win_rate.value < 60.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Dubois et al. 2024, arXiv:2404.04475v2, §3; code tatsu-lab/alpaca_eval 0.6.6, `metrics/glm_winrate.py`,
/// `length_controlled_v1`.
///
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "AlpacaEval 2")]
pub fn length_controlled_win_rate(
    rows: &[LengthRow],
    gamed: &[LengthRow],
    config: &LengthControlConfig,
) -> Result<LengthControlled> {
    let function = "length_controlled_win_rate";
    require(
        config.folds >= 2,
        function,
        "folds",
        "at least 2",
        config.folds,
    )?;
    non_negative(function, "gamed_weight", config.gamed_weight)?;
    let mut data = observations(function, "gamed", gamed, 0.0, config.gamed_weight / 2.0)?;
    let own = observations(function, "rows", rows, 1.0, 1.0)?;
    if own.len() < config.folds {
        let problem = format!("has {} preferences, for {} folds", own.len(), config.folds);
        return Err(Error::argument(function, "rows", problem));
    }
    data.extend(own);
    let c = choose_c(&data, config.folds);
    let [length, difficulty, model] = fit(&data, c);
    let predicted = rows
        .iter()
        .map(|row| 100.0 * logistic(model + difficulty * row.difficulty));
    Ok(LengthControlled {
        win_rate: Estimate::of_mean(&predicted.collect::<Vec<_>>()),
        model,
        length,
        difficulty,
        c,
    })
}

/// The rows that have a preference.
fn observations(
    function: &'static str,
    argument: &str,
    rows: &[LengthRow],
    own: f64,
    weight: f64,
) -> Result<Vec<Observation>> {
    let finite = |row: &LengthRow| row.length_difference.is_finite() && row.difficulty.is_finite();
    if let Some(at) = rows.iter().position(|row| !finite(row)) {
        let problem = "must have a finite length difference and difficulty";
        return Err(Error::argument(
            function,
            format!("{argument}[{at}]"),
            problem,
        ));
    }
    let mut found = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let Some(preference) = row.preference else {
            continue;
        };
        found.push(Observation {
            features: [row.length_difference.tanh(), row.difficulty, own],
            target: share(function, || format!("{argument}[{at}]"), preference)?,
            weight,
        });
    }
    Ok(found)
}
