//! Precision, recall and F of a text against a reference.

use crate::error::{Result, require};

/// How much of a text is in the reference, and how much of the reference is in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[doc(alias = "f-measure")]
pub struct Overlap {
    /// The share of the text that the reference has.
    pub precision: f64,
    /// The share of the reference that the text has.
    pub recall: f64,
    /// 2PR/(P + R), and 0 where both are 0.
    pub f1: f64,
}

impl Overlap {
    /// From precision and recall.
    pub(super) fn new(precision: f64, recall: f64) -> Self {
        let sum = precision + recall;
        let f1 = match sum == 0.0 {
            true => 0.0,
            false => 2.0 * precision * recall / sum,
        };
        Self {
            precision,
            recall,
            f1,
        }
    }

    /// From a number of hits among the units of the text and of the reference; 0 where there are none.
    pub(super) fn of_counts(hits: usize, text: usize, reference: usize) -> Self {
        let share = |of: usize| hits as f64 / of.max(1) as f64;
        Self::new(share(text), share(reference))
    }

    /// The score against the reference that has the highest F, the first of equal ones; `None` of nothing.
    pub fn best_of(scores: &[Self]) -> Option<Self> {
        let mut scores = scores.iter().copied();
        let first = scores.next()?;
        Some(scores.fold(first, |best, next| match next.f1 > best.f1 {
            true => next,
            false => best,
        }))
    }

    /// (x − b)/(1 − b), for each of the three with its own baseline: BERTScore's rescaling, which spreads
    /// scores that all lie near 1. A baseline is the mean score of unrelated sentences.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless all baselines are finite and below 1.
    pub fn rescaled(&self, baseline: &Self) -> Result<Self> {
        let below = |field, b: f64| {
            let holds = b.is_finite() && b < 1.0;
            require(holds, "Overlap::rescaled", field, "finite and < 1", b)
        };
        below("precision", baseline.precision)?;
        below("recall", baseline.recall)?;
        below("f1", baseline.f1)?;
        let rescaled = |x: f64, b: f64| (x - b) / (1.0 - b);
        Ok(Self {
            precision: rescaled(self.precision, baseline.precision),
            recall: rescaled(self.recall, baseline.recall),
            f1: rescaled(self.f1, baseline.f1),
        })
    }
}
