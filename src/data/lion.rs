//! Lion: a judge tells hard instructions from easy ones, and both kinds get successors (survey §2.2.1).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | the judge's scores of teacher and student, in both orders | [`Review`] | four numbers, 1 to 10 |
//! | the gap between them | [`Review::gap`] | number |
//! | τ = 1 | [`LionConfig::threshold`] | number |
//! | hard and easy instructions | [`discriminate`], [`Discrimination`] | numbers of instructions |
//! | as many new hard ones as new easy ones | [`balanced`] | numbers of instructions |
//!
//! Read next: [`super::evol_instruct`], which makes instructions harder without asking where the student is.

use crate::error::{Error, Result, require};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

/// What the judge gave two answers to one instruction, asked twice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Scores of teacher and student, with the teacher's answer first.
    pub teacher_first: (f64, f64),
    /// Scores of teacher and student, with the student's answer first.
    pub student_first: (f64, f64),
}

impl Review {
    /// The teacher's mean score minus the student's.
    pub fn gap(&self) -> f64 {
        let teacher = (self.teacher_first.0 + self.student_first.0) / 2.0;
        let student = (self.teacher_first.1 + self.student_first.1) / 2.0;
        teacher - student
    }
}

/// Settings of [`discriminate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LionConfig {
    /// τ: an instruction with at least this gap is hard. Default 1, on the judge's scale of 1 to 10.
    pub threshold: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { threshold: 1.0 }
    }
}

/// Instructions by how far the student is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discrimination {
    /// Hard ones, the largest gap first.
    pub hard: Vec<usize>,
    /// Easy ones, the largest gap first.
    pub easy: Vec<usize>,
}

/// Tells hard instructions from easy ones.
///
/// # Equation
/// ```text
/// gap = ½(t₁ + t₂) − ½(s₁ + s₂)      t₁, s₁: teacher first;   t₂, s₂: student first
/// hard  ⇔  gap ≥ τ
/// ```
/// # Shapes
/// One review per instruction; the result has their numbers.
/// # Errors
/// [`Error::Parameter`] if τ is not finite; [`Error::Argument`] if a score is not finite.
/// # Properties
/// * Every instruction is in one of the two lists. Both are ordered by gap, then by the teacher's score,
///   highest first, then by number.
/// * A judge that gives the first answer c more than it deserves changes no gap, because each model is first
///   once.
/// # Departures
/// The paper is summarized with the absolute gap. The authors' code, and this function, take the signed one:
/// where the student is ahead, the instruction is easy.
/// # Examples
/// ```
/// use candle_align::data::lion::{LionConfig, Review, discriminate};
///
/// let review = |teacher, student| Review { teacher_first: (teacher + 1.0, student), student_first: (teacher, student + 1.0) };
/// let found = discriminate(&[review(8.0, 8.0), review(9.0, 6.0), review(4.0, 8.0)], &LionConfig::default())?;
/// assert_eq!(found.hard, [1]);
/// assert_eq!(found.easy, [0, 2]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Jiang et al. 2023, arXiv:2305.12870; authors' code YJiangcm/Lion, `src/discrimination.py`.
pub fn discriminate(reviews: &[Review], config: &LionConfig) -> Result<Discrimination> {
    let function = "discriminate";
    let threshold = config.threshold;
    require(
        threshold.is_finite(),
        function,
        "threshold",
        "finite",
        threshold,
    )?;
    for (i, review) in reviews.iter().enumerate() {
        let ((a, b), (c, d)) = (review.teacher_first, review.student_first);
        if ![a, b, c, d].iter().all(|score| score.is_finite()) {
            let argument = format!("reviews[{i}]");
            return Err(Error::argument(
                function,
                argument,
                "has a score that is not finite",
            ));
        }
    }
    let teacher = |r: &Review| r.teacher_first.0 + r.student_first.0;
    let mut order: Vec<usize> = (0..reviews.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&reviews[a], &reviews[b]);
        b.gap()
            .total_cmp(&a.gap())
            .then(teacher(b).total_cmp(&teacher(a)))
    });
    let (hard, easy) = order
        .into_iter()
        .partition(|&i| reviews[i].gap() >= threshold);
    Ok(Discrimination { hard, easy })
}

/// Which instruction each new one is made after: as many hard as easy ones.
///
/// # Equation
/// ```text
/// ⌈n/2⌉ draws from the hard ones,  ⌊n/2⌋ draws from the easy ones,  with replacement
/// ```
/// # Shapes
/// `count` is n. The result has numbers of instructions, the hard ones first.
/// # Errors
/// [`Error::Argument`] if a draw is due from a list that is empty.
/// # Properties
/// * The share of hard instructions is one half, however rare they were. They would be ever more of the
///   data if they alone had successors.
/// * One seed of the generator gives one result.
/// # Departures
/// None known. The prompts that ask for a new instruction of the same field, and for one of the same
/// difficulty, are the caller's: [`EvolveConfig::breadth`](super::evol_instruct::EvolveConfig) is of that
/// kind.
/// # Examples
/// ```
/// use candle_align::data::lion::{Discrimination, balanced};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let found = Discrimination { hard: vec![7], easy: vec![0, 1, 2, 3] };
/// let drawn = balanced(&found, 6, &mut StdRng::seed_from_u64(0))?;
/// assert_eq!(drawn[..3], [7, 7, 7]);
/// assert!(drawn[3..].iter().all(|i| *i < 4));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Jiang et al. 2023, arXiv:2305.12870; authors' code YJiangcm/Lion, `src/generate_hard_instruction.py` and
/// `src/generate_easy_instruction.py`, each of which draws one seed per request. That both make equally many
/// is from a summary.
pub fn balanced(found: &Discrimination, count: usize, rng: &mut impl Rng) -> Result<Vec<usize>> {
    let mut drawn = Vec::new();
    for (name, list, due) in [
        ("found.hard", &found.hard, count.div_ceil(2)),
        ("found.easy", &found.easy, count / 2),
    ] {
        for _ in 0..due {
            let one = list.choose(rng);
            drawn.push(*one.ok_or_else(|| Error::argument("balanced", name, "is empty"))?);
        }
    }
    Ok(drawn)
}
