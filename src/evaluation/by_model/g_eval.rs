//! G-Eval: the mean of the score under the judge's own distribution.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What the probabilities of the score tokens are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreMass {
    /// Their sum: a distribution over the scores, whatever else the judge might have written.
    #[default]
    Normalized,
    /// Nothing: the paper's formula as it stands, which falls short by the mass on other tokens.
    AsGiven,
}

/// The expected score of a judge.
///
/// # Equation
/// ```text
/// score = Σᵢ p(sᵢ) · sᵢ
/// ```
/// # Shapes
/// `scores` holds (sᵢ, log p(sᵢ)) for each score: 1 to 5 in the paper. A score that can be written as several
/// tokens may occur several times.
/// # Errors
/// [`Error::Argument`] if there is no score, a score is not finite, a log-probability is NaN or above 0 (a
/// little rounding is allowed), or all are −∞.
/// # Properties
/// * Between the lowest and the highest score, if normalized. A common factor of the probabilities then does
///   not matter.
/// * n samples of the judge, each with p = 1/n, give their mean.
/// * Two answers that would both get a 4 differ in the mass on 3 and 5: ties, which whole scores are full of,
///   vanish.
/// # Departures
/// The paper's p are the judge's token probabilities. Its code has no access to them for GPT-4 and takes the
/// mean of 20 samples at temperature 2: pass those as above. A sample without a number counts there as a 0.
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::{ScoreMass, expected_score};
///
/// let scores = [(3.0, 0.2f64.ln()), (4.0, 0.6f64.ln())];
/// let mean = expected_score(&scores, ScoreMass::Normalized)?;
/// assert!((mean - (3.0 * 0.25 + 4.0 * 0.75)).abs() < 1e-15);
/// let raw = expected_score(&scores, ScoreMass::AsGiven)?;
/// assert!((raw - (3.0 * 0.2 + 4.0 * 0.6)).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Liu et al. 2023, arXiv:2303.16634v3, eq. 1; authors' code nlpyang/geval at commit 8f54105,
/// `gpt4_eval.py`.
#[doc(alias = "G-Eval")]
pub fn expected_score(scores: &[(f64, f64)], mass: ScoreMass) -> Result<f64> {
    let function = "expected_score";
    if scores.is_empty() {
        return Err(Error::argument(function, "scores", "is empty"));
    }
    let good = |(score, log): &(f64, f64)| score.is_finite() && *log <= 1e-6;
    if let Some(at) = scores.iter().position(|entry| !good(entry)) {
        let problem = "must be a finite score with a log-probability <= 0";
        return Err(Error::argument(function, format!("scores[{at}]"), problem));
    }
    let top = scores
        .iter()
        .map(|entry| entry.1)
        .fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return Err(Error::argument(function, "scores", "are all impossible"));
    }
    // relative to the likeliest, so that small probabilities do not vanish
    let weights = scores.iter().map(|(_, log)| (log - top).exp());
    let sum: f64 = weights.clone().sum();
    let weighted: f64 = weights.zip(scores).map(|(w, (score, _))| w * score).sum();
    Ok(match mass {
        ScoreMass::Normalized => weighted / sum,
        ScoreMass::AsGiven => weighted * top.exp(),
    })
}
