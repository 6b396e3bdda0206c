//! The cheapest edits that turn one text into another: insert, delete and replace single tokens.
//!
//! In one sentence: dynamic programming over all pairs of prefixes, then one walk back along the
//! cheapest choices.
//!
//! | paper | here |
//! |---|---|
//! | source (unaligned), target (aligned) | two slices of tokens |
//! | editing costs | [`EditCosts`] |
//! | chain of edits | [`EditScript`] |
//! | several cost sets, as augmentation | [`edit_scripts`] |
//!
//! Read next: [`second_thoughts`](super::second_thoughts), which writes scripts into sequences.

use crate::error::{Error, Result, positive};
use serde::{Deserialize, Serialize};

/// What each edit costs. Keeping a token costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EditCosts {
    /// The cost of inserting one token. Default 1, the paper's example; finite and above 0.
    pub insert: f64,
    /// The cost of deleting one token. Default 1, the paper's example; finite and above 0.
    pub delete: f64,
    /// The cost of replacing one token by another. Default 2, the paper's example; finite and
    /// above 0.
    pub replace: f64,
}

impl Default for EditCosts {
    fn default() -> Self {
        Self {
            insert: 1.0,
            delete: 1.0,
            replace: 2.0,
        }
    }
}

impl EditCosts {
    fn check(&self, function: &'static str) -> Result<()> {
        positive(function, "insert", self.insert)?;
        positive(function, "delete", self.delete)?;
        positive(function, "replace", self.replace)
    }
}

/// One edit. Positions count the tokens of the original source from 0, unaffected by earlier edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edit<T = u32> {
    /// Inserts `token` before source token `position`, or after the end if `position` is the source's
    /// length.
    Insert {
        /// From 0 to the length of the source.
        position: usize,
        /// The inserted token.
        token: T,
    },
    /// Deletes source token `position`.
    Delete {
        /// Below the length of the source.
        position: usize,
    },
    /// Replaces source token `position` by `token`.
    Replace {
        /// Below the length of the source.
        position: usize,
        /// The new token.
        token: T,
    },
}

impl<T> Edit<T> {
    /// The position in the source where the edit applies.
    pub fn position(&self) -> usize {
        match self {
            Self::Insert { position, .. }
            | Self::Delete { position }
            | Self::Replace { position, .. } => *position,
        }
    }
}

/// Edits in the order of their positions. Insertions before a token come before the edit of that
/// token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EditScript<T = u32> {
    /// The edits, first to last.
    pub edits: Vec<Edit<T>>,
}

impl<T: Clone> EditScript<T> {
    /// The result of applying the script to `source`.
    ///
    /// # Errors
    /// [`Error::Argument`] if an edit names a position that the source does not have, or one that an
    /// earlier edit has passed. A script of [`edit_script`] never does so on its own source.
    pub fn apply(&self, source: &[T]) -> Result<Vec<T>> {
        let refuse = |at: usize, problem: String| {
            Error::argument("EditScript::apply", format!("edits[{at}]"), problem)
        };
        let mut target = Vec::with_capacity(source.len() + self.edits.len());
        let mut next = 0;
        for (at, edit) in self.edits.iter().enumerate() {
            let position = edit.position();
            let below = match edit {
                Edit::Insert { .. } => source.len() + 1,
                _ => source.len(),
            };
            if position >= below {
                let length = source.len();
                let problem = format!("is at position {position} of a source of {length} token(s)");
                return Err(refuse(at, problem));
            }
            if position < next {
                let problem =
                    format!("is at position {position}, which an earlier edit has passed");
                return Err(refuse(at, problem));
            }
            target.extend_from_slice(&source[next..position]);
            next = position;
            if let Edit::Insert { token, .. } | Edit::Replace { token, .. } = edit {
                target.push(token.clone());
            }
            if !matches!(edit, Edit::Insert { .. }) {
                next += 1;
            }
        }
        target.extend_from_slice(&source[next..]);
        Ok(target)
    }
}

impl<T> EditScript<T> {
    /// The sum of the costs of its edits.
    pub fn cost(&self, costs: &EditCosts) -> f64 {
        let each = |edit: &Edit<T>| match edit {
            Edit::Insert { .. } => costs.insert,
            Edit::Delete { .. } => costs.delete,
            Edit::Replace { .. } => costs.replace,
        };
        self.edits.iter().map(each).sum()
    }
}

/// The cheapest script from source to target.
///
/// # Equation
/// ```text
/// D(0, 0) = 0
/// D(i, j) = min { D(i − 1, j − 1) + replace · 1[sᵢ ≠ tⱼ],  D(i − 1, j) + delete,  D(i, j − 1) + insert }
/// ```
/// over the first i tokens of the source and the first j of the target, for the predecessors that exist.
/// The script is the walk back from D(│s│, │t│).
/// # Shapes
/// Any tokens that can be compared: ids, characters, words. Time and memory are O(│s│·│t│), with one
/// byte per pair: 16 MB for two texts of 4,000 tokens.
/// # Errors
/// [`Error::Parameter`] unless all costs are finite and above 0.
/// # Properties
/// * [`EditScript::apply`] on the source gives exactly the target, and no script does so at a lower
///   cost. Equal texts have the empty script; an empty source has only insertions, an empty target
///   only deletions.
/// * Costs (1, 1, 1) give the Levenshtein distance. With replace ≥ insert + delete the cost is
///   delete·│s│ + insert·│t│ − (insert + delete)·LCS, where LCS is the length of the longest common
///   subsequence; with (1, 1, 2) that is │s│ + │t│ − 2·LCS.
/// * d(s, u) ≤ d(s, t) + d(t, u). The way from target to source costs the same if the costs of inserting
///   and deleting are exchanged. Multiplying all costs by a number gives the same script.
/// * Ties: among walks back of equal cost, each step from the end prefers keeping or replacing to
///   deleting, and deleting to inserting. With (1, 1, 2) one replacement is chosen where a deletion and
///   an insertion would cost the same, and a repeated token is matched from the end.
/// # Departures
/// The paper does not settle ties and names no positions. Here ties are settled as above, and positions
/// are those of the source, so no edit moves another. Costs are compared as f64 sums: use whole
/// numbers (or halves, quarters, …) where exact ties matter, because 0.1 + 0.2 is not 0.3.
/// # Examples
/// ```
/// use candle_align::language::edits::{Edit, EditCosts, edit_script};
///
/// let costs = EditCosts { insert: 1.0, delete: 1.0, replace: 1.5 };
/// let script = edit_script(&["you", "are", "so", "dumb"], &["you", "are", "kind"], &costs)?;
/// assert_eq!(
///     script.edits,
///     [Edit::Delete { position: 2 }, Edit::Replace { position: 3, token: "kind" }]
/// );
/// assert_eq!(script.cost(&costs), 1.0 + 1.5);
/// assert_eq!(script.apply(&["you", "are", "so", "dumb"])?, ["you", "are", "kind"]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Try
/// * Choose costs under which a replacement is never used. Solution: `cargo run --example edits`, and
///   `tests/identities/second_thoughts.rs::where_replacing_is_dear_it_counts_the_longest_common_subsequence`.
/// # Source
/// Liu et al. 2022, arXiv:2301.00355, §3: the token-level edit distance with custom costs, solved by
/// dynamic programming.
#[doc(alias = "Levenshtein")]
#[doc(alias = "edit distance")]
#[doc(alias = "diff")]
pub fn edit_script<T: Eq + Clone>(
    source: &[T],
    target: &[T],
    costs: &EditCosts,
) -> Result<EditScript<T>> {
    costs.check("edit_script")?;
    Ok(cheapest(source, target, costs))
}

/// The distinct scripts that several cost sets give for one pair of texts: the paper's augmentation.
///
/// Scripts are in the order of the cost sets; a script that several sets give is listed once, at the
/// first of them.
///
/// # Errors
/// [`Error::Argument`] if there is no cost set, [`Error::Parameter`] unless all costs are finite and
/// above 0.
///
/// # Examples
/// ```
/// use candle_align::language::edits::{EditCosts, edit_scripts};
///
/// let costs = |insert, delete, replace| EditCosts { insert, delete, replace };
/// let sets = [costs(1.0, 1.0, 1.0), costs(1.0, 1.0, 2.0), costs(1.0, 1.0, 3.0)];
/// // replaced at costs 1 and 2, deleted and inserted at 3
/// assert_eq!(edit_scripts(&[7], &[8], &sets)?.len(), 2);
/// # Ok::<(), candle_align::Error>(())
/// ```
pub fn edit_scripts<T: Eq + Clone>(
    source: &[T],
    target: &[T],
    costs: &[EditCosts],
) -> Result<Vec<EditScript<T>>> {
    let function = "edit_scripts";
    if costs.is_empty() {
        return Err(Error::argument(function, "costs", "is empty"));
    }
    let mut scripts = Vec::new();
    for costs in costs {
        costs.check(function)?;
        let script = cheapest(source, target, costs);
        if !scripts.contains(&script) {
            scripts.push(script);
        }
    }
    Ok(scripts)
}

/// The last step of the cheapest path to one pair of prefixes.
#[derive(Clone, Copy)]
enum Step {
    Keep,
    Replace,
    Delete,
    Insert,
}

fn cheapest<T: Eq + Clone>(source: &[T], target: &[T], costs: &EditCosts) -> EditScript<T> {
    let width = target.len() + 1;
    // D(0, j) = j · insert
    let mut steps = vec![Step::Insert; (source.len() + 1) * width];
    let mut row: Vec<f64> = (0..width).map(|j| j as f64 * costs.insert).collect();
    for (i, s) in source.iter().enumerate() {
        // D(i, 0) = i · delete
        let mut diagonal = row[0];
        row[0] = (i + 1) as f64 * costs.delete;
        steps[(i + 1) * width] = Step::Delete;
        for (j, t) in target.iter().enumerate() {
            // D(i, j) = min { … }; an earlier choice keeps a tie
            let mut least = match s == t {
                true => (diagonal, Step::Keep),
                false => (diagonal + costs.replace, Step::Replace),
            };
            for other in [
                (row[j + 1] + costs.delete, Step::Delete),
                (row[j] + costs.insert, Step::Insert),
            ] {
                if other.0 < least.0 {
                    least = other;
                }
            }
            (diagonal, row[j + 1]) = (row[j + 1], least.0);
            steps[(i + 1) * width + j + 1] = least.1;
        }
    }

    // the walk back from D(│s│, │t│)
    let (mut i, mut j) = (source.len(), target.len());
    let mut edits = Vec::new();
    while i > 0 || j > 0 {
        let step = steps[i * width + j];
        if !matches!(step, Step::Insert) {
            i -= 1;
        }
        if !matches!(step, Step::Delete) {
            j -= 1;
        }
        match step {
            Step::Keep => {}
            Step::Delete => edits.push(Edit::Delete { position: i }),
            Step::Replace => edits.push(Edit::Replace {
                position: i,
                token: target[j].clone(),
            }),
            Step::Insert => edits.push(Edit::Insert {
                position: i,
                token: target[j].clone(),
            }),
        }
    }
    edits.reverse();
    EditScript { edits }
}
