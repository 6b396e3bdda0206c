//! Means, standard errors, quantiles and resampling, as NumPy and pandas compute them.

use crate::error::{Error, Result, require};
use crate::math::quantile;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A number with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error. NaN where it needs more data than there are: one observation has no spread.
    pub error: f64,
}

impl Estimate {
    /// The mean, and its standard error s/√n with s² = Σ(x − x̄)²/(n − 1).
    pub(super) fn of_mean(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let value = mean(values);
        let squares: f64 = values.iter().map(|x| (x - value).powi(2)).sum();
        Self {
            value,
            error: match values.len() {
                0 | 1 => f64::NAN,
                _ => (squares / (n - 1.0) / n).sqrt(),
            },
        }
    }

    /// value ± 1.96 errors: the interval that holds the truth in 95 of 100 cases, if the estimate is normal.
    pub fn interval(&self) -> (f64, f64) {
        // Φ⁻¹(0.975)
        let half = 1.959_963_984_540_054 * self.error;
        (self.value - half, self.value + half)
    }
}

/// The mean, the median and the middle 95 % of resampled estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub median: f64,
    /// The 2.5 % quantile.
    pub lower: f64,
    /// The 97.5 % quantile.
    pub upper: f64,
}

impl Spread {
    /// Of values in any order; they are not empty and not NaN.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            mean: mean(values),
            median: quantile(&sorted, 0.5),
            lower: quantile(&sorted, 0.025),
            upper: quantile(&sorted, 0.975),
        }
    }
}

/// Σ x / n; NaN of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Requires a number of rounds, and the generator that they draw from.
pub(super) fn rounds(
    function: &'static str,
    field: &'static str,
    rounds: usize,
    seed: u64,
) -> Result<StdRng> {
    require(rounds >= 1, function, field, "at least 1", rounds)?;
    Ok(StdRng::seed_from_u64(seed))
}

/// n draws with replacement from n items.
pub(super) fn resample<T: Copy>(items: &[T], rng: &mut StdRng) -> Vec<T> {
    let draw = |_| items[rng.random_range(0..items.len())];
    (0..items.len()).map(draw).collect()
}

/// Requires finite numbers, and at least one.
pub(super) fn require_finite(function: &'static str, argument: &str, values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Err(Error::argument(function, argument, "is empty"));
    }
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::argument(
            function,
            format!("{argument}[{at}]"),
            format!("is {}; it must be finite", values[at]),
        )),
        None => Ok(()),
    }
}

/// Requires as many of one as of the other.
pub(super) fn require_length(
    function: &'static str,
    argument: &str,
    found: usize,
    other: &str,
    expected: usize,
) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::argument(
            function,
            argument,
            format!("has {found} entries, but `{other}` has {expected}"),
        )),
    }
}

/// Columns of tables, one row after the other.
pub(super) fn columns(rows: &[Vec<f64>], count: usize) -> Vec<Vec<f64>> {
    (0..count)
        .map(|column| rows.iter().map(|row| row[column]).collect())
        .collect()
}
