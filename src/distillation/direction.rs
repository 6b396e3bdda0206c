//! Which divergence, and over which symbols.

use serde::{Deserialize, Serialize};

/// Which divergence, from q of the student and p of the teacher.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Direction {
    /// KL(p‖q) = Σ p log(p/q): the student covers all that the teacher says.
    #[doc(alias = "mass covering")]
    Forward,
    /// KL(q‖p) = Σ q log(q/p): the student says only what the teacher says.
    #[doc(alias = "mode seeking")]
    Reverse,
    /// w KL(p‖m) + (1 − w) KL(q‖m) with m = (1 − w) q + w p.
    #[doc(alias = "JSD")]
    JensenShannon {
        /// w in (0, 1), the teacher's share of m.
        weight: f64,
    },
}

/// Whose k likeliest symbols count one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChosenBy {
    /// The student's.
    Student,
    /// The teacher's.
    Teacher,
    /// The student's and the teacher's, up to 2k symbols.
    Either,
}

/// The k likeliest symbols count one by one, all others together as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopK {
    /// k ≥ 1. From the size of the vocabulary on, every symbol counts alone.
    pub k: usize,
    /// Whose likeliest symbols.
    pub of: ChosenBy,
}
