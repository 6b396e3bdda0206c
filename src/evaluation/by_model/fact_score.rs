//! FActScore: the share of an answer's facts that a source supports.

use crate::error::{Error, Result, non_negative};
use crate::evaluation::statistics::mean;

/// The score of a model over its answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FactScore {
    /// The mean over answers, with the penalty.
    pub score: f64,
    /// The same without the penalty.
    pub unpenalized: f64,
    /// The share of prompts that were answered.
    pub answered: f64,
    /// Facts for each answer.
    pub facts: f64,
}

/// FActScore of a model.
///
/// # Equation
/// ```text
/// f(y)  = supported facts of y / facts of y
/// score = mean over answers of f(y) · min(1, e^{1 − γ/facts})
/// ```
/// γ = 0 is no penalty.
/// # Shapes
/// `answers` `[prompts]`: for each prompt whether each fact of the answer is supported, or `None` where the
/// model declined to answer. The paper's γ is 10.
/// # Errors
/// [`Error::Argument`] if no prompt was answered, or an answer has no fact; [`Error::Parameter`] unless γ is
/// finite and at least 0.
/// # Properties
/// * In \[0, 1\]. The order of facts and of answers does not matter.
/// * Declined prompts cost nothing: read the score beside [`FactScore::answered`].
/// * Without the penalty one safe fact beats ten facts of which nine are right; with γ = 10 it gets e⁻⁹.
/// # Departures
/// The authors' code penalizes where facts ≤ γ, which is the same formula: at facts = γ the factor is 1. It
/// takes an answer without a fact as declined; say so by `None` here.
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::fact_score;
///
/// let answers = [Some(vec![true; 20]), Some(vec![true, false, true, true, false]), None];
/// let score = fact_score(&answers, 10.0)?;
/// assert!((score.score - (1.0 + 0.6 * (1.0 - 10.0f64 / 5.0).exp()) / 2.0).abs() < 1e-15);
/// assert_eq!((score.unpenalized, score.answered, score.facts), (0.8, 2.0 / 3.0, 12.5));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Min et al. 2023, arXiv:2305.14251v2, §3; authors' code shmsw25/FActScore 0.2.0, `factscorer.py`,
/// `get_score`.
///
/// [`Error::Parameter`]: crate::Error::Parameter
#[doc(alias = "FActScore")]
pub fn fact_score(answers: &[Option<Vec<bool>>], gamma: f64) -> Result<FactScore> {
    let function = "fact_score";
    non_negative(function, "gamma", gamma)?;
    let (mut plain, mut penalized, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    for (at, answer) in answers.iter().enumerate() {
        let Some(supported) = answer else { continue };
        if supported.is_empty() {
            let problem = "has no fact; pass None where a model declined";
            return Err(Error::argument(function, format!("answers[{at}]"), problem));
        }
        let count = supported.len() as f64;
        let share = supported.iter().filter(|fact| **fact).count() as f64 / count;
        plain.push(share);
        // e^{1 − γ/facts}, up to 1
        penalized.push(match count > gamma {
            true => share,
            false => share * (1.0 - gamma / count).exp(),
        });
        facts.push(count);
    }
    if plain.is_empty() {
        return Err(Error::argument(function, "answers", "has no answer"));
    }
    Ok(FactScore {
        score: mean(&penalized),
        unpenalized: mean(&plain),
        answered: plain.len() as f64 / answers.len() as f64,
        facts: mean(&facts),
    })
}
