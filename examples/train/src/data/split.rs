//! The held-out split.

use super::Item;
use crate::error::{Error, Result};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::HashSet;

/// How many different prompts these items have, and how many rows they come from.
pub fn prompts_and_rows(items: &[Item]) -> (usize, usize) {
    // by group, because a prompt may have lost its beginning
    let prompts = items.iter().map(|item| (item.group, item.prompt.as_str()));
    let rows = items.iter().map(|item| item.row);
    (
        prompts.collect::<HashSet<_>>().len(),
        rows.collect::<HashSet<_>>().len(),
    )
}

/// Training and held-out items, with no group in both.
///
/// A share of the *groups* is held out, but at most `most`, at least one and not all.
pub fn split(
    items: Vec<Item>,
    held_out: f64,
    most: usize,
    rng: &mut StdRng,
) -> Result<(Vec<Item>, Vec<Item>)> {
    let mut seen = HashSet::new();
    let all = items.iter().map(|item| item.group);
    let mut groups: Vec<u64> = all.filter(|&group| seen.insert(group)).collect();
    if groups.len() < 2 {
        return Err(Error::Usage(format!(
            "a held-out split needs at least two different prompts, found {}",
            groups.len()
        )));
    }
    groups.shuffle(rng);
    let count = (groups.len() as f64 * held_out).round() as usize;
    groups.truncate(count.min(most).clamp(1, groups.len() - 1));
    let held: HashSet<u64> = groups.into_iter().collect();
    let (held, train) = items
        .into_iter()
        .partition(|item| held.contains(&item.group));
    Ok((train, held))
}
