//! FairEval: several scores with evidence, in both orders, and people where they disagree.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | k, evidences | samples of the judge for one order | |
//! | Sᵢ | `forward`: scores of (first, second) | `[k]` |
//! | S′ᵢ | `backward`: scores of (first, second) when they were shown in the other order | `[k]` |
//! | BPDE | [`position_entropy`] | number |
//! | β | the share in [`least_certain`] | number |

use super::single::compare_scores;
use crate::error::{Error, Result, require};
use crate::evaluation::outcome::Outcome;
use crate::evaluation::statistics::require_finite;

/// The scores of two answers over several samples and both orders.
///
/// # Equation
/// ```text
/// CS_r = Σᵢ (S_r,i + S′_r,i) / 2k,     r = the first answer, the second
/// ```
/// With `backward` empty it is the mean over one order: multiple evidence calibration alone.
/// # Shapes
/// `forward` and `backward` `[k]`, pairs (score of the first answer, score of the second). In `backward` the
/// judge saw the second answer first: exchange its two numbers before you pass them. The result is one such
/// pair.
/// # Errors
/// [`Error::Argument`] if there is no sample at all, or a score is not finite.
/// # Properties
/// * Exchanging the answers, and with them the orders, exchanges the result.
/// * A bias that adds a number to whatever stands first cancels, if both orders have the same number of
///   samples. One that multiplies cancels in the comparison too.
/// * The variance of the judge's noise falls like 1/2k. A bias for longer answers stays.
/// # Departures
/// The authors' code leaves samples out whose scores cannot be read, and divides by those that are left; so
/// does the mean over all samples here, if the orders keep different numbers, and then a bias does not cancel
/// wholly. As released, the second query shows the answers in the first order again (`FairEval.py`, `get_eval`,
/// commit 6c4df15) and exchanges the scores all the same, which exchanges the answers' qualities; the paper's
/// definition is used here. An outcome is a tie for exactly equal means.
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::calibrated_scores;
///
/// // a judge that adds 2 to whatever stands first: qualities 7 and 8
/// let (a, b) = calibrated_scores(&[(9.0, 8.0)], &[(7.0, 10.0)])?;
/// assert_eq!((a, b), (8.0, 9.0));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2023, arXiv:2305.17926v2, §3.1 and §3.2; authors' code i-Eval/FairEval, `FairEval.py`.
#[doc(alias = "multiple evidence calibration")]
#[doc(alias = "balanced position calibration")]
pub fn calibrated_scores(forward: &[(f64, f64)], backward: &[(f64, f64)]) -> Result<(f64, f64)> {
    let (first, second) = apart("calibrated_scores", forward, backward)?;
    let n = first.len() as f64;
    Ok((
        first.iter().sum::<f64>() / n,
        second.iter().sum::<f64>() / n,
    ))
}

/// Balanced position diversity entropy: how much the judge's samples disagree about the winner.
///
/// # Equation
/// ```text
/// BPDE = −Σ_{r ∈ win, tie, lose} p(r) ln p(r),     p(r) = the share of the 2k outcomes that are r
/// ```
/// # Shapes
/// As [`calibrated_scores`]; the result is in \[0, ln 3\].
/// # Errors
/// As [`calibrated_scores`].
/// # Properties
/// * 0 if all samples agree, ln 2 if the order alone decides. Exchanging the answers changes nothing.
/// * It ranks examples; the base of the logarithm, which the paper leaves open, does not change the ranking.
/// # Departures
/// None; natural logarithm.
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::position_entropy;
///
/// let entropy = position_entropy(&[(9.0, 8.0)], &[(7.0, 10.0)])?;
/// assert!((entropy - 2f64.ln()).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2023, arXiv:2305.17926v2, §3.3. The definition was read in summaries of the paper.
#[doc(alias = "BPDE")]
pub fn position_entropy(forward: &[(f64, f64)], backward: &[(f64, f64)]) -> Result<f64> {
    let function = "position_entropy";
    let (first, second) = apart(function, forward, backward)?;
    let outcomes = first
        .iter()
        .zip(&second)
        .map(|(a, b)| compare_scores(*a, *b, 0.0));
    let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
    let term = |of: Outcome| {
        let count = outcomes.iter().filter(|outcome| **outcome == of).count();
        let p = count as f64 / outcomes.len() as f64;
        if count == 0 { 0.0 } else { -p * p.ln() }
    };
    Ok([Outcome::First, Outcome::Second, Outcome::Tie]
        .map(term)
        .iter()
        .sum())
}

/// Which examples people should judge: the given share with the highest entropies.
///
/// # Equation
/// ```text
/// the β·n examples, rounded, with the highest BPDE
/// ```
/// # Shapes
/// `entropies` `[n]`; the result holds their numbers, in ascending order.
/// # Errors
/// [`Error::Argument`] if there is no example or an entropy is not finite, [`Error::Parameter`] unless the
/// share is in \[0, 1\].
/// # Properties
/// * A larger share contains the smaller one. Of equal entropies the earlier example is taken: entropies of few
///   samples tie often.
/// # Departures
/// The paper takes the top β without saying how ties break or how β·n is rounded. Its β is 20 %.
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::least_certain;
///
/// assert_eq!(least_certain(&[0.0, 0.7, 0.5, 0.7], 0.5)?, [1, 3]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2023, arXiv:2305.17926v2, §3.3. The definition was read in summaries of the paper.
#[doc(alias = "human-in-the-loop calibration")]
pub fn least_certain(entropies: &[f64], share: f64) -> Result<Vec<usize>> {
    let function = "least_certain";
    require_finite(function, "entropies", entropies)?;
    require(
        (0.0..=1.0).contains(&share),
        function,
        "share",
        "in [0, 1]",
        share,
    )?;
    let mut order: Vec<usize> = (0..entropies.len()).collect();
    order.sort_by(|&a, &b| entropies[b].total_cmp(&entropies[a]));
    order.truncate((share * entropies.len() as f64).round() as usize);
    order.sort_unstable();
    Ok(order)
}

/// All scores of the first answer, and all of the second.
fn apart(
    function: &'static str,
    forward: &[(f64, f64)],
    backward: &[(f64, f64)],
) -> Result<(Vec<f64>, Vec<f64>)> {
    if forward.is_empty() && backward.is_empty() {
        return Err(Error::argument(
            function,
            "forward",
            "and `backward` are empty",
        ));
    }
    for (argument, samples) in [("forward", forward), ("backward", backward)] {
        let finite = |(a, b): &(f64, f64)| a.is_finite() && b.is_finite();
        if let Some(at) = samples.iter().position(|sample| !finite(sample)) {
            let problem = "must be two finite scores";
            return Err(Error::argument(
                function,
                format!("{argument}[{at}]"),
                problem,
            ));
        }
    }
    Ok(forward.iter().chain(backward).copied().unzip())
}
