//! Correlations of two lists of numbers, as SciPy computes them.

use crate::error::{Error, Result};
use crate::evaluation::statistics::{mean, require_finite, require_length};
use serde::{Deserialize, Serialize};

/// Pearson's correlation.
///
/// # Equation
/// ```text
/// r = Σ (x − x̄)(y − ȳ) / √( Σ (x − x̄)² Σ (y − ȳ)² )
/// ```
/// # Shapes
/// Two lists of equal length, at least 2.
/// # Errors
/// [`Error::Argument`] if lengths differ or are below 2, a number is not finite, or one list is constant, where
/// r is 0/0.
/// # Properties
/// * In \[−1, 1\], symmetric; a·x + b with a > 0 changes nothing, a < 0 changes the sign. The order of the
///   pairs does not matter.
/// * One far point can make it.
/// # Departures
/// SciPy's `pearsonr` returns NaN with a warning for a constant list.
/// # Examples
/// ```
/// use candle_align::evaluation::meta::pearson;
///
/// assert!((pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0])? - 1.0).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// The use: Liu et al. 2023, arXiv:2303.16634v3, §3; SciPy 1.17.1, `stats.pearsonr`.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    check("pearson", x, y)?;
    Ok(product_moment(x, y))
}

/// Spearman's correlation: Pearson's of the ranks.
///
/// # Equation
/// ```text
/// ρ = r(rank x, rank y),     equal numbers share the mean of their ranks
/// ```
/// # Shapes
/// As [`pearson`].
/// # Errors
/// As [`pearson`].
/// # Properties
/// * Any rising function of either list changes nothing. Without ties it is 1 − 6 Σ d²/(n³ − n).
/// # Departures
/// None from SciPy's `spearmanr`, but that a constant list is an error here and NaN there.
/// # Examples
/// ```
/// use candle_align::evaluation::meta::spearman;
///
/// // one neighboring exchange of four: 1 − 6 · 2/60
/// assert!((spearman(&[1.0, 2.0, 30.0, 4.0], &[1.0, 2.0, 3.0, 4.0])? - 0.8).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// The use: Liu et al. 2023, arXiv:2303.16634v3, §3; SciPy 1.17.1, `stats.spearmanr`.
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    check("spearman", x, y)?;
    Ok(product_moment(&ranks(x), &ranks(y)))
}

/// How Kendall's τ treats ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KendallVariant {
    /// Pairs that tie in a list are left out of its total: SciPy's default.
    #[default]
    B,
    /// By the number of different values, Stuart's: for tables that are not square.
    C,
}

/// Kendall's τ: concordant less discordant pairs.
///
/// # Equation
/// ```text
/// τ_b = (P − Q) / √( (P + Q + T)(P + Q + U) )
/// τ_c = 2 (P − Q) / ( n² (m − 1)/m )
/// ```
/// P pairs are in the same order in both lists, Q in the opposite; T tie in x alone, U in y alone; m is the
/// smaller number of different values.
/// # Shapes
/// As [`pearson`].
/// # Errors
/// As [`pearson`].
/// # Properties
/// * Any rising function of either list changes nothing; reversing one changes the sign.
/// * Without ties both are (P − Q)/C(n, 2).
/// * A judge with whole scores ties often: τ_b forgives that in part, so state the variant.
/// # Departures
/// None from SciPy's `kendalltau`, but that a constant list is an error here and NaN there. Pairs are counted
/// one by one, which takes n² steps: 10⁴ answers are half a second.
/// # Examples
/// ```
/// use candle_align::evaluation::meta::{KendallVariant, kendall};
///
/// // P = 4, Q = 1, one tie in x: τ_b = 3/√(5 · 6)
/// let tau = kendall(&[1.0, 2.0, 2.0, 4.0], &[2.0, 1.0, 3.0, 4.0], KendallVariant::B)?;
/// assert!((tau - 3.0 / 30f64.sqrt()).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// The use: Liu et al. 2023, arXiv:2303.16634v3, §3; SciPy 1.17.1, `stats.kendalltau`.
pub fn kendall(x: &[f64], y: &[f64], variant: KendallVariant) -> Result<f64> {
    check("kendall", x, y)?;
    Ok(tau(x, y, variant))
}

/// One of the correlations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correlation {
    /// [`pearson`].
    Pearson,
    /// [`spearman`].
    Spearman,
    /// [`kendall`] with the variant b.
    KendallB,
    /// [`kendall`] with the variant c.
    KendallC,
}

impl Correlation {
    /// Of checked lists.
    pub(super) fn of(self, x: &[f64], y: &[f64]) -> f64 {
        match self {
            Self::Pearson => product_moment(x, y),
            Self::Spearman => product_moment(&ranks(x), &ranks(y)),
            Self::KendallB => tau(x, y, KendallVariant::B),
            Self::KendallC => tau(x, y, KendallVariant::C),
        }
    }
}

/// Whether all numbers are equal.
pub(super) fn is_constant(x: &[f64]) -> bool {
    x.windows(2).all(|pair| pair[0] == pair[1])
}

pub(super) fn check(function: &'static str, x: &[f64], y: &[f64]) -> Result<()> {
    require_finite(function, "x", x)?;
    require_finite(function, "y", y)?;
    require_length(function, "y", y.len(), "x", x.len())?;
    for (argument, values) in [("x", x), ("y", y)] {
        if is_constant(values) {
            let problem = "holds one value alone, so a correlation is 0/0";
            return Err(Error::argument(function, argument, problem));
        }
    }
    Ok(())
}

fn product_moment(x: &[f64], y: &[f64]) -> f64 {
    // divided by the largest, so that no square overflows or vanishes
    let centered = |values: &[f64]| -> Vec<f64> {
        let center = mean(values);
        let moved: Vec<f64> = values.iter().map(|v| v - center).collect();
        let largest = moved.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        moved.iter().map(|v| v / largest).collect()
    };
    let (x, y) = (centered(x), centered(y));
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    (dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt()).clamp(-1.0, 1.0)
}

/// Ranks from 1; equal numbers share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = below as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&at| ranks[at] = rank);
        below += equal.len();
    }
    ranks
}

fn tau(x: &[f64], y: &[f64], variant: KendallVariant) -> f64 {
    // −1, 0, 1
    let order = |a: f64, b: f64| i64::from(a > b) - i64::from(a < b);
    let (mut difference, mut of_x, mut of_y) = (0, 0, 0);
    for i in 0..x.len() {
        for j in 0..i {
            let (a, b) = (order(x[i], x[j]), order(y[i], y[j]));
            difference += a * b;
            of_x += a * a;
            of_y += b * b;
        }
    }
    let different = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup_by(|a, b| a == b);
        sorted.len()
    };
    let (n, m) = (x.len() as f64, different(x).min(different(y)) as f64);
    let tau = match variant {
        KendallVariant::B => difference as f64 / (of_x as f64).sqrt() / (of_y as f64).sqrt(),
        KendallVariant::C => 2.0 * difference as f64 / (n * n * (m - 1.0) / m),
    };
    tau.clamp(-1.0, 1.0)
}
