//! Kappa: agreement beyond what the shares of the categories give by chance.

use super::agreement::require_below;
use crate::error::{Error, Result, require};
use crate::evaluation::statistics::require_length;
use serde::{Deserialize, Serialize};

/// How much two different categories disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KappaWeights {
    /// All alike.
    #[default]
    None,
    /// By their distance │i − j│: for ordered levels.
    Linear,
    /// By the square of it.
    Quadratic,
}

/// Cohen's kappa of two raters.
///
/// # Equation
/// ```text
/// κ = 1 − Σ_{ij} w_{ij} O_{ij} / Σ_{ij} w_{ij} E_{ij},     E_{ij} = (rows of i) · (columns of j) / n
/// w_{ij} = 1[i ≠ j],  │i − j│  or  (i − j)²
/// ```
/// Unweighted it is (p_o − p_e)/(1 − p_e).
/// # Shapes
/// `first` and `second` `[n]`, the categories that two raters gave the same items, numbered below
/// `categories`.
/// # Errors
/// [`Error::Argument`] if there is no item, the lengths differ, a category does not exist, or chance alone
/// explains everything: both raters gave one and the same category to all items, where κ is 0/0.
/// # Properties
/// * 1 for equal ratings, 0 in expectation for independent ones, whatever their shares; at least −1. It is
///   symmetric in the raters, and the order of the items does not matter.
/// * Unweighted, renaming the categories changes nothing; with weights, reversing their order does not.
///   With two categories the three weights agree. A constant shift of one rater's levels is a disagreement
///   here, unlike in a correlation.
/// * κ is low where one category has nearly all items, however often the raters agree.
/// # Departures
/// None from scikit-learn's `cohen_kappa_score`, which returns NaN for 0/0 and takes its levels from the
/// labels that occur: name all of them there.
/// # Examples
/// ```
/// use candle_align::evaluation::human::{KappaWeights, cohen_kappa};
///
/// // equal on 3 of 4; chance ½ · ¾ + ½ · ¼ = ½
/// let kappa = cohen_kappa(&[0, 0, 1, 1], &[0, 0, 0, 1], 2, KappaWeights::None)?;
/// assert!((kappa - (0.75 - 0.5) / (1.0 - 0.5)).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Cohen 1960 and 1968, two journal articles; scikit-learn 1.9.1, `metrics.cohen_kappa_score`, a web page. The
/// survey's concern about ordinal ratings: Wang et al. 2023, arXiv:2307.12966v1, §4.2.1.
pub fn cohen_kappa(
    first: &[usize],
    second: &[usize],
    categories: usize,
    weights: KappaWeights,
) -> Result<f64> {
    let function = "cohen_kappa";
    if first.is_empty() {
        return Err(Error::argument(function, "first", "is empty"));
    }
    require_length(function, "second", second.len(), "first", first.len())?;
    require_below(function, "first", first, categories)?;
    require_below(function, "second", second, categories)?;
    let n = first.len() as f64;
    let weight = |i: usize, j: usize| match weights {
        KappaWeights::None => f64::from(i != j),
        KappaWeights::Linear => i.abs_diff(j) as f64,
        KappaWeights::Quadratic => (i.abs_diff(j) as f64).powi(2),
    };
    let counts = |values: &[usize]| {
        let mut counts = vec![0.0; categories];
        values.iter().for_each(|&value| counts[value] += 1.0);
        counts
    };
    let observed: f64 = first.iter().zip(second).map(|(&i, &j)| weight(i, j)).sum();
    let (rows, columns) = (counts(first), counts(second));
    let mut expected = 0.0;
    for (i, row) in rows.iter().enumerate() {
        for (j, column) in columns.iter().enumerate() {
            expected += weight(i, j) * row * column / n;
        }
    }
    match expected > 0.0 {
        true => Ok(1.0 - observed / expected),
        false => Err(Error::argument(
            function,
            "first",
            "and `second` hold one category alone, where kappa is 0/0",
        )),
    }
}

/// Fleiss' kappa of several raters.
///
/// # Equation
/// ```text
/// κ = (P̄ − P̄ₑ)/(1 − P̄ₑ),   P̄ = mean over items of Σⱼ nᵢⱼ(nᵢⱼ − 1) / (n(n − 1)),   P̄ₑ = Σⱼ pⱼ²
/// ```
/// nᵢⱼ of n raters gave item i the category j; pⱼ is the share of category j among all ratings.
/// # Shapes
/// `counts` `[items][categories]`, each row with the same sum n: the raters may differ from item to item, their
/// number may not.
/// # Errors
/// [`Error::Argument`] if there is no item or no category, rows differ in length or in sum, n is below 2, or
/// all ratings are one category, where κ is 0/0.
/// # Properties
/// * 1 if all agree on every item, at least −1/(n − 1). The order of items, raters and categories does not
///   matter.
/// * It is not [`cohen_kappa`] for two raters: both are taken to share one distribution, which makes it
///   Scott's π.
/// * For the same number of ratings everywhere it differs from nominal
///   [`krippendorff_alpha`](super::krippendorff_alpha) by a correction for few items:
///   1 − α = (1 − κ)(1 − 1/(N·n)).
/// # Departures
/// None from statsmodels' `fleiss_kappa`.
/// # Examples
/// ```
/// use candle_align::evaluation::human::fleiss_kappa;
///
/// // three raters: 1 and 1/3 of the pairs agree; the shares are 2/3 and 1/3
/// let kappa = fleiss_kappa(&[vec![3, 0], vec![1, 2]])?;
/// let (agree, chance) = (2.0 / 3.0, 5.0 / 9.0);
/// assert!((kappa - (agree - chance) / (1.0 - chance)).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Fleiss 1971, a journal article; statsmodels 0.15.0, `stats.inter_rater.fleiss_kappa`, a web page. The
/// survey's concern about ordinal ratings: Wang et al. 2023, arXiv:2307.12966v1, §4.2.1.
pub fn fleiss_kappa(counts: &[Vec<usize>]) -> Result<f64> {
    let function = "fleiss_kappa";
    let Some(first) = counts.first() else {
        return Err(Error::argument(function, "counts", "is empty"));
    };
    let raters: usize = first.iter().sum();
    require(
        raters >= 2,
        function,
        "counts",
        "rows of at least 2 ratings",
        raters,
    )?;
    let mut shares = vec![0.0; first.len()];
    let mut agreed = 0.0;
    let (items, n) = (counts.len() as f64, raters as f64);
    for (at, row) in counts.iter().enumerate() {
        let sum: usize = row.iter().sum();
        if row.len() != first.len() || sum != raters {
            let problem = format!(
                "has {sum} ratings of {} categories, but `counts[0]` has {raters} of {}",
                row.len(),
                first.len()
            );
            return Err(Error::argument(function, format!("counts[{at}]"), problem));
        }
        for (share, &count) in shares.iter_mut().zip(row) {
            let count = count as f64;
            *share += count / (items * n);
            agreed += count * (count - 1.0) / (n * (n - 1.0) * items);
        }
    }
    if shares.iter().filter(|share| **share > 0.0).count() < 2 {
        let problem = "hold one category alone, where kappa is 0/0";
        return Err(Error::argument(function, "counts", problem));
    }
    let chance: f64 = shares.iter().map(|share| share * share).sum();
    Ok((agreed - chance) / (1.0 - chance))
}
