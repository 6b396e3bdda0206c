//! Krippendorff's alpha: disagreement against what chance gives, with missing ratings.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What the values of a rating mean, and so how far two of them are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Names: δ² = 1[a ≠ b].
    Nominal,
    /// Ranks: δ = the ratings from a to b, half of those at both ends left out.
    Ordinal,
    /// Numbers: δ = a − b.
    Interval,
    /// Numbers with a zero: δ = (a − b)/(a + b).
    Ratio,
}

/// Krippendorff's alpha.
///
/// # Equation
/// ```text
/// α = 1 − D_o/D_e = 1 − Σ_{ab} o_{ab} δ²_{ab} / Σ_{ab} e_{ab} δ²_{ab}
/// o_{ab} = Σ_items (ordered pairs of ratings a, b) / (ratings − 1)
/// e_{ab} = n_a (n_b − 1[a = b]) / (n − 1),     n_a = Σ_b o_{ab},   n = Σ_a n_a
/// ```
/// # Shapes
/// `ratings` `[raters][items]`, each row with the same number of items; `None` where a rater gave none.
/// # Errors
/// [`Error::Argument`] if rows differ in length, a rating is not finite (or negative, for ratios), no item has
/// two ratings, or all ratings that count are equal, where α is 0/0.
/// # Properties
/// * 1 for full agreement, 0 in expectation for ratings at random, below 0 for systematic disagreement.
/// * The order of raters and of items does not matter, and neither does a rating that is alone on its item,
///   or a rater without ratings.
/// * Interval: a·x + b changes nothing. Ordinal: any rising function changes nothing. Ratio: a·x, with
///   a > 0. Nominal: any renaming.
/// * Two values only, none 0: all four levels agree.
/// # Departures
/// None from the package krippendorff 0.9, which raises an error where there is one value alone. A pair of
/// zeros has the distance 0 under [`Level::Ratio`], as there.
/// # Examples
/// ```
/// use candle_align::evaluation::human::{Level, krippendorff_alpha};
///
/// let ratings = [
///     vec![Some(1.0), Some(2.0), Some(3.0), None],
///     vec![Some(1.0), Some(2.0), Some(1.0), Some(2.0)],
/// ];
/// // o₁₁ = 2, o₂₂ = 2, o₁₃ = o₃₁ = 1: n = 3, 2, 1
/// let alpha = krippendorff_alpha(&ratings, Level::Nominal)?;
/// assert!((alpha - (1.0 - 2.0 / (2.0 * (3.0 * 2.0 + 3.0 * 1.0 + 2.0 * 1.0) / 5.0))).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", a web page;
/// pln-fing-udelar/fast-krippendorff, the package krippendorff 0.9.0. The survey's concern about ordinal
/// ratings: Wang et al. 2023, arXiv:2307.12966v1, §4.2.1.
pub fn krippendorff_alpha(ratings: &[Vec<Option<f64>>], level: Level) -> Result<f64> {
    let function = "krippendorff_alpha";
    let items = ratings.first().map_or(0, Vec::len);
    for (rater, row) in ratings.iter().enumerate() {
        if row.len() != items {
            let problem = format!("has {} items, but `ratings[0]` has {items}", row.len());
            return Err(Error::argument(
                function,
                format!("ratings[{rater}]"),
                problem,
            ));
        }
        let bad = |x: &Option<f64>| {
            x.is_some_and(|x| !x.is_finite() || (level == Level::Ratio && x < 0.0))
        };
        if let Some(item) = row.iter().position(bad) {
            let argument = format!("ratings[{rater}][{item}]");
            let problem = "must be finite, and not negative for ratios";
            return Err(Error::argument(function, argument, problem));
        }
    }
    let mut values: Vec<f64> = ratings.iter().flatten().filter_map(|x| *x).collect();
    values.sort_by(f64::total_cmp);
    // −0 is 0
    values.dedup_by(|a, b| a == b);
    let place = |x: f64| values.partition_point(|value| *value < x);

    // o_{ab}
    let mut observed = vec![vec![0.0; values.len()]; values.len()];
    for item in 0..items {
        let given = ratings.iter().filter_map(|row| row[item]).map(place);
        let given: Vec<usize> = given.collect();
        for (i, &a) in given.iter().enumerate() {
            for (j, &b) in given.iter().enumerate() {
                if i != j {
                    observed[a][b] += 1.0 / (given.len() as f64 - 1.0);
                }
            }
        }
    }
    let counts: Vec<f64> = observed.iter().map(|row| row.iter().sum()).collect();
    let total: f64 = counts.iter().sum();
    let distance = |a: usize, b: usize| -> f64 {
        let (x, y) = (values[a], values[b]);
        match level {
            Level::Nominal => f64::from(a != b),
            Level::Ordinal => {
                let between: f64 = counts[a.min(b)..=a.max(b)].iter().sum();
                between - (counts[a] + counts[b]) / 2.0
            }
            Level::Interval => x - y,
            Level::Ratio if x + y == 0.0 => 0.0,
            Level::Ratio => (x - y) / (x + y),
        }
    };
    let (mut disagreed, mut expected) = (0.0, 0.0);
    for a in 0..values.len() {
        for b in (0..values.len()).filter(|b| *b != a) {
            let square = distance(a, b).powi(2);
            disagreed += observed[a][b] * square;
            expected += counts[a] * counts[b] / (total - 1.0) * square;
        }
    }
    match expected > 0.0 {
        true => Ok(1.0 - disagreed / expected),
        false => Err(Error::argument(
            function,
            "ratings",
            "hold no two different ratings on items that several raters rated, where alpha is 0/0",
        )),
    }
}
