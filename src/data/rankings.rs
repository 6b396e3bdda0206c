//! Ranked answers: one ranking as pairs, several rankings as one (survey §2.1.2 and §2.3).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | K ranked answers, C(K, 2) comparisons (InstructGPT) | [`pairs_of_ranking`] | ranks to pairs |
//! | ranked pairs, Tideman's method (OpenAssistant) | [`merge_ballots`] | rankings to a ranking |
//!
//! Read next: [`pairwise_reward_loss`](crate::pairwise_reward_loss) and [`dpo_loss`](crate::dpo_loss), which
//! learn from pairs.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which pairs of a ranking are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairsOf {
    /// Every two answers of different ranks.
    #[default]
    All,
    /// The best answers against every worse one.
    BestAgainstRest,
}

/// The pairs of chosen and rejected answers in a ranking.
///
/// # Equation
/// ```text
/// All:               { (i, j) : rank_i < rank_j }                           C(K, 2) of them without ties
/// BestAgainstRest:   { (i, j) : rank_i = min rank < rank_j }                K − 1 of them without ties
/// ```
/// # Shapes
/// One rank per answer, 0 or 1 or any number for the best, equal ranks for a tie. The pairs are of answers'
/// numbers, chosen first, ordered by the chosen answer and then by the rejected one.
/// # Errors
/// [`Error::Argument`] if there are fewer than two answers.
/// # Properties
/// * Ranks count by their order alone: any increasing change of them gives the same pairs.
/// * A tie is in no pair. If all answers tie there is none.
/// # Departures
/// InstructGPT's pairs of one prompt stay in one batch, because they are not independent. That is the
/// caller's: [`ranked_reward_loss`](crate::ranked_reward_loss) takes the ranking as it is.
/// # Examples
/// ```
/// use candle_align::data::rankings::{PairsOf, pairs_of_ranking};
///
/// let ranks = [2, 1, 1, 3];
/// assert_eq!(pairs_of_ranking(&ranks, PairsOf::All)?, [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3)]);
/// let best = pairs_of_ranking(&ranks, PairsOf::BestAgainstRest)?;
/// assert_eq!(best, [(1, 0), (1, 3), (2, 0), (2, 3)]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Ouyang et al. 2022, arXiv:2203.02155 (InstructGPT), §3.5. The survey: Wang et al. 2023,
/// arXiv:2307.12966v1.
pub fn pairs_of_ranking(ranks: &[usize], which: PairsOf) -> Result<Vec<(usize, usize)>> {
    if ranks.len() < 2 {
        let problem = format!("has {} of at least 2 answers", ranks.len());
        return Err(Error::argument("pairs_of_ranking", "ranks", problem));
    }
    let best = ranks.iter().min();
    let mut pairs = Vec::new();
    for (i, chosen) in ranks.iter().enumerate() {
        if which == PairsOf::BestAgainstRest && Some(chosen) != best {
            continue;
        }
        let worse = ranks.iter().enumerate().filter(|(_, rank)| *rank > chosen);
        pairs.extend(worse.map(|(j, _)| (i, j)));
    }
    Ok(pairs)
}

/// One ranking from several, by Tideman's ranked pairs.
///
/// # Equation
/// ```text
/// m(a, b) = ballots with a before b − ballots with b before a
///
/// for the pairs (a, b) with m(a, b) ≥ 0, the largest m first:
///     lock a before b, unless b is before a by what is locked already
/// ```
/// # Shapes
/// Each ballot lists answers, the best first. The result lists the answers that all ballots have, the best
/// first.
/// # Errors
/// [`Error::Argument`] if there is no ballot, if a ballot has an answer twice, or if fewer than two answers
/// are on all ballots.
/// # Properties
/// * An answer that beats every other one in a majority of ballots is first (Condorcet), and one that loses
///   to every other one is last.
/// * The order of the ballots does not matter. Ballots that all agree give their ranking.
/// * A cycle a before b before c before a is broken at its smallest majority.
/// * The result is complete: every two answers are ordered.
/// # Departures
/// * Ties follow OpenAssistant's code. Of equal majorities the pair whose first answer is smaller, then
///   whose second one is, is locked first; the code orders by the answers' names. So two answers that tie
///   are ordered by their names where nothing stronger orders them. Tideman's paper draws by lot instead.
/// * As in that code, answers that are missing from a ballot are left out of the result, and majorities are
///   differences of votes, not counts of winning votes.
/// * The code skips a message with fewer than two common answers; here that is an error.
/// # Examples
/// ```
/// use candle_align::data::rankings::merge_ballots;
///
/// // 3 : 0 for a over c, 2 : 1 for a over b and for b over c
/// let merged = merge_ballots(&[["a", "b", "c"], ["a", "b", "c"], ["b", "a", "c"]])?;
/// assert_eq!(merged, ["a", "b", "c"]);
/// // a cycle: a before b by 5, b before c by 3, c before a by 1
/// let ballots = [vec![["a", "b", "c"]; 4], vec![["b", "c", "a"]; 2], vec![["c", "a", "b"]; 3]].concat();
/// assert_eq!(merge_ballots(&ballots)?, ["a", "b", "c"]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Köpf et al. 2023, arXiv:2304.07327 (OpenAssistant); authors' code LAION-AI/Open-Assistant,
/// `backend/oasst_backend/utils/ranking.py`, `ranked_pairs`, and `tree_manager.py`, `ranked_pairs_update`.
/// Tideman 1987, "Independence of clones as a criterion for voting rules", from memory.
#[doc(alias = "ranked pairs")]
#[doc(alias = "Tideman")]
#[doc(alias = "OpenAssistant")]
pub fn merge_ballots<T: Ord + Clone, B: AsRef<[T]>>(ballots: &[B]) -> Result<Vec<T>> {
    let function = "merge_ballots";
    let sets: Vec<BTreeSet<&T>> = ballots
        .iter()
        .map(|b| b.as_ref().iter().collect())
        .collect();
    let Some(first) = sets.first() else {
        return Err(Error::argument(function, "ballots", "is empty"));
    };
    for (i, (ballot, set)) in ballots.iter().zip(&sets).enumerate() {
        if ballot.as_ref().len() != set.len() {
            let argument = format!("ballots[{i}]");
            return Err(Error::argument(function, argument, "has an answer twice"));
        }
    }
    let common = first
        .iter()
        .filter(|a| sets.iter().all(|set| set.contains(**a)));
    let answers: Vec<&T> = common.copied().collect();
    let n = answers.len();
    if n < 2 {
        let problem = format!("have {n} answers in common, and a ranking needs at least 2");
        return Err(Error::argument(function, "ballots", problem));
    }

    // m(a, b)
    let pairs = (0..n).flat_map(|a| (0..n).filter(move |&b| a != b).map(move |b| (a, b)));
    let mut pairs: Vec<(usize, usize)> = pairs.collect();
    let mut margins = vec![vec![0i64; n]; n];
    for ballot in ballots {
        let place = |answer: &T| ballot.as_ref().iter().position(|other| other == answer);
        let places: Vec<_> = answers.iter().map(|answer| place(answer)).collect();
        for &(a, b) in &pairs {
            margins[a][b] += if places[a] < places[b] { 1 } else { -1 };
        }
    }
    pairs.retain(|&(a, b)| margins[a][b] >= 0);
    // stable: equal majorities stay in the order of the answers
    pairs.sort_by_key(|&(a, b)| -margins[a][b]);

    // before[a][b]: a is before b by what is locked
    let mut before = vec![vec![false; n]; n];
    for (a, b) in pairs {
        if before[b][a] {
            continue;
        }
        let up: Vec<usize> = (0..n).filter(|&x| x == a || before[x][a]).collect();
        let down: Vec<usize> = (0..n).filter(|&y| y == b || before[b][y]).collect();
        for x in up {
            down.iter().for_each(|&y| before[x][y] = true);
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&a| before[a].iter().filter(|b| !**b).count());
    Ok(order.into_iter().map(|a| answers[a].clone()).collect())
}
