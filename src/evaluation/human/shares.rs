//! How many answers got each level of an ordinal rating.

use crate::error::{Error, Result, require};
use crate::evaluation::statistics::Estimate;

/// The share of answers that got each level.
///
/// # Equation
/// ```text
/// shareₗ = (1/n) · Σᵢ 1[ratingᵢ = l],     error = √( shareₗ (1 − shareₗ) / (n − 1) )
/// ```
/// # Shapes
/// `ratings` `[n]`, numbered from 0; the result has `levels` entries. Self-Instruct's four levels are A (valid
/// and satisfying) to D (irrelevant or invalid).
/// # Errors
/// [`Error::Argument`] if there is no rating or one is not below `levels`; [`Error::Parameter`] if `levels` is
/// 0.
/// # Properties
/// * The shares add up to 1. The order of the ratings does not matter.
/// * No level is a number here: a mean of levels would say that B is half way between A and C.
/// # Departures
/// The papers print bars of counts without errors. The error is s/√n of the indicator, which assumes
/// that ratings are independent: raters of the same answer are not.
/// # Examples
/// ```
/// use candle_align::evaluation::human::ordinal_shares;
///
/// let shares = ordinal_shares(&[0, 0, 1, 3], 4)?;
/// assert_eq!(shares[0].value, 0.5);
/// assert!((shares[0].error - (0.25f64 / 3.0).sqrt()).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2022, arXiv:2212.10560v2, §5.3 (the four levels).
///
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn ordinal_shares(ratings: &[usize], levels: usize) -> Result<Vec<Estimate>> {
    let function = "ordinal_shares";
    require(levels >= 1, function, "levels", "at least 1", levels)?;
    if ratings.is_empty() {
        return Err(Error::argument(function, "ratings", "is empty"));
    }
    if let Some(at) = ratings.iter().position(|&rating| rating >= levels) {
        let problem = format!("is {}, of {levels} levels numbered from 0", ratings[at]);
        return Err(Error::argument(function, format!("ratings[{at}]"), problem));
    }
    let share = |level| {
        let is: Vec<f64> = ratings.iter().map(|&r| f64::from(r == level)).collect();
        Estimate::of_mean(&is)
    };
    Ok((0..levels).map(share).collect())
}
