//! The cheapest edits that make one text of another: insert, delete and replace single tokens.
//!
//! In one sentence: dynamic programming over all pairs of prefixes, then one walk back along the
//! choices that were cheapest.
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
    /// Of putting one token in. Default 1, the paper's example; finite and above 0.
    pub insert: f64,
    /// Of taking one token out. Default 1, the paper's example; finite and above 0.
    pub delete: f64,
    /// Of putting one token in the place of another. Default 2, the paper's example; finite and
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

/// One edit. Positions count the tokens of the source from 0, whatever was edited before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edit<T = u32> {
    /// Puts `token` in before source token `position`; at the source's length, after its end.
    Insert {
        /// From 0 to the length of the source.
        position: usize,
        /// What is put in.
        token: T,
    },
    /// Takes source token `position` out.
    Delete {
        /// Below the length of the source.
        position: usize,
    },
    /// Puts `token` in the place of source token `position`.
    Replace {
        /// Below the length of the source.
        position: usize,
        /// What takes its place.
        token: T,
    },
}

impl<T> Edit<T> {
    /// Where it applies, in the source.
    pub fn position(&self) -> usize {
        match self {
            Self::Insert { position, .. }
            | Self::Delete { position }
            | Self::Replace { position, .. } => *position,
        }
    }
}

/// Edits in the order of their positions; insertions before a token stand before the edit of that
/// token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EditScript<T = u32> {
    /// The edits, first to last.
    pub edits: Vec<Edit<T>>,
}

impl<T: Clone> EditScript<T> {
    /// What becomes of the source.
    ///
    /// # Errors
    /// [`Error::Argument`] if an edit names a position that the source does not have, or one that an
    /// earlier edit has passed: no script of [`edit_script`] does so on its own source.
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
    /// Σ of the costs of its edits.
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
/// over the first i tokens of the source and the first j of the target, where these exist. The
/// script is the walk back from D(│s│, │t│).
/// # Shapes
/// Any tokens that can be compared: ids, characters, words. Time and memory are O(│s│·│t│), one byte
/// for each pair: 16 MB for two texts of 4,000 tokens.
/// # Errors
/// [`Error::Parameter`] unless all costs are finite and above 0.
/// # Properties
/// * [`EditScript::apply`] on the source gives the target, exactly, and no other script does so for
///   less. Equal texts have the empty script; an empty source has insertions only, an empty target
///   deletions only.
/// * Costs (1, 1, 1) make it the Levenshtein distance. With replace ≥ insert + delete it is
///   delete·│s│ + insert·│t│ − (insert + delete)·LCS, the longest common subsequence; with (1, 1, 2)
///   that is │s│ + │t│ − 2·LCS.
/// * d(s, u) ≤ d(s, t) + d(t, u). From target to source, with the costs of inserting and deleting
///   exchanged, it costs the same. Costs multiplied by a number give the same script.
/// * Ties: of the walks back that cost the same, the one that at each step, from the end, keeps or
///   replaces rather than deletes, and deletes rather than inserts. With (1, 1, 2) one replacement
///   stands where a deletion and an insertion would cost the same, and a repeated token is matched
///   from the end.
/// # Departures
/// The paper leaves ties open and names no positions; here ties are settled as above and positions
/// are those of the source, so that no edit moves another. Costs are compared as f64 sums: give whole
/// numbers (or halves, quarters, …) where exact ties matter, for 0.1 + 0.2 is not 0.3.
/// # Examples
/// ```
/// use candle_align::{Edit, EditCosts, edit_script};
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
/// # Source
/// Liu et al. 2022, arXiv:2301.00355, §3: the token-level edit distance with costs of one's own,
/// solved by dynamic programming.
pub fn edit_script<T: Eq + Clone>(
    source: &[T],
    target: &[T],
    costs: &EditCosts,
) -> Result<EditScript<T>> {
    costs.check("edit_script")?;
    Ok(cheapest(source, target, costs))
}

/// The different scripts that several cost sets give for one pair of texts: the paper's augmentation.
///
/// Each is the [`edit_script`] of the first cost set that gives it; they stand in the order of the
/// cost sets.
///
/// # Errors
/// [`Error::Argument`] if there is no cost set, [`Error::Parameter`] unless all costs are finite and
/// above 0.
///
/// # Examples
/// ```
/// use candle_align::{EditCosts, edit_scripts};
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

/// The last step of the cheapest way to one pair of prefixes.
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
