//! How often two votes are the same.

use crate::error::{Error, Result};
use crate::evaluation::outcome::Outcome;
use crate::evaluation::statistics::require_length;
use serde::{Deserialize, Serialize};

/// Whether tied votes take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoteTies {
    /// A tie is a vote like the others: MT-bench's setup S1, where chance is 1/3.
    #[default]
    Counted,
    /// Pairs of votes with a tie among them are left out: setup S2, where chance is 1/2.
    Dropped,
}

/// How many pairs of votes are the same, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Pairs of equal votes.
    pub equal: usize,
    /// All pairs.
    pub pairs: usize,
}

impl Agreement {
    /// equal / pairs; NaN if there is no pair.
    pub fn share(&self) -> f64 {
        self.equal as f64 / self.pairs as f64
    }

    fn add(&mut self, a: Outcome, b: Outcome, ties: VoteTies) {
        let tied = a == Outcome::Tie || b == Outcome::Tie;
        if ties == VoteTies::Dropped && tied {
            return;
        }
        self.pairs += 1;
        self.equal += usize::from(a == b);
    }
}

/// The agreement among people: over all pairs of votes on the same item.
///
/// # Equation
/// ```text
/// Σ_items Σ_{i<j} 1[voteᵢ = voteⱼ] / Σ_items C(votes, 2)
/// ```
/// # Shapes
/// `items` holds the votes on each item, any number of them; the two answers of an item stand in one order
/// for all voters.
/// # Errors
/// None. Items with fewer than two votes add no pair.
/// # Properties
/// * The order of items and of votes does not matter; swapping the answers of an item swaps all its votes
///   and changes nothing.
/// * An item with many votes has many pairs, and weighs quadratically more.
/// * Votes at random agree with the chance named at [`VoteTies`]: compare with it, or take a
///   [kappa](super::cohen_kappa).
/// # Departures
/// None from FastChat's `get_mt_bench_agreement`, which returns the same two counts. Its votes have the two
/// answers in alphabetical order of the models.
/// # Examples
/// ```
/// use candle_align::evaluation::Outcome::{First, Second, Tie};
/// use candle_align::evaluation::human::{VoteTies, vote_agreement};
///
/// let items = [vec![First, First, Tie], vec![Second, Second], vec![Tie]];
/// assert_eq!(vote_agreement(&items, VoteTies::Counted).share(), 2.0 / 4.0);
/// assert_eq!(vote_agreement(&items, VoteTies::Dropped).share(), 1.0);
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4, §4.2; authors' code lm-sys/FastChat 0.2.36,
/// `llm_judge/compute_agreement.py`.
#[doc(alias = "inter-annotator agreement")]
pub fn vote_agreement<V: AsRef<[Outcome]>>(items: &[V], ties: VoteTies) -> Agreement {
    let mut agreement = Agreement { equal: 0, pairs: 0 };
    for votes in items {
        let votes = votes.as_ref();
        for (at, &vote) in votes.iter().enumerate() {
            for &other in &votes[at + 1..] {
                agreement.add(vote, other, ties);
            }
        }
    }
    agreement
}

/// The agreement of one judge with people: its verdict against every vote on the same item.
///
/// # Equation
/// ```text
/// Σ_items Σⱼ 1[verdict = voteⱼ] / Σ_items votes
/// ```
/// # Shapes
/// `judge` holds one verdict for each item, `votes` the votes of people on it; both see the two answers in the
/// same order.
/// # Errors
/// [`Error::Argument`] if the lengths differ.
/// # Properties
/// * Items without a vote add nothing. The order of items and of votes does not matter.
/// * A judge can agree with people more than they do with each other: the majority does.
/// # Departures
/// None from FastChat's `get_mt_bench_agreement`. There a verdict that changes with the order of the answers
/// is a tie: see [`BothOrders::verdict`](crate::evaluation::by_model::BothOrders::verdict).
/// # Examples
/// ```
/// use candle_align::evaluation::Outcome::{First, Second, Tie};
/// use candle_align::evaluation::human::{VoteTies, judge_agreement};
///
/// let votes = [vec![First, First, Tie], vec![Second]];
/// assert_eq!(judge_agreement(&[First, Tie], &votes, VoteTies::Counted)?.share(), 2.0 / 4.0);
/// assert_eq!(judge_agreement(&[First, Tie], &votes, VoteTies::Dropped)?.share(), 2.0 / 2.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zheng et al. 2023, arXiv:2306.05685v4, §4.2; authors' code lm-sys/FastChat 0.2.36,
/// `llm_judge/compute_agreement.py`.
pub fn judge_agreement<V: AsRef<[Outcome]>>(
    judge: &[Outcome],
    votes: &[V],
    ties: VoteTies,
) -> Result<Agreement> {
    require_length(
        "judge_agreement",
        "votes",
        votes.len(),
        "judge",
        judge.len(),
    )?;
    let mut agreement = Agreement { equal: 0, pairs: 0 };
    for (&verdict, votes) in judge.iter().zip(votes) {
        for &vote in votes.as_ref() {
            agreement.add(verdict, vote, ties);
        }
    }
    Ok(agreement)
}

/// Requires the categories of raters to lie below a number.
pub(super) fn require_below(
    function: &'static str,
    argument: &str,
    values: &[usize],
    below: usize,
) -> Result<()> {
    match values.iter().position(|&value| value >= below) {
        Some(at) => Err(Error::argument(
            function,
            format!("{argument}[{at}]"),
            format!("is {}, of {below} categories numbered from 0", values[at]),
        )),
        None => Ok(()),
    }
}
