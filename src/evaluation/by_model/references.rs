//! Several references for one answer, such as paraphrases that a language model wrote.

use crate::error::Result;
use crate::evaluation::statistics::{mean, require_finite};
use serde::{Deserialize, Serialize};

/// How scores against several references become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum References {
    /// The highest: one good match is enough.
    #[default]
    Highest,
    /// The mean.
    Mean,
}

/// The score of an answer against several references.
///
/// # Equation
/// ```text
/// maxᵣ s(y, r)     or     (1/R) Σᵣ s(y, r)
/// ```
/// # Shapes
/// `scores` `[references]` of one answer, by any metric where higher is better.
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) if there is no score, or one is not finite.
/// # Properties
/// * A further reference never lowers the highest score, so compare answers with the same number of references.
/// * The order of the references does not matter; one reference leaves the score as it is.
/// # Departures
/// The paper has a language model paraphrase the reference, and takes the maximum for most metrics. BLEU has
/// its own way with several references: see [`corpus_bleu`](crate::evaluation::reference_based::corpus_bleu).
/// For three numbers at once, [`Overlap::best_of`](crate::evaluation::reference_based::Overlap::best_of).
/// # Examples
/// ```
/// use candle_align::evaluation::by_model::{References, multi_reference};
///
/// assert_eq!(multi_reference(&[0.25, 0.75], References::Highest)?, 0.75);
/// assert_eq!(multi_reference(&[0.25, 0.75], References::Mean)?, 0.5);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Tang et al. 2023, arXiv:2305.15067v3 (diversified references), as the survey describes it,
/// arXiv:2307.12966v1, §4.2.2.
pub fn multi_reference(scores: &[f64], by: References) -> Result<f64> {
    require_finite("multi_reference", "scores", scores)?;
    Ok(match by {
        References::Highest => scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        References::Mean => mean(scores),
    })
}
